import {
  checkInstance,
  checkInteger,
  checkModel,
  checkObject,
  checkSignal,
  checkStrings,
  describe,
} from "../arguments.js";
import type { Question } from "../environments/types.js";
import { fail } from "../errors.js";
import type { Model } from "../model/model.js";
import type { Tokenizer } from "../model/tokenizer.js";
import { checkOptions, resolveOptions, type RolloutOptions, type RunOptions } from "./options.js";
import { checkQuestion, Session, trajectoryId } from "./session.js";
import { addStats, type RolloutStats, zeroStats } from "./stats.js";
import type { Trajectory } from "./trajectory.js";
import { makeGenerator } from "./writers.js";

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
    checkOptions(options);
    const tokenizer = options.tokenizer ?? model.tokenizer;
    if (tokenizer === undefined)
      fail("ERR_TOKENIZER_NOT_FOUND", `Expected a tokenizer in ${model.directory} or in options.tokenizer`);
    checkInstance(tokenizer, ["tokenBytes"], "a tokenizer", "tokenizer");
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
   * Trajectories in the order in which they are ready, their reward included. What each holds does not depend on that order, nor on the concurrency. All come from the adapters
   * as they are when the run begins, whatever is trained meanwhile; full training of the model is refused until it ends, and it does not begin
   * while such a step runs (ERR_BUSY).
   */
  async *run(questions: Iterable<Question>, run: RunOptions = {}): AsyncGenerator<Trajectory, void, undefined> {
    checkRun(questions, run);
    checkSignal(run.signal);
    const { model, policyVersion } = this;
    const options = resolveOptions(this.options, model);
    const { chunk, shuffleRoutes } = options;
    const generator = makeGenerator(model, this.#tokenizer, options, {
      maxSequences: options.concurrency,
      cacheTokens: options.cacheTokens,
      ...(chunk === undefined ? {} : { chunk }),
      shuffleRoutes,
      tellTokens: options.onToken !== undefined,
    });
    const context = { model, tokenizer: this.#tokenizer, options, policyVersion };
    const session = new Session(generator, context, questions, run);
    try {
      yield* session.trajectories();
    } finally {
      addStats(this.#stats, session.stats);
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
}

function checkRun(questions: Iterable<Question>, run: RunOptions): void {
  checkObject(run, "options");
  const { purpose = "", variant = "", step = 0 } = run;
  checkStrings([purpose, variant], "purpose and variant");
  checkInteger(step, "step", 0);
  if (typeof (questions as Iterable<Question> | null | undefined)?.[Symbol.iterator] !== "function")
    fail("ERR_INVALID_ARGUMENT", `Expected questions to iterate over but received ${describe(questions)}`);
}
