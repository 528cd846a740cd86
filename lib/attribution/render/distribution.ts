import { formatTick } from "../../report/chart.js";
import { html, type Html } from "../../report/html.js";
import type { NullDistribution } from "../null-distribution.js";
import type { Estimate, Interference } from "../types.js";
import { axisX, axisY, LEFT, RIGHT, scale, type Scale } from "./axes.js";
import { round as r, WIDTH } from "../../report/svg.js";
import type { Chart } from "./svg.js";
import { count, fixed, interval, percent, quantile } from "./text.js";

const TOP = 58;
const BOTTOM = 254;

/**
 * How many questions have which lambda23, beside how many additive effects alone would put there: to the left of 0 the two
 * trainings get in each other's way.
 */
export function distribution(result: Interference): Chart {
  const { lambda, counts, mean23, kept, interferenceShare } = result;
  // A result that was saved may be older than its null's distribution.
  const additive = (result.distribution23Null as NullDistribution | null | undefined) ?? null;
  const sorted = Float64Array.from(lambda.l23).sort();
  const reach = Math.max(
    ...[
      sorted[0],
      sorted.at(-1),
      ...(additive === null ? [] : [nullQuantile(additive, 0.002), nullQuantile(additive, 0.998)]),
    ].map((value) => Math.abs(value as number)),
    0.5,
  );
  const x = scale(-reach, reach, LEFT, WIDTH - RIGHT, 6);
  const width = x.step / binsInStep(sorted, x.step);
  const bins = binned(lambda.l23, width);
  const expected = additive === null ? null : expectedIn(additive, width, kept.length);
  const chanceZero = additive === null ? 0 : additive.zero * kept.length;
  const y = scale(
    0,
    Math.max(counts.zero, chanceZero, ...bins.values(), ...(expected?.values() ?? [])),
    BOTTOM,
    TOP,
    4,
  );
  const share = (n: number): string => percent(n / kept.length);
  const bounds = interval(mean23, "number");
  const byChance = interferenceShare.null === null ? undefined : interval(interferenceShare.null, "share");
  const about = [
    `${count(counts.negative)} of ${count(kept.length)} questions (${share(counts.negative)}) have a lambda23 below 0, ${count(counts.zero)} one of exactly 0`,
    `and ${count(counts.positive)} one above 0; the mean is ${fixed(mean23.value)}${bounds === undefined ? "" : ` (95 % interval ${bounds})`}.`,
    ...(byChance === undefined ? [] : [`Additive effects alone would put ${byChance} below 0.`]),
    ...(additive === null
      ? []
      : [
          `Of additive effects alone half of the questions would lie between ${fixed(nullQuantile(additive, 0.25))} and ` +
            `${fixed(nullQuantile(additive, 0.75))}; here they lie between ${fixed(quantile(sorted, 0.25))} and ${fixed(quantile(sorted, 0.75))}.`,
        ]),
  ].join(" ");
  const marks = additive === null ? "" : " Line: how many questions additive effects alone would put there.";
  return {
    name: "distribution",
    title: additive === null ? "Distribution of lambda23" : "Distribution of lambda23 with its null",
    hint: `Bars: questions by what the two trainings together gain beyond the two apart${result.seeds === null ? "" : ", on average over the training seeds"}.${marks} Diamond: the mean${bounds === undefined ? "" : " and its interval"}${
      byChance === undefined ? "" : "; by chance: what additive effects alone would put below 0"
    }.`,
    description: about,
    height: additive === null ? 298 : 322,
    table: numbers(sorted, counts, additive),
    body: html`${axisY(y, (tick) => formatTick(tick, y.step))} ${axisX(x, BOTTOM, BOTTOM, "lambda23, logits")}
      ${bars(bins, width, x, y)} ${zeroBar(counts.zero, width, x, y)}
      ${expected !== null && nullLine(expected, chanceZero, width, x, y)}
      <line class="zero" x1="${x(0)}" x2="${x(0)}" y1="2" y2="${TOP - 6}" />
      <text class="value tint interference" x="${x(0) - 10}" y="12" text-anchor="end"
        >${share(counts.negative)} interfere</text
      >
      <text class="value tint synergy" x="${x(0) + 10}" y="12">${share(counts.positive)} help</text>
      ${counts.zero > 0 && html`<text class="label" x="${x(0) + 10}" y="29">${share(counts.zero)} exactly 0</text>`}
      ${byChance !== undefined && html`<text class="label" x="${x(0) - 10}" y="29" text-anchor="end">by chance ${byChance}</text>`}
      ${meanMark(mean23, x, TOP - 14, Math.min(x.ticks.at(-1) as number, reach))} ${additive !== null && legend()}`,
  };
}

