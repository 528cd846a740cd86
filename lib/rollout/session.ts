import { setMaxListeners } from "node:events";
import { type NativeGenerator, type NativeGeneratorEvent, type NativeJob } from "../binding.js";
import type { CallRecord, Question, ToolCall } from "../environments/types.js";
import { fail } from "../errors.js";
import { lastAnswer } from "../rewards/exact-match.js";
import { judge } from "../rewards/judge.js";
import { describe } from "../arguments.js";
import type { SampledCall } from "../prompts/renderer.js";
import { streamOf } from "../random.js";
import type { Model } from "../model/model.js";
import type { Tokenizer } from "../model/tokenizer.js";
import { observe } from "./observation.js";
import type { ResolvedOptions, RunOptions } from "./options.js";
import { callTool, refusedCall } from "./tool-call.js";
import { zeroStats } from "./stats.js";
import type { Finish, Trajectory } from "./trajectory.js";

/** Decoding steps of one job: others that wait for the engine (a trainer's step, another rollout) come between two. */
const STEPS = 64;

type CallEvent = Extract<NativeGeneratorEvent, { kind: "call" }>;

interface Live {
  trajectory: Pick<Trajectory, "id" | "group" | "rngKey"> & { calls: CallRecord[] };
  question: Question;
  promptLength: number;
  /** It has been told that no more calls are possible. */
  last: boolean;
}

export interface SessionContext {
  model: Model;
  tokenizer: Tokenizer;
  options: ResolvedOptions;
  policyVersion: number;
}

/**
 * One run of a rollout. Decoding, tools and rewards go on side by side: nothing here waits for one sequence's tool or reward, nor for the consumer,
 * until as many trajectories as are decoded together stand ready.
 */
export class Session {
  /** What decoding has done, up to the last job that ended well. */
  stats = zeroStats();
  readonly #generator: NativeGenerator;
  readonly #context: SessionContext;
  readonly #run: RunOptions;
  readonly #questions: Iterator<Question>;
  readonly #live = new Map<number, Live>();
  readonly #ready: Trajectory[] = [];
  readonly #stop = new AbortController();
  /** Trajectories whose reward is still to come. */
  #scoring = 0;
  #exhausted = false;
  #job: NativeJob<NativeGeneratorEvent[]> | undefined;
  #settled: Promise<void> = Promise.resolve();
  #failure: { error: unknown } | undefined;
  #wake: () => void = () => undefined;

