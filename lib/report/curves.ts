import { spread } from "./downsample.js";
import { html, type Html } from "./html.js";
import { dataTable } from "./table.js";
import type { EvaluationRecord, StepRecord } from "../run/records.js";

/** Evaluations of the same questions under the same conditions, by step. */
export interface EvaluationSeries {
  split: string;
  note: string | undefined;
  lines: EvaluationRecord[];
}

/** Evaluations by split and note, in the order in which each first came; of one step made twice, the last. */
export function evaluationSeries(evaluations: readonly EvaluationRecord[]): EvaluationSeries[] {
  const series = new Map<string, { split: string; note: string | undefined; bySteps: Map<number, EvaluationRecord> }>();
  for (const line of evaluations) {
    const key = JSON.stringify([line.split, line.note ?? null, line.n, line.samples, line.temperature]);
    const own = series.get(key) ?? { split: line.split, note: line.note, bySteps: new Map<number, EvaluationRecord>() };
    own.bySteps.set(line.step, line);
    series.set(key, own);
  }
  return [...series.values()].map(({ split, note, bySteps }) => ({
    split,
    note,
    lines: [...bySteps.values()].sort((a, b) => a.step - b.step),
  }));
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
  // A line of another program may lack it.
  const questions = (split as string | undefined) ?? "questions";
  return note === undefined ? questions : `${questions}, ${note}`;
}

/** Rows of the table of steps, at most. */
const MOST_ROWS = 100;

/** The numbers of the curves as a table; of a long run's steps some, evenly spread. */
export function stepsTable(metrics: readonly StepRecord[], cell: (value: unknown) => string): Html | undefined {
  if (metrics.length === 0) return undefined;
  const rows = spread(metrics, MOST_ROWS);
  const adapters = Object.keys(metrics[0]?.gradNorms ?? {});
  const roles = Object.keys(metrics[0]?.sampledTokens ?? {});
  const columns: [string, (row: StepRecord) => unknown][] = [
    ["step", (row) => row.step],
    ["reward", (row) => row.reward],
    ["loss", (row) => row.loss],
    ["groups that differ", (row) => row.mixedGroups],
    ...adapters.map((name): [string, (row: StepRecord) => unknown] => [
      `gradient norm, ${name}`,
      (row) => row.gradNorms?.[name],
    ]),
    ["KL", (row) => row.kl],
    ["learning rate", (row) => row.learningRate],
    ...roles.map((name): [string, (row: StepRecord) => unknown] => [
      `tokens, ${name}`,
      (row) => row.sampledTokens?.[name],
    ]),
    ["seconds", (row) => row.seconds],
  ];
  return html`<details>
    <summary>${rows.length < metrics.length ? "Steps" : "Every step"} as a table</summary>
    ${dataTable(
      "Steps as a table",
      columns.map(([name]) => [name, "number"]),
      rows.map((row) => columns.map(([, value]) => cell(value(row)))),
      "metrics.jsonl has these and more, one line a step.",
    )}
  </details>`;
}
