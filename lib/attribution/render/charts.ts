import { formatTick } from "../../report/chart.js";
import { html, type Html } from "../../report/html.js";
import type { AccuracyBin } from "../accuracy-bins.js";
import type { Estimate, Interference } from "../types.js";
import { axisX, axisY, LEFT, RIGHT, scale, type Scale } from "./axes.js";
import { distribution } from "./distribution.js";
import { effectNames } from "./effects.js";
import { type Chart, r, WIDTH } from "./svg.js";
import { count, fixed, interval, mean, percent, quantile } from "./text.js";

/** All charts of a result that it has the figures for. */
export function chartsOf(result: Interference, bins?: readonly AccuracyBin[]): Chart[] {
  const binned = (bins ?? []).some(({ interference }) => interference !== null);
  return [
    distribution(result),
    shares(result),
    effects(result),
    ...(binned ? [byAccuracy(bins as readonly AccuracyBin[])] : []),
  ];
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

/** lambda23 by how well the hybrids answer: its mean above, the share of interference with its null below. */
function byAccuracy(bins: readonly AccuracyBin[]): Chart {
  const found = bins.flatMap(({ interference }) => (interference === null ? [] : [interference]));
  // A bin of few questions has no model: then the smoothed means of all are shown, not two kinds of mean in one chart.
  const modelled = found.every(({ model }) => model !== null);
  const meanIn = (own: Interference): Estimate => (modelled ? own.mean23 : own.smoothedMean23);
  const means = found.map(meanIn).flatMap(({ value, low, high }) => [value, low ?? value, high ?? value]);
  const height = 366;
  const y = scale(Math.min(0, ...means), Math.max(0, ...means), 158, 26, 4);
  const shareY = scale(0, 1, 304, 206, 2);
  const width = (WIDTH - RIGHT - LEFT) / bins.length;
  const center = (i: number): number => r(LEFT + (i + 0.5) * width);
  const range = ({ low, high }: AccuracyBin): string => `${fixed(100 * low, 0)} to ${percent(high, 0)}`;
  const chance = found.some(({ interferenceShare }) => interferenceShare.null !== null);
  const sharePercent = (tick: number): string => `${fixed(100 * tick, 0)} %`;
  return {
    name: "by-accuracy",
    title: "Effects by accuracy",
    hint:
      `${modelled ? "Mean" : "Smoothed mean of"} lambda23 and the share of questions below 0, with 95 % intervals, by the accuracy of the two hybrids, which are not in lambda23. ` +
      (chance ? "Grey: what additive effects alone would show." : "Ceilings alone can move the share."),
    description: bins
      .flatMap((bin) => {
        const { interference, questions } = bin;
        if (interference === null) return [];
        const { interferenceShare } = interference;
        return [
          `accuracy ${range(bin)}: mean lambda23 ${fixed(meanIn(interference).value)}, ${percent(interferenceShare.value, 0)} of ${questions.length} questions below 0`,
        ];
      })
      .join("; "),
    height,
    table: {
      head: [
        "accuracy",
        "questions",
        "mean lambda23",
        "95 % interval",
        "below 0",
        "95 % interval",
        ...(chance ? ["by chance"] : []),
      ],
      rows: bins.map((bin) => {
        const { interference, questions } = bin;
        const size = count(questions.length);
        if (interference === null) return [range(bin), size, "-", "-", "-", "-", ...(chance ? ["-"] : [])];
        const { interferenceShare: share } = interference;
        const mean23 = meanIn(interference);
        return [
          range(bin),
          size,
          fixed(mean23.value),
          interval(mean23, "number") ?? "-",
          percent(share.value),
          interval(share, "share") ?? "-",
          ...(chance ? [share.null === null ? "-" : (interval(share.null, "share") ?? "-")] : []),
        ];
      }),
    },
    body: html`${axisY(y, (tick) => formatTick(tick, y.step))} ${axisY(shareY, sharePercent)}
      <line class="zero" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(0)}" y2="${y(0)}" />
      <text class="label" x="2" y="12">mean lambda23, logits</text>
      <text class="label" x="2" y="192">share below 0</text>
      ${bins.map((bin, i) => {
        const at = center(i);
        const { interference, questions } = bin;
        const name = html`<text class="tick" x="${at}" y="324" text-anchor="middle"
            >${fixed(100 * bin.low, 0)}-${percent(bin.high, 0)}</text
          >
          <text class="tick" x="${at}" y="341" text-anchor="middle">n ${count(questions.length)}</text>`;
        if (interference === null) return name;
        const { interferenceShare: share } = interference;
        const mean23 = meanIn(interference);
        const color = mean23.value < 0 ? "interference" : "synergy";
        return html`${name} ${share.null !== null && band(share.null, at, shareY)} ${whisker(mean23, at, y, color)}
        ${whisker(share, at, shareY, "interference")}`;
      })}
      <text class="label" x="${r((LEFT + WIDTH - RIGHT) / 2)}" y="362" text-anchor="middle"
        >accuracy of the hybrids, questions</text
      >`,
  };
}

function band({ low, high }: Estimate, at: number, y: Scale): Html | undefined {
  if (low === null || high === null) return undefined;
  return html`<rect
    class="null"
    x="${r(at - 12)}"
    y="${y(high)}"
    width="24"
    height="${r(Math.max(1, y(low) - y(high)))}"
  />`;
}

function whisker({ value, low, high }: Estimate, at: number, y: Scale, color: string): Html {
  return html`${
      low !== null &&
      high !== null &&
      html`<path class="rod ${color}" d="M${at} ${y(low)}V${y(high)}M${at - 4} ${y(low)}h8M${at - 4} ${y(high)}h8" />`
    } <circle class="fill ${color}" cx="${at}" cy="${y(value)}" r="4.5" />`;
}
