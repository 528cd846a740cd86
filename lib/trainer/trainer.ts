import type { Adapters, LoraPair } from "../adapters/adapters.js";
import { blockIndex, type RouterBlock } from "../adapters/mixture.js";
import { rowOf, type TokenRow } from "../adapters/tokens.js";
import {
  abortable,
  checkAdapters,
  checkChoice,
  checkInteger,
  checkModel,
  checkObject,
  checkPath,
  checkSignal,
  checkStrings,
  describe,
} from "../arguments.js";
import { native, type NativeBatch, type NativeStep, type NativeTrainer } from "../binding.js";
import { fail } from "../errors.js";
import { streamOf } from "../random.js";
import { NO_ADAPTERS, type Model } from "../model/model.js";
import type { Trajectory } from "../rollout/trajectory.js";
import { nativeBatch, type ResolvedObjective } from "./batch.js";
import { checkAtLeastZero, checkObjective, checkOptimizer } from "./objective.js";
import { leakMatrix } from "./leak.js";
import { cutByGroup, type GroupAdvantages, type PackedTrajectories } from "./packing.js";
import { prepareTrajectories, type PreparedTrajectories } from "./prepare.js";
import { StepSums } from "./step-sums.js";
import { readState, writeState } from "./state.js";
import type {
  AccumulateOptions,
  AccumulateResult,
  CrossRole,
  LeakMatrix,
  LeakOptions,
  ResumeOptions,
  StepMetrics,
  TrainerOptions,
  TrainingBatch,
} from "./types.js";

const CROSS_ROLES: CrossRole[] = ["flow", "stop", "exact"];

/** Gradient buffers, by adapter and module (or by parameter in full training). */
export interface Gradients {
  /**
   * The gradient accumulated so far: of a pair, `get(adapter, module)`; in full training of a parameter, `get(name)`.
   * `lossRole`: the part that the loss of this role's tokens gave; ERR_NOT_KEPT without `trackLossRoles` or crossRole "exact" (which keeps
   * it for adapters that run one role).
   */
  get(adapter: string, module: string, options?: { lossRole?: string }): LoraPair;
  get(parameter: string): Float32Array;
  /** The gradient of a trained token's row (see `trainableTokens` of createAdapters). */
  token(token: number | string): TokenRow;
  /** Soft routing: the gradient of a router [experts, hiddenSize]. */
  router(layer: number, block: RouterBlock): Float32Array;
  /** Euclidean norm by adapter; of the rows of trained tokens under "tokens". */
  norms(): Record<string, number>;
  zero(): void;
}

export interface StepOptions {
  signal?: AbortSignal;
  /** Train on trajectories whose sampling was truncated (top-p, top-k) all the same. @default false */
  allowTruncated?: boolean;
  /** Train on trajectories that a model of another precision sampled (ERR_PRECISION) all the same. @default false */
  allowOtherPrecision?: boolean;
  /**
   * Advantages of one's own instead of the group's: called with each group, its members in the order of their ids; returns an advantage for each, or
   * an array of one for each of its tokens (those of tokens that were not sampled are not read).
   */
  advantages?: GroupAdvantages;
  /**
   * Times that the trajectories are gone through, with an optimizer update each, clipped against the log-probabilities of before. @default 1
   */
  epochs?: number;
  /** Updates of one epoch: whole groups, in the order of their ids, in so many parts of their own N. At most one a group. @default 1 */
  minibatches?: number;
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
  /** Names of the roles, by index: the adapters', or in full training those of the options. */
  readonly roles: readonly string[];
  readonly options: TrainerOptions;
  readonly gradients: Gradients;
  /** @internal */
  readonly native: NativeTrainer;
  readonly #objective: ResolvedObjective;
  readonly #trained: ReadonlySet<number> | undefined;
  #steps = 0;
  /** Something was accumulated since the last step. */
  #pending = false;
  #busy = false;
  /** Of the step that runs: how many updates it has taken. */
  #update = 0;

