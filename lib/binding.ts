/**
 * The native surface: finds, loads and types the addon. It is loaded at the first use of `native`, not at import, so
 * that a missing binary is an error of the call that needs it and `rolegrad doctor` can still speak.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import nodeGypBuild from "node-gyp-build";
import { fail, RolegradError } from "./errors.js";
import type { RolloutStats } from "./rollout/stats.js";

// ---- system ----

interface SystemNative {
  /** The class that native errors are made of. */
  setErrorClass(errorClass: typeof RolegradError): void;
  cpuInfo(): CpuInfo;
}

/** What the engine sees of the CPU. */
export interface CpuInfo {
  /** The instruction sets found, as far as CPU and operating system both support them. */
  instructionSets: string[];
  /** The kernels in use: "avx512", "avx2", "neon"; "" where none of them, or not the one that ROLEGRAD_ISA names, can run. */
  kernels: string;
  /** What models can be loaded with, on device "cpu". */
  precisions: string[];
  /** Of the addon's results; see lib/numerics.ts. */
  numericsVersion: number;
  /** Threads that the engine computes with: affinity and the cgroup's quota are taken into account. */
  threads: number;
}

// ---- attribution ----

/** A checked table: `correct` [6, questions]; `samples` of variant v and question q at v * variantStride + q * questionStride. */
export interface CountArguments {
  questions: number;
  correct: Int32Array;
  samples: Int32Array;
  variantStride: number;
  questionStride: number;
}

/** Choices by number: zeroMethod wilcox, pratt; method auto, exact, asymptotic. */
export interface WilcoxonArguments {
  zeroMethod: number;
  correction: boolean;
  method: number;
}

/** population by number: questions, fixed; `clusters` [questions], numbers from 0, or empty. */
export interface BootstrapArguments {
  population: number;
  draws: number;
  seed: number;
  clusters: Int32Array;
}

/** smoothing by number: haldane, laplace, none. `outcomes` [questions, samples], bits in the order base, reas, tool, unified, or empty. */
export interface InterferenceArguments {
  smoothing: number;
  posterior: boolean;
  wilcoxon: WilcoxonArguments;
  intervals: BootstrapArguments | null;
  outcomes: Uint8Array;
}

interface SignCounts {
  negative: number;
  zero: number;
  positive: number;
}

interface TestValues {
  statistic: number;
  pValue: number;
}

/** [low, high] each; `means` [6, 2]. NaN where there is none. */
export interface BootstrapValues {
  share: Float64Array;
  unsaturated: Float64Array;
  median23: Float64Array;
  additive: Float64Array;
  overBest: Float64Array;
  means: Float64Array;
}

export interface InterferenceValues {
  kept: Int32Array;
  dropped: Int32Array;
  saturated: Int32Array;
  lambda: Record<"l1" | "l2" | "l3" | "l12" | "l13" | "l23", Float64Array>;
  counts: SignCounts;
  /** Among the kept that are not saturated. */
  unsaturated: SignCounts;
  mean23: number;
  median23: number;
  additive: number;
  overBest: number;
  posteriorNegative: Float64Array | null;
  posteriorUniform: Float64Array | null;
  /** Of l1, l2, l3, l12, l13, l23. */
  means: Float64Array;
  /** [6, 6] each. */
  covarianceQuestions: Float64Array;
  covarianceNoise: Float64Array;
  intervals: BootstrapValues | null;
  sign: TestValues;
  wilcoxon: TestValues;
}

/** Of the random-effects model: `questions` are those in use, `clusters` one number for each of them or empty. */
export interface ModelArguments {
  questions: Int32Array;
  smoothing: number;
  seed: number;
  nullDraws: number;
  level: number;
  clusters: Int32Array;
}

/** A statistic, what additive effects show in its place, and the standard deviation of the difference. */
export interface NullValues {
  observed: number;
  value: number;
  error: number;
}

