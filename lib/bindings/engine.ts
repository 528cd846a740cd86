/** Models, adapters and the constructors of the engine's classes. */
import type { NativeGenerator, NativeRouter } from "./generation.js";
import type { NativeJob } from "./job.js";
import type { NativeAngleQuery, NativeAngles, NativeStep, NativeTrainer } from "./training.js";

export interface NativeModel {
  forward(
    inputIds: Int32Array,
    cuSeqlens: Int32Array,
    roles: Int8Array | null,
    adapters: NativeAdapters | null,
    adapterOfRole: Int32Array,
    temperature: number,
    logits: boolean,
    wanted: Uint8Array | null,
  ): NativeJob<{ logprobs: Float32Array; logits?: Float32Array }>;
  info(): { backend: string; weightBytes: number; tensors: string[] };
  /** Of full training, that the weights have seen. */
  updates(): number;
  close(): void;
}

export interface NativeAdapterSpec {
  name: string;
  rsLora: boolean;
  dropout: number;
  /** Soft routing: so many experts share each module's rank; 0: hard routing. */
  experts: number;
  /** Those that carry a pair. */
  modules: { module: string; rank: number; alpha: number }[];
}

export interface NativeAdapters {
  get(adapter: number, module: string): { a: Float32Array; b: Float32Array };
  set(adapter: number, module: string, a: Float32Array, b: Float32Array): void;
  norm(adapter: number): number;
  /** Rows of trained tokens, [n, H] or with a head of its own [2 n, H], embedding first; null: none. */
  tokens(): Float32Array | null;
  setTokens(rows: Float32Array): void;
  /** Soft routing: [experts, H]; block 0 attention, 1 mlp. */
  router(layer: number, block: number): Float32Array;
  setRouter(layer: number, block: number, weight: Float32Array): void;
}

export interface NativeLinear {
  device: string;
  x: Float32Array;
  w: Float32Array;
  bias?: Float32Array | undefined;
  roles: Int32Array;
  cuSeqlens?: Int32Array | undefined;
  adapters: { a: Float32Array; b: Float32Array; scale: number }[];
}

export interface EngineNative {
  loadModel(
    config: object,
    files: string[],
    tensors: { name: string; file: number; dtype: string; shape: number[]; begin: number; end: number }[],
    device: string,
    f32: boolean,
    added: { fresh: Int32Array; known: number } | null,
    precision: string,
    /** Of device "cuda": the path of its library, or "". */
    library: string,
  ): NativeJob<NativeModel>;
  /** `tokens`: ids whose rows are trained; they begin as the mean of the first `mean` rows (0: as they are). */
  Adapters: new (
    model: NativeModel,
    adapters: NativeAdapterSpec[],
    tokens: Int32Array | null,
    mean: number,
  ) => NativeAdapters;
  /** Without adapters: full training. */
  Trainer: new (
    model: NativeModel,
    adapters: NativeAdapters | null,
    reference: NativeModel | null,
    trackLossRoles: boolean,
    gradientCheckpointing: boolean,
    /** So many roles have moments of their own for the only adapter; 0: each adapter has one set. */
    momentRoles: number,
  ) => NativeTrainer;
  Angles: new (
    model: NativeModel,
    adapters: NativeAdapters | null,
    queries: NativeAngleQuery[],
    options: {
      /** The pairs of the adapters; else the backbone's matrices, with `vectors` biases and norms, with `tables` embedding, head, final norm. */
      adapters: boolean;
      vectors: boolean;
      tables: boolean;
      /** crossRole "stop". */
      stop: boolean;
      passes: number;
      sums: number;
      temperature: number;
    },
  ) => NativeAngles;
  Generator: new (
    writers: { model: NativeModel; adapters: NativeAdapters | null; adapterOfRole: Int32Array }[],
    options: {
      maxSequences: number;
      maxLength: number;
      /** Default: (maxSequences + 1) * maxLength. */
      cacheTokens?: number;
      chunk?: number;
      tokenBytes: readonly Uint8Array[];
      router: NativeRouter;
      /** Of several writers: which one a role's predictions are; each has a cache of its own unless it is shared. */
      writerOfRole?: Int32Array;
      sharedCache?: boolean;
      shuffleRoutes?: boolean;
      /** Events for every token. */
      tellTokens?: boolean;
    },
  ) => NativeGenerator;
  annotateRoles(router: NativeRouter, tokenBytes: readonly Uint8Array[], sampled: Uint8Array): Int8Array;
  adamwStep(
    parameters: Float32Array,
    gradients: Float64Array,
    first: Float32Array,
    second: Float32Array,
    step: NativeStep & { step: number; sumOfSquares: number },
  ): NativeJob<{ parameters: Float32Array; first: Float32Array; second: Float32Array }>;
  loraLinearForward(options: NativeLinear): NativeJob<Float32Array>;
  loraLinearBackward(
    options: NativeLinear & { dy: Float32Array },
  ): NativeJob<{ dx: Float32Array; adapters: { a: Float32Array; b: Float32Array }[] }>;
}
