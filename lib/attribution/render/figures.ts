// What everything that shows results reads of them in the same way.
import type { AccuracyBin } from "../accuracy-bins.js";
import type { Effects, Estimate, Interference, Unavailable } from "../types.js";

/** The mean of an effect as the tables of effects have it; lambda23's is the primary figure. */
export function meanOf(result: Interference, key: keyof Effects): Estimate {
  return key === "l23" ? result.mean23 : result.means[key];
}

const reasons: Record<Unavailable, string> = {
  "not-asked-for": "it was not asked for",
  "too-few-questions": "fewer than 30 questions were answered",
  "too-few-unsaturated": "fewer than 30 answered questions are off floor and ceiling",
  "too-few-clusters": "there are fewer than 10 clusters",
  "too-few-samples": "there are fewer than 20 samples a cell",
  "not-converged": "the random-effects model did not converge",
  "not-identified": "these counts do not tell",
  "no-effect-seen": "the counts are not told from additive effects",
  "several-seeds": "each training seed has its own",
};

/** Why a figure is not there, where the result says it. */
export function missingBecause(result: Interference, figure: keyof Interference["unavailable"]): string | undefined {
  const why = result.unavailable[figure];
  return why === undefined ? undefined : reasons[why];
}

/**
 * Which mean bins of accuracy show, and whether it is the model's: a bin of few questions has no model, and then all show the
 * smoothed mean, not two kinds of mean beside each other.
 */
export function binMeans(groups: readonly (readonly AccuracyBin[])[]): {
  modelled: boolean;
  meanIn: (own: Interference) => Estimate;
} {
  const modelled = groups.flat().every(({ interference }) => interference === null || interference.model !== null);
  return { modelled, meanIn: (own) => (modelled ? own.mean23 : own.smoothedMean23) };
}
