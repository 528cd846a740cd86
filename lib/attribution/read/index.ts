import { fail } from "../../errors.js";
import { variantIndex } from "../cells.js";
import { type Variant, variants } from "../types.js";
import { choice, flag, isObject, optionsObject, show } from "../values.js";
import {
  type AccuracySource,
  fileFormats,
  type ReadAccuracyOptions,
  type LoadedAccuracy,
  rowFormats,
  type AccuracyFields,
} from "./types.js";

export type {
  AccuracySource,
  FileFormat,
  ReadAccuracyOptions,
  AccuracyFile,
  LoadedAccuracy,
  RowFormat,
  RowShape,
  AccuracyFields,
  AccuracyFormat,
  VariantSource,
} from "./types.js";

const fieldNames: readonly (keyof AccuracyFields)[] = [
  "id",
  "variant",
  "correct",
  "samples",
  "score",
  "seed",
  "cluster",
  "sample",
];

/**
 * A table of accuracies from files: CSV, TSV, JSON, JSON Lines or Parquet with all six variants (a row for each variant of each question, or a column for each
 * variant), or one file for each variant with counts or one row for each sampled answer, which are then counted by question. Recognised by content: outputs
 * of `rolegrad eval --out` and run directories, verl's validation dumps, TRL's completion logs, responses with right answers as Search-R1's data has them.
 *
 * Throws a RolegradError that names file and line: what {@link computeInterferenceSync} throws for tables, and ERR_DATA_NOT_FOUND, ERR_DATA_UNREADABLE,
 * ERR_DATA_FORMAT, ERR_DATA_LINE, ERR_TABLE_FILE (no JSON), ERR_TABLE_FORMAT (rows that are not recognised), ERR_TABLE_FIELD, ERR_TABLE_SCORE (neither right
 * nor wrong), ERR_TABLE_OUTCOMES (with `outcomes`: counts, or answers that are not paired), ERR_OPTIONAL_MISSING (Parquet needs the package hyparquet), ERR_INVALID_ARGUMENT, ERR_ABORTED.
 *
 * @example
 * const table = await readAccuracyTable({
 *   base: "base.jsonl", reas: "reas.jsonl", tool: "tool.jsonl", unified: "unified.jsonl",
 *   hybridTool: "hybrid-tool.jsonl", hybridReas: "hybrid-reas.jsonl",
 * });
 * const result = await computeInterference(table);
 */
export async function readAccuracyTable(
  source: AccuracySource,
  options: ReadAccuracyOptions = {},
): Promise<LoadedAccuracy> {
  checkOptions(options);
  if (typeof source !== "string" && !isObject(source))
    fail(
      "ERR_INVALID_ARGUMENT",
      `Expected a file, files by variant or a table for source but received ${show(source)}`,
    );
  // What reads files is loaded when it is asked for.
  const { readFiles, readInMemory } = await import("./read.js");
  if (typeof source === "string") return readFiles(source, options);
  const { rows, correct } = source as Record<string, unknown>;
  if (rows !== undefined || correct !== undefined) return readInMemory(source as never, options);
  return readFiles(byVariant(source), options);
}

function byVariant(source: Record<string, unknown>): Map<Variant, readonly string[]> {
  const files = new Map<Variant, readonly string[]>();
  for (const [name, value] of Object.entries(source)) {
    if (value === undefined) continue;
    const variant = variants[variantIndex(name, "a key of source")] as Variant;
    const list: unknown[] = Array.isArray(value) ? value : [value];
    if (list.length === 0 || !list.every((file) => typeof file === "string" && file !== ""))
      fail("ERR_INVALID_ARGUMENT", `Expected a file or several for source.${name} but received ${show(value)}`);
    if (files.has(variant))
      fail("ERR_TABLE_DUPLICATE", `Expected source to name ${variant} once but received it twice`);
    files.set(variant, list as string[]);
  }
  const missing = variants.filter((variant) => !files.has(variant));
  if (missing.length > 0)
    fail(
      "ERR_TABLE_VARIANT",
      `Expected a file for each of the six variants but there is none for ${missing.join(", ")}`,
    );
  return files;
}

function checkOptions(options: ReadAccuracyOptions): void {
  optionsObject(options, "options");
  const { format, fields = {}, samples, threshold, missing, outcomes } = options;
  if (outcomes !== undefined) flag(outcomes, "options.outcomes");
  if (format !== undefined) choice([...fileFormats, ...rowFormats], format, "options.format");
  if (missing !== undefined) choice(["error", "drop"], missing, "options.missing");
  optionsObject(fields, "options.fields");
  for (const [name, value] of Object.entries(fields)) {
    choice(fieldNames, name, "a key of options.fields");
    if (value !== undefined && (typeof value !== "string" || value === ""))
      fail("ERR_INVALID_ARGUMENT", `Expected a field's name for options.fields.${name} but received ${show(value)}`);
  }
  if (samples !== undefined && !(Number.isSafeInteger(samples) && samples >= 1))
    fail("ERR_INVALID_ARGUMENT", `Expected an integer >= 1 for options.samples but received ${show(samples)}`);
  if (threshold !== undefined && !(typeof threshold === "number" && Number.isFinite(threshold)))
    fail("ERR_INVALID_ARGUMENT", `Expected a finite number for options.threshold but received ${show(threshold)}`);
}
