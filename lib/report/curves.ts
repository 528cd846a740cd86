import { lineChart, type Series } from "./chart.js";
import { html, type Html } from "./html.js";
import type { EvaluationRecord, StepRecord } from "../run/records.js";
import type { RunFiles } from "./run.js";

/** Evaluations of the same questions under the same conditions, by step. */
export interface EvaluationSeries {
  split: string;
  note: string | undefined;
  lines: EvaluationRecord[];
}

/** Evaluations by split and note, in the order in which each first came; of one step made twice, the last. */
export function evaluationSeries(evaluations: readonly EvaluationRecord[]): EvaluationSeries[] {
  const series = new Map<string, EvaluationSeries>();
  for (const line of evaluations) {
    const key = JSON.stringify([line.split, line.note ?? null, line.n, line.samples, line.temperature]);
    const own = series.get(key) ?? { split: line.split, note: line.note, lines: [] };
    own.lines = [...own.lines.filter(({ step }) => step !== line.step), line].sort((a, b) => a.step - b.step);
    series.set(key, own);
  }
  return [...series.values()];
}

/** What the run is judged by: the evaluations at the most steps; undefined where there are none. */
export function mainSeries(evaluations: readonly EvaluationRecord[]): EvaluationSeries | undefined {
  const series = evaluationSeries(evaluations);
  const most = Math.max(...series.map(({ lines }) => lines.length));
  return (
    series.find(({ lines, note }) => lines.length === most && note === undefined) ??
    series.find(({ lines }) => lines.length === most)
  );
}

/** "dev", or "dev, pages withheld". */
export function seriesName({ split, note }: Pick<EvaluationSeries, "split" | "note">): string {
  return note === undefined ? split : `${split}, ${note}`;
}

/** The learning curves that the run's files have numbers for. */
export function curves({ metrics, evaluations, config }: RunFiles): Html[] {
  const step = "optimizer step";
  const line = (name: string, color: string, value: (metrics: StepRecord) => number | undefined): Series => ({
    name,
    color,
    points: metrics.flatMap((row) => {
      const y = value(row);
      return typeof y === "number" ? [{ x: row.step, y }] : [];
    }),
  });
  const byName = (field: "gradNorms" | "sampledTokens"): Series[] => {
    const names = [...new Set(metrics.flatMap((row) => Object.keys(row[field] ?? {})))];
    return names.map((name, i) => line(name, String(i % 4), (row) => row[field]?.[name]));
  };
  const some = (value: (row: StepRecord) => number | undefined): boolean =>
    metrics.some((row) => (value(row) ?? 0) !== 0);
  const main = mainSeries(evaluations);
  const rewards = metrics.map(({ reward }) => reward);
  const shares = rewards.every((reward) => reward >= 0 && reward <= 1);
  const steps = (one: EvaluationSeries): boolean => one.lines.length > 1 || one === main;
  const charts = [
    lineChart({
      title: "Exact match, 95 % intervals",
      xLabel: step,
      yLabel: "exact match",
      format: "percent",
      yMax: 1,
      series: evaluationSeries(evaluations)
        .map((one) => (one.split === main?.split && one.note === main?.note ? (main ?? one) : one))
        .filter((one) => steps(one) || one.note !== undefined)
        .map((one, i) => ({
          name: seriesName(one),
          color: one === main ? "main" : (["output", "1", "2"][(i - 1) % 3] as string),
          points: one.lines.map(({ step, exactMatch, low, high }) => ({ x: step, y: exactMatch, low, high })),
        })),
    }),
    lineChart({
      title: "Mean reward of each step's samples",
      xLabel: step,
      yLabel: "reward",
      ...(shares ? { yMax: 1 } : {}),
      series: [line("reward", "main", (row) => row.reward)],
    }),
    lineChart({
      title: "Gradient norm by adapter, before clipping",
      xLabel: step,
      yLabel: "Euclidean norm",
      series: byName("gradNorms"),
    }),
    lineChart({
      title: "Sampled tokens by role",
      xLabel: step,
      yLabel: "tokens a step",
      series: byName("sampledTokens"),
    }),
    lineChart({
      title: "Tool calls an answer",
      xLabel: step,
      yLabel: "mean calls",
      series: [line("calls", "1", (row) => row.searches)],
    }),
    lineChart({
      title: "Groups whose samples differ in reward",
      description: "Only these teach: in a group of equal rewards every advantage is 0.",
      xLabel: step,
      yLabel: "share of groups",
      format: "percent",
      yMax: 1,
      series: [line("groups", "muted", (row) => row.mixedGroups)],
    }),
    (some((row) => row.kl) || coefficient(config) > 0) &&
      lineChart({
        title: "KL to the reference (estimate)",
        xLabel: step,
        yLabel: "nats a token",
        series: [line("KL", "main", (row) => row.kl)],
      }),
    some((row) => (row.clipHigh ?? 0) + (row.clipLow ?? 0)) &&
      lineChart({
        title: "Clipped tokens",
        xLabel: step,
        yLabel: "share of tokens",
        format: "percent",
        series: [line("from above", "0", (row) => row.clipHigh), line("from below", "1", (row) => row.clipLow)],
      }),
  ];
  return charts.filter((chart) => chart instanceof Object);
}

function coefficient(config: Record<string, unknown>): number {
  const objective = config["objective"] as { klCoefficient?: unknown } | undefined;
  return typeof objective?.klCoefficient === "number" ? objective.klCoefficient : 0;
}

/** All numbers of the curves as a table. */
export function stepsTable(metrics: readonly StepRecord[], cell: (value: unknown) => string): Html | undefined {
  if (metrics.length === 0) return undefined;
  const adapters = Object.keys(metrics[0]?.gradNorms ?? {});
  const roles = Object.keys(metrics[0]?.sampledTokens ?? {});
  const columns: [string, (row: StepRecord) => unknown][] = [
    ["step", (row) => row.step],
    ["reward", (row) => row.reward],
    ["loss", (row) => row.loss],
    ["groups that differ", (row) => row.mixedGroups],
    ...adapters.map((name): [string, (row: StepRecord) => unknown] => [
      `gradient norm, ${name}`,
      (row) => row.gradNorms[name],
    ]),
    ["KL", (row) => row.kl],
    ["learning rate", (row) => row.learningRate],
    ...roles.map((name): [string, (row: StepRecord) => unknown] => [
      `tokens, ${name}`,
      (row) => row.sampledTokens[name],
    ]),
    ["seconds", (row) => row.seconds],
  ];
  return html`<details>
    <summary>Every step as a table</summary>
    <div class="wide" tabindex="0" role="region" aria-label="Every step">
      <table class="data">
        <caption>
          metrics.jsonl has these and more, one line a step.
        </caption>
        <thead>
          <tr>
            ${columns.map(([name]) => html`<th scope="col" class="number">${name}</th>`)}
          </tr>
        </thead>
        <tbody>
          ${metrics.map(
            (row) =>
              html`<tr>
                ${columns.map(([, value]) => html`<td class="number">${cell(value(row))}</td>`)}
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
  </details>`;
}
