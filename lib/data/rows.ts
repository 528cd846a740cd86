import { checkChoice } from "../arguments.js";
import { fail, RolegradError } from "../errors.js";
import { csvRows } from "./csv.js";
import { jsonRows } from "./json.js";
import { jsonLinesRows } from "./jsonl.js";
import { parquetRows } from "./parquet.js";
import { at, excerpt, within, type Place, type RawRow, type Row } from "./place.js";
import { DATA_FORMATS, formatOf, type DataFormat } from "./source.js";

/** What a bad row does: "error" ends the reading with an error that names it, "skip" leaves it out. */
export const ON_BAD_ROW = ["error", "skip"] as const;
/** Where ids come from: a field of the row, or the row's number in the file. */
export const IDS = ["field", "row"] as const;

/** What was left out of a file. */
export interface SkippedRows {
  file: string;
  /** Rows that were looked at, and how many of them were bad. */
  rows: number;
  skipped: number;
  /** What was wrong with the first few; each message names file and line. */
  first: { code: string; message: string }[];
}

export interface ReadRowsOptions {
  /** @default by the file's name: .jsonl, .ndjson, .json, .csv, .tsv, .parquet; all but the last also with .gz behind; else JSON Lines */
  format?: DataFormat;
  /**
   * "field": a row's id is what it says; a row without one is bad. "row": ids are the numbers of the rows, from 1, whatever the rows
   * say; bad rows count, blank lines do not.
   * @default "field"
   */
  ids?: (typeof IDS)[number];
  /** "error": the first bad row ends the reading. "skip": bad rows are left out and told to `onSkipped`. @default "error" */
  onBadRow?: (typeof ON_BAD_ROW)[number];
  /** Called once, at the end, where rows were skipped. Without it a process warning says so. */
  onSkipped?: (skipped: SkippedRows) => void;
}

const BAD = new Set(["ERR_DATA_LINE", "ERR_DATA_FIELD", "ERR_DATA_DUPLICATE"]);
const SHOWN = 5;

/**
 * Reads rows until `take` returns false. A row is bad where `convert` or its parsing throws ERR_DATA_LINE or ERR_DATA_FIELD, or where
 * its id came before (ERR_DATA_DUPLICATE).
 */
export async function readRows<T extends { id: string }>(
  file: string,
  options: ReadRowsOptions,
  convert: (row: Row, place: Place, cells: boolean) => T,
  take: (item: T) => boolean,
): Promise<SkippedRows> {
  const report = newReport(file);
  for await (const { item } of rowsOf(file, options, convert, report, uniqueIds())) if (!take(item)) break;
  tellSkipped(report, options);
  return report;
}

export function newReport(file: string): SkippedRows {
  return { file, rows: 0, skipped: 0, first: [] };
}

/** Once, at the end of a file. */
export function tellSkipped(report: SkippedRows, { onSkipped = warn }: ReadRowsOptions): void {
  if (report.skipped > 0) onSkipped(report);
}

/** The rows one by one, as {@link readRows} takes them; what is left out is counted in `report`. */
export async function* rowsOf<T extends { id: string }>(
  file: string,
  options: ReadRowsOptions,
  convert: (row: Row, place: Place, cells: boolean) => T,
  report: SkippedRows,
  claim: ReturnType<typeof uniqueIds>,
): AsyncGenerator<{ item: T; read: number }> {
  const { format = formatOf(file), ids = "field", onBadRow = "error" } = options;
  checkChoice(format, DATA_FORMATS, "format");
  checkChoice(ids, IDS, "ids");
  checkChoice(onBadRow, ON_BAD_ROW, "onBadRow");
  const cells = format === "csv" || format === "tsv";
  for await (const { place, number, parse, read = 0 } of rawRows(file, format)) {
    report.rows++;
    let item: T;
    try {
      const row = parse();
      item = convert(ids === "row" ? { ...row, id: number } : row, place, cells);
      claim(item.id, place);
    } catch (error) {
      if (onBadRow === "error" || !(error instanceof RolegradError) || !BAD.has(error.code)) throw error;
      if (report.skipped++ < SHOWN) report.first.push({ code: error.code, message: error.message });
      continue;
    }
    yield { item, read };
  }
}

function rawRows(file: string, format: DataFormat): AsyncGenerator<RawRow> {
  switch (format) {
    case "jsonl":
      return jsonLinesRows(file);
    case "json":
      return jsonRows(file);
    case "csv":
    case "tsv":
      return csvRows(file, format);
    case "parquet":
      return parquetRows(file);
  }
}

/** "3 of 400 rows of questions.csv skipped: Expected ..., and 2 more". */
export function skippedText({ file, rows, skipped, first }: SkippedRows): string {
  const more = skipped > 1 ? `, and ${skipped - 1} more` : "";
  return `${skipped} of ${rows} rows of ${file} skipped: ${first[0]?.message ?? ""}${more}`;
}

function warn(skipped: SkippedRows): void {
  process.emitWarning(skippedText(skipped), { code: "ROLEGRAD_ROWS_SKIPPED" });
}

/** A check that no id comes twice, in one file or several. */
export function uniqueIds(): (id: string, place: Place) => void {
  const places = new Map<string, Place>();
  return (id, place) => {
    const first = places.get(id);
    if (first !== undefined) {
      const before = first.file === place.file ? within(first) : `at ${at(first)}`;
      fail("ERR_DATA_DUPLICATE", `Expected unique ids but received ${excerpt(id)} at ${at(place)} and ${before}`);
    }
    places.set(id, place);
  };
}
