import { studentQuantile } from "../attribution/student.js";

/** What two ways to train differ by, paired by seed. */
export interface PairedDifference {
  /** a - b of each seed that has both. */
  bySeed: Record<string, number>;
  mean: number;
  /** t interval over seeds; null with fewer than two, or where the study infers nothing. */
  low: number | null;
  high: number | null;
  level: number;
}

/** Differences over the seeds that both have. Undefined where there are none. */
export function pairedDifference(
  a: ReadonlyMap<number, number>,
  b: ReadonlyMap<number, number>,
  { infer }: { infer: boolean },
): PairedDifference | undefined {
  const seeds = [...a.keys()].filter((seed) => b.has(seed)).sort((x, y) => x - y);
  if (seeds.length === 0) return undefined;
  const differences = seeds.map((seed) => (a.get(seed) as number) - (b.get(seed) as number));
  const { mean, low, high } = meanInterval(differences, infer);
  const bySeed = Object.fromEntries(seeds.map((seed, i) => [String(seed), differences[i] as number]));
  return { bySeed, mean, low, high, level: 0.95 };
}

/** The mean and its 95 % t interval: mean +- t s / sqrt(n) with n - 1 degrees of freedom. */
export function meanInterval(
  values: readonly number[],
  infer = true,
): { mean: number; low: number | null; high: number | null } {
  const n = values.length;
  const mean = values.reduce((sum, own) => sum + own, 0) / n;
  if (n < 2 || !infer) return { mean, low: null, high: null };
  const variance = values.reduce((sum, own) => sum + (own - mean) ** 2, 0) / (n - 1);
  const half = studentQuantile(0.975, n - 1) * Math.sqrt(variance / n);
  return { mean, low: mean - half, high: mean + half };
}

/** The same of shares: the interval is cut at 0 and 1. */
export function meanShare(values: readonly number[], infer = true): ReturnType<typeof meanInterval> {
  const { mean, low, high } = meanInterval(values, infer);
  return { mean, low: low && Math.max(0, low), high: high && Math.min(1, high) };
}