  constructor(model: Model, options: TrainerOptions) {
    checkModel(model, "model");
    checkObject(options, "options");
    const { adapters, full, reference, objective = {}, optimizer, crossRole = "flow", lossRoles = "all" } = options;
    if (adapters !== undefined) checkAdapters(adapters, "adapters");
    if (reference !== undefined) checkModel(reference, "reference");
    const { trackLossRoles = false, gradientCheckpointing = false, roles } = options;
    if ((adapters === undefined) === (full === undefined) || ![undefined, true].includes(full)) {
      fail("ERR_INVALID_ARGUMENT", "Expected either adapters or full: true");
    }
    checkChoice(crossRole, CROSS_ROLES, "crossRole");
    for (const [name, value] of Object.entries({ trackLossRoles, gradientCheckpointing }))
      if (typeof value !== "boolean")
        fail("ERR_INVALID_ARGUMENT", `Expected a boolean ${name} but received ${describe(value)}`);
    if (adapters === undefined && (crossRole === "exact" || trackLossRoles)) {
      const what = trackLossRoles ? "trackLossRoles" : 'crossRole "exact"';
      fail("ERR_INVALID_ARGUMENT", `Expected adapters for ${what}: in full training all roles share every parameter`);
    }
    if (adapters !== undefined && roles !== undefined)
      fail("ERR_INVALID_ARGUMENT", "Expected no roles beside adapters, which bring their own");
    checkOptimizer(optimizer);
    checkObjective(objective);
    checkInteger(options.microBatchTokens ?? 1, "microBatchTokens", 1);
    checkInteger(options.seed ?? 0, "seed", 0);
    const clipLow = objective.clipLow ?? 0.2;
    this.#objective = {
      kind: "policy",
      klCoefficient: 0,
      aggregation: "token-mean",
      standardize: true,
      ratio: "token",
      klEstimator: "k3",
      klPlacement: "loss",
      advantageEstimator: "grpo",
      filterGroups: false,
      entropyCoefficient: 0,
      ...objective,
      clipLow,
      clipHigh: objective.clipHigh ?? clipLow,
    };
    if (this.#objective.entropyCoefficient > 0 && (adapters?.trainableTokens.length ?? 0) > 0)
      fail("ERR_INVALID_ARGUMENT", "Expected no objective.entropyCoefficient where rows of tokens are trained");
    this.roles = adapters?.roles ?? checkRoles(roles ?? []);
    if (lossRoles !== "all") {
      checkStrings(lossRoles, "lossRoles");
      if (this.roles.length === 0)
        fail("ERR_INVALID_ARGUMENT", "Expected roles (their names, by index) where lossRoles names some of them");
      this.#trained = new Set(lossRoles.map((role) => this.#roleIndex(role)));
    }
    reference?.checkOpen();
    this.model = model;
    this.adapters = adapters;
    this.options = options;
    this.native = new native.Trainer(
      model.native,
      adapters?.native ?? null,
      reference?.native ?? null,
      trackLossRoles,
      gradientCheckpointing,
    );
    const { native: handle } = this;
    const names = adapters?.groups ?? ["full"];
    this.gradients = {
      get: ((name: string, module?: string, { lossRole }: { lossRole?: string } = {}) => {
        this.#checkIdle();
        if (adapters === undefined) {
          if (lossRole !== undefined)
            fail("ERR_NOT_KEPT", "Expected no lossRole: full training keeps one gradient for the whole loss");
          return handle.gradient(-1, name, -1).value;
        }
        if (module === undefined) fail("ERR_INVALID_ARGUMENT", "Expected an adapter and a module");
        const adapter = adapters.indexOf(name);
        const pair = handle.gradient(adapter, module, -1);
        if (lossRole === undefined) return pair;
        const kept = this.#keptAs(adapters, adapter, this.#roleIndex(lossRole));
        return kept === "whole" ? pair : handle.gradient(adapter, module, kept);
      }) as Gradients["get"],
      token: (token: number | string) => {
        this.#checkIdle();
        if (adapters === undefined) fail("ERR_NO_TOKEN", "Expected adapters: in full training every row is trained");
        const index = adapters.tokenIndex(token);
        return rowOf(model, handle.tokenGradient() as Float32Array, index);
      },
      router: (layer: number, block: RouterBlock) => {
        this.#checkIdle();
        return handle.routerGradient(layer, blockIndex(block));
      },
      norms: () => {
        this.#checkIdle();
        const norms = handle.norms();
        return Object.fromEntries(names.map((name, i) => [name, norms[i] ?? 0]));
      },
      zero: () => {
        this.#checkIdle();
        handle.zero();
        this.#pending = false;
      },
    };
  }

