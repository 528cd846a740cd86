// Line charts as inline SVG. A charting library (vega) would bake its colours into the picture, where these follow the reader's light or dark
// through the page's CSS variables, print, and need nothing installed; lines, ticks and interval bands are all that is drawn here.
import { downsample, MOST_POINTS, smooth, spread } from "./downsample.js";
import { html, type Html, type HtmlValue } from "./html.js";
import { round, WIDTH } from "./svg.js";
import { numbersTable } from "./table.js";

export interface Point {
  x: number;
  y: number;
  /** Bounds of an interval around y. */
  low?: number;
  high?: number;
}

export interface Series {
  name: string;
  /** Which of the page's colours: "0" to "5" for roles, or "main", "muted", "output", "wrong". */
  color: string;
  points: readonly Point[];
}

export interface ChartOptions {
  title: string;
  /** What is counted, how, and what a reader should look for; a line below the title. */
  hint?: string;
  /** A sentence for those who do not see it. Default: the first and the last value of each series. */
  description?: string;
  xLabel: string;
  /** The values of x to mark, and how x is written, on axes that are not plain numbers (logarithms). @default ticks of 1, 2 or 5 */
  xTicks?: readonly number[];
  xText?: (x: number) => string;
  yLabel: string;
  /** "percent": y are shares, shown times 100. @default "number" */
  format?: "number" | "percent";
  /** Bounds of the y axis; the data may widen them. @default from 0 (or below it) to the largest value */
  yMin?: number;
  yMax?: number;
  /** Offer a smooth line beside the points. @default where a line has 20 points */
  smooth?: boolean;
  /** @default where there are several lines */
  legend?: boolean;
  series: readonly Series[];
}

/** The id of a chart's figure, by its title. */
export function chartId(title: string): string {
  return `chart-${title.toLowerCase().replace(/[^a-z0-9]+/g, "-")}`;
}

const HEIGHT = 268;
const LEFT = 46;
const RIGHT = 54;
const TOP = 26;
const BOTTOM = 44;

