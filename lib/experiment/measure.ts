import type { Adapters } from "../adapters/adapters.js";
import { checkInteger, checkModel, checkObject, checkSignal, describe } from "../arguments.js";
import {
  type AccuracyRow,
  type AccuracyRows,
  type AccuracyTable,
  type DenseAccuracy,
  type Variant,
  type VariantName,
  variants,
} from "../attribution/types.js";
import type { Question } from "../environments/types.js";
import { fail } from "../errors.js";
import type { Model } from "../model/model.js";
import { exactMatch } from "../rewards/exact-match.js";
import { retrievalHit } from "../rewards/retrieval.js";
import { Rollout } from "../rollout/rollout.js";
import { checkQuestion } from "../rollout/session.js";
import type { RolloutStats } from "../rollout/stats.js";
import type { Finish, Trajectory } from "../rollout/trajectory.js";
import type { RolloutParts } from "../run/evaluate.js";

/** Who answers: what choosePolicy gives, or a model with its adapters and the way answers are written. */
export interface MeasuredPolicy {
  model: Model;
  adapters?: Adapters | undefined;
  rollout: RolloutParts;
}

/** Options of {@link measureVariants}. */
export interface MeasureVariantsOptions {
  /** N, answers to each question. @default 50 */
  samples?: number | undefined;
  /** @default 0 */
  seed?: number | undefined;
  /** 0: greedy. @default 1 */
  temperature?: number | undefined;
  /**
   * "independent": every variant draws from random streams of its own. "common": sample j of a question has the same stream in all six variants,
   * which the table then tells in `outcomes`; give it to computeInterference with `commonRandomNumbers: true`, since only an analysis of pairs is
   * right for it. @default "independent"
   */
  streams?: "independent" | "common" | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: { variant: VariantName; done: number; total: number }) => void) | undefined;
}

/**
 * How often each variant answers each question: k exact matches of N samples, as a table for computeInterference. It is a pure function of policies,
 * questions and seed. Any of the six variants may be left out (the attribution wants all).
 *
 * ERR_TABLE_VARIANT for another name, ERR_RUN_QUESTIONS without questions or with an id twice, ERR_INVALID_ARGUMENT for an option; an abort rejects
 * with the signal's reason.
 *
 * @example
 * const table = await measureVariants({ base: { model, rollout }, unified: { model, adapters, rollout } }, questions, { samples: 50, seed: 1 });
 */
export async function measureVariants(
  policies: Partial<Record<VariantName, MeasuredPolicy>>,
  questions: readonly Question[],
  options?: MeasureVariantsOptions & { streams?: "independent" | undefined },
): Promise<AccuracyRows>;
export async function measureVariants(
  policies: Record<Variant, MeasuredPolicy>,
  questions: readonly Question[],
  options: MeasureVariantsOptions & { streams: "common" },
): Promise<DenseAccuracy>;
export async function measureVariants(
  policies: Partial<Record<VariantName, MeasuredPolicy>>,
  questions: readonly Question[],
  options: MeasureVariantsOptions = {},
): Promise<AccuracyTable> {
  checkObject(policies, "policies");
  checkObject(options, "options");
  const { samples = 50, seed = 0, temperature = 1, streams = "independent", signal, onProgress } = options;
  checkInteger(samples, "samples", 1);
  checkInteger(seed, "seed", 0);
  if (typeof temperature !== "number" || !(temperature >= 0 && temperature < Infinity))
    fail("ERR_INVALID_ARGUMENT", `Expected a temperature of at least 0 but received ${describe(temperature)}`);
  if (streams !== "independent" && streams !== "common")
    fail("ERR_INVALID_ARGUMENT", `Expected "independent" or "common" for streams but received ${describe(streams)}`);
  checkSignal(signal);
  const measured = new Map<Variant, PolicyCounts>();
  const named = Object.entries(policies) as [VariantName, MeasuredPolicy][];
  for (const [name] of named)
    if (!variants.includes(spelled(name)))
      fail("ERR_TABLE_VARIANT", `Expected one of ${variants.join(", ")} for a variant but received ${describe(name)}`);
  const missing = variants.filter((own) => !named.some(([name]) => spelled(name) === own));
  if (streams === "common" && missing.length > 0)
    fail("ERR_TABLE_VARIANT", `Expected all six variants for common streams but there is no ${missing.join(", no ")}`);
  for (const [variant, policy] of named) {
    checkObject(policy, variant);
    const counts = await measurePolicy(policy, questions, {
      samples,
      seed,
      temperature,
      stream: streams === "common" ? "" : variant,
      ...(signal && { signal }),
      onProgress: (done, total) => onProgress?.({ variant, done, total }),
    });
    measured.set(spelled(variant), counts);
  }
  if (streams === "common") return pairedTable(measured, questions, samples);
  const rows = [...measured].flatMap(([variant, { correct }]) =>
    questions.map(({ id }, q): AccuracyRow => ({ variant, id, correct: correct[q] as number, samples })),
  );
  return { rows };
}

