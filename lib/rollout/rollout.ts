import { setMaxListeners } from "node:events";
import type { Adapters } from "../adapters/adapters.js";
import {
  abortable,
  checkAdapters,
  checkInstance,
  checkInteger,
  checkModel,
  checkNumbers,
  checkObject,
  checkSignal,
  checkStrings,
  describe,
} from "../arguments.js";
import { native, type NativeGenerator, type NativeGeneratorEvent } from "../binding.js";
import { defaultCacheTokens } from "./cache.js";
import type { Environment, Question } from "../environments/types.js";
import { fail } from "../errors.js";
import type { Model } from "../model/model.js";
import type { Tokenizer } from "../model/tokenizer.js";
import { streamOf } from "../random.js";
import type { Renderer } from "../prompts/renderer.js";
import { lastAnswer } from "../rewards/exact-match.js";
import type { Reward } from "../rewards/types.js";
import type { RoleRouter } from "../roles/router.js";
import { callTool, type ToolErrorPolicy } from "./tool-call.js";
import type { CallRecord } from "../environments/types.js";
import { addStats, type RolloutStats, zeroStats } from "./stats.js";
import type { Finish, Trajectory } from "./trajectory.js";

export interface Sampling {
  /** 0: greedy. @default 1 */
  temperature?: number;
  /** @default 1 */
  topP?: number;
  /** 0: off. @default 0 */
  topK?: number;
  /** Sampled tokens of one trajectory. @default 512 */
  maxNewTokens?: number;
}

export interface RolloutOptions {
  adapters?: Adapters;
  router: RoleRouter;
  environment: Environment;
  reward: Reward;
  sampling?: Sampling;
  /** Samples per question. @default 8 */
  group?: number;
  /** Sequences that are decoded together. @default 64 */
  concurrency?: number;
  /** @default 0 */
  seed?: number;
  /** Tool calls of one trajectory; a call beyond them ends it as "budget". @default 4 */
  actionBudget?: number;
  /** Tokens of one trajectory, prompt and tool output included. Default: the model's limit, at most 4096. */
  maxLength?: number;
  /**
   * Positions for which the cache of keys and values has room, over all sequences; at least `maxLength`. Sequences take pages of 64 as they
   * grow, and the samples of a group share those of their prompt; where pages run out, some are computed again later, with the same results.
   * Memory is touched only as it is used. Default: (`concurrency` + 1) x `maxLength`, as far as half of the memory that is free allows.
   */
  cacheTokens?: number;
  /** Tokens of prompts and tool output that one decoding step takes in, between the others' next tokens. @default 2048 */
  chunk?: number;
  /** Text of the prompt. Default: the question itself. */
  prompt?: (question: Question) => string;
  /** Begin prompts with the tokenizer's BOS token where it puts one before every text (Llama's) and the prompt does not. @default true */
  addBos?: boolean;
  /** Tags around tool output. @default { open: "<information>", close: "</information>" } */
  output?: { open: string; close: string };
  /** Tags of the final answer, for `Trajectory.answer`. @default { open: "<answer>", close: "</answer>" } */
  answer?: { open: string; close: string };
  /** Ids that end a trajectory. Default: those of the tokenizer. */
  stopIds?: readonly number[];
  /** Milliseconds until a tool that has not answered counts as failed. @default 30000 */
  toolTimeout?: number;
  /**
   * What a tool that throws or never answers does: "observe" (default): the model reads the error; "finish": the trajectory ends as "error";
   * "throw": the run rejects with ERR_TOOL_FAILED or ERR_TOOL_TIMEOUT. Recorded with the call in every case.
   */
  onToolError?: ToolErrorPolicy;
  /** Default: the model's. */
  tokenizer?: Tokenizer;
  /** What is not sampled: the prompt and the glue behind a call. `router` is its router; `prompt`, `addBos` and `output` have no effect then. */
  renderer?: Renderer;
}

export interface RunOptions {
  signal?: AbortSignal;
  /** Keys of the random streams, with the seed: what the samples are for, and when. */
  purpose?: string;
  variant?: string;
  step?: number;
}

interface Live {
  trajectory: Pick<Trajectory, "id" | "group" | "rngKey"> & { calls: CallRecord[] };
  question: Question;
  promptLength: number;
}

/**
 * Samples groups of trajectories with tools. Sequences join and leave at any step; a tool's answer is awaited while the others go on.
 *
 * @example
 * const rollout = new Rollout(model, { adapters, router, environment, reward, group: 8, seed: 1 });
 * for await (const trajectory of rollout.run(questions)) console.log(trajectory.reward, trajectory.response);
 */
