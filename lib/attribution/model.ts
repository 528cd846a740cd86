// The random-effects model: the primary mean, the null of the share, calibrated tests, the deconvolved share.
import { type CountArguments, type ModelArguments, type ModelValues, type NullValues } from "../binding.js";
import type { CountTable } from "./cells.js";
import { fewestClusters, fewestQuestions, fewestSamples } from "./limits.js";
import { level } from "./resampling.js";
import { studentBelow, studentQuantile } from "./student.js";
import type { Estimate, Interference, InterferenceOptions, Smoothing, TestResult } from "./types.js";
import { checkSeed, choice, flag, integerFrom } from "./values.js";

/** A wider interval of the true share says nothing. */
const widestShare = 0.5;
/** From so many degrees of freedom on, t is the normal distribution to 1e-3. */
const manyDegrees = 4000;

export interface ModelChoice {
  nullDraws: number;
  seed: number;
  fixed: boolean;
}

/** The checked options of the model, or null where it is not wanted. Throws ERR_INVALID_ARGUMENT. */
export function modelChoice(options: InterferenceOptions): ModelChoice | null {
  const { model = true, nullDraws = 100, seed = 0, population = "questions", commonRandomNumbers = false } = options;
  integerFrom(10, 100_000, nullDraws, "options.nullDraws");
  checkSeed(seed);
  const wanted = flag(model, "options.model");
  const fixed = choice(["questions", "fixed"], population, "options.population") === 1;
  return wanted && !commonRandomNumbers ? { nullDraws, seed, fixed } : null;
}

/** What the native model takes for the kept questions of a table; null where those with something to say are too few. */
export function modelArguments(
  model: ModelChoice | null,
  counts: CountTable,
  { kept, saturated }: Pick<Interference, "kept" | "saturated">,
  smoothing: Smoothing,
): { table: CountArguments; options: ModelArguments } | null {
  if (model === null || kept.length - saturated.length < fewestQuestions) return null;
  const { questions, correct, samples, variantStride, questionStride } = counts;
  const numbers = new Map<number, number>();
  const clusters = Int32Array.from(counts.clusters.length === 0 ? [] : kept, (q) => {
    const cluster = counts.clusters[q] as number;
    const number = numbers.get(cluster) ?? numbers.size;
    numbers.set(cluster, number);
    return number;
  });
  return {
    table: { questions, correct, samples, variantStride, questionStride },
    options: {
      questions: kept,
      smoothing: ["haldane", "laplace", "none"].indexOf(smoothing),
      seed: model.seed,
      nullDraws: model.nullDraws,
      level,
      clusters,
    },
  };
}

/** Puts what the model says into a result; `values` null: why it does not say anything. */
export function applyModel(
  result: Interference,
  values: ModelValues | null,
  choice: ModelChoice | null,
  given: ModelArguments | null,
  counts: CountTable,
): void {
  if (values === null || given === null || choice === null || !values.converged) {
    const few = result.kept.length < fewestQuestions ? "too-few-questions" : "too-few-unsaturated";
    const reason = choice === null ? "not-asked-for" : values === null || given === null ? few : "not-converged";
    for (const name of ["model", "mean23", "trueShare", "null", "calibratedTests"] as const)
      result.unavailable[name] = reason;
    return;
  }
  const degreesOfFreedom = Math.max(1, Math.min(Math.floor(values.degreesOfFreedom), manyDegrees));
  const quantile = studentQuantile((1 + level) / 2, degreesOfFreedom);
  const error = choice.fixed ? values.fixedError : values.questionsError;
  const clusters = clustersOf(given);
  const tooFew = clusters !== null && clusters < fewestClusters;
  const fewSamples = counts.samples.reduce((sum, n) => sum + n, 0) < fewestSamples * counts.samples.length;
  if (fewSamples) result.unavailable.mean23 = "too-few-samples";
  result.mean23 =
    fewSamples || (tooFew && !choice.fixed)
      ? { value: values.mean23, low: null, high: null, level }
      : around(values.mean23, quantile * error);
  result.model = {
    spread23: values.spread23,
    standardErrors: { questions: values.questionsError, fixed: values.fixedError },
    degreesOfFreedom,
    questions: given.questions.length,
    oneStep: values.oneStep,
    nullDraws: values.nullDraws,
    passes: values.passes,
  };
  if (tooFew) {
    if (!choice.fixed) result.unavailable.mean23 = "too-few-clusters";
    for (const name of ["trueShare", "null", "calibratedTests"] as const) result.unavailable[name] = "too-few-clusters";
    return;
  }
  const degrees = clusters === null ? null : Math.min(clusters - 1, manyDegrees);
  const wide = studentQuantile((1 + level) / 2, degrees ?? manyDegrees);
  const share = { low: 0, high: 1 };
  const band = (statistic: NullValues, bounds?: { low: number; high: number }): Estimate =>
    around(statistic.value, wide * statistic.error, bounds);
  result.interferenceShare.null = band(values.share, share);
  result.interferenceShare.excess = around(
    result.interferenceShare.value - values.share.value,
    wide * values.share.error,
  );
  if (result.interferenceShare.unsaturated !== null && Number.isFinite(values.unsaturated.error))
    result.interferenceShare.unsaturatedNull = band(values.unsaturated, share);
  result.median23Null = band(values.median);
  result.distribution23Null = values.distribution;
  result.calibratedTests = { sign: test(values.sign, degrees), wilcoxon: test(values.ranks, degrees) };

  const { value, low, high } = values.trueShare;
  // Where additive effects fit as well, "negative" would be a matter of rounding.
  const additive = result.calibratedTests.wilcoxon.pValue >= 1 - level;
  if (additive) result.unavailable.trueShare = "no-effect-seen";
  else if (fewSamples) result.unavailable.trueShare = "too-few-samples";
  else if (high - low > widestShare) result.unavailable.trueShare = "not-identified";
  else result.trueShare = { value, low, high, level };
}

function around(value: number, half: number, { low = -Infinity, high = Infinity } = {}): Estimate {
  return { value, low: Math.max(low, value - half), high: Math.min(high, value + half), level };
}

/** Clusters of several questions; null where each question is its own. */
function clustersOf({ clusters, questions }: ModelArguments): number | null {
  let most = -1;
  for (const cluster of clusters) most = Math.max(most, cluster);
  return most < 0 || most + 1 === questions.length ? null : most + 1;
}

/** Two-sided normal test of a statistic beside its null, or Student's with these degrees of freedom. */
function test({ observed, value, error }: NullValues, degrees: number | null): TestResult {
  const statistic = error > 0 ? (observed - value) / error : 0;
  const normal = twoSided(statistic);
  // t has the longer tails: where 1 - P has lost its digits the normal one is left.
  const pValue = degrees === null ? normal : Math.max(normal, 2 * (1 - studentBelow(Math.abs(statistic), degrees)));
  return { statistic, pValue };
}

/** P(|Z| > |z|): erfc(|z| / sqrt 2) by its series, and by its continued fraction further out. */
function twoSided(z: number): number {
  const x = Math.abs(z) / Math.SQRT2;
  if (x < 2) {
    let term = x;
    let sum = x;
    for (let i = 1; term > sum * 1e-17; i++) sum += term *= (2 * x * x) / (2 * i + 1);
    return 1 - (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  }
  let fraction = x;
  for (let i = 120; i >= 1; i--) fraction = x + i / 2 / fraction;
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / fraction;
}
