/**
 * The distribution of lambda23 that additive effects alone would show at these numbers of samples, from the draws of the null:
 * shares of the questions that they keep, 1 in all. With several training seeds the mean of the seeds' own.
 */
export interface NullDistribution {
  /** Of a bin, in logits: 0.005. */
  width: number;
  /** The share of questions with lambda23 of exactly 0. */
  zero: number;
  /** The shares with lambda23 in [-(i + 1) width, -i width) and in (i width, (i + 1) width], i from 0. */
  below: Float64Array;
  above: Float64Array;
}

/** The mean of the seeds' distributions; null where a seed has none. */
export function averagedDistribution(distributions: readonly (NullDistribution | null)[]): NullDistribution | null {
  const all = distributions.filter((distribution) => distribution !== null);
  const [first] = all;
  if (first === undefined || all.length < distributions.length) return null;
  const side = (name: "below" | "above"): Float64Array =>
    Float64Array.from({ length: Math.max(...all.map((each) => each[name].length)) }, (_, i) =>
      all.reduce((sum, each) => sum + (each[name][i] ?? 0) / all.length, 0),
    );
  const zero = all.reduce((sum, each) => sum + each.zero / all.length, 0);
  return { width: first.width, zero, below: side("below"), above: side("above") };
}
