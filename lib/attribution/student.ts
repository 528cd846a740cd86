// Student's t distribution, for intervals over a few seeds.

/** P(T <= t) for t >= 0 and an integer number of degrees of freedom, by the finite trigonometric sums. */
export function studentBelow(t: number, degrees: number): number {
  const angle = Math.atan(t / Math.sqrt(degrees));
  const cos2 = Math.cos(angle) ** 2;
  const odd = degrees % 2 === 1;
  // Odd: 2 / pi (angle + sin cos (1 + 2/3 cos^2 + 2/3 4/5 cos^4 ..)); even: sin (1 + 1/2 cos^2 + 1/2 3/4 cos^4 ..).
  let term = odd ? Math.cos(angle) : 1;
  let sum = degrees === 1 ? 0 : term;
  for (let i = odd ? 3 : 2; i < degrees - 1; i += 2) {
    term *= ((i - 1) / i) * cos2;
    sum += term;
  }
  const inside = odd ? (2 / Math.PI) * (angle + Math.sin(angle) * sum) : Math.sin(angle) * sum;
  return (1 + inside) / 2;
}

/**
 * The quantile of Student's t for a level of 1/2 or more and an integer number of degrees of freedom >= 1, to about 1e-12.
 *
 * @example
 * studentQuantile(0.975, 9); // 2.262
 */
export function studentQuantile(level: number, degrees: number): number {
  const key = `${level} ${degrees}`;
  let quantile = quantiles.get(key);
  if (quantile === undefined) {
    if (quantiles.size === mostQuantiles) quantiles.clear();
    quantiles.set(key, (quantile = findQuantile(level, degrees)));
  }
  return quantile;
}

/** Quantiles that were asked for: a sum over thousands of degrees of freedom, fifty times, is longer than a small table's fit. */
const quantiles = new Map<string, number>();
const mostQuantiles = 1000;

function findQuantile(level: number, degrees: number): number {
  let low = 0;
  let high = 1;
  while (studentBelow(high, degrees) < level) high *= 2;
  for (let i = 0; i < 100 && high - low > 1e-14 * high; i++) {
    const middle = (low + high) / 2;
    if (studentBelow(middle, degrees) < level) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}