export interface ModelValues {
  converged: boolean;
  oneStep: boolean;
  passes: { laplace: number; propagation: number; information: number };
  mean23: number;
  /** Standard deviation over the questions. */
  spread23: number;
  questionsError: number;
  fixedError: number;
  /** Of both errors. */
  degreesOfFreedom: number;
  trueShare: { value: number; low: number; high: number };
  share: NullValues;
  unsaturated: NullValues;
  median: NullValues;
  sign: NullValues;
  ranks: NullValues;
  nullDraws: number;
}

interface AttributionNative {
  interferenceModel(table: CountArguments, options: ModelArguments): ModelValues;
  interferenceModelAsync(
    table: CountArguments,
    options: ModelArguments,
  ): { promise: Promise<ModelValues>; abort: () => void };
  interference(table: CountArguments, options: InterferenceArguments): InterferenceValues;
  interferenceAsync(
    table: CountArguments,
    options: InterferenceArguments,
  ): { promise: Promise<InterferenceValues>; abort: () => void };
  /** `group` [columns]: -1 identifiable, else the number of its group. The last two are null below full rank. */
  leastSquares(
    x: Float64Array,
    rows: number,
    columns: number,
    z: Float64Array,
    tolerance: number,
  ): { rank: number; group: Int32Array; lambda: Float64Array | null; residual: Float64Array | null };
  signTest(negative: number, positive: number): TestValues;
  wilcoxon(x: Float64Array, options: WilcoxonArguments): TestValues;
}

// ---- engine ----

/** Work on the engine's stream; `abort` asks it to end early. */
export interface NativeJob<T> {
  promise: Promise<T>;
  abort: () => void;
}

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

export interface NativeRouter {
  base: number;
  spans: { open: string; close: string; role: number; call?: boolean }[];
}

/** What a generator tells of one of its sequences. "token" only where it was asked for. */
export type NativeGeneratorEvent =
  | { id: number; kind: "stop" | "length" }
  | { id: number; kind: "call"; span: number; text: Uint8Array }
  | { id: number; kind: "token"; token: number; role: number; logprob: number };

