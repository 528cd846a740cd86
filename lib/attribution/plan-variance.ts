// What the counts of N samples leave open of a question's lambda23: in closed form for the search over sizes, by fits for the answer.
import { native } from "../binding.js";
import { Random } from "../random.js";
import { drawBinomial, normal } from "./draws.js";
import { fewestQuestions } from "./limits.js";
import type { QuestionSpread } from "./plan.js";
import { variants } from "./types.js";

export type Spread = { [Name in keyof QuestionSpread]-?: number };

/** Questions of a table that is simulated, and the tables whose median is taken where the first is far from the closed form. */
export const simulated = 1500;
const tables = 3;
/** So many are drawn at most, where the model does not converge on some. */
const mostTables = 8;
/** A fit's variance within this factor of the closed form is taken as it is. */
const near = 1.4;
/** Parameters whose effect on the four logits is known: base, reas, tool and lambda23. */
const size = 4;
const effectRows = [
  [1, 0, 0, 0],
  [1, 1, 0, 0],
  [1, 0, 1, 0],
  [1, 1, 1, 1],
] as const;

/** The four logits of one question: base, reas, tool, unified. */
function drawLogits(random: Random, effect: number, between: Spread): number[] {
  const base = between.baseMean + between.baseSd * normal(random);
  const reas = base + between.gain + between.gainSd * normal(random);
  const tool = base + between.gain + between.gainSd * normal(random);
  return [base, reas, tool, reas + tool - base + effect + between.lambda23Sd * normal(random)];
}

/**
 * The variance that binomial counts of n samples give mean23, times the questions, where the spread between questions is known: the
 * mean's generalised least squares with the Fisher information A_q = x' diag(n p (1 - p)) x of each question's effects, (sum A_q (I +
 * S A_q)^-1)^-1, less the questions' own spread. Null where the counts say nothing.
 */
export function closedVariance(n: number, effect: number, between: Spread, seed: number): number | null {
  const random = new Random(seed, "planSamples closed");
  const spread = [between.baseSd, between.gainSd, between.gainSd, between.lambda23Sd].map((sd) => sd * sd);
  const total = new Float64Array(size * size);
  for (let q = 0; q < simulated; q++) {
    const weights = drawLogits(random, effect, between).map((logit) => {
      const p = 1 / (1 + Math.exp(Math.abs(logit)));
      return n * p * (1 - p);
    });
    const information = new Float64Array(size * size).map((_, at) =>
      effectRows.reduce(
        (sum, row, v) => sum + (weights[v] as number) * (row[at >> 2] as number) * (row[at & 3] as number),
        0,
      ),
    );
    const shrunk = information.map((x, at) => (at >> 2 === (at & 3) ? 1 : 0) + (spread[at >> 2] as number) * x);
    const inverse = invert(shrunk);
    if (inverse === null) continue;
    for (let i = 0; i < size; i++)
      for (let j = 0; j < size; j++)
        for (let m = 0; m < size; m++)
          total[i * size + j]! += (information[i * size + m] as number) * (inverse[m * size + j] as number);
  }
  const variance = invert(total)?.at(-1);
  return variance === undefined || !(variance > 0)
    ? null
    : Math.max(1e-9, variance * simulated - between.lambda23Sd ** 2);
}

/** The share of questions of which some variant's count is neither 0 nor n. */
export function informativeShare(n: number, effect: number, between: Spread, seed: number): number {
  const random = new Random(seed, "planSamples informative");
  let sum = 0;
  for (let q = 0; q < simulated; q++)
    sum += drawLogits(random, effect, between).reduce((product, logit) => {
      const p = 1 / (1 + Math.exp(-logit));
      return product * (p ** n + (1 - p) ** n);
    }, 1);
  return 1 - sum / simulated;
}

/** The inverse of a [4, 4] matrix by Gauss and Jordan with pivots; null where it is singular. */
function invert(matrix: Float64Array): Float64Array | null {
  const rows = Array.from({ length: size }, (_, i) => [
    ...matrix.subarray(i * size, (i + 1) * size),
    ...Array.from({ length: size }, (_, j) => (i === j ? 1 : 0)),
  ]);
  for (let i = 0; i < size; i++) {
    let best = i;
    for (let r = i + 1; r < size; r++) if (Math.abs(rows[r]![i]!) > Math.abs(rows[best]![i]!)) best = r;
    [rows[i], rows[best]] = [rows[best]!, rows[i]!];
    const pivot = rows[i]!;
    if (!(Math.abs(pivot[i]!) > 1e-12)) return null;
    const scale = 1 / pivot[i]!;
    for (let j = 0; j < 2 * size; j++) pivot[j]! *= scale;
    for (const [r, row] of rows.entries()) {
      const factor = row[i]!;
      if (r !== i && factor !== 0) for (let j = 0; j < 2 * size; j++) row[j]! -= factor * pivot[j]!;
    }
  }
  return Float64Array.from(rows.flatMap((row) => row.slice(size)));
}

/**
 * The same as the model has it, which also estimates the spread: the square of its error for fixed questions, times Q, of a simulated
 * table; the median of three where the first is not near the closed form. Null where it converges on none.
 */
export function fittedVariance(
  n: number,
  effect: number,
  between: Spread,
  seed: number,
  closed: number | null,
): number | null {
  const random = new Random(seed, `planSamples ${n}`);
  const found: number[] = [];
  for (let table = 0; table < mostTables && found.length < tables; table++) {
    const one = simulatedVariance(n, effect, between, random);
    if (one === null) continue;
    if (found.length === 0 && closed !== null && one < closed * near && closed < one * near) return one;
    found.push(one);
  }
  // The median: of few samples a question, one table in ten has an error far from the others'.
  return found.sort((a, b) => a - b)[found.length >> 1] ?? null;
}

/** The same from one table. */
function simulatedVariance(n: number, effect: number, between: Spread, random: Random): number | null {
  const correct = new Int32Array(variants.length * simulated);
  for (let q = 0; q < simulated; q++)
    for (const [v, logit] of drawLogits(random, effect, between).entries())
      correct[v * simulated + q] = drawBinomial(random.next(), n, logit);
  const some = (q: number, holds: (k: number) => boolean): boolean =>
    [0, 1, 2, 3].some((v) => holds(correct[v * simulated + q] as number));
  const kept = Int32Array.from({ length: simulated }, (_, q) => q).filter((q) => some(q, (k) => k > 0));
  if (kept.filter((q) => some(q, (k) => k > 0 && k < n)).length < fewestQuestions) return null;
  const table = { questions: simulated, correct, samples: Int32Array.of(n), variantStride: 0, questionStride: 0 };
  const options = { questions: kept, smoothing: 0, seed: 0, nullDraws: 0, level: 0.95, clusters: new Int32Array(0) };
  const { fixedError, converged } = native.interferenceModel(table, options);
  // Dropped questions are asked in vain.
  return converged ? fixedError ** 2 * simulated : null;
}