  /** Optimizer steps taken. */
  get steps(): number {
    return this.#steps;
  }

  /** The rate of the next step. */
  get learningRate(): number {
    const { learningRate, warmupSteps = 0, totalSteps, finalRatio = 0, decay: shape } = this.options.optimizer;
    const step = this.#steps;
    const warm = warmupSteps > 0 ? Math.min(1, (step + 1) / warmupSteps) : 1;
    const share = totalSteps === undefined ? 0 : Math.min(1, step / totalSteps);
    const decay = 1 - (1 - finalRatio) * (shape === "cosine" ? (1 - Math.cos(Math.PI * share)) / 2 : share);
    return learningRate * warm * decay;
  }

  /**
   * Adds the gradient of a batch's loss to the buffers. What throws leaves them as they were, an abort too: it stops the work within a few
   * tasks of the kernels. (So where something is in the buffers already, they are copied first.)
   * Errors: ERR_EMPTY_BATCH, ERR_SHAPE, ERR_TOKEN_RANGE, ERR_ROLE_RANGE, ERR_NOT_FINITE, ERR_BUSY, ERR_MODEL_CLOSED, ERR_OUT_OF_MEMORY.
   */
  async accumulate(batch: TrainingBatch, options: AccumulateOptions = {}): Promise<AccumulateResult> {
    checkObject(options, "options");
    return this.#exclusive("use", () => this.#accumulate(batch, options));
  }

