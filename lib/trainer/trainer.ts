import type { Adapters, LoraPair } from "../adapters/adapters.js";
import {
  abortable,
  checkAdapters,
  checkInteger,
  checkModel,
  checkPositive,
  checkSignal,
  checkStrings,
  describe,
} from "../arguments.js";
import { native, type NativeStep, type NativeTrainer } from "../binding.js";
import { fail } from "../errors.js";
import { NO_ADAPTERS, type Model } from "../model/model.js";
import type { Trajectory } from "../rollout/trajectory.js";
import {
  batchNormalizer,
  checkAtLeastZero,
  checkBatch,
  checkObjective,
  checkOptimizer,
  tokenWeights,
} from "./objective.js";
import { packTrajectories, type TrajectoryBatch } from "./packing.js";
import { readState, writeState } from "./state.js";
import type {
  AccumulateOptions,
  AccumulateResult,
  Objective,
  StepMetrics,
  TrainerOptions,
  TrainingBatch,
} from "./types.js";

/** Gradient buffers, by adapter and module (or by parameter in full training). */
export interface Gradients {
  /** The gradient accumulated so far: of a pair, `get(adapter, module)`; in full training of a parameter, `get(name)`. */
  get(adapter: string, module: string): LoraPair;
  get(parameter: string): Float32Array;
  /** Euclidean norm by adapter. */
  norms(): Record<string, number>;
  zero(): void;
}

export interface StepOptions {
  signal?: AbortSignal;
  /** Train on trajectories whose sampling was truncated (top-p, top-k) all the same. @default false */
  allowTruncated?: boolean;
}

/**
 * Masked policy gradients (or supervised ones) into per-adapter buffers, clipping per adapter, AdamW per adapter (method.md, sections 2, 3).
 *
 * @example
 * const trainer = new Trainer(model, { adapters, optimizer: { learningRate: 1e-5 } });
 * const metrics = await trainer.step(trajectories);
 */
export class Trainer {
  readonly model: Model;
  readonly adapters: Adapters | undefined;
  readonly options: TrainerOptions;
  readonly gradients: Gradients;
  /** @internal */
  readonly native: NativeTrainer;
  readonly #objective: Required<Omit<Objective, "normLength">> & Pick<Objective, "normLength">;
  readonly #trained: ReadonlySet<number> | undefined;
  #steps = 0;
  #busy = false;

