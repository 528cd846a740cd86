/**
 * The public types of the attribution. Equations are those of Li et al., "Reasoning and Tool-use Compete in Agentic RL"
 * (arXiv 2602.00994); Q is the number of questions of a table.
 */

/**
 * The six ways to answer a question: the model before RL (`base`); trained by RL on reasoning tokens alone (`reas`), on
 * tool-use tokens alone (`tool`), on all sampled tokens (`unified`); and, at inference only, `base` for the reasoning with
 * `tool` for the tool calls (`hybridTool`), and `reas` for the reasoning with `base` for the tool calls (`hybridReas`).
 */
export type Variant = "base" | "reas" | "tool" | "unified" | "hybridTool" | "hybridReas";

/** The variants in the order of the rows of the design matrix (Eq. 7-8). */
export const variants = ["base", "reas", "tool", "unified", "hybridTool", "hybridReas"] as const satisfies Variant[];

/** A variant as tables may spell it. */
export type VariantName = Variant | "hybrid-tool" | "hybrid-reas";

/** One variant's answers to one question. */
export interface AccuracyRow {
  variant: VariantName;
  /** The question: rows of the same id are joined. A number counts as its decimal digits. */
  id: string | number;
  /** k, how many of the samples were right: an integer in 0..samples. */
  correct: number;
  /** N, how many times the question was sampled: an integer >= 1. */
  samples: number;
  /** The training seed. More than one in a table is refused for now (ERR_TABLE_SEEDS); rows of `base` may leave it out. */
  seed?: string | number | undefined;
  /** Questions that share an entity, a database or a paraphrase. Checked, and not used yet. */
  cluster?: string | number | undefined;
}

/** A table as rows in any order, one for each variant of each question. */
export interface AccuracyRows {
  rows: Iterable<AccuracyRow>;
}

/** A table as one array for each variant, questions in the same order in all of them. */
export interface DenseAccuracy {
  /** N: one number for all, one for each variant, or one for each question [Q]. */
  samples: number | Readonly<Record<Variant, number>> | ArrayLike<number>;
  /** Names for the questions [Q], used in messages; unique. */
  ids?: ArrayLike<string | number> | undefined;
  /** [Q]; checked, and not used yet. */
  clusters?: ArrayLike<string | number> | undefined;
  /** k for each variant [Q]: arrays or typed arrays of integers in 0..N. */
  correct: Readonly<Record<Variant, ArrayLike<number>>>;
}

/** How often each variant answers each question. */
export type AccuracyTable = AccuracyRows | DenseAccuracy;

/**
 * What stands for the logit of k right answers of N: `"haldane"` log((k + 1/2) / (N - k + 1/2)), `"laplace"`
 * log((k + 1) / (N - k + 1)), `"none"` log(k / (N - k)), which is infinite at k = 0 and k = N and then refused.
 */
export type Smoothing = "haldane" | "laplace" | "none";

/** How Wilcoxon's signed-rank test is done (as scipy.stats.wilcoxon does it, two-sided). */
export interface WilcoxonOptions {
  /** `"wilcox"` (default) drops zeros; `"pratt"` ranks them with the others and drops their ranks. */
  zeroMethod?: "wilcox" | "pratt" | undefined;
  /** A continuity correction in the normal approximation. Default false. */
  correction?: boolean | undefined;
  /** `"auto"` (default): exact for up to 50 values without ties or zeros, else the normal approximation. */
  method?: "auto" | "exact" | "asymptotic" | undefined;
}

/** Options of {@link computeInterferenceSync}. */
export interface InterferenceOptions {
  /** Default `"haldane"`. */
  smoothing?: Smoothing | undefined;
  /** Compute {@link Interference.posteriorNegative}. Default true. */
  posterior?: boolean | undefined;
  /** Of the naive test. */
  wilcoxon?: WilcoxonOptions | undefined;
}

/** Options of {@link computeInterference}. */
export interface AsyncInterferenceOptions extends InterferenceOptions {
  /** Gives up with ERR_ABORTED, the signal's reason as its cause. */
  signal?: AbortSignal | undefined;
}

/** A figure with its interval; the bounds are null where no interval is computed. */
export interface Estimate {
  value: number;
  low: number | null;
  high: number | null;
  /** The interval's coverage, 0.95. */
  level: number;
}

