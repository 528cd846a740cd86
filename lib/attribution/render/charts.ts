import { html, type Html } from "../../report/html.js";
import type { Estimate, Interference } from "../types.js";
import { axisX, scale, type Scale } from "./axes.js";
import { byAccuracy } from "./by-accuracy.js";
import { distribution } from "./distribution.js";
import { effectNames } from "./effects.js";
import { round as r, WIDTH } from "../../report/svg.js";
import type { Chart } from "./svg.js";
import { fixed, interval, mean, percent, quantile } from "./text.js";
import type { InterferenceRenderOptions } from "./types.js";

/** All charts of a result that it has the figures for. */
export function chartsOf(result: Interference, options: InterferenceRenderOptions = {}): Chart[] {
  const { bins = [], byHalves } = options;
  const groups = byHalves ?? [bins];
  const binned = groups.some((group) => group.some(({ interference }) => interference !== null));
  return [distribution(result), shares(result), effects(result), ...(binned ? [byAccuracy(groups)] : [])];
}

interface ShareRow {
  name: string;
  color: string;
  estimate: Estimate;
  /** A band of what would be by chance, not an estimate. */
  band?: boolean;
  /** What additive effects alone would show of this share. */
  chance?: Estimate | null;
}

/** The share of questions with interference, with everything that it should be read beside. */
function shares(result: Interference): Chart {
  const { interferenceShare, trueShare } = result;
  const { null: band, unsaturated } = interferenceShare;
  const rows: ShareRow[] = [{ name: "observed", color: "interference", estimate: interferenceShare, chance: band }];
  if (band !== null)
    rows.push({ name: "additive effects alone", color: "neither", estimate: band, band: true, chance: band });
  if (unsaturated !== null)
    rows.push({
      name: "observed, unsaturated",
      color: "interference",
      estimate: unsaturated,
      chance: result.interferenceShare.unsaturatedNull,
    });
  if (trueShare !== null) rows.push({ name: "underlying", color: "third", estimate: trueShare });
  const [row, top] = [44, 10];
  const bottom = top + row * rows.length;
  const x = scale(0, 1, 12, WIDTH - 14, 4);
  const text = ({ estimate }: ShareRow): string => {
    const bounds = interval(estimate, "share");
    return `${percent(estimate.value)}${bounds === undefined ? "" : ` (${bounds})`}`;
  };
  return {
    name: "shares",
    title: "Share of questions with interference",
    hint:
      band === null
        ? "Questions with lambda23 below 0. One half is no null: floors, ceilings and ties move the share even where effects are additive."
        : "Questions with lambda23 below 0, with 95 % intervals. Grey: what additive effects alone would show. Unsaturated: without floors and ceilings." +
          (trueShare === null ? "" : " Underlying: without the noise of sampling."),
    description: rows.map((one) => `${one.name}: ${text(one)}`).join("; "),
    height: bottom + 44,
    table: {
      head: ["share", "value", "95 % interval"],
      rows: rows.map(({ name, estimate }) => [name, percent(estimate.value), interval(estimate, "share") ?? "-"]),
    },
    body: html`${axisX(
      Object.assign((value: number) => x(value / 100), { ticks: [0, 25, 50, 75, 100], step: 25 }),
      top,
      bottom,
      "share of questions",
      " %",
    )}
    ${rows.map((one, i) => shareRow(one, top + i * row, x, text(one)))}`,
  };
}

function shareRow(
  { name, color, estimate, band = false, chance = null }: ShareRow,
  top: number,
  x: Scale,
  text: string,
): Html {
  const { value, low, high } = estimate;
  const y = top + 31;
  return html`<text class="name" x="14" y="${top + 15}">${name}</text>
    <text class="value" x="${WIDTH - 14}" y="${top + 15}" text-anchor="end">${text}</text>
    ${
      chance !== null &&
      chance.low !== null &&
      chance.high !== null &&
      html`<rect
        class="null"
        x="${x(chance.low)}"
        y="${y - 9}"
        width="${r(Math.max(1, x(chance.high) - x(chance.low)))}"
        height="18"
      />`
    }
    ${low !== null && high !== null && html`<path class="rod ${color}" d="M${x(low)} ${y}H${x(high)}M${x(low)} ${y - 4}v8M${x(high)} ${y - 4}v8" />`}
    ${
      band
        ? html`<path class="rod ${color}" d="M${x(value)} ${y - 5}v10" />`
        : html`<circle class="fill ${color}" cx="${x(value)}" cy="${y}" r="5" />`
    }`;
}

/** How the effects are spread over the questions. */
function effects({ lambda }: Interference): Chart {
  const shown = effectNames.filter(({ key }) => key !== "l1");
  const sorted = shown.map(({ key }) => Float64Array.from(lambda[key]).sort());
  const [row, top] = [44, 10];
  const bottom = top + row * shown.length;
  const low = Math.min(0, ...sorted.map((values) => quantile(values, 0.05)));
  const high = Math.max(0, ...sorted.map((values) => quantile(values, 0.95)));
  const x = scale(low, high, 14, WIDTH - 16, 6);
  const facts = sorted.map((values) => [0.05, 0.25, 0.5, 0.75, 0.95].map((share) => quantile(values, share)));
  return {
    name: "effects",
    title: "Effects over the questions",
    hint: "Line: the middle 90 % of questions; box: the middle half; bar: the median; dot: the mean.",
    description: shown
      .map(({ name, meaning }, i) => {
        const [, lower = NaN, middle = NaN, upper = NaN] = facts[i] as number[];
        return `${name}, ${meaning}: median ${fixed(middle)}, half of the questions from ${fixed(lower)} to ${fixed(upper)}`;
      })
      .join("; "),
    height: bottom + 44,
    table: {
      head: ["effect, logits", "mean", "5 %", "25 %", "median", "75 %", "95 %"],
      rows: shown.map(({ name, key }, i) => [
        name,
        fixed(mean(lambda[key])),
        ...(facts[i] as number[]).map((value) => fixed(value)),
      ]),
    },
    body: html`${axisX(x, top, bottom, "logits")}
      <line class="zero" x1="${x(0)}" x2="${x(0)}" y1="${top}" y2="${bottom}" />
      ${shown.map(({ key, symbol, meaning }, i) => {
        const [p5 = 0, p25 = 0, p50 = 0, p75 = 0, p95 = 0] = facts[i] as number[];
        const at = top + i * row;
        const y = at + 30;
        const color = key === "l23" ? "interference" : "synergy";
        return html`<text class="name" x="14" y="${at + 15}">${symbol} ${meaning}</text>
          <path class="rod ${color}" stroke-width="1.4" d="M${x(p5)} ${y}H${x(p95)}" />
          <rect
            class="box ${color}"
            x="${x(p25)}"
            y="${y - 7}"
            width="${r(Math.max(0.5, x(p75) - x(p25)))}"
            height="14"
          />
          <path class="rod ${color}" d="M${x(p50)} ${y - 7}v14" />
          <circle class="dot ${color}" cx="${x(mean(lambda[key]))}" cy="${y}" r="4" />`;
      })}`,
  };
}