  constructor(model: Model, options: TrainerOptions) {
    const { adapters, full, reference, objective = {}, optimizer, crossRole = "flow", lossRoles = "all" } = options;
    checkModel(model, "model");
    if (adapters !== undefined) checkAdapters(adapters, "adapters");
    if (reference !== undefined) checkModel(reference, "reference");
    if ((adapters === undefined) === (full === undefined)) {
      fail("ERR_INVALID_ARGUMENT", "Expected either adapters or full: true");
    }
    const wanted: string = crossRole;
    if (wanted !== "flow" && wanted !== "stop") {
      fail(
        "ERR_UNSUPPORTED",
        `Expected crossRole "flow" or "stop" in this version but received ${describe(crossRole)}`,
      );
    }
    checkOptimizer(optimizer);
    checkObjective(objective);
    checkInteger(options.microBatchTokens ?? 1, "microBatchTokens", 1);
    const clipLow = objective.clipLow ?? 0.2;
    this.#objective = {
      kind: "policy",
      klCoefficient: 0,
      aggregation: "token-mean",
      standardize: true,
      ...objective,
      clipLow,
      clipHigh: objective.clipHigh ?? clipLow,
    };
    if (lossRoles !== "all") {
      checkStrings(lossRoles, "lossRoles");
      if (adapters === undefined) fail("ERR_INVALID_ARGUMENT", "Expected adapters where lossRoles names roles");
      this.#trained = new Set(lossRoles.map((role) => adapters.roleIndex(role)));
    }
    this.model = model;
    this.adapters = adapters;
    this.options = options;
    this.native = new native.Trainer(model.native, adapters?.native ?? null, reference?.native ?? null);
    const { native: handle } = this;
    const names = adapters?.names ?? ["full"];
    this.gradients = {
      get: ((name: string, module?: string, { lossRole }: { lossRole?: string } = {}) => {
        if (lossRole !== undefined) {
          fail("ERR_NOT_KEPT", `Expected no lossRole: gradients are not kept by role of the loss in this version`);
        }
        this.#checkIdle();
        if (adapters === undefined) return handle.gradient(-1, name).value;
        if (module === undefined) fail("ERR_INVALID_ARGUMENT", "Expected an adapter and a module");
        return handle.gradient(adapters.indexOf(name), module);
      }) as Gradients["get"],
      norms: () => {
        this.#checkIdle();
        const norms = handle.norms();
        return Object.fromEntries(names.map((name, i) => [name, norms[i] ?? 0]));
      },
      zero: () => {
        this.#checkIdle();
        handle.zero();
      },
    };
  }

  /** Optimizer steps taken. */
  get steps(): number {
    return this.#steps;
  }

  /** The rate of the next step. */
  get learningRate(): number {
    const { learningRate, warmupSteps = 0, totalSteps, finalRatio = 0 } = this.options.optimizer;
    const step = this.#steps;
    const warm = warmupSteps > 0 ? Math.min(1, (step + 1) / warmupSteps) : 1;
    const decay = totalSteps === undefined ? 1 : 1 - (1 - finalRatio) * Math.min(1, step / totalSteps);
    return learningRate * warm * decay;
  }

  /**
   * Adds the gradient of a batch's loss to the buffers. What throws leaves them as they were, an abort too: it stops the work within a few
   * tasks of the kernels. (So where something is in the buffers already, they are copied first.)
   * Errors: ERR_EMPTY_BATCH, ERR_SHAPE, ERR_TOKEN_RANGE, ERR_ROLE_RANGE, ERR_NOT_FINITE, ERR_BUSY, ERR_MODEL_CLOSED, ERR_OUT_OF_MEMORY.
   */
  async accumulate(batch: TrainingBatch, options: AccumulateOptions = {}): Promise<AccumulateResult> {
    return this.#exclusive("use", () => this.#accumulate(batch, options));
  }

  /** Clips per adapter and takes one AdamW step; the buffers are zero afterwards. Returns the norms before clipping. */
  async apply(options: { learningRate?: number } = {}): Promise<Record<string, number>> {
    return this.#exclusive("write", () => this.#apply(options.learningRate ?? this.learningRate));
  }

  /**
   * One optimizer step on trajectories: advantages by group, accumulation in micro-batches in the order of their ids, then apply().
   * An abort (and an error) discards the accumulation whole: adapters and moments are as if the step had not begun, and the buffers, which
   * a step empties when it begins, are zero. Once apply() has begun an abort comes too late, and the step is taken.
   */
  async step(trajectories: readonly Trajectory[], options: StepOptions = {}): Promise<StepMetrics> {
    return this.#exclusive("write", () => this.#step(trajectories, options));
  }

  /** In full training: every parameter's name and shape. */
  parameters(): { name: string; shape: number[] }[] {
    return this.native.parameters();
  }

  /** In full training: a copy of a parameter's f32 values. */
  parameter(name: string): Float32Array {
    this.#checkIdle();
    return this.native.parameter(name);
  }

  /** Writes adapters (PEFT directories) and the optimizer's state; {@link Trainer.resume} goes on from there, bit for bit. */
  async save(directory: string): Promise<void> {
    await this.#exclusive("read", () => writeState(this, directory));
  }

  /** A trainer as {@link Trainer.save} left it. The options must be those that it was made with. */
  static async resume(directory: string, model: Model, options: Omit<TrainerOptions, "adapters">): Promise<Trainer> {
    const { trainer, steps } = await readState(
      directory,
      model,
      (adapters) => new Trainer(model, { ...options, adapters }),
    );
    trainer.#steps = steps;
    return trainer;
  }

  #checkIdle(): void {
    this.model.checkOpen();
    if (this.#busy) fail("ERR_BUSY", "Expected no step of this trainer to be running: await it first");
  }

  /** One piece of work at a time, and meanwhile no other that `writes` to the adapters (or uses them, where this one writes). */
  async #exclusive<T>(does: "write" | "use" | "read", work: () => Promise<T>): Promise<T> {
    this.model.checkOpen();
    this.options.reference?.checkOpen();
    this.#checkIdle();
    this.adapters?.checkIdle(does === "write" ? "any" : "write");
    this.#busy = true;
    const releases = [
      this.model.lease(),
      this.options.reference?.lease(),
      does === "read" ? undefined : this.adapters?.lease(does === "write"),
    ];
    try {
      return await work();
    } finally {
      this.#busy = false;
      for (const release of releases) release?.();
    }
  }

  async #accumulate(
    batch: TrainingBatch,
    { normalizer, temperature = 1, signal }: AccumulateOptions,
    discard = false,
  ): Promise<AccumulateResult> {
    const objective = this.#objective;
    checkBatch(batch, objective.kind);
    checkSignal(signal);
    const total = batch.inputIds.length;
    const roles = batch.roles ?? new Int8Array(total).fill(-1);
    const own = batchNormalizer(batch, objective);
    const n = normalizer ?? own;
    if (normalizer !== undefined && !(n === 0 && own === 0)) checkPositive(normalizer, "normalizer");
    checkPositive(temperature, "temperature");
    const weights = tokenWeights(batch, roles, objective, Math.max(n, Number.MIN_VALUE), this.#trained);
    const sums = await abortable(
      this.native.accumulate({
        inputIds: batch.inputIds,
        cuSeqlens: batch.cuSeqlens,
        roles,
        adapterOfRole: this.adapters?.adapterOfRole ?? NO_ADAPTERS,
        weights,
        advantages: expand(batch.advantages, batch.cuSeqlens, total),
        oldLogprobs: batch.oldLogprobs === undefined ? new Float32Array(total) : Float32Array.from(batch.oldLogprobs),
        refLogprobs: batch.refLogprobs === undefined ? null : Float32Array.from(batch.refLogprobs),
        kind: objective.kind,
        clipLow: objective.clipLow,
        clipHigh: objective.clipHigh,
        beta: objective.klCoefficient,
        temperature,
        stop: this.options.crossRole === "stop",
        discard,
      }),
      signal,
      { counts: true },
    );
    const { loss, logprobs, perTokenLoss } = sums;
    return {
      loss,
      // Without a sampled token N is 0, and so are the sums.
      kl: sums.k3 / (n || 1),
      clipHigh: sums.clipHigh / (n || 1),
      clipLow: sums.clipLow / (n || 1),
      tokens: weights.reduce((count, w) => count + (w !== 0 ? 1 : 0), 0),
      normalizer: n,
      logprobs,
      perTokenLoss,
    };
  }

  async #apply(learningRate: number): Promise<Record<string, number>> {
    checkAtLeastZero(learningRate, "learningRate");
    const { betas = [0.9, 0.999], epsilon = 1e-8, weightDecay = 0, maxGradNorm = 1 } = this.options.optimizer;
    const step: NativeStep = { learningRate, beta1: betas[0], beta2: betas[1], epsilon, weightDecay, maxGradNorm };
    const norms = await this.native.apply({ ...step, decayVectors: false }).promise;
    this.native.zero();
    this.#steps++;
    const names = this.adapters?.names ?? ["full"];
    return Object.fromEntries(names.map((name, i) => [name, norms[i] ?? 0]));
  }

  async #step(
    trajectories: readonly Trajectory[],
    { signal, allowTruncated = false }: StepOptions,
  ): Promise<StepMetrics> {
    checkSignal(signal);
    const { microBatchTokens = 8192 } = this.options;
    const packed = packTrajectories(trajectories, this.#objective, {
      microBatchTokens,
      allowTruncated,
      roles: this.adapters?.roles,
    });
    const normalizer = this.#objective.aggregation === "token-mean" ? packed.sampledTokens : packed.sampledSequences;
    const learningRate = this.learningRate;
    const sums = { loss: 0, kl: 0, clipHigh: 0, clipLow: 0, maxRatioDeviation: 0 };
    this.native.zero();
    try {
      for (const batch of packed.batches) {
        const part = await this.#accumulate(
          batch,
          { normalizer, temperature: packed.temperature, ...(signal && { signal }) },
          true,
        );
        checkSignal(signal);
        sums.loss += part.loss;
        sums.kl += part.kl;
        sums.clipHigh += part.clipHigh;
        sums.clipLow += part.clipLow;
        sums.maxRatioDeviation = Math.max(sums.maxRatioDeviation, ratioDeviation(batch, part));
      }
    } catch (error) {
      this.native.zero();
      throw error;
    }
    const gradNorms = await this.#apply(learningRate);
    return {
      step: this.#steps,
      ...sums,
      learningRate,
      gradNorms,
      reward: packed.reward,
      mixedGroups: packed.mixedGroups,
      trajectories: trajectories.length,
      tokens: packed.tokens,
      sampledTokens: packed.sampledByRole,
    };
  }
}

function expand(advantages: ArrayLike<number> | undefined, cuSeqlens: Int32Array, total: number): Float64Array {
  const out = new Float64Array(total);
  if (advantages === undefined) return out;
  if (advantages.length === total && total !== cuSeqlens.length - 1) return Float64Array.from(advantages);
  for (let s = 0; s + 1 < cuSeqlens.length; s++) out.fill(advantages[s] as number, cuSeqlens[s], cuSeqlens[s + 1]);
  return out;
}

function ratioDeviation(batch: TrajectoryBatch, { logprobs }: AccumulateResult): number {
  let most = 0;
  for (let t = 0; t < logprobs.length; t++) {
    const logprob = logprobs[t] as number;
    if (logprob === 0 || batch.lossMask[t] === 0) continue;
    most = Math.max(most, Math.abs(Math.expm1(logprob - (batch.oldLogprobs[t] as number))));
  }
  return most;
}