/** How many values each bin holds. Bins touch at 0; exact zeros are in none. A value on an edge belongs to the bin nearer to 0. */
function binned(values: ArrayLike<number>, width: number): Map<number, number> {
  const bins = new Map<number, number>();
  for (const value of Array.from(values)) {
    if (value === 0) continue;
    const bin =
      value < 0 ? -Math.max(1, Math.ceil(-value / width - 1e-12)) : Math.max(0, Math.ceil(value / width - 1e-12) - 1);
    bins.set(bin, (bins.get(bin) ?? 0) + 1);
  }
  return bins;
}

/** How many of the questions the null puts into each of the same bins, which are whole numbers of its own. */
function expectedIn(
  { width: fine, below, above }: NullDistribution,
  width: number,
  questions: number,
): Map<number, number> {
  const bins = new Map<number, number>();
  const together = Math.round(width / fine);
  const put = (bin: number, share: number): void => {
    if (share > 0) bins.set(bin, (bins.get(bin) ?? 0) + share * questions);
  };
  for (let i = 0; i < below.length; i++) put(-1 - Math.floor(i / together), below[i] as number);
  for (let i = 0; i < above.length; i++) put(Math.floor(i / together), above[i] as number);
  return bins;
}

/** The value below which `share` of the null's questions lie, to the width of its bins. */
function nullQuantile({ width, zero, below, above }: NullDistribution, share: number): number {
  let sum = 0;
  for (let i = below.length - 1; i >= 0; i--) if ((sum += below[i] as number) >= share) return -(i + 0.5) * width;
  if ((sum += zero) >= share) return 0;
  for (let i = 0; i < above.length; i++) if ((sum += above[i] as number) >= share) return (i + 0.5) * width;
  return above.length * width;
}

function numbers(
  sorted: Float64Array,
  counts: Interference["counts"],
  additive: NullDistribution | null,
): Chart["table"] {
  const share = (n: number): string => percent(n / sorted.length);
  const sum = (side: ArrayLike<number>): number => Array.from(side).reduce((all, one) => all + one, 0);
  const row = (name: string, n: number, chance: (of: NullDistribution) => number): string[] => [
    name,
    count(n),
    share(n),
    ...(additive === null ? [] : [percent(chance(additive))]),
  ];
  return {
    head: ["lambda23", "questions", "share", ...(additive === null ? [] : ["additive effects alone"])],
    rows: [
      row("below 0 (interference)", counts.negative, ({ below }) => sum(below)),
      row("exactly 0", counts.zero, ({ zero }) => zero),
      row("above 0 (synergy)", counts.positive, ({ above }) => sum(above)),
      ...[0.05, 0.25, 0.5, 0.75, 0.95].map((part) => [
        `${100 * part} % of questions below`,
        fixed(quantile(sorted, part)),
        "",
        ...(additive === null ? [] : [fixed(nullQuantile(additive, part))]),
      ]),
    ],
  };
}

/** How many bins a step between ticks holds: about twice the cube root of n over the middle half (Freedman and Diaconis). */
function binsInStep(sorted: Float64Array, step: number): number {
  const half = quantile(sorted, 0.75) - quantile(sorted, 0.25) || 1;
  const wanted = Math.max((2 * half) / Math.cbrt(sorted.length), step / 10);
  return [1, 2, 4, 5, 10].find((parts) => step / parts <= wanted * 1.3) ?? 10;
}

