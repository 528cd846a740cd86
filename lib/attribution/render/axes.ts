// Scales and axes of the charts of an attribution.
import { formatTick, ticks } from "../../report/chart.js";
import { html, type Html } from "../../report/html.js";
import { round as r, WIDTH } from "../../report/svg.js";

export const LEFT = 40;
export const RIGHT = 10;

export interface Scale {
  (value: number): number;
  ticks: number[];
  step: number;
}

/** From values to places; the ticks enclose the values. */
export function scale(low: number, high: number, from: number, to: number, about: number): Scale {
  const marks = ticks(low, high, about);
  const [first, last] = [marks[0] as number, marks.at(-1) as number];
  const at = (value: number): number => r(from + ((value - first) / (last - first)) * (to - from));
  return Object.assign(at, { ticks: marks, step: (marks[1] as number) - first });
}

/** The x axis below a plot. */
export function axisX(x: Scale, top: number, bottom: number, label: string, unit = ""): Html {
  const middle = (x(x.ticks[0] as number) + x(x.ticks.at(-1) as number)) / 2;
  return html`${x.ticks.map(
      (tick) =>
        html`<line class="grid" x1="${x(tick)}" x2="${x(tick)}" y1="${top}" y2="${bottom}" />
          <text class="tick" x="${x(tick)}" y="${bottom + 20}" text-anchor="middle"
            >${formatTick(tick, x.step)}${unit}</text
          >`,
    )} <text class="label" x="${r(middle)}" y="${bottom + 39}" text-anchor="middle">${label}</text>`;
}

/** The y axis beside a plot. */
export function axisY(y: Scale, text: (tick: number) => string): Html {
  return html`${y.ticks.map(
    (tick) =>
      html`<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(tick)}" y2="${y(tick)}" />
        <text class="tick" x="${LEFT - 7}" y="${y(tick) + 4}" text-anchor="end">${text(tick)}</text>`,
  )}`;
}
