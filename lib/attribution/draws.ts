// Random numbers of simulated tables: by planSamples, and by the study of coverage.
import type { Random } from "../random.js";

/** A standard normal draw (Box and Muller). */
export function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next());
}

/** Successes of n of this logit, by inversion of u. */
export function drawBinomial(u: number, n: number, logit: number): number {
  const p = 1 / (1 + Math.exp(Math.abs(logit)));
  let mass = Math.exp(n * Math.log1p(-p));
  if (mass === 0) return Math.round(logit > 0 ? n * (1 - p) : n * p); // thousands of samples: their noise is nothing
  let sum = mass;
  let k = 0;
  while (sum <= u && k < n) {
    mass *= ((n - k) / (k + 1)) * (p / (1 - p));
    sum += mass;
    k++;
  }
  return logit > 0 ? n - k : k;
}
