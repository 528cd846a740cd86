import { chartId } from "./chart.js";
import { html, type Html } from "./html.js";
import { round, WIDTH } from "./svg.js";
import { numbersTable } from "./table.js";

/** One row of a figure of histograms. */
export interface HistogramRow {
  name: string;
  /** As in a chart's series. */
  color: string;
  /** Counts of equal bins from `low` to `high`. */
  counts: readonly number[];
  /** A vertical mark. */
  median?: number;
  /** Stands at the row's right end. */
  note?: string;
}

const LEFT = 8;
const RIGHT = 12;
const ROW = 62;
const BARS = 34;
const BOTTOM = 40;

/**
 * Histograms one below the other on one axis, each as high as its own largest bin: shapes are compared, and each row says how many values it has.
 * Nothing where no row has a value.
 */
export function histograms(options: {
  title: string;
  hint?: string;
  xLabel: string;
  low: number;
  high: number;
  ticks: readonly number[];
  unit?: string;
  rows: readonly HistogramRow[];
}): Html | undefined {
  const { title, hint, xLabel, low, high, ticks, unit = "" } = options;
  const rows = options.rows.filter(({ counts }) => counts.some((count) => count > 0));
  if (rows.length === 0) return undefined;
  const height = rows.length * ROW + BOTTOM;
  const bottom = rows.length * ROW;
  const x = (value: number): number => round(LEFT + ((value - low) / (high - low)) * (WIDTH - LEFT - RIGHT));
  const sum = (counts: readonly number[]): number => counts.reduce((total, count) => total + count, 0);
  const share = (count: number, counts: readonly number[]): string => `${((100 * count) / sum(counts)).toFixed(1)} %`;
  const edge = ({ counts }: HistogramRow, bin: number): number => low + ((high - low) * bin) / counts.length;
  const medianText = ({ median }: HistogramRow): string =>
    median === undefined ? "" : `, median ${median.toFixed(1)}${unit}`;
  const id = chartId(title);
  const description = rows.map((row) => `${row.name}: ${sum(row.counts)} values${medianText(row)}`).join("; ");
  return html`<figure class="chart" id="${id}">
    <figcaption>
      <h3>${title}</h3>
      ${hint !== undefined && html`<p class="hint">${hint}</p>`}
    </figcaption>
    <svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-labelledby="${id}-title ${id}-desc">
      <title id="${id}-title">${title}</title>
      <desc id="${id}-desc">${description}</desc>
      ${ticks.map(
        (tick) =>
          html`<line class="grid" x1="${x(tick)}" x2="${x(tick)}" y1="18" y2="${bottom}" />
            <text class="tick" x="${x(tick)}" y="${bottom + 16}" text-anchor="middle">${tick}${unit}</text>`,
      )}
      ${rows.map((row, i) => {
        const base = (i + 1) * ROW - 8;
        const largest = Math.max(...row.counts);
        const bars = row.counts.map((count, bin) => {
          if (count === 0) return "";
          const [from, to] = [x(edge(row, bin)) + 0.5, x(edge(row, bin + 1)) - 0.5];
          const tall = round((BARS * count) / largest);
          const about = `${row.name}, ${edge(row, bin)} to ${edge(row, bin + 1)}${unit}: ${count} (${share(count, row.counts)})`;
          return html`<path class="mark c-${row.color}" d="M${from} ${base}v${-tall}h${round(to - from)}v${tall}z"
            ><title>${about}</title></path
          >`;
        });
        return html`<line class="axis" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${base}" y2="${base}" />
          ${bars}
          ${
            row.median !== undefined &&
            html`<path class="whisker" d="M${x(row.median)} ${base}v${-BARS - 3}" style="stroke:var(--text)" />`
          }
          <text class="label c-${row.color}" x="${LEFT}" y="${i * ROW + 13}" style="fill:var(--c);font-weight:600">
            ${row.name}
          </text>
          <text class="label" x="${WIDTH - RIGHT}" y="${i * ROW + 13}" text-anchor="end">${row.note}</text>`;
      })}
      <text class="label" x="${(LEFT + WIDTH - RIGHT) / 2}" y="${height - 5}" text-anchor="middle">${xLabel}</text>
    </svg>
    ${numbersTable(
      title,
      [[xLabel, "number"], ...rows.map(({ name }) => [name, "number"] as const)],
      (rows[0]?.counts ?? []).map((_, bin) => [
        `${edge(rows[0]!, bin)} to ${edge(rows[0]!, bin + 1)}`,
        ...rows.map(({ counts }) => counts[bin]),
      ]),
    )}
  </figure>`;
}