export interface NativeGenerator {
  add(
    inputIds: Int32Array,
    request: {
      temperature: number;
      topP: number;
      topK: number;
      seed: bigint;
      stream: bigint;
      maxNewTokens: number;
      stopIds: Int32Array;
    },
  ): number;
  append(id: number, ids: Int32Array): void;
  /**
   * Until there is something to tell, or for `steps` steps. With `tell`, which gets the events as they happen and must not throw, it goes on; the
   * promise has those that were not told. Everything else here may be called meanwhile, and counts from the next step on.
   */
  run(steps: number, tell?: (events: NativeGeneratorEvent[]) => void): NativeJob<NativeGeneratorEvent[]>;
  interrupt(): void;
  /** `routing`: with shuffleRoutes. */
  take(id: number): {
    ids: Int32Array;
    roles: Int8Array;
    sampled: Uint8Array;
    logprobs: Float32Array;
    routing?: Int8Array;
  };
  runnable(): number;
  stats(): RolloutStats;
  /** Gives the cache back, once a run that is under way has ended. */
  close(): void;
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

interface EngineNative {
  loadModel(
    config: object,
    files: string[],
    tensors: { name: string; file: number; dtype: string; shape: number[]; begin: number; end: number }[],
    device: string,
    f32: boolean,
    added: { fresh: Int32Array; known: number } | null,
    precision: string,
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

// ---- measurements ----

/** One routed linear with random numbers; roles alternate in spans of rows. `close()` gives its memory back. */
export interface NativeLinearMeasurement {
  /** Elements that the engine computed, and what a scalar chain of FMAs gives for each. */
  verify(): NativeJob<{ name: string; got: Float64Array; expected: Float64Array }[]>;
  /** Seconds a call [runs]; a run repeats the call until it lasts `least` seconds. */
  time(
    what: "plain" | "forward" | "plainBackward" | "forwardBackward",
    runs: number,
    least: number,
  ): NativeJob<Float64Array>;
  close(): void;
}

export interface LinearMeasurementOptions {
  /** Rows, inputs, outputs. */
  t: number;
  k: number;
  n: number;
  span: number;
  rank: number;
  roles: number;
  bf16: boolean;
  precision: string;
}

interface MeasureNative {
  /** The engine computes with at most n threads from now on; no more than it has. */
  limitThreads(n: number): void;
  measureFma(): NativeJob<{ isa: string; threads: number; gflops: number }>;
  /** GB/s of reading a buffer of this size again and again. */
  measureRead(bytes: number): NativeJob<number>;
  /** Blocks of backend memory asked for since the process began, and the bytes held now. */
  memoryUse(): { allocations: number; bytes: number };
  /** Gives memory that the allocator keeps back to the system. */
  trimMemory(): void;
  LinearMeasurement: new (options: LinearMeasurementOptions) => NativeLinearMeasurement;
}

/** There where ROLEGRAD_TEST_HOOKS is set when the addon is loaded. */
interface TestNative {
  /** The n-th allocation of backend memory, or the n-th task of the executor, from now on fails once; 0: none does. */
  armFault?(kind: "allocation" | "task", n: number): void;
}

/** Everything the addon exports; each noun adds its own interface in its own section above. */
export interface Native extends SystemNative, AttributionNative, EngineNative, MeasureNative, TestNative {}

// ---- loading ----

/** The package's root: dist/binding.js and lib/binding.ts both lie one folder below it. */
export const packageRoot = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");

/** The smallest Node version that "engines" in package.json allows. */
const minimumNode = "20.19.0";

/** The package's own version. */
export function packageVersion(): string {
  const manifest = JSON.parse(readFileSync(path.join(packageRoot, "package.json"), "utf8")) as { version: string };
  return manifest.version;
}

/** Throws ERR_NODE_VERSION when Node is older than {@link minimumNode}. */
export function checkNodeVersion(found: string = process.versions.node): void {
  const [needed, have] = [minimumNode, found].map((version) => version.split(".").map(Number));
  for (let i = 0; i < 3; i++) {
    const difference = (have?.[i] ?? 0) - (needed?.[i] ?? 0);
    if (difference > 0) return;
    if (difference < 0) fail("ERR_NODE_VERSION", `Expected Node ${minimumNode} or newer but received ${found}`);
  }
}

/** The addon's file. Throws ERR_NO_BINARY where there is neither a prebuild for this platform nor a local build. */
export function nativeFile(): string {
  try {
    return nodeGypBuild.path(packageRoot);
  } catch (cause) {
    fail(
      "ERR_NO_BINARY",
      `Expected a rolegrad binary for ${process.platform}-${process.arch} but found neither a prebuild nor a local build ` +
        `in ${packageRoot}. Build it with: npx rolegrad build (needs CMake and a C++20 compiler)`,
      cause,
    );
  }
}

let loaded: Native | undefined;

function load(): Native {
  if (loaded !== undefined) return loaded;
  checkNodeVersion();
  const file = nativeFile();
  let addon: Native;
  try {
    addon = nodeGypBuild(packageRoot) as Native;
  } catch (cause) {
    fail(
      "ERR_BINARY_LOAD",
      `${file} cannot be loaded on this system: ${(cause as Error).message}. ` +
        "Build one for it with: npx rolegrad build (needs CMake and a C++20 compiler)",
      cause,
    );
  }
  addon.setErrorClass(RolegradError);
  return (loaded = addon);
}

/** The addon, loaded when first used. Throws ERR_NODE_VERSION, ERR_NO_BINARY or ERR_BINARY_LOAD. */
export const native: Native = new Proxy({} as Native, {
  get: (_target, name): unknown => Reflect.get(load(), name),
  has: (_target, name) => Reflect.has(load(), name),
});