  constructor(generator: NativeGenerator, context: SessionContext, questions: Iterable<Question>, run: RunOptions) {
    this.#generator = generator;
    this.#context = context;
    this.#run = run;
    this.#questions = questions[Symbol.iterator]();
    // Every call that is out listens to it: as many as there are sequences.
    setMaxListeners(0, this.#stop.signal);
  }

  async *trajectories(): AsyncGenerator<Trajectory, void, undefined> {
    const { signal } = this.#run;
    const abort = (): void => this.#fail(signal?.reason);
    signal?.addEventListener("abort", abort, { once: true });
    try {
      this.#guard(() => this.#advance());
      for (;;) {
        if (this.#failure !== undefined) throw this.#failure.error;
        const next = this.#ready.shift();
        if (next !== undefined) {
          this.#guard(() => this.#advance());
          yield next;
        } else if (this.#live.size === 0 && this.#scoring === 0 && this.#exhausted) {
          return;
        } else {
          await new Promise<void>((resolve) => (this.#wake = resolve));
        }
      }
    } finally {
      signal?.removeEventListener("abort", abort);
      await this.#end();
    }
  }

  /** A consumer that stops early, an abort or a failure: calls that are still out are told to end, and decoding does. */
  async #end(): Promise<void> {
    this.#failure ??= { error: undefined };
    this.#stop.abort();
    this.#job?.abort();
    await this.#settled;
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#stop.abort(error);
    this.#job?.abort();
    this.#wake();
  }

  /** What must not throw, as nobody would hear of it: the run fails instead. */
  #guard(work: () => void): void {
    if (this.#failure !== undefined) return;
    try {
      work();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Takes questions as there is room, and decodes where there is something to decode. */
  #advance(): void {
    const { concurrency } = this.#context.options;
    while (
      !this.#exhausted &&
      this.#live.size < concurrency &&
      this.#ready.length + this.#scoring < Math.max(concurrency, this.#context.options.group)
    ) {
      const next = this.#questions.next();
      if (next.done === true) {
        this.#exhausted = true;
        this.#wake();
        break;
      }
      checkQuestion(next.value);
      // The whole group, also those that are yet to start: their prompt is kept for them.
      for (let sample = 0; sample < this.#context.options.group; sample++) this.#start(next.value, sample);
    }
    if (this.#job !== undefined || this.#generator.runnable() === 0) return;
    const tell = (events: NativeGeneratorEvent[]): void =>
      this.#guard(() => events.forEach((event) => this.#heard(event)));
    this.#job = this.#generator.run(STEPS, tell);
    this.#settled = this.#job.promise.then(
      (events) => {
        this.#job = undefined;
        try {
          this.stats = this.#generator.stats();
        } catch {
          // The model has been closed: what comes next says so.
        }
        tell(events);
        this.#guard(() => this.#advance());
      },
      (error: unknown) => {
        this.#job = undefined;
        this.#fail(error);
      },
    );
  }

  #heard(event: NativeGeneratorEvent): void {
    const item = this.#live.get(event.id);
    if (item === undefined) return;
    const { options } = this.#context;
    if (event.kind === "token") {
      const { id } = item.trajectory;
      options.onToken?.({
        trajectory: id,
        token: event.token,
        role: options.router.roles[event.role] as string,
        logprob: event.logprob,
      });
    } else if (event.kind !== "call") {
      this.#finish(event.id, item, event.kind);
    } else if (item.trajectory.calls.length < options.actionBudget) {
      void this.#call(event, item).then(
        (ids) =>
          this.#guard(() => {
            if (ids === undefined) this.#finish(event.id, item, "error");
            else this.#generator.append(event.id, ids);
            this.#advance();
          }),
        (error: unknown) => this.#fail(error),
      );
    } else if (options.finalAnswer !== false && !item.last) {
      item.last = true;
      const call = { span: event.span, text: new TextDecoder().decode(event.text) };
      this.#generator.append(event.id, this.#observe(call, options.finalAnswer).ids);
    } else {
      this.#finish(event.id, item, "budget");
    }
  }

  #start(question: Question, sample: number): void {
    const { options, tokenizer } = this.#context;
    const { temperature, topP, topK, maxNewTokens } = options.sampling;
    const { purpose = "rollout", variant = "", step = 0 } = this.#run;
    const { renderer } = options;
    const encode = (text: string): number[] => (options.addBos ? tokenizer.encodePrompt(text) : tokenizer.encode(text));
    const ids = renderer?.prompt(question) ?? Int32Array.from(encode(options.prompt(question)));
    const rngKey = JSON.stringify([options.seed, purpose, variant, step, question.id, sample]);
    let id: number;
    try {
      id = this.#generator.add(ids, {
        temperature,
        topP,
        topK,
        seed: BigInt(options.seed),
        stream: streamOf(rngKey),
        maxNewTokens,
        stopIds: Int32Array.from(options.stopIds ?? renderer?.stopIds ?? tokenizer.eosTokenIds),
      });
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      fail(code ?? "ERR_INTERNAL", `Question ${question.id}: ${message}`, error);
    }
    const group = groupId(this.#run, question);
    this.#live.set(id, {
      trajectory: { id: trajectoryId(this.#run, question, sample), group, rngKey, calls: [] },
      question,
      promptLength: ids.length,
      last: false,
    });
  }

  /** The tokens of the tool's answer, or undefined where its failure ends the trajectory. */
  async #call(event: CallEvent, item: Live): Promise<Int32Array | undefined> {
    const { router, environment, renderer, toolTimeout, onToolError: policy, checkCall } = this.#context.options;
    const written = { span: event.span, text: new TextDecoder().decode(event.text) };
    const parsed = renderer?.parseCall(written);
    const asked = parsed === undefined || "error" in parsed ? { text: written.text } : parsed;
    const role = router.spans[event.span]?.role ?? router.base;
    const call: ToolCall = { role, ...asked, question: item.question, trajectory: item.trajectory };
    const malformed = parsed !== undefined && "error" in parsed ? parsed.error : undefined;
    const correction = malformed ?? checkCall?.(call);
    const record =
      correction === undefined
        ? await callTool(environment, call, { signal: this.#stop.signal, timeout: toolTimeout })
        : refusedCall(call, correction, malformed === undefined ? "ERR_INVALID_CALL" : "ERR_TOOL_CALL");
    const { ids, shown } = this.#observe(written, record.result);
    item.trajectory.calls.push(shown === record.result ? record : { ...record, result: shown, cut: true });
    if (record.error === undefined || correction !== undefined || policy === "observe") return ids;
    if (policy === "throw") fail(record.error.code, record.error.message);
    return undefined;
  }

  /** What is read after a call. */
  #observe(call: SampledCall, result: string): { ids: Int32Array; shown: string } {
    const { options, tokenizer } = this.#context;
    const { renderer, output, observationTokens } = options;
    const render = (shown: string): Int32Array =>
      renderer?.toolResult(call, shown) ?? Int32Array.from(tokenizer.encode(`${output.open}${shown}${output.close}`));
    return observe(tokenizer, render, result, observationTokens);
  }

  #finish(id: number, item: Live, finish: Finish): void {
    const { options, tokenizer, model, policyVersion } = this.#context;
    const { temperature, topP, topK } = options.sampling;
    const { ids, roles, sampled, logprobs, routing } = this.#generator.take(id);
    this.#live.delete(id);
    this.#scoring++;
    const { calls } = item.trajectory;
    const response = tokenizer.decode(ids.subarray(item.promptLength));
    const score = async (): Promise<Trajectory> => {
      const judgement = await judge(options.reward, { response, calls, finish }, item.question);
      return {
        ...item.trajectory,
        question: item.question.id,
        ids,
        roles,
        sampled,
        logprobs,
        ...(routing && { routing }),
        temperature,
        topP,
        topK,
        policyVersion,
        precision: model.precision,
        response,
        ...judgement,
        answer: lastAnswer(response, options.answer.open, options.answer.close),
        calls,
        finish,
      };
    };
    void score().then(
      (trajectory) => {
        this.#scoring--;
        this.#ready.push(trajectory);
        this.#wake();
      },
      (error: unknown) => this.#fail(error),
    );
  }
}

export function checkQuestion(question: Question): void {
  if (typeof question !== "object" || question === null)
    fail("ERR_INVALID_ARGUMENT", `Expected an object for a question but received ${describe(question)}`);
  if (typeof question.id !== "string")
    fail("ERR_INVALID_ARGUMENT", `Expected a string for the id of a question but received ${describe(question.id)}`);
}

export function groupId({ purpose = "rollout", variant = "", step = 0 }: RunOptions, question: Question): string {
  return [purpose, variant, step, question.id].filter((part) => part !== "").join("/");
}

export function trajectoryId(run: RunOptions, question: Question, sample: number): string {
  return `${groupId(run, question)}#${sample}`;
}
