import type { CountTable } from "./cells.js";
import { type Interference, type Unavailable, type Variant, variants } from "./types.js";

const trained: readonly Variant[] = ["base", "reas", "tool", "unified"];

/** What to keep in mind with these figures, one sentence each; the ones that always hold come last. */
export function warnings(result: Interference, counts: CountTable, posteriorAsked: boolean): string[] {
  const { kept, dropped, saturated } = result;
  const of = (n: number, all: number): string => `${n} of ${all} questions (${((100 * n) / all).toFixed(1)} %)`;
  const list: string[] = [];
  if (dropped.length > 0)
    list.push(`${of(dropped.length, counts.questions)} were never answered by any variant and are dropped.`);
  if (saturated.length > 0)
    list.push(
      `${of(saturated.length, kept.length)} are at a floor or ceiling in base, reas, tool and unified alike: smoothing, not ` +
        "data, decides their lambda23.",
    );
  if (result.counts.zero > 0)
    list.push(
      `${of(result.counts.zero, kept.length)} have lambda23 of exactly 0; they count in the denominator of the share.`,
    );
  const uneven = unevenQuestions(result, counts);
  if (uneven > 0)
    list.push(
      `${of(uneven, kept.length)} have different numbers of samples in base, reas, tool and unified: smoothing pulls these ` +
        "accuracies by different amounts.",
    );
  if (posteriorAsked && result.posteriorNegative === null)
    list.push(
      result.commonRandomNumbers
        ? "posteriorNegative takes the variants' samples as independent: not computed where they share random numbers."
        : "posteriorNegative is not computed for more than 32768 samples.",
    );
  const { posteriors, resampling } = result;
  if (posteriors !== null) {
    const { jeffreys, uniform } = posteriors;
    const moved = jeffreys.reduce((n, p, i) => n + (Math.abs(p - (uniform[i] as number)) > 0.1 ? 1 : 0), 0);
    if (moved > 0)
      list.push(
        `${of(moved, kept.length)} have a posterior of lambda23 < 0 that moves by more than 0.1 from one prior to the other.`,
      );
  }
  if (resampling?.clustered === true && resampling.units === 1)
    list.push("All questions are of one cluster: how others would differ is not in them, and no intervals are drawn.");
  else if (resampling?.population === "questions" && resampling.units === 1)
    list.push(
      "One question alone was answered: how others would differ is not in it, and only the share has an interval.",
    );
  else if (resampling?.population === "questions" && resampling.units < 20)
    list.push(
      `Intervals resample only ${resampling.units} ${resampling.clustered ? "clusters" : "questions"}: they may come out too narrow.`,
    );
  list.push(...missingWarnings(result));
  if (result.smoothedMean23.low !== null)
    list.push(
      "The intervals of smoothedMean23 and median23 are of what such tables show on average: floors, ceilings and smoothing keep that " +
        "from the mean of lambda23, which is mean23's to estimate.",
    );
  list.push(
    "The share has no null of 50 %: floors, ceilings and ties move it even where effects are exactly additive, so do not " +
      "compare it, or the naive tests, with one half.",
  );
  if (result.seeds === null)
    list.push("One training per variant: how much another seed would change the figures is not in them.");
  return list;
}

type Missing = Interference["unavailable"];

/** What it means that a figure is not there, by the figure and why. */
const missing: readonly [figure: keyof Missing, why: Unavailable, text: string][] = [
  [
    "model",
    "too-few-questions",
    "Fewer than 30 questions were answered: no random-effects model is fitted, mean23 is the mean of the smoothed lambda23, without an interval.",
  ],
  [
    "model",
    "too-few-unsaturated",
    "Fewer than 30 of the answered questions are off floor and ceiling: no random-effects model is fitted, mean23 is the mean " +
      "of the smoothed lambda23, without an interval, and smoothing decides much of it.",
  ],
  [
    "null",
    "too-few-clusters",
    "Fewer than 10 clusters: their spread cannot be told, so that the share has no null, and mean23 of questions like these " +
      "no interval.",
  ],
  [
    "model",
    "not-converged",
    "The random-effects model did not converge: mean23 is the mean of the smoothed lambda23, without an interval.",
  ],
  [
    "trueShare",
    "not-identified",
    "The share of questions whose underlying lambda23 is negative cannot be told from these counts: effects of both signs " +
      "near 0 fit as well.",
  ],
  [
    "mean23",
    "too-few-samples",
    "Fewer than 20 samples a cell: mean23 has no interval, since a normal one would miss the mean of lambda23 too often.",
  ],
  [
    "trueShare",
    "too-few-samples",
    "Fewer than 20 samples a cell: the share of questions whose underlying lambda23 is negative is not given, since its interval " +
      "would miss it.",
  ],
  [
    "trueShare",
    "no-effect-seen",
    "The counts are not told from additive effects, so the share of questions whose underlying lambda23 is negative is not " +
      "given: it would be a matter of rounding.",
  ],
  [
    "overBest",
    "too-few-questions",
    "Fewer than 30 questions or clusters: unified less the better of tool and reas has no interval, since the better of two " +
      "is not known well enough.",
  ],
];

function missingWarnings({ unavailable, model, mean23 }: Interference): string[] {
  const list = missing.flatMap(([figure, why, text]) => (unavailable[figure] === why ? [text] : []));
  if (model !== null && mean23.low !== null && mean23.high !== null && mean23.high - mean23.low > 4)
    list.push("Too few questions lie between floor and ceiling: the interval of mean23 is wider than 4 logits.");
  return list;
}

function unevenQuestions(result: Interference, counts: CountTable): number {
  const { samples, variantStride, questionStride } = counts;
  if (variantStride === 0) return 0;
  const numbers = trained.map((variant) => variants.indexOf(variant));
  let uneven = 0;
  for (const q of result.kept) {
    const first = samples[(numbers[0] as number) * variantStride + q * questionStride];
    if (numbers.some((v) => samples[v * variantStride + q * questionStride] !== first)) uneven++;
  }
  return uneven;
}
