import type { BootstrapArguments, BootstrapValues, InterferenceValues } from "../binding.js";
import { fail } from "../errors.js";
import type { CountTable } from "./cells.js";
import { fewestQuestions } from "./limits.js";
import type { EffectCovariance, Effects, Estimate, InterferenceOptions, Population, Resampling } from "./types.js";
import { studentQuantile } from "./student.js";
import { checkSeed, choice, flag, integerFrom } from "./values.js";

const populations: readonly Population[] = ["questions", "fixed"];
export const effectNames = ["l1", "l2", "l3", "l12", "l13", "l23"] as const satisfies readonly (keyof Effects)[];
export const level = 0.95;

/** The checked options of the intervals, or null where none are asked for. Throws ERR_INVALID_ARGUMENT, ERR_INVALID_SEED. */
export function bootstrapArguments(options: InterferenceOptions): Omit<BootstrapArguments, "clusters"> | null {
  const { intervals = true, population = "questions", draws = 1000, seed = 0, smoothing } = options;
  const chosen = choice(populations, population, "options.population");
  integerFrom(100, 1_000_000, draws, "options.draws");
  checkSeed(seed);
  if (!flag(intervals, "options.intervals")) return null;
  if (population === "fixed" && smoothing === "none")
    fail(
      "ERR_INVALID_ARGUMENT",
      'Expected smoothing "haldane" or "laplace" for population "fixed": counts that are drawn again may be 0 or N',
    );
  return { population: chosen, draws, seed };
}

/** An estimate with the bounds of a [low, high] pair at `at`, null where there is none. */
export function estimate(value: number, bounds?: Float64Array, at = 0): Estimate {
  const [low, high] = [bounds?.[2 * at] ?? NaN, bounds?.[2 * at + 1] ?? NaN];
  const none = Number.isNaN(low) || Number.isNaN(high);
  return { value, low: none ? null : low, high: none ? null : high, level };
}

/** Estimates of the six means. */
export function meanEstimates(
  means: ArrayLike<number>,
  bounds: BootstrapValues | null,
): Record<keyof Effects, Estimate> {
  const entries = effectNames.map((name, i) => [name, estimate(means[i] as number, bounds?.means, i)] as const);
  return Object.fromEntries(entries) as Record<keyof Effects, Estimate>;
}

/** The 97.5 % point of the normal distribution. */
export const normalQuantile = 1.959963984540054;

/**
 * The drawn bounds of values that are means over n questions or clusters, wider by t_(n-1) / 1.96 sqrt(n / (n - 1)): their percentiles
 * have the spread of a sample about its own mean, and a normal distribution's tails, which for 5 questions covers 83 % and not 95.
 * Bounds that are not percentiles of draws over `questions` are as they were, but for signs and order of these questions with paired
 * samples, which are refused: in simulations under additivity bounds of the share covered 92.5 %, those of the median 97.5 %.
 * The larger of two means is not normal where the two are near, nor is it unbiased: below 30 units `overBest` has no bounds, which covered
 * 91 to 94 %.
 */
export function widened(
  values: InterferenceValues,
  resampling: Resampling | null,
  paired: boolean,
): BootstrapValues | null {
  const bounds = values.intervals;
  const none = Float64Array.of(NaN, NaN);
  if (bounds !== null && resampling?.population === "fixed" && paired)
    return { ...bounds, share: none, unsaturated: none, median23: none };
  if (bounds !== null && resampling?.population === "fixed")
    return {
      ...bounds,
      share: signsAgain(bounds.share, values.counts),
      unsaturated: signsAgain(bounds.unsaturated, values.unsaturated),
    };
  if (bounds === null || resampling === null || resampling.population !== "questions") return bounds;
  // One question says nothing of others; a share of 0 or 1 of one still has Wilson's interval.
  if (resampling.units < 2)
    return { ...bounds, means: bounds.means.map(() => NaN), additive: none, overBest: none, median23: none };
  const { units, clustered } = resampling;
  const factor =
    (studentQuantile((1 + level) / 2, Math.min(units - 1, 4000)) / normalQuantile) * Math.sqrt(units / (units - 1));
  const about = (pairs: Float64Array, centres: ArrayLike<number>, most = Infinity): Float64Array =>
    pairs.map((bound, i) => {
      const centre = centres[i >> 1] as number;
      return Math.min(most, Math.max(most === 1 ? 0 : -Infinity, centre + factor * (bound - centre)));
    });
  // A share of 0 or 1 has Wilson's interval, of clusters too.
  const share = (pairs: Float64Array, counts: InterferenceValues["counts"]): Float64Array => {
    const centre = shareOf(counts);
    return clustered && centre[0] !== 0 && centre[0] !== 1 ? about(pairs, centre, 1) : pairs;
  };
  return {
    ...bounds,
    means: about(bounds.means, values.means),
    additive: about(bounds.additive, [values.additive]),
    overBest: units < fewestQuestions ? none : about(bounds.overBest, [values.overBest]),
    share: share(bounds.share, values.counts),
    unsaturated: share(bounds.unsaturated, values.unsaturated),
    median23: clustered ? about(bounds.median23, [values.median23]) : bounds.median23,
  };
}

const shareOf = ({ negative, zero, positive }: InterferenceValues["counts"]): number[] => [
  negative / (negative + zero + positive),
];

/**
 * Bounds of a share of these very questions, sampled again. A sign that is drawn about its own estimate is surer than it is about the truth: where
 * lambda23 is 0, Phi(e) (1 - Phi(e)) is 1/6 on average, e normal, and not 1/4. Drawn about an estimate that is itself uncertain by as much again it is
 * 1/4 - asin(1/3) / (2 pi) = .196: wider by sqrt(.196 / (1/6)).
 */
function signsAgain(pairs: Float64Array, counts: InterferenceValues["counts"]): Float64Array {
  const [centre] = shareOf(counts) as [number];
  const factor = Math.sqrt((1 / 4 - Math.asin(1 / 3) / (2 * Math.PI)) * 6);
  return pairs.map((bound) => Math.min(1, Math.max(0, centre + factor * (bound - centre))));
}

/** What a result says of its intervals. */
export function describeResampling(
  options: BootstrapArguments | null,
  table: CountTable,
  kept: Int32Array,
): Resampling | null {
  if (options === null) return null;
  const { population, draws, seed, clusters } = options;
  const clustered = population === 0 && clusters.length > 0;
  const units = clustered ? new Set(Array.from(kept, (q) => table.clusters[q])).size : kept.length;
  return { population: populations[population] as Population, units, clustered, draws, seed };
}

export function effectCovariance(questions: Float64Array, noise: Float64Array): EffectCovariance {
  return {
    questions,
    noise,
    questionsCorrelation: correlation(questions),
    noiseCorrelation: correlation(noise),
  };
}

/** [6, 6] from [6, 6]; 0 beside a variance of 0. */
function correlation(covariance: Float64Array): Float64Array {
  const size = effectNames.length;
  return covariance.map((value, i) => {
    const a = covariance[Math.floor(i / size) * (size + 1)] as number;
    const b = covariance[(i % size) * (size + 1)] as number;
    return a > 0 && b > 0 ? value / Math.sqrt(a * b) : 0;
  });
}