/** Numbers to mark on an axis: steps of 1, 2 or 5 times a power of ten, about `count` of them, that enclose the range. */
export function ticks(low: number, high: number, count: number, integer = false): number[] {
  const span = high > low ? high - low : Math.abs(high) || 1;
  const raw = span / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  let step = ([1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999) as number) * power;
  if (integer) step = Math.max(1, Math.round(step));
  const first = Math.floor(low / step + 1e-9);
  const last = Math.max(first + 1, Math.ceil(high / step - 1e-9));
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** A number with as many decimals as a step between ticks has; thousands get commas. */
export function formatTick(value: number, step: number): string {
  const decimals = Math.max(0, Math.min(8, -Math.floor(Math.log10(step) + 1e-9)));
  if (value !== 0 && Math.abs(value) < 1e-4) return value.toExponential(0);
  return value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

/** A chart with its legend; nothing where no series has a point. */
export function lineChart(options: ChartOptions): Html | undefined {
  const { title, xLabel, yLabel, hint, format = "number" } = options;
  // Times 100, and the span of two of them, must be finite too.
  const finite = ({ x, y, low = y, high = y }: Point): boolean =>
    [x, y, low, high].every((value) => Math.abs(value) < 1e300);
  const whole = options.series
    .map((one) => ({ ...one, points: one.points.filter(finite) }))
    .filter(({ points }) => points.length > 0);
  if (whole.length === 0) return undefined;
  const longest = Math.max(...whole.map(({ points }) => points.length));
  const calm = options.smooth ?? longest >= 20;
  const series = whole.map(({ points, ...one }) => ({
    ...one,
    points: downsample(points),
    // A twentieth of the run: long enough to calm a mean of some hundred samples, short enough to follow learning.
    ...(calm && points.length >= 20 ? { smooth: downsample(smooth(points, points.length / 20), 120) } : {}),
  }));
  const all = series.flatMap(({ points }) => points);
  const scale = format === "percent" ? 100 : 1;
  const bounds = all.flatMap(({ y, low = y, high = y }) => [y * scale, low * scale, high * scale]);
  const yTicks = ticks(
    Math.min((options.yMin ?? 0) * scale, ...bounds),
    Math.max((options.yMax ?? -Infinity) * scale, ...bounds),
    5,
  );
  const xText = options.xText ?? String;
  const xTicks =
    options.xTicks ?? ticks(Math.min(...all.map(({ x }) => x)), Math.max(...all.map(({ x }) => x)), 5, true);
  const [yLow, yHigh] = [yTicks[0] as number, yTicks.at(-1) as number];
  // The x axis ends with the data; ticks beyond it are left out.
  const [xLow, xHigh] = [Math.min(...all.map(({ x }) => x)), Math.max(...all.map(({ x }) => x))];
  const x = (value: number): number =>
    round(
      xHigh === xLow ? (LEFT + WIDTH - RIGHT) / 2 : LEFT + ((value - xLow) / (xHigh - xLow)) * (WIDTH - LEFT - RIGHT),
    );
  const y = (value: number): number =>
    round(HEIGHT - BOTTOM - ((value * scale - yLow) / (yHigh - yLow)) * (HEIGHT - TOP - BOTTOM));
  const yStep = (yTicks[1] as number) - yLow;
  const unit = format === "percent" ? " %" : "";
  // A digit more than the ticks have; two for a share whose ticks are coarse.
  const precision = format === "percent" && yStep >= 5 ? yStep / 100 : yStep / 10;
  const show = (value: number): string => `${formatTick(value * scale, precision)}${unit}`;
  // "100,000" is wider than the margin.
  const large = yHigh >= 100_000 && yStep >= 1000;
  const tickText = (tick: number): string =>
    large && tick !== 0 ? `${formatTick(tick / 1000, yStep / 1000)}k` : formatTick(tick, yStep);
  const description = options.description ?? describe(series, xLabel, show, xText);
  const id = chartId(title);

  const grid = yTicks.map((tick) => {
    const at = y(tick / scale);
    return html`<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${at}" y2="${at}" />
      <text class="tick" x="${LEFT - 7}" y="${at + 4}" text-anchor="end">${tickText(tick)}${unit}</text>`;
  });
  const below = xTicks
    .filter((tick) => tick >= xLow && tick <= xHigh)
    .map(
      (tick) =>
        html`<line class="axis" x1="${x(tick)}" x2="${x(tick)}" y1="${HEIGHT - BOTTOM}" y2="${HEIGHT - BOTTOM + 4}" />
          <text class="tick" x="${x(tick)}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle">
            ${options.xText === undefined ? tick.toLocaleString("en-US") : xText(tick)}
          </text>`,
    );
  // What the page's script reads values out of: [name, colour, [x...], [y...]] of each line; no markup, and no strings but names.
  const data = series.map(({ name, color, points }) => [
    name,
    color,
    points.map((point) => point.x),
    points.map((point) => Number(point.y.toPrecision(5))),
  ]);
  const texts =
    options.xText && JSON.stringify(Object.fromEntries(all.map((point) => [String(point.x), xText(point.x)])));
  const box = [LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM, WIDTH, xLow, xHigh];
  return html`<figure
    class="chart ${series.some((one) => "smooth" in one) && "calm"} ${longest > MOST_POINTS && "dense"}"
    id="${id}"
  >
    <figcaption>
      <h3>${title}</h3>
      ${hint !== undefined && html`<p class="hint">${hint}</p>`}
    </figcaption>
    <div
      class="plot"
      data-series="${JSON.stringify(data)}"
      data-box="${box.join(" ")}"
      data-x="${xLabel}"
      ${texts !== undefined && html`data-x-texts="${texts}"`}
      data-unit="${unit}"
    >
      <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-labelledby="${id}-title ${id}-desc">
        <title id="${id}-title">${title}</title>
        <desc id="${id}-desc">${description}</desc>
        ${grid}
        <line class="axis" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(yLow / scale)}" y2="${y(yLow / scale)}" />
        ${below}
        <text class="label" x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 6}" text-anchor="middle">${xLabel}</text>
        <text class="label" x="2" y="11">${yLabel}</text>
        ${series.map((one, i) => drawSeries(one, i, x, y, { xLabel, xText, show }))} ${endLabels(series, y, show)}
      </svg>
      <div class="probe" data-keep="all"></div>
    </div>
    ${(options.legend ?? series.length > 1) && legend(series)} ${table(whole, title, { xLabel, xText, show })}
  </figure>`;
}

/** Rows of a chart's table, at most. */
const MOST_ROWS = 40;

/** The chart's numbers: of many steps some, evenly spread. */
function table(series: readonly Series[], title: string, { xLabel, xText, show }: Texts): Html {
  const byX = series.map(({ points }) => new Map(points.map((point) => [point.x, point])));
  const xs = [...new Set(series.flatMap(({ points }) => points.map((point) => point.x)))].sort((a, b) => a - b);
  const rows = spread(xs, MOST_ROWS);
  const bounds = ({ low, high }: Point): string | false =>
    low !== undefined && high !== undefined && ` (${show(low)} to ${show(high)})`;
  return numbersTable(
    title,
    [[xLabel, "number"], ...series.map(({ name }) => [name, "number"] as const)],
    rows.map((at) => [
      xText(at),
      ...byX.map((points) => {
        const point = points.get(at);
        return point === undefined ? "" : [show(point.y), bounds(point)];
      }),
    ]),
    rows.length < xs.length && `${rows.length} of ${xs.length.toLocaleString("en-US")} steps`,
  );
}

type NumberText = (value: number) => string;
type Place = (value: number) => number;

interface Texts {
  xLabel: string;
  xText: NumberText;
  show: NumberText;
}

function drawSeries(
  { points, color, name, smooth: calm }: Series & { smooth?: readonly Point[] },
  i: number,
  x: Place,
  y: Place,
  { xLabel, xText, show }: Texts,
): Html {
  const path = (list: readonly Point[], value: (point: Point) => number): string =>
    list.map((point) => `${x(point.x)},${y(value(point))}`).join(" ");
  const bounded = points.filter((point) => point.low !== undefined && point.high !== undefined);
  const band =
    bounded.length > 1 &&
    html`<polygon
      class="band c-${color}"
      points="${path(bounded, (point) => point.low as number)} ${path(bounded.toReversed(), (point) => point.high as number)}"
    />`;
  const whiskers = bounded.map(
    (point) =>
      html`<path
        class="whisker c-${color}"
        d="M${x(point.x)} ${y(point.low as number)}V${y(point.high as number)}m-3 0h6M${x(point.x) - 3} ${y(point.low as number)}h6"
      />`,
  );
  // Beyond this many, marks would hide the line.
  const marks = points.length <= 40 ? points : points.slice(-1);
  const n = shapeOf(color, i);
  return html`${band} ${whiskers}
    <polyline
      class="line c-${color}"
      stroke-dasharray="${points.length > 80 ? "none" : DASHES[n % DASHES.length]}"
      points="${path(points, (point) => point.y)}"
    />
    ${calm !== undefined && html`<polyline class="smooth c-${color}" points="${path(calm, (point) => point.y)}" />`}
    ${marks.map((point) => {
      const bounds = point.low === undefined ? "" : ` (95 %: ${show(point.low)} to ${show(point.high as number)})`;
      const about = `${name}, ${xLabel} ${xText(point.x)}: ${show(point.y)}${bounds}`;
      return html`<path class="mark c-${color}" d="${markAt(n, x(point.x), y(point.y), points.length)}"
        ><title>${about}</title></path
      >`;
    })}`;
}

const DASHES = ["none", "6 3", "2 3", "8 3 2 3"];

/** Dashes and marks go with the colour, so that a role has one look in every chart; named colours go by their place. */
function shapeOf(color: string, place: number): number {
  return /^\d$/.test(color) ? Number(color) : place;
}

/** A mark of its own for each series: circle, square, triangle, diamond. */
function markAt(i: number, x: number, y: number, count: number): string {
  const r = count > 12 ? 2.2 : 3.4;
  if (i % 4 === 0) return `M${round(x - r)} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`;
  if (i % 4 === 1) return `M${round(x - r)} ${round(y - r)}h${2 * r}v${2 * r}h${-2 * r}z`;
  if (i % 4 === 2) return `M${x} ${round(y - 1.2 * r)}l${1.2 * r} ${2.1 * r}h${-2.4 * r}z`;
  return `M${x} ${round(y - 1.3 * r)}l${1.3 * r} ${1.3 * r}l${-1.3 * r} ${1.3 * r}l${-1.3 * r} ${-1.3 * r}z`;
}

/** The last value of each series beside its end, moved apart where they would touch. */
function endLabels(series: readonly Series[], y: Place, show: NumberText): Html[] {
  const labels = series
    .map(({ points, color }) => {
      const last = points.at(-1) as Point;
      return { color, text: show(last.y), at: y(last.y) + 4 };
    })
    .sort((a, b) => a.at - b.at);
  for (let i = 1; i < labels.length; i++) {
    const [above, label] = [labels[i - 1], labels[i]] as [(typeof labels)[0], (typeof labels)[0]];
    label.at = Math.max(label.at, above.at + 13);
  }
  const over = Math.max(0, (labels.at(-1)?.at ?? 0) - (HEIGHT - BOTTOM + 4));
  return labels.map(
    ({ color, text, at }) =>
      html`<text class="end c-${color}" x="${WIDTH - RIGHT + 7}" y="${round(at - over)}">${text}</text>`,
  );
}

function legend(series: readonly Series[]): Html {
  return html`<ul class="legend">
    ${series.map(
      ({ name, color }, i): HtmlValue =>
        html`<li>
          <svg viewBox="0 0 30 10" aria-hidden="true">
            <line
              class="line c-${color}"
              x1="1"
              x2="29"
              y1="5"
              y2="5"
              stroke-dasharray="${DASHES[shapeOf(color, i) % DASHES.length]}"
            />
            <path class="mark c-${color}" d="${markAt(shapeOf(color, i), 15, 5, 1)}" />
          </svg>
          ${name}
        </li>`,
    )}
  </ul>`;
}

function describe(series: readonly Series[], xLabel: string, show: NumberText, xText: NumberText): string {
  return series
    .map(({ name, points }) => {
      const [first, last] = [points[0] as Point, points.at(-1) as Point];
      const from = `${name}: ${show(first.y)} at ${xLabel} ${xText(first.x)}`;
      return points.length === 1 ? from : `${from}, ${show(last.y)} at ${xLabel} ${xText(last.x)}`;
    })
    .join("; ");
}
