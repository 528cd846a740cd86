/** What native/bindings/attribution.cc and attribution_model.cc export. */

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
  /** Shares of the null's draws: `below` and `above` 0 in bins of `width` logits that touch there. */
  distribution: { width: number; zero: number; below: Float64Array; above: Float64Array };
  nullDraws: number;
}

export interface AttributionNative {
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
