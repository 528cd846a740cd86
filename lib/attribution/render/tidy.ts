import type { AccuracyBin } from "../accuracy-bins.js";
import type { Estimate, Interference } from "../types.js";
import { effectNames } from "./effects.js";
import { binFigures, figuresOf } from "./view.js";
import type { InterferenceRenderOptions } from "./types.js";
import { tableOf } from "./table.js";

const header = ["question", "figure", "value", "low", "high", "level"];

/** {@link interferenceCsv} */
export function toCsv(result: Interference, options: InterferenceRenderOptions = {}): string {
  const lines = [header.join(",")];
  const put = (question: string, figure: string, value: number, estimate?: Estimate): void => {
    const { low = null, high = null, level } = estimate ?? {};
    const bounded = low !== null && high !== null;
    lines.push(
      [question, figure, number(value), number(low), number(high), bounded ? number(level ?? null) : ""]
        .map(cell)
        .join(","),
    );
  };
  for (const { name, value, estimate } of figuresOf(result)) put("", name, value, estimate);

  const { byHalves, bins = [] } = options;
  const named: [string, readonly AccuracyBin[]][] = byHalves
    ? [
        ["by_second_half_accuracy", byHalves[0]],
        ["by_first_half_accuracy", byHalves[1]],
      ]
    : [["accuracy", bins]];
  for (const [by, { low, high, questions, interference }] of named.flatMap(([by, own]) =>
    own.map((bin) => [by, bin] as const),
  )) {
    const name = `${by}_${low}_to_${high}`;
    put("", `${name}_questions`, questions.length);
    if (interference !== null)
      for (const { name: figure, value, estimate } of binFigures(interference))
        put("", `${name}_${figure}`, value, estimate);
  }

  const table = tableOf(options.table);
  result.kept.forEach((q, i) => {
    const id = table?.ids[q] ?? String(q);
    for (const { key, name } of effectNames) put(id, name, result.lambda[key][i] as number);
    if (result.posteriorNegative !== null) put(id, "posterior_negative", result.posteriorNegative[i] as number);
  });
  for (const [q, accuracies] of (table?.accuracies ?? []).entries())
    for (const [variant, accuracy] of accuracies) put(table?.ids[q] as string, `accuracy_${variant}`, accuracy);
  return `${lines.join("\n")}\n`;
}

function number(value: number | null): string {
  return value === null || !Number.isFinite(value) ? "" : String(value);
}

/** A cell as RFC 4180 has it: quoted where it must be. */
function cell(text: string): string {
  return /[",\r\n]|^\s|\s$|^$/.test(text) && text !== "" ? `"${text.replaceAll('"', '""')}"` : text;
}
