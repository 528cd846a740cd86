/**
 * The public types of the attribution. Equations are those of Li et al., "Reasoning and Tool-use Compete in Agentic RL"
 * (arXiv 2602.00994); Q is the number of questions of a table.
 */

import type { NullDistribution } from "./null-distribution.js";

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
  /**
   * The training seed. Variants are paired by it: with several seeds every one has all six variants of every question. Rows
   * of `base` may leave it out, and then stand beside every seed.
   */
  seed?: string | number | null | undefined;
  /** Questions that share an entity, a database or a paraphrase: they are resampled together. */
  cluster?: string | number | null | undefined;
  /**
   * Which samples were right, 0 or 1 [samples]; they add up to `correct`. For `commonRandomNumbers`: then every row of base, reas,
   * tool and unified has them, sample j with the random stream of the others' sample j, and all rows have one number of samples.
   */
  outcomes?: ArrayLike<number> | null | undefined;
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
  /** [Q]: questions of the same cluster are resampled together. */
  clusters?: ArrayLike<string | number> | undefined;
  /** k for each variant [Q]: arrays or typed arrays of integers in 0..N. */
  correct: Readonly<Record<Variant, ArrayLike<number>>>;
  /**
   * Which samples were right: 0 or 1 [Q, N] row-major for each of base, reas, tool and unified; they add up to `correct`.
   * Only for `commonRandomNumbers`, and with one number of samples for all.
   */
  outcomes?: Readonly<Record<TrainedVariant, ArrayLike<number>>> | undefined;
}

/** The variants that lambda23 is made of. */
export type TrainedVariant = "base" | "reas" | "tool" | "unified";

/** A table of S training seeds as [S, Q] arrays for each variant. */
export interface DenseSeeds extends Omit<DenseAccuracy, "correct" | "outcomes"> {
  /** Names of the seeds [S]; unique. */
  seeds: ArrayLike<string | number>;
  /** k for each variant: S arrays of [Q]; for `base` one array [Q] will do. */
  correct:
    | Readonly<Record<Variant, ArrayLike<ArrayLike<number>>>>
    | Readonly<Record<Exclude<Variant, "base">, ArrayLike<ArrayLike<number>>> & { base: ArrayLike<number> }>;
}

/** How often each variant answers each question. */
export type AccuracyTable = AccuracyRows | DenseAccuracy | DenseSeeds;

/**
 * What intervals are about. `"questions"`: other questions like these (or other clusters) for the same checkpoints; the
 * samples' noise is in the counts that are resampled. `"fixed"`: these very questions sampled again, binomial noise alone.
 */
export type Population = "questions" | "fixed";

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
  /**
   * Draw the bounds of the estimates. Default true. With false the model's own bounds stay (mean23, trueShare, the nulls and
   * `excess`), which are not drawn, and so do the t intervals of several seeds: `model: false` leaves the model's out.
   */
  intervals?: boolean | undefined;
  /** Default `"questions"`. Never both: questions drawn again carry their samples' noise already. */
  population?: Population | undefined;
  /**
   * Fit the random-effects model: mean23, trueShare, the null of the share, calibratedTests. Default true; it takes 30 kept
   * questions or more, and is left out with `commonRandomNumbers`.
   */
  model?: boolean | undefined;
  /** Draws for each question in the null, 10 to 100,000. Default 100; at least 4, and fewer where they would pass 4 million in all. */
  nullDraws?: number | undefined;
  /** Draws of the bootstrap, 100 to 1,000,000. Default 1000. */
  draws?: number | undefined;
  /** Of the draws: an integer from 0 to 2^53 - 1. Default 0. The same seed gives the same bits on any number of threads. */
  seed?: number | undefined;
  /**
   * The variants were sampled with common random numbers: sample j of a question has the same random stream in base, reas,
   * tool and unified. Needs `outcomes`, since counts do not say what the samples have in common (else
   * ERR_TABLE_OUTCOMES). Default false: independent samples.
   */
  commonRandomNumbers?: boolean | undefined;
}