/** The share of questions with lambda23 < 0. */
export interface InterferenceShare extends Estimate {
  /** What additive effects alone would show with the same floors, ceilings and ties. Not computed yet. */
  null: Estimate | null;
  /** The same share without the saturated questions; null where all are. */
  unsaturated: Estimate | null;
}

/** A test at its textbook null, two-sided. */
export interface TestResult {
  statistic: number;
  pValue: number;
}

/** The six effects of Eq. 7-8 in logits, [kept] each, in the order of {@link Interference.kept}. */
export interface Effects {
  /** lambda1 = z_base. */
  l1: Float64Array;
  /** lambda2 = z_hybridTool - z_base: tool use. */
  l2: Float64Array;
  /** lambda3 = z_hybridReas - z_base: reasoning. */
  l3: Float64Array;
  /** lambda12 = z_tool - z_hybridTool: training on tool use changes the model's reasoning. */
  l12: Float64Array;
  /** lambda13 = z_reas - z_hybridReas: training on reasoning changes the model's tool use. */
  l13: Float64Array;
  /** lambda23 = z_unified - z_tool - z_reas + z_base: > 0 synergy, < 0 interference, 0 exactly where the counts say so. */
  l23: Float64Array;
}

/** What a table says about interference. Indices count the table's questions from 0 (rows: by first appearance). */
export interface Interference {
  /** What the figures speak of: one training of each variant. */
  scope: "these checkpoints";
  smoothing: Smoothing;
  /** Questions that some variant answered at least once. Everything of length [kept] follows this order. */
  kept: Int32Array;
  /** Questions that no variant ever answered. */
  dropped: Int32Array;
  /** Kept questions with k = 0 or k = N in all of base, reas, tool and unified: their lambda23 is made by the smoothing. */
  saturated: Int32Array;
  lambda: Effects;
  /** Signs of lambda23 among the kept, decided in integers. */
  counts: { negative: number; zero: number; positive: number };
  /** negative / kept; zeros stay in the denominator. */
  interferenceShare: InterferenceShare;
  /** The share of questions whose underlying lambda23 is negative. Not computed yet. */
  trueShare: Estimate | null;
  /** The mean of lambda23, in logits. */
  mean23: Estimate;
  /** The median of lambda23, in logits. */
  median23: Estimate;
  /** On the scale of accuracies s = k / N (the sign of an interaction depends on the scale), means over the kept. */
  contrasts: {
    /** s_unified - s_tool - s_reas + s_base. */
    additive: Estimate;
    /** s_unified - max(s_tool, s_reas). */
    overBest: Estimate;
  };
  /**
   * P(lambda23 < 0) [kept] where the four accuracies have independent Jeffreys posteriors Beta(k + 1/2, N - k + 1/2), to
   * 1e-9. Null with `posterior: false`, or where a question has more than 32768 samples.
   */
  posteriorNegative: Float64Array | null;
  /**
   * The sign test (statistic: the negative count; zeros left out) and Wilcoxon's signed-rank test on lambda23. Naive: the
   * nulls they assume are not what additive effects show under floors, ceilings and ties.
   */
  naiveTests: { sign: TestResult; wilcoxon: TestResult };
  /** What to keep in mind when reading the figures, one sentence each. */
  warnings: string[];
}

/** A design: one row of x for each variant, one column for each effect. */
export interface Design {
  /** Names of the rows. */
  variants: readonly string[];
  /** Names of the columns. */
  columns: readonly string[];
  /** [variants, columns], nested or flat row-major. */
  x: ArrayLike<ArrayLike<number>> | ArrayLike<number>;
}

/** Options of {@link fitEffects}. */
export interface FitOptions {
  /** A column whose part that is new to the others is below this, relative to the largest, counts as dependent. Default 1e-10. */
  tolerance?: number | undefined;
}

/** Least-squares effects of Q questions. */
export interface EffectsFit {
  columns: readonly string[];
  /** Q. */
  questions: number;
  /** [Q, columns], row-major: for one question the effects in the order of `columns`. */
  lambda: Float64Array;
  /** |x lambda - z|^2 [Q]. */
  residualSumOfSquares: Float64Array;
  /** variants - columns: 0 where the design is solved exactly. */
  degreesOfFreedom: number;
}