function spelled(name: VariantName): Variant {
  return name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase()) as Variant;
}

function pairedTable(
  measured: ReadonlyMap<Variant, PolicyCounts>,
  questions: readonly Question[],
  samples: number,
): DenseAccuracy {
  const of = <T>(read: (counts: PolicyCounts) => T): Record<Variant, T> =>
    Object.fromEntries([...measured].map(([variant, counts]) => [variant, read(counts)])) as Record<Variant, T>;
  const { base, reas, tool, unified } = of(({ outcomes }) => outcomes);
  return {
    samples,
    ids: questions.map(({ id }) => id),
    correct: of(({ correct }) => correct),
    outcomes: { base, reas, tool, unified },
  };
}

/** What was counted of a policy's answers; arrays are by question. */
export interface PolicyCounts {
  samples: number;
  temperature: number;
  /** Exact matches. */
  correct: number[];
  /** Of every answer [questions, samples], 1 where it is right; samples in their order, which their random streams have too. */
  outcomes: Uint8Array;
  /** Answers for which some call found a passage with a right answer. */
  retrieved: number[];
  /** Means over all answers, and why they ended. */
  toolRate: number;
  searches: number;
  answerRate: number;
  finish: Record<Finish, number>;
  /** Mean tokens of an answer with its prompt, and those of them that were sampled. */
  tokens: number;
  sampledTokens: number;
  /** What the decoder did; re-encoded history is in computedTokens. */
  decoding: RolloutStats;
  seconds: number;
}

interface MeasureOptions {
  samples: number;
  seed: number;
  temperature?: number;
  /** The name of the random streams. */
  stream: string;
  signal?: AbortSignal;
  onProgress?: (done: number, total: number) => void;
  /** Hears every answer, in no order that means anything. */
  onTrajectory?: (trajectory: Trajectory) => void;
}

/** Counts one policy's answers, without keeping them. */
export async function measurePolicy(
  { model, adapters, rollout: parts }: MeasuredPolicy,
  questions: readonly Question[],
  options: MeasureOptions,
): Promise<PolicyCounts> {
  const { samples, seed, temperature = 1, stream, signal, onProgress, onTrajectory } = options;
  checkModel(model, "model");
  checkObject(parts, "rollout");
  if (!Array.isArray(questions))
    fail("ERR_INVALID_ARGUMENT", `Expected a list of questions but received ${describe(questions)}`);
  questions.forEach(checkQuestion);
  if (questions.length === 0) fail("ERR_RUN_QUESTIONS", "Expected questions to answer but received none");
  const place = new Map(questions.map(({ id }, q) => [id, q]));
  if (place.size < questions.length) fail("ERR_RUN_QUESTIONS", "Expected questions with distinct ids");
  const begin = performance.now();
  const sampling = { ...parts.sampling, temperature };
  const rollout = new Rollout(model, { ...parts, ...(adapters && { adapters }), sampling, group: samples, seed });
  const total = questions.length * samples;
  const correct = questions.map(() => 0);
  const outcomes = new Uint8Array(total);
  const retrieved = questions.map(() => 0);
  const finish: Record<Finish, number> = { stop: 0, length: 0, budget: 0, error: 0 };
  let [done, called, calls, answered, tokens, sampledTokens] = [0, 0, 0, 0, 0, 0];
  onProgress?.(0, total);
  const run = { purpose: "measure", variant: stream, step: 0, ...(signal && { signal }) };
  for await (const own of rollout.run(questions, run)) {
    const q = place.get(own.question) as number;
    const { answers } = questions[q] as Question;
    const right = parts.evaluateBy === "reward" ? own.reward : exactMatch(own.response, answers, parts.answer).score;
    if (right >= 1) {
      correct[q] = (correct[q] as number) + 1;
      outcomes[q * samples + Number(own.id.slice(own.id.lastIndexOf("#") + 1))] = 1;
    }
    if (retrievalHit(own, { answers })) retrieved[q] = (retrieved[q] as number) + 1;
    finish[own.finish]++;
    calls += own.calls.length;
    if (own.calls.length > 0) called++;
    if (own.answer !== null) answered++;
    tokens += own.ids.length;
    for (const flag of own.sampled) sampledTokens += flag;
    onTrajectory?.(own);
    onProgress?.(++done, total);
  }
  return {
    samples,
    temperature,
    correct,
    outcomes,
    retrieved,
    toolRate: called / total,
    searches: calls / total,
    answerRate: answered / total,
    finish,
    tokens: tokens / total,
    sampledTokens: sampledTokens / total,
    decoding: rollout.stats,
    seconds: (performance.now() - begin) / 1000,
  };
}
