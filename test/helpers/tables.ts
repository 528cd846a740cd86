// Tables of accuracies for tests, and what they should give by other means than the engine's.
import type { Test } from "tap";
import type { DenseAccuracy, Variant } from "rolegrad/attribution";

/** The design of Eq. 7-8. Counts of a question are in the order of these rows. */
export const designRows = ["base", "reas", "tool", "unified", "hybridTool", "hybridReas"] as const;
export const designColumns = ["x1", "x2", "x3", "x12", "x13", "x23"];
export const designX = [
  [1, 0, 0, 0, 0, 0],
  [1, 0, 1, 0, 1, 0],
  [1, 1, 0, 1, 0, 0],
  [1, 1, 1, 1, 1, 1],
  [1, 1, 0, 0, 0, 0],
  [1, 0, 1, 0, 0, 0],
];

/** One array for each variant, from the six counts of each question. */
export function dense(counts: readonly (readonly number[])[]): Record<Variant, number[]> {
  return Object.fromEntries(designRows.map((name, v) => [name, counts.map((k) => k[v] as number)])) as Record<
    Variant,
    number[]
  >;
}

export function table(counts: readonly (readonly number[])[], samples: number): DenseAccuracy {
  return { samples, correct: dense(counts) };
}

export function haldane(k: number, n: number): number {
  return Math.log((k + 0.5) / (n - k + 0.5));
}

/** The sign of lambda23 with Haldane's smoothing, in integers of any size. */
export function exactSign(k: readonly number[], n: number): number {
  const [base, reas, tool, unified] = k.map(BigInt) as [bigint, bigint, bigint, bigint];
  const right = (x: bigint): bigint => 2n * x + 1n;
  const wrong = (x: bigint): bigint => 2n * (BigInt(n) - x) + 1n;
  const up = right(unified) * right(base) * wrong(tool) * wrong(reas);
  const down = wrong(unified) * wrong(base) * right(tool) * right(reas);
  return up > down ? 1 : up < down ? -1 : 0;
}

/** Six counts in 0..n for each question, the same on every machine. */
export function randomCounts(questions: number, n: number, seed: number): number[][] {
  let state = BigInt(seed);
  const draw = (): number => {
    state = BigInt.asUintN(64, state * 6364136223846793005n + 1442695040888963407n);
    return Number((state >> 33n) % BigInt(n + 1));
  };
  return Array.from({ length: questions }, () => Array.from({ length: 6 }, draw));
}

/** Fails with both lists unless they agree to `tolerance` in every entry. */
export function close(t: Test, found: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  const worst = Math.max(0, ...Array.from(expected, (value, i) => Math.abs(value - (found[i] ?? Number.NaN))));
  if (found.length === expected.length && worst <= tolerance) t.pass(`within ${tolerance}`);
  else t.fail("numbers differ", { found: Array.from(found), expected: Array.from(expected), worst, tolerance });
}