export class Rollout {
  readonly model: Model;
  readonly options: RolloutOptions;
  readonly #tokenizer: Tokenizer;
  #stats = zeroStats();
  #policyVersion: number | undefined;

  constructor(model: Model, options: RolloutOptions) {
    checkModel(model, "model");
    checkObject(options, "options");
    const tokenizer = options.tokenizer ?? model.tokenizer;
    if (tokenizer === undefined)
      fail("ERR_TOKENIZER_NOT_FOUND", `Expected a tokenizer in ${model.directory} or in options.tokenizer`);
    checkInstance(tokenizer, ["tokenBytes"], "a tokenizer", "tokenizer");
    const { group = 8, concurrency = 64, seed = 0, actionBudget = 4, sampling = {}, adapters, router } = options;
    for (const [name, tags] of Object.entries({ output: options.output, answer: options.answer })) {
      if (tags === undefined) continue;
      checkObject(tags, name);
      checkStrings([tags.open, tags.close], `${name}.open and ${name}.close`);
    }
    if (adapters !== undefined) checkAdapters(adapters, "adapters");
    checkInstance(router, ["annotate"], "a RoleRouter", "router");
    if (options.renderer !== undefined) {
      checkInstance(options.renderer, ["toolResult"], "a Renderer", "renderer");
      const same = JSON.stringify(options.renderer.router.native) === JSON.stringify(router.native);
      if (!same) fail("ERR_INVALID_ARGUMENT", "Expected options.router to be options.renderer.router");
    }
    checkObject(sampling, "sampling");
    checkInteger(group, "group", 1, 1 << 20);
    const { cacheTokens, chunk } = options;
    checkInteger(concurrency, "concurrency", 1, 1 << 16);
    checkInteger(seed, "seed", 0);
    checkInteger(actionBudget, "actionBudget", 0);
    if (cacheTokens !== undefined) checkInteger(cacheTokens, "cacheTokens", 1, 2 ** 40);
    if (chunk !== undefined) checkInteger(chunk, "chunk", 1, 1 << 24);
    const { temperature = 1, topP = 1 } = sampling;
    if (options.stopIds !== undefined) checkNumbers(options.stopIds, "stopIds");
    if (!(Number.isFinite(temperature) && temperature >= 0)) {
      fail("ERR_INVALID_ARGUMENT", `Expected a temperature of at least 0 but received ${describe(temperature)}`);
    }
    if (!(typeof topP === "number" && topP > 0 && topP <= 1))
      fail("ERR_INVALID_ARGUMENT", `Expected topP above 0 and up to 1 but received ${describe(topP)}`);
    if (adapters !== undefined && adapters.roles.join() !== router.roles.join()) {
      fail(
        "ERR_NO_ROLE",
        `Expected the router's roles (${router.roles.join(", ")}) to be the adapters' (${adapters.roles.join(", ")})`,
      );
    }
    this.model = model;
    this.options = options;
    this.#tokenizer = tokenizer;
  }

  /**
   * Recorded in the trajectories. With adapters set it to the trainer's `steps`; 0 until then. Without, where it was not set, it is the number of
   * updates of full training that the model's weights have seen (all trainers' together; after Trainer.resume, the checkpoint's).
   */
  get policyVersion(): number {
    return this.#policyVersion ?? (this.options.adapters === undefined ? this.model.native.updates() : 0);
  }

  set policyVersion(version: number) {
    this.#policyVersion = version;
  }