/** Why a figure is not there. */
export type Unavailable =
  | "not-asked-for"
  | "too-few-questions"
  | "too-few-unsaturated"
  | "too-few-clusters"
  | "too-few-samples"
  | "not-converged"
  | "not-identified"
  | "no-effect-seen"
  | "several-seeds";

/** How the random-effects model was fitted. */
export interface ModelReport {
  /** The standard deviation of lambda23 over the questions, the samples' noise taken off. */
  spread23: number;
  /** Of mean23: as the mean of all questions like these (or clusters; of fewer than 10 too small), and of these very ones. */
  standardErrors: Record<Population, number>;
  /** Of the t interval of mean23: fewer than questions, where few of them carry the mean. */
  degreesOfFreedom: number;
  /** Questions fitted: the kept ones. */
  questions: number;
  /** More than 20,000 questions: fitted to 20,000 of them, and one Newton step on all. */
  oneStep: boolean;
  /** Draws for each question in the null. */
  nullDraws: number;
  /**
   * What the fits with and without lambda23 took together, in passes over all questions: Laplace's approximation,
   * expectation propagation, and its derivatives for Newton's steps.
   */
  passes: { laplace: number; propagation: number; information: number };
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
  /** The interval's nominal coverage, 0.95. */
  level: number;
}

/** The share of questions with lambda23 < 0. */
export interface InterferenceShare extends Estimate {
  /**
   * What additive effects alone (lambda23 = 0) would show with the same floors, ceilings, smoothing and ties, and where 95 %
   * of observed shares would then lie. Null where `unavailable.null` says why. With several seeds value and bounds are means
   * of the seeds' own, and so are those of the other nulls and of `excess`.
   */
  null: Estimate | null;
  /** The observed share less the null's, with the error that additive effects would give it. */
  excess: Estimate | null;
  /** The null of the share without the saturated questions. */
  unsaturatedNull: Estimate | null;
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
  /**
   * What the figures speak of: one training of each variant, or the trainings that other seeds would give (tables of several
   * seeds; see {@link Interference.seeds}).
   */
  scope: "these checkpoints" | "training seeds";
  /** What the intervals resample; null with `intervals: false`, and with several seeds (see {@link Interference.seeds}). */
  resampling: Resampling | null;
  /** With several training seeds: each one's own result, and where the variance comes from. Else null. */
  seeds: SeedReport | null;
  /** Samples of the same number share their random stream in the trained variants. */
  commonRandomNumbers: boolean;
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
  /**
   * The share of questions whose underlying lambda23 is negative, the samples' noise taken off: all distributions of lambda23
   * that the counts admit, the other effects being normal, are in the interval. Null where it would be wider than 0.5, with fewer than 20 samples a cell, where the calibrated Wilcoxon test does
   * not tell the table from additive effects, or the model is not there: `unavailable.trueShare` says why.
   */
  trueShare: Estimate | null;
  /**
   * The primary figure: the mean of lambda23 in logits from the binomial random-effects model, without smoothing. Where
   * there is no model its value is that of {@link Interference.smoothedMean23} and it has no bounds, as with fewer than 10 clusters:
   * `unavailable.mean23` says why.
   * With several seeds: the mean of the seeds' mean23, or of their smoothedMean23, without bounds, where one of them has no model
   * (a warning names it).
   */
  mean23: Estimate;
  /**
   * The plain mean of the smoothed lambda23 over the kept, in logits: smoothing and ceilings bias it. Its interval is one of what
   * such tables show on average, the bias included, and not of the mean of lambda23.
   */
  smoothedMean23: Estimate;
  /** How the random-effects model was fitted; null where it was not: `unavailable.model` says why. */
  model: ModelReport | null;
  /** Why figures are null, by name; `mean23`, `overBest`: why they have no bounds. */
  unavailable: {
    model?: Unavailable;
    mean23?: Unavailable;
    trueShare?: Unavailable;
    null?: Unavailable;
    calibratedTests?: Unavailable;
    overBest?: Unavailable;
  };
  /** The median of lambda23, in logits. */
  median23: Estimate;
  /** The median that additive effects alone would show. */
  median23Null: Estimate | null;
  /** How lambda23 would be spread under additive effects alone; null where {@link InterferenceShare.null} is. */
  distribution23Null: NullDistribution | null;
  /** Means of the six effects over the kept, in logits. */
  means: Record<keyof Effects, Estimate>;
  /** How the effects vary together. */
  covariance: EffectCovariance;
  /** On the scale of accuracies s = k / N (the sign of an interaction depends on the scale), means over the kept. */
  contrasts: {
    /** s_unified - s_tool - s_reas + s_base. */
    additive: Estimate;
    /** s_unified - max(s_tool, s_reas); no bounds for fewer than 30 questions (or clusters) that others stand for. */
    overBest: Estimate;
  };
  /**
   * P(lambda23 < 0) [kept] where the four accuracies have independent Jeffreys posteriors Beta(k + 1/2, N - k + 1/2), to
   * 1e-9. Null with `posterior: false`, where a question has more than 32768 samples, and with `commonRandomNumbers`.
   */
  posteriorNegative: Float64Array | null;
  /**
   * The same under two priors, [kept] each: `jeffreys` is posteriorNegative, `uniform` has Beta(k + 1, N - k + 1). Where they
   * differ, the prior decides and not the data: (30, 50, 50, 50) of 50.
   */
  posteriors: { jeffreys: Float64Array; uniform: Float64Array } | null;
  /**
   * The sign test (statistic: the negative count; zeros left out) and Wilcoxon's signed-rank test on lambda23. Naive: the
   * nulls they assume are not what additive effects show under floors, ceilings and ties.
   */
  naiveTests: { sign: TestResult; wilcoxon: TestResult };
  /**
   * The same questions put to the null of additive effects: the mean sign of lambda23, and its mean signed rank among the
   * null's sizes (Wilcoxon's), each less what additive effects show. `statistic` is in standard deviations. With several seeds null: each seed
   * has its own, and over trainings the t interval of mean23 is the test.
   */
  calibratedTests: { sign: TestResult; wilcoxon: TestResult } | null;
  /** What to keep in mind when reading the figures, one sentence each. */
  warnings: string[];
}

