/** In SVG units: a chart is about this wide on a screen, so that its letters are as large as the text. */
export const WIDTH = 420;

/** A number of a path or a place: two decimals. */
export function round(value: number): number {
  return Math.round(value * 100) / 100;
}