  /**
   * Clips per adapter and takes one AdamW step; the buffers are zero afterwards. Returns the norms before clipping. In full training ERR_BUSY
   * while a rollout on the model is under way (with adapters or without), and nothing has changed: a rollout keeps the adapters with which it
   * began, but of whole weights there is no second copy.
   */
  async apply(options: { learningRate?: number } = {}): Promise<Record<string, number>> {
    checkObject(options, "options");
    return this.#exclusive("write", async () => {
      const norms = await this.#apply(options.learningRate ?? this.learningRate);
      this.#steps++;
      return norms;
    });
  }

  /**
   * What is left of interference: the norms of d loss_v / d adapter_a for every role v and adapter a, and their cosines to the adapter's own
   * gradient (method.md, section 2), over a batch or over trajectories (in micro-batches, as step() makes them). Every role's tokens are
   * measured, whatever `lossRoles` says. Nothing that the trainer holds changes. One backward pass for each role; roles x adapters gradients are held
   * meanwhile.
   *
   * @example
   * const leak = await trainer.leakMatrix(trajectories);
   * leak.norms["tool"]["reason"] / leak.norms["reason"]["reason"]; // what the tool loss adds to the reasoning adapter
   */
  async leakMatrix(batch: TrainingBatch | readonly Trajectory[], options: LeakOptions = {}): Promise<LeakMatrix> {
    checkObject(options, "options");
    return this.#exclusive("use", () => this.#leakMatrix(batch, options));
  }

  /**
   * One optimizer step on trajectories (with kind "sft": on what they sampled, as it stands): advantages by group, accumulation in micro-batches in the order of their ids, then apply().
   * An abort (and an error) discards the accumulation whole: adapters and moments are as if the step had not begun, and the buffers are zero.
   * Once apply() has begun an abort comes too late, and the step is taken. Gradients that accumulate() has left would be lost or mixed in:
   * ERR_GRADIENTS_PENDING until apply() takes them or gradients.zero() drops them. In full training no rollout on the model may be under way, nor
   * begin before the step has ended: ERR_BUSY, as in apply().
   */
  async step(trajectories: readonly Trajectory[], options: StepOptions = {}): Promise<StepMetrics> {
    checkObject(options, "options");
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

  /**
   * Writes the adapters (PEFT directories), or in full training the model (a Hugging Face directory, f32), and the optimizer's state;
   * {@link Trainer.resume} goes on from there, bit for bit. Accumulated gradients are not part of it: ERR_GRADIENTS_PENDING where there are any.
   */
  async save(directory: string): Promise<void> {
    checkPath(directory, "directory");
    this.#checkNonePending("save");
    await this.#exclusive("read", () => writeState(this, directory));
  }

  /**
   * A trainer as {@link Trainer.save} left it. The options must be those that it was made with. The parameters of a full training replace those of
   * `model`, which is the model that it began with, or one of its shapes (else ERR_CHECKPOINT), loaded with dtype "float32". What a package of
   * another {@link numericsVersion} saved is refused (ERR_NUMERICS_VERSION), and a model of another precision (ERR_PRECISION), unless
   * `allowOtherNumerics` says that other bits will do.
   */
  static async resume(directory: string, model: Model, options: ResumeOptions): Promise<Trainer> {
    checkPath(directory, "directory");
    checkModel(model, "model");
    checkObject(options, "options");
    const { full, allowOtherNumerics = false, ...rest } = options;
    const { trainer, steps } = await readState(directory, model, allowOtherNumerics, (adapters) => {
      if (adapters === undefined) return new Trainer(model, { ...rest, full: true });
      if (full === undefined) return new Trainer(model, { ...rest, adapters });
      return fail("ERR_CHECKPOINT", `Expected a checkpoint of full training but ${directory} is one of adapters`);
    });
    trainer.#steps = steps;
    return trainer;
  }

  #checkIdle(): void {
    this.model.checkOpen();
    if (this.#busy) fail("ERR_BUSY", "Expected no step of this trainer to be running: await it first");
  }

  #checkNonePending(call: string): void {
    if (this.#pending)
      fail(
        "ERR_GRADIENTS_PENDING",
        `Expected no accumulated gradients at ${call}(): take them with apply() or drop them with gradients.zero() first`,
      );
  }

  #roleIndex(role: string): number {
    const index = this.roles.indexOf(role);
    if (index < 0) fail("ERR_NO_ROLE", `Expected a role among ${this.roles.join(", ")} but received ${describe(role)}`);
    return index;
  }

  /** Where the gradient of a role's loss by an adapter is kept: with the whole loss's, or by role. */
  #keptAs({ adapterOfRole }: Adapters, adapter: number, role: number): "whole" | number {
    const { crossRole = "flow", trackLossRoles = false } = this.options;
    const alone = adapterOfRole.filter((other) => other === adapter).length === 1;
    if (crossRole !== "flow" && adapterOfRole[role] === adapter && alone && (trackLossRoles || crossRole === "exact"))
      return "whole";
    if (trackLossRoles || (crossRole === "exact" && adapterOfRole[role] !== adapter)) return role;
    return fail(
      "ERR_NOT_KEPT",
      `Expected no lossRole without trackLossRoles: crossRole ${JSON.stringify(crossRole)} keeps the sum over the roles alone`,
    );
  }

  /** One piece of work at a time, and meanwhile no other that `writes` to the adapters (or uses them, where this one writes). */
  async #exclusive<T>(does: "write" | "use" | "read", work: () => Promise<T>): Promise<T> {
    this.model.checkOpen();
    this.options.reference?.checkOpen();
    this.#checkIdle();
    this.adapters?.checkIdle(does === "write" ? "any" : "write");
    // First, for it may refuse: whole weights have no versions that a rollout could keep.
    if (does === "write") this.native.holdWeights();
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
      if (does === "write") this.native.releaseWeights();
      for (const release of releases) release?.();
    }
  }

  #nativeBatch(
    batch: TrainingBatch,
    options: AccumulateOptions,
    crossRole: CrossRole,
    trained: ReadonlySet<number> | undefined,
  ): { input: NativeBatch; normalizer: number } {
    const adapterOfRole = this.adapters?.adapterOfRole ?? NO_ADAPTERS;
    return nativeBatch(batch, options, this.#objective, {
      adapterOfRole,
      crossRole,
      trained,
      dropoutKeys: () => this.#dropoutKeys(batch),
    });
  }

  async #accumulate(batch: TrainingBatch, options: AccumulateOptions, discard = false): Promise<AccumulateResult> {
    const { crossRole = "flow" } = this.options;
    const { signal } = options;
    checkSignal(signal);
    const { input, normalizer: n } = this.#nativeBatch(batch, options, crossRole, this.#trained);
    const sums = await abortable(this.native.accumulate({ ...input, discard }), signal, { counts: true });
    const tokens = input.weights.reduce((count, w) => count + (w !== 0 ? 1 : 0), 0);
    if (tokens > 0) this.#pending = true;
    const { loss, logprobs, perTokenLoss, entropies } = sums;
    return {
      loss,
      // Without a sampled token N is 0, and so are the sums.
      kl: sums.kl / (n || 1),
      clipHigh: sums.clipHigh / (n || 1),
      clipLow: sums.clipLow / (n || 1),
      dualClip: sums.dualClip / (n || 1),
      importance: sums.importance / (n || 1),
      importanceBounded: sums.importanceBounded / (n || 1),
      tokens,
      normalizer: n,
      logprobs,
      perTokenLoss,
      entropies,
    };
  }

  /** A key a sequence: the masks of a step are drawn by seed, step and sequence, whatever else is in the batch. */
  #dropoutKeys({ keys, cuSeqlens }: TrainingBatch): BigUint64Array | null {
    if (this.adapters?.list.every(({ dropout }) => dropout === 0) ?? true) return null;
    const sequences = cuSeqlens.length - 1;
    if (keys !== undefined) checkStrings(keys, "keys");
    if (keys !== undefined && keys.length !== sequences)
      fail("ERR_SHAPE", `Expected keys of length ${sequences} (one a sequence) but received ${keys.length}`);
    const { seed = 0 } = this.options;
    const step = this.#update === 0 ? `${this.#steps}` : `${this.#steps}.${this.#update}`;
    return BigUint64Array.from({ length: sequences }, (_, s) => streamOf(`dropout/${seed}/${step}/${keys?.[s] ?? s}`));
  }

  async #apply(learningRate: number): Promise<Record<string, number>> {
    checkAtLeastZero(learningRate, "learningRate");
    const { betas = [0.9, 0.999], epsilon = 1e-8, weightDecay = 0, maxGradNorm = 1 } = this.options.optimizer;
    const step: NativeStep = { learningRate, beta1: betas[0], beta2: betas[1], epsilon, weightDecay, maxGradNorm };
    const norms = await this.native.apply({ ...step, decayVectors: false }).promise;
    this.native.zero();
    this.#pending = false;
    const names = this.adapters?.groups ?? ["full"];
    return Object.fromEntries(names.map((name, i) => [name, norms[i] ?? 0]));
  }

  async #leakMatrix(
    batch: TrainingBatch | readonly Trajectory[],
    { crossRole = "flow", allowTruncated = false, allowOtherPrecision = false, ...options }: LeakOptions,
  ): Promise<LeakMatrix> {
    const { adapters } = this;
    if (adapters === undefined) fail("ERR_INVALID_ARGUMENT", "Expected a trainer of adapters for leakMatrix()");
    checkChoice(crossRole, CROSS_ROLES, "crossRole");
    let batches: [TrainingBatch, AccumulateOptions][];
    if (Array.isArray(batch)) {
      const { make } = await this.#prepare(batch as readonly Trajectory[], {
        allowTruncated,
        allowOtherPrecision,
        ...(options.signal && { signal: options.signal }),
      });
      const packed = make();
      const own = { normalizer: this.#normalizer(packed), temperature: packed.temperature, ...options };
      batches = packed.batches.map((part) => [part, own]);
    } else {
      batches = [[batch as TrainingBatch, options]];
    }
    const inputs = batches.map(([part, own]) => this.#nativeBatch(part, own, crossRole, undefined).input);
    const values = inputs.length > 0 ? await abortable(this.native.leak(inputs), options.signal) : undefined;
    return leakMatrix(values, this.roles, adapters.names, crossRole);
  }

  #normalizer({ sampledTokens, sampledSequences }: PackedTrajectories): number {
    return this.#objective.aggregation === "token-mean" ? sampledTokens : sampledSequences;
  }

  #prepare(trajectories: readonly Trajectory[], options: StepOptions): Promise<PreparedTrajectories> {
    const { model, adapters, roles } = this;
    const { microBatchTokens = 8192, reference } = this.options;
    const policy = { model, adapters, reference, objective: this.#objective, microBatchTokens, roles };
    return prepareTrajectories(trajectories, policy, options);
  }

  async #step(trajectories: readonly Trajectory[], options: StepOptions): Promise<StepMetrics> {
    const { signal, epochs = 1, minibatches = 1, advantages } = options;
    checkSignal(signal);
    checkInteger(epochs, "epochs", 1);
    checkInteger(minibatches, "minibatches", 1);
    if (advantages !== undefined && typeof advantages !== "function")
      fail("ERR_INVALID_ARGUMENT", `Expected a function for advantages but received ${describe(advantages)}`);
    this.#checkNonePending("step");
    const { ordered, make } = await this.#prepare(trajectories, options);
    const whole = make();
    const parts = minibatches === 1 ? [whole] : cutByGroup(ordered, minibatches).map((part) => make(part));
    const updates = epochs * parts.length;
    const learningRate = this.learningRate;
    const sums = new StepSums(this.roles, updates);
    try {
      for (this.#update = 0; this.#update < updates; this.#update++) {
        const packed = parts[this.#update % parts.length] as PackedTrajectories;
        const own = { normalizer: this.#normalizer(packed), temperature: packed.temperature };
        for (const batch of packed.batches) {
          // Once an update is taken the step is taken whole.
          const part = await this.#accumulate(batch, { ...own, ...(signal && this.#update === 0 && { signal }) }, true);
          if (this.#update === 0) checkSignal(signal);
          sums.add(batch, part, this.#objective);
        }
        sums.addNorms(await this.#apply(learningRate));
      }
    } catch (error) {
      this.native.zero();
      this.#pending = false;
      if (this.#update > 0) this.#steps++; // its first updates are taken
      throw error;
    } finally {
      this.#update = 0;
    }
    this.#steps++;
    return {
      step: this.#steps,
      learningRate,
      ...sums.metrics(this.#objective),
      ...(this.#objective.filterGroups && { filteredGroups: whole.filteredGroups }),
      reward: whole.reward,
      mixedGroups: whole.mixedGroups,
      trajectories: trajectories.length,
      tokens: whole.tokens,
      sampledTokens: whole.sampledByRole,
    };
  }
}

function checkRoles(roles: readonly string[]): readonly string[] {
  checkStrings(roles, "roles");
  if (new Set(roles).size !== roles.length || roles.length > 127)
    fail("ERR_INVALID_ARGUMENT", "Expected up to 127 distinct roles");
  return roles;
}