/** What the intervals of a result resample. */
export interface Resampling {
  population: Population;
  /** How many questions, or clusters of them, are drawn. */
  units: number;
  /** The units are clusters. */
  clustered: boolean;
  draws: number;
  seed: number;
}

/**
 * Covariances of the six effects, [6, 6] row-major in the order l1, l2, l3, l12, l13, l23. Effects share cells: z_tool enters
 * lambda12 with + and lambda23 with -, so that noise alone correlates them.
 */
export interface EffectCovariance {
  /** Of the effects over the kept questions (divided by kept - 1): the effects' own and the noise. */
  questions: Float64Array;
  /** Of the samples' noise alone, the mean over the questions (delta method). */
  noise: Float64Array;
  /** Correlations of `questions` and of `noise`; 0 where a variance is 0. */
  questionsCorrelation: Float64Array;
  noiseCorrelation: Float64Array;
}

/** Several training seeds. */
export interface SeedReport {
  /** Names of the seeds [S], in the order of first appearance. */
  names: string[];
  /** What each seed's own table says, [S]: their scope is "these checkpoints". */
  results: Interference[];
  /**
   * The intervals of the whole are t intervals with this many degrees of freedom, S - 1. With `sharedBase` their squared half
   * widths have 1.96 squared times the variance that base's counts give all seeds alike (delta method) added.
   */
  degreesOfFreedom: number;
  /** One table of base stands beside every seed. */
  sharedBase: boolean;
  /** Where the variance of one question's lambda23 comes from; null where fewer than two questions are kept in every seed. */
  components: VarianceComponents | null;
}

/**
 * lambda23 of seed s and question q = mean + seed + question + seed x question + noise, by the analysis of variance without
 * replication; the noise is that of the binomial counts (delta method), taken off the residual. Variances, cut at 0.
 */
export interface VarianceComponents {
  /** What a new training seed moves in all questions alike: the mean of lambda23 over many questions keeps it. */
  seed: number;
  /** Between questions. */
  question: number;
  /** What a seed moves in single questions. */
  seedByQuestion: number;
  /** Of the counts. */
  binomial: number;
  /** Questions kept in every seed: those that the components are computed from. */
  questions: number;
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