  /** What decoding has done, over all runs so far. */
  get stats(): RolloutStats {
    return { ...this.#stats };
  }

  /**
   * Trajectories in the order in which they end. What each holds does not depend on that order, nor on the concurrency. All come from the adapters
   * as they are when the run begins, whatever is trained meanwhile; full training of the model is refused until it ends, and it does not begin
   * while such a step runs (ERR_BUSY).
   */
  async *run(questions: Iterable<Question>, run: RunOptions = {}): AsyncGenerator<Trajectory, void, undefined> {
    const { adapters, router, concurrency = 64, group = 8 } = this.options;
    checkRun(questions, run);
    const { signal } = run;
    checkSignal(signal);
    const maxLength = this.options.maxLength ?? Math.min(4096, this.model.config.maxPositions);
    checkInteger(maxLength, "maxLength", 2, this.model.config.maxPositions);
    adapters?.checkIdle("write");
    const { cacheTokens = defaultCacheTokens(this.model.config, concurrency, maxLength), chunk } = this.options;
    const generator = new native.Generator(this.model.native, adapters?.native ?? null, {
      maxSequences: concurrency,
      maxLength,
      cacheTokens,
      ...(chunk === undefined ? {} : { chunk }),
      tokenBytes: this.#tokenizer.tokenBytes(),
      router: router.native,
      adapterOfRole: adapters?.adapterOfRole ?? new Int32Array(router.roles.length).fill(-1),
    });
    const stop = new AbortController();
    // Every call that is out listens to it: as many as there are sequences.
    setMaxListeners(0, stop.signal);
    const waiting = questions[Symbol.iterator]();
    const live = new Map<number, Live>();
    let stats: RolloutStats = zeroStats();
    const answered: { id: number; ids: Int32Array }[] = [];
    const ended: { id: number; finish: Finish }[] = [];
    let failure: unknown;
    let tools = 0;
    let wake: () => void = () => undefined;
    const abort = (): void => {
      stop.abort(signal?.reason);
      generator.interrupt();
      wake();
    };
    signal?.addEventListener("abort", abort, { once: true });
    try {
      for (;;) {
        while (live.size < concurrency) {
          const next = waiting.next();
          if (next.done === true) break;
          checkQuestion(next.value);
          // The whole group, also those that are yet to start: their prompt is kept for them.
          for (let sample = 0; sample < group; sample++) this.#start(generator, live, next.value, sample, run);
        }
        if (live.size === 0) return;
        for (const { id, ids } of answered.splice(0)) generator.append(id, ids);
        if (generator.runnable() > 0) {
          const events = await abortable(generator.run(STEPS), signal);
          stats = generator.stats();
          for (const event of events) {
            const item = live.get(event.id) as Live;
            if (event.kind !== "call") {
              ended.push({ id: event.id, finish: event.kind });
            } else if (item.trajectory.calls.length >= (this.options.actionBudget ?? 4)) {
              ended.push({ id: event.id, finish: "budget" });
            } else {
              tools++;
              void this.#call(event, item, stop.signal)
                .then(
                  (ids) => {
                    if (ids === undefined) ended.push({ id: event.id, finish: "error" });
                    else answered.push({ id: event.id, ids });
                  },
                  (error: unknown) => (failure ??= error),
                )
                .finally(() => {
                  tools--;
                  generator.interrupt();
                  wake();
                });
            }
          }
        } else if (
          tools > 0 &&
          answered.length === 0 &&
          ended.length === 0 &&
          failure === undefined &&
          !stop.signal.aborted
        ) {
          await new Promise<void>((resolve) => (wake = resolve));
        }
        signal?.throwIfAborted();
        if (failure !== undefined) throw failure;
        for (const { id, finish } of ended.splice(0)) {
          const item = live.get(id) as Live;
          live.delete(id);
          yield await this.#finish(generator, id, item, finish);
        }
      }
    } finally {
      // A consumer that stops early, an abort or a failure: calls that are still out are told to end.
      stop.abort();
      addStats(this.#stats, stats);
      signal?.removeEventListener("abort", abort);
      generator.close();
    }
  }

  /** All trajectories of {@link run}, in the order of questions and samples. */
  async collect(questions: Iterable<Question>, run: RunOptions = {}): Promise<Trajectory[]> {
    checkRun(questions, run);
    const list = [...questions];
    list.forEach(checkQuestion);
    const order = new Map<string, number>();
    const { group = 8 } = this.options;
    list.forEach((question, q) => {
      for (let k = 0; k < group; k++) order.set(trajectoryId(run, question, k), q * group + k);
    });
    const out: Trajectory[] = [];
    for await (const trajectory of this.run(list, run)) out.push(trajectory);
    return out.sort((a, b) => (order.get(a.id) ?? 0) - (order.get(b.id) ?? 0));
  }

  #start(
    generator: NativeGenerator,
    live: Map<number, Live>,
    question: Question,
    sample: number,
    run: RunOptions,
  ): void {
    const { prompt = (q: Question) => q.question, addBos = true, sampling = {}, seed = 0 } = this.options;
    const { temperature = 1, topP = 1, topK = 0, maxNewTokens = 512 } = sampling;
    const { purpose = "rollout", variant = "", step = 0 } = run;
    const { renderer } = this.options;
    const encode = (text: string): number[] =>
      addBos ? this.#tokenizer.encodePrompt(text) : this.#tokenizer.encode(text);
    const ids = renderer?.prompt(question) ?? Int32Array.from(encode(prompt(question)));
    const rngKey = JSON.stringify([seed, purpose, variant, step, question.id, sample]);
    let id: number;
    try {
      id = generator.add(ids, {
        temperature,
        topP,
        topK,
        seed: BigInt(seed),
        stream: streamOf(rngKey),
        maxNewTokens,
        stopIds: Int32Array.from(this.options.stopIds ?? renderer?.stopIds ?? this.#tokenizer.eosTokenIds),
      });
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      fail(code ?? "ERR_INTERNAL", `Question ${question.id}: ${message}`, error);
    }
    const trajectory = { id: trajectoryId(run, question, sample), group: groupId(run, question), rngKey, calls: [] };
    live.set(id, { trajectory, question, promptLength: ids.length });
  }

  /** The tokens of the tool's answer, or undefined where its failure ends the trajectory. */
  async #call(event: NativeGeneratorEvent, item: Live, signal: AbortSignal): Promise<Int32Array | undefined> {
    const { router, output = { open: "<information>", close: "</information>" }, toolTimeout = 30_000 } = this.options;
    const policy = this.options.onToolError ?? "observe";
    const role = router.spans[event.span]?.role ?? router.base;
    const { renderer } = this.options;
    const call = { span: event.span, text: new TextDecoder().decode(event.text) };
    const parsed = renderer?.parseCall(call);
    if (renderer !== undefined && parsed !== undefined && "error" in parsed) {
      const error = { code: "ERR_TOOL_CALL", message: parsed.error };
      item.trajectory.calls.push({ role, query: call.text, result: parsed.error, latencyMs: 0, error });
      return renderer.toolResult(call, parsed.error);
    }
    const record = await callTool(
      this.options.environment,
      {
        role,
        text: call.text,
        ...parsed,
        question: item.question,
        trajectory: item.trajectory,
      },
      { signal, timeout: toolTimeout },
    );
    item.trajectory.calls.push(record);
    if (record.error !== undefined && policy === "throw") fail(record.error.code, record.error.message);
    if (record.error !== undefined && policy === "finish") return undefined;
    if (renderer !== undefined) return renderer.toolResult(call, record.result);
    return Int32Array.from(this.#tokenizer.encode(`${output.open}${record.result}${output.close}`));
  }

  async #finish(generator: NativeGenerator, id: number, item: Live, finish: Finish): Promise<Trajectory> {
    const { temperature = 1, topP = 1, topK = 0 } = this.options.sampling ?? {};
    const { answer: tags = { open: "<answer>", close: "</answer>" }, reward: score } = this.options;
    const { ids, roles, sampled, logprobs } = generator.take(id);
    const { policyVersion } = this;
    const { calls } = item.trajectory;
    const response = this.#tokenizer.decode(ids.subarray(item.promptLength));
    const reward = await score({ response, calls, finish }, item.question);
    if (!Number.isFinite(reward)) {
      fail("ERR_REWARD", `Expected a finite reward for question ${item.question.id} but received ${describe(reward)}`);
    }
    return {
      ...item.trajectory,
      question: item.question.id,
      ids,
      roles,
      sampled,
      logprobs,
      temperature,
      topP,
      topK,
      policyVersion,
      precision: this.model.precision,
      response,
      reward,
      answer: lastAnswer(response, tags.open, tags.close),
      calls,
      finish,
    };
  }
}

function checkRun(questions: Iterable<Question>, run: RunOptions): void {
  checkObject(run, "options");
  const { purpose = "", variant = "", step = 0 } = run;
  checkStrings([purpose, variant], "purpose and variant");
  checkInteger(step, "step", 0);
  if (typeof (questions as Iterable<Question> | null | undefined)?.[Symbol.iterator] !== "function")
    fail("ERR_INVALID_ARGUMENT", `Expected questions to iterate over but received ${describe(questions)}`);
}

function checkQuestion(question: Question): void {
  checkObject(question, "a question");
  if (typeof question.id !== "string")
    fail("ERR_INVALID_ARGUMENT", `Expected a string for the id of a question but received ${describe(question.id)}`);
}

/** Decoding steps between two looks at what the tools have answered; an answer also interrupts. */
const STEPS = 64;

function groupId({ purpose = "rollout", variant = "", step = 0 }: RunOptions, question: Question): string {
  return [purpose, variant, step, question.id].filter((part) => part !== "").join("/");
}

function trajectoryId(run: RunOptions, question: Question, sample: number): string {
  return `${groupId(run, question)}#${sample}`;
}
