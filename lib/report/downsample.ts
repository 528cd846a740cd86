import type { Point } from "./chart.js";

/** Points of a line that a chart draws, at most: about one for each of its pixels. */
export const MOST_POINTS = 300;

/**
 * At most `most` of the points, which are by x: the first, the last, and of each of equal stretches of the list the lowest and the highest. A
 * spike of one step in ten thousand stays in the picture, where a mean would hide it. One pass over the points.
 */
export function downsample(points: readonly Point[], most = MOST_POINTS): readonly Point[] {
  if (points.length <= most) return points;
  const inner = points.length - 2;
  const stretches = Math.max(1, Math.floor((most - 2) / 2));
  const out = [points[0] as Point];
  for (let s = 0; s < stretches; s++) {
    const from = 1 + Math.floor((s * inner) / stretches);
    const to = 1 + Math.floor(((s + 1) * inner) / stretches);
    let [low, high] = [from, from];
    for (let i = from + 1; i < to; i++) {
      const { y } = points[i] as Point;
      if (y < (points[low] as Point).y) low = i;
      if (y > (points[high] as Point).y) high = i;
    }
    out.push(points[Math.min(low, high)] as Point);
    if (low !== high) out.push(points[Math.max(low, high)] as Point);
  }
  out.push(points.at(-1) as Point);
  return out;
}

/**
 * An exponential moving average that counts the first values fully (as Adam's does), of all points; `span` values carry two thirds of the weight.
 */
export function smooth(points: readonly Point[], span: number): Point[] {
  const keep = 1 - 1 / Math.max(1, span);
  let [sum, weight] = [0, 0];
  return points.map(({ x, y }) => {
    sum = keep * sum + (1 - keep) * y;
    weight = keep * weight + (1 - keep);
    return { x, y: weight > 0 ? sum / weight : y };
  });
}

/** At most `most` of the items, evenly spread, the first and the last among them. */
export function spread<T>(items: readonly T[], most: number): readonly T[] {
  if (items.length <= most) return items;
  return Array.from({ length: most }, (_, i) => items[Math.round((i * (items.length - 1)) / (most - 1))] as T);
}
