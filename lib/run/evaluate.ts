import type { Adapters } from "../adapters/adapters.js";
import { checkInteger } from "../arguments.js";
import type { Question } from "../environments/types.js";
import { fail } from "../errors.js";
import type { Model } from "../model/model.js";
import { exactMatch } from "../rewards/exact-match.js";
import { meanParts } from "../rewards/judge.js";
import { retrievalHit } from "../rewards/retrieval.js";
import type { RolloutOptions, RunOptions } from "../rollout/options.js";
import { Rollout } from "../rollout/rollout.js";
import type { Trajectory } from "../rollout/trajectory.js";
import type { EvaluationRecord } from "./records.js";
import { behaviour, meanOverQuestions } from "./statistics.js";

/** How answers are written: the router, the environment, the reward, the prompt, the limits. */
export type RolloutParts = Omit<RolloutOptions, "adapters" | "group" | "seed"> & {
  /** What an evaluation reports as exact match: that of answers, or the reward (from 0 to 1). @default "exact-match" */
  evaluateBy?: "exact-match" | "reward";
};

export interface EvaluateOptions {
  model: Model;
  /** Without them the model itself is evaluated. */
  adapters?: Adapters;
  /** For the record, and a key of the random streams. Default: "adapters", or without them "base". */
  policy?: EvaluationRecord["policy"];
  rollout: RolloutParts;
  questions: readonly Question[];
  /** Answers a question. @default 1 */
  samples?: number;
  /** 0: greedy. @default 1 */
  temperature?: number;
  /** @default 0 */
  seed?: number;
  /** Optimizer steps that the adapters have taken; keys the random streams. @default 0 */
  step?: number;
  /** What the questions are, for the record. @default "dev" */
  split?: string;
  note?: string;
  signal?: AbortSignal;
  onProgress?: (done: number, total: number) => void;
}

export interface Evaluation {
  record: EvaluationRecord;
  /** In the order of the questions. */
  trajectories: Trajectory[];
}

/**
 * Answers questions and scores them by exact match with their gold answers, whatever the reward is (unless `evaluateBy` says so). What is measured is a pure function of model,
 * adapters, questions, seed and step. No question -> ERR_RUN_QUESTIONS.
 *
 * @example
 * const { record } = await evaluate({ model, adapters, rollout, questions, seed: 1 });
 * console.log(`${record.exactMatch} [${record.low}, ${record.high}]`);
 */
export async function evaluate(options: EvaluateOptions): Promise<Evaluation> {
  const { model, adapters, rollout: parts, questions, samples = 1, temperature = 1 } = options;
  const { seed = 0, step = 0, split = "dev", note, signal, onProgress } = options;
  checkInteger(samples, "samples", 1);
  if (questions.length === 0) fail("ERR_RUN_QUESTIONS", "Expected questions to evaluate on but received none");
  const begin = performance.now();
  const { policy = adapters === undefined ? "base" : "adapters" } = options;
  const rollout = new Rollout(model, {
    ...parts,
    ...(adapters === undefined ? {} : { adapters }),
    sampling: { ...parts.sampling, temperature },
    group: samples,
    seed,
  });
  rollout.policyVersion = step;
  const run: RunOptions = { purpose: "evaluation", variant: policy, step, ...(signal && { signal }) };
  const trajectories = await collect(rollout, questions, samples, run, onProgress);

  const answers = new Map(questions.map((question): [string, number[]] => [question.id, []]));
  const gold = new Map(questions.map((question) => [question.id, question.answers]));
  for (const { question, response, reward } of trajectories) {
    const match = () => exactMatch(response, gold.get(question) ?? [], parts.answer).score;
    answers.get(question)?.push(parts.evaluateBy === "reward" ? reward : match());
  }
  const { mean, low, high } = meanOverQuestions([...answers.values()]);
  const record: EvaluationRecord = {
    step,
    split,
    policy,
    n: questions.length,
    samples,
    temperature,
    exactMatch: mean,
    low,
    high,
    ...retrieval(trajectories, gold),
    ...meanParts(trajectories),
    ...behaviour(trajectories),
    seconds: (performance.now() - begin) / 1000,
    ...(note === undefined ? {} : { note }),
  };
  return { record, trajectories };
}

function retrieval(trajectories: readonly Trajectory[], gold: ReadonlyMap<string, string[]>): { retrieval?: number } {
  if (!trajectories.some(({ calls }) => calls.some(({ passages }) => passages !== undefined))) return {};
  const hits = trajectories.filter((own) => retrievalHit(own, { answers: gold.get(own.question) ?? [] }));
  return { retrieval: hits.length / trajectories.length };
}

/** All trajectories, in the order of questions and samples; `onProgress` hears of each as it ends. */
export async function collect(
  rollout: Rollout,
  questions: readonly Question[],
  samples: number,
  run: RunOptions,
  onProgress?: (done: number, total: number) => void,
): Promise<Trajectory[]> {
  const total = questions.length * samples;
  const position = new Map(questions.map(({ id }, i) => [id, i]));
  if (position.size < questions.length) fail("ERR_RUN_QUESTIONS", "Expected questions with distinct ids");
  const sampleOf = (id: string): number => Number(id.slice(id.lastIndexOf("#") + 1));
  const out: Trajectory[] = [];
  onProgress?.(0, total);
  for await (const trajectory of rollout.run(questions, run)) {
    out.push(trajectory);
    onProgress?.(out.length, total);
  }
  return out.sort(
    (a, b) => (position.get(a.question) ?? 0) - (position.get(b.question) ?? 0) || sampleOf(a.id) - sampleOf(b.id),
  );
}