function bars(bins: ReadonlyMap<number, number>, width: number, x: Scale, y: Scale): Html[] {
  return [...bins].map(([bin, n]) => {
    const [from, to] = [bin * width, (bin + 1) * width];
    return html`<rect
      class="bar fill ${from < 0 ? "interference" : "synergy"}"
      x="${x(from)}"
      y="${y(n)}"
      width="${r(x(to) - x(from))}"
      height="${r(BOTTOM - y(n))}"
    >
      <title>${formatTick(from, width)} to ${formatTick(to, width)}: ${n} questions</title>
    </rect>`;
  });
}

/** Half of the width of the bar of exact zeros, which stands over the edge of two bins. */
function halfOfZero(width: number, x: Scale): number {
  return r(Math.min(10, 0.8 * (x(width) - x(0))) / 2);
}

function zeroBar(zeros: number, width: number, x: Scale, y: Scale): Html | undefined {
  if (zeros === 0) return undefined;
  const half = halfOfZero(width, x);
  return html`<rect
    class="bar fill neither"
    x="${r(x(0) - half)}"
    y="${y(zeros)}"
    width="${2 * half}"
    height="${r(BOTTOM - y(zeros))}"
  >
    <title>exactly 0: ${zeros} questions</title>
  </rect>`;
}

/** The null as the outline of its own bars, and a mark at its exact zeros. What lies beyond the axis (0.2 % a side) is not drawn. */
function nullLine(expected: ReadonlyMap<number, number>, zeros: number, width: number, x: Scale, y: Scale): Html {
  const inside = [...expected.keys()].filter(
    (bin) => bin * width >= (x.ticks[0] as number) - width / 2 && (bin + 0.5) * width <= (x.ticks.at(-1) as number),
  );
  const [first, last] = [Math.min(...inside), Math.max(...inside)];
  let path = `M${x(first * width)} ${BOTTOM}`;
  for (let bin = first; bin <= last; bin++) path += `V${y(expected.get(bin) ?? 0)}H${x((bin + 1) * width)}`;
  const half = halfOfZero(width, x) + 3;
  const outline =
    inside.length > 0 && html`<path class="halo" d="${path}V${BOTTOM}" /><path class="chance" d="${path}V${BOTTOM}" />`;
  const mark = `M${r(x(0) - half)} ${y(zeros)}h${r(2 * half)}`;
  return html`${outline}
  ${
    zeros > 0 &&
    html`<path class="halo" d="${mark}" />
      <path class="chance zeros" d="${mark}"
        ><title>exactly 0 by additive effects alone: ${fixed(zeros, 1)} questions</title></path
      >`
  }`;
}

function legend(): Html {
  const at = BOTTOM + 62;
  return html`<rect class="fill interference" x="${LEFT}" y="${at - 9}" width="9" height="10" />
    <rect class="fill synergy" x="${LEFT + 9}" y="${at - 9}" width="9" height="10" />
    <text class="label" x="${LEFT + 25}" y="${at}">observed</text>
    <path class="chance" d="M${LEFT + 120} ${at + 1}v-10h9v4h9v6" />
    <text class="label" x="${LEFT + 146}" y="${at}">additive effects alone (the null)</text>`;
}

/** The mean and its interval on a line of their own above the bars. */
function meanMark(mean23: Estimate, x: Scale, at: number, reach: number): Html {
  const inside = (value: number): number => Math.max(-reach, Math.min(reach, value));
  const { value, low, high } = mean23;
  return html`${
      low !== null &&
      high !== null &&
      html`<path
        class="rod neither"
        d="M${x(inside(low))} ${at}H${x(inside(high))}M${x(inside(low))} ${at - 4}v8M${x(inside(high))} ${at - 4}v8"
      />`
    }
    <path class="fill neither" d="M${x(inside(value))} ${at - 5}l4 5l-4 5l-4 -5z">
      <title>mean ${fixed(value)}</title>
    </path>`;
}
