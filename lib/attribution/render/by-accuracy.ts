import { formatTick } from "../../report/chart.js";
import { html, type Html } from "../../report/html.js";
import type { AccuracyBin } from "../accuracy-bins.js";
import type { Estimate, Interference } from "../types.js";
import { axisY, LEFT, RIGHT, scale, type Scale } from "./axes.js";
import { binMeans } from "./figures.js";
import { round as r, WIDTH } from "../../report/svg.js";
import type { Chart } from "./svg.js";
import { count, fixed, interval, percent } from "./text.js";

/**
 * lambda23 by accuracy: its mean above, the share of interference with its null below. `groups`: one, by how well the hybrids answer;
 * or two of {@link effectsByHalves}, side by side.
 */
export function byAccuracy(groups: readonly (readonly AccuracyBin[])[]): Chart {
  const halves = groups.length > 1;
  const [first = []] = groups;
  const found = groups.flat().flatMap(({ interference }) => (interference === null ? [] : [interference]));
  const { modelled, meanIn } = binMeans(groups);
  const means = found.map(meanIn).flatMap(({ value, low, high }) => [value, low ?? value, high ?? value]);
  const y = scale(Math.min(0, ...means), Math.max(0, ...means), 158, 26, 4);
  const shareY = scale(0, 1, 304, 206, 2);
  const width = (WIDTH - RIGHT - LEFT) / first.length;
  const center = (i: number): number => r(LEFT + (i + 0.5) * width);
  const chance = found.some(({ interferenceShare }) => interferenceShare.null !== null);
  const sharePercent = (tick: number): string => `${fixed(100 * tick, 0)} %`;
  const of = halves
    ? "the trained variants in the other half of the samples"
    : "the two hybrids, which are not in lambda23";
  const marks = halves
    ? " Full marks: questions chosen by the second half of their samples, effects from the first; hollow: the other way round."
    : "";
  const named = groups.flatMap((bins, g) =>
    bins.map((bin) => ({
      ...bin,
      name: `${range(bin)}${halves ? `, by the ${g === 0 ? "second" : "first"} half` : ""}`,
    })),
  );
  return {
    name: "by-accuracy",
    title: halves ? "Effects by accuracy in the other half" : "Effects by accuracy",
    hint:
      `${modelled ? "Mean" : "Smoothed mean of"} lambda23 and the share of questions below 0, with 95 % intervals, by the accuracy of ${of}. ` +
      `${chance ? "Grey: what additive effects alone would show." : "Ceilings alone can move the share."}${marks}`,
    description: named
      .flatMap(({ interference, questions, name }) =>
        interference === null
          ? []
          : [
              `accuracy ${name}: mean lambda23 ${fixed(meanIn(interference).value)}, ${percent(interference.interferenceShare.value, 0)} of ` +
                `${questions.length} questions below 0`,
            ],
      )
      .join("; "),
    height: 366,
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
      rows: named.map((bin) => tableRow(bin, meanIn, chance)),
    },
    body: html`${axisY(y, (tick) => formatTick(tick, y.step))} ${axisY(shareY, sharePercent)}
      <line class="zero" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(0)}" y2="${y(0)}" />
      <text class="label" x="2" y="12">mean lambda23, logits</text>
      <text class="label" x="2" y="192">share below 0</text>
      ${first.map((bin, i) => {
        const sizes = groups.map((bins) => count(bins[i]?.questions.length ?? 0)).join(", ");
        return html`<text class="tick" x="${center(i)}" y="324" text-anchor="middle"
            >${fixed(100 * bin.low, 0)}-${percent(bin.high, 0)}</text
          >
          <text class="tick" x="${center(i)}" y="341" text-anchor="middle">n ${sizes}</text>`;
      })}
      ${groups.flatMap((bins, g) =>
        bins.map(({ interference }, i) => {
          if (interference === null) return undefined;
          const at = halves ? r(center(i) + (g === 0 ? -0.18 : 0.18) * width) : center(i);
          const { interferenceShare: share } = interference;
          const mean23 = meanIn(interference);
          const color = mean23.value < 0 ? "interference" : "synergy";
          return html`${share.null !== null && band(share.null, at, shareY)} ${whisker(mean23, at, y, color, g > 0)}
          ${whisker(share, at, shareY, "interference", g > 0)}`;
        }),
      )}
      <text class="label" x="${r((LEFT + WIDTH - RIGHT) / 2)}" y="362" text-anchor="middle"
        >${halves ? "accuracy in the other half, questions" : "accuracy of the hybrids, questions"}</text
      >`,
  };
}

/** "25 to 50 %" */
function range({ low, high }: AccuracyBin): string {
  return `${fixed(100 * low, 0)} to ${percent(high, 0)}`;
}

function tableRow(
  { interference, questions, name }: AccuracyBin & { name: string },
  meanIn: (own: Interference) => Estimate,
  chance: boolean,
): string[] {
  const size = count(questions.length);
  if (interference === null) return [name, size, "-", "-", "-", "-", ...(chance ? ["-"] : [])];
  const { interferenceShare: share } = interference;
  const mean23 = meanIn(interference);
  return [
    name,
    size,
    fixed(mean23.value),
    interval(mean23, "number") ?? "-",
    percent(share.value),
    interval(share, "share") ?? "-",
    ...(chance ? [share.null === null ? "-" : (interval(share.null, "share") ?? "-")] : []),
  ];
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

function whisker({ value, low, high }: Estimate, at: number, y: Scale, color: string, hollow: boolean): Html {
  return html`${
      low !== null &&
      high !== null &&
      html`<path class="rod ${color}" d="M${at} ${y(low)}V${y(high)}M${at - 4} ${y(low)}h8M${at - 4} ${y(high)}h8" />`
    } <circle class="${hollow ? "dot" : "fill"} ${color}" cx="${at}" cy="${y(value)}" r="4.5" />`;
}
