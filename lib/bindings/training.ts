/** The classes of native/bindings/trainer.cc and angles.cc. */
import type { NativeJob } from "./job.js";

export interface NativeBatch {
  inputIds: Int32Array;
  cuSeqlens: Int32Array;
  roles: Int8Array;
  adapterOfRole: Int32Array;
  weights: Float64Array;
  advantages: Float64Array;
  oldLogprobs: Float32Array;
  refLogprobs: Float32Array | null;
  kind: "policy" | "sft";
  clipLow: number;
  clipHigh: number;
  beta: number;
  klEstimator: "k1" | "k2" | "k3";
  sequenceRatio: boolean;
  /** 0: none. */
  dualClip: number;
  behaviourLogprobs: Float32Array | null;
  importanceCap: number;
  importanceMask: boolean;
  entropyCoefficient: number;
  temperature: number;
  crossRole: "flow" | "stop" | "exact";
  /** Of each sequence in this step [B]; null where no adapter has dropout. */
  dropoutKeys: BigUint64Array | null;
}

/** Sums over the batch's tokens of weight != 0. */
export interface NativeLoss {
  loss: number;
  kl: number;
  clipHigh: number;
  clipLow: number;
  dualClip: number;
  importanceBounded: number;
  importance: number;
  /** Empty where none was made. */
  entropies: Float32Array;
  logprobs: Float32Array;
  perTokenLoss: Float32Array;
}

export interface NativeStep {
  learningRate: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  weightDecay: number;
  maxGradNorm: number;
}

export interface NativeTrainer {
  /** `discard`: where it fails the buffers are zeroed, not put back to what they were. */
  accumulate(batch: NativeBatch & { discard: boolean }): NativeJob<NativeLoss>;
  /** The batches together are one. norm, ownDot [roles, adapters]; own [adapters]; tokens [roles]. */
  leak(
    batches: NativeBatch[],
  ): NativeJob<{ norm: Float64Array; ownDot: Float64Array; own: Float64Array; tokens: Int32Array }>;
  /** In full training: no rollout on the model begins until releaseWeights(); ERR_BUSY while one is under way. */
  holdWeights(): void;
  releaseWeights(): void;
  /** `limits` of the gradients' norms by adapter; null: none. A norm above, or one that is not finite: nothing is taken. */
  apply(step: NativeStep & { decayVectors: boolean; limits: Float64Array | null }): NativeJob<{
    taken: boolean;
    gradientNorms: Float64Array;
    updateNorms: Float64Array;
    norms: Float64Array;
    /** With moments by role, else empty. */
    roleGradientNorms: Float64Array;
    roleUpdateNorms: Float64Array;
  }>;
  zero(): void;
  /** lossRole -1: of the whole loss; else what is kept of that role's, zero where nothing is. */
  gradient(
    adapter: number,
    name: string,
    lossRole: number,
  ): { a: Float32Array; b: Float32Array } & { value: Float32Array };
  tokenGradient(): Float32Array | null;
  routerGradient(layer: number, block: number): Float32Array;
  norms(): Float64Array;
  /** With trackLossRoles: norm of what each role's loss gave all adapters. */
  roleNorms(adapterOfRole: Int32Array): Float64Array;
  parameters(): { name: string; shape: number[] }[];
  parameter(name: string): Float32Array;
  /** `updates`: how many the values have seen. */
  setParameters(values: Record<string, Float32Array>, updates: number): NativeJob<void>;
  state(): { steps: number[]; first: Float32Array[]; second: Float32Array[] };
  restore(index: number, steps: number, first: Float32Array, second: Float32Array): void;
  /** arenaPeakBytes: the most that was in use at once; arenaBytes: what is held for it. */
  memory(): { arenaBytes: number; arenaPeakBytes: number; kvBytes: number; arenaAllocations: number };
}

/** Inner products of gradients by one module. The gradient of pass p and rollout i of a query of B rollouts is number p * B + i. */
export interface NativeGram {
  name: string;
  /** -1: of the backbone. */
  adapter: number;
  /** By query: [n, n], n = passes * B. */
  within: Float64Array[];
  /** [queries * sums, queries * sums]: number q * sums + k. */
  across: Float64Array;
}

/** The rollouts of one query. `roles` are those of the routes taken. */
export interface NativeAngleQuery {
  inputIds: Int32Array;
  cuSeqlens: Int32Array;
  roles: Int8Array;
  adapterOfRole: Int32Array;
  /** [passes, T] by target: the loss of pass p is minus the sum of weight * log p. */
  weights: Float32Array;
  /** [sums, passes, B]: what a sum takes of each gradient. */
  sums: Float64Array;
}

export interface NativeAngles {
  /** The forward pass of the next query. All of them before the first layer(). */
  forward(): NativeJob<void>;
  /** The modules of the next layer, from the last to the first, then those of no layer; empty: done. */
  layer(): NativeJob<NativeGram[]>;
  /** The most bytes at once so far, of each. */
  memory(): { activations: number; keys: number; gradients: number; sums: number };
  close(): void;
}
