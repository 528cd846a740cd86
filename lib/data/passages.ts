import type { Passage } from "../environments/types.js";
import { fail } from "../errors.js";
import { fieldOf, toId, toText } from "./fields.js";
import type { Place, Row } from "./place.js";
import { newReport, type ReadRowsOptions, rowsOf, type SkippedRows, tellSkipped, uniqueIds } from "./rows.js";

/** Paths of the fields that a passage is made of: names, or "metadata.title". */
export interface PassageFields {
  /** @default "id" or "_id" */
  id?: string;
  /** @default "title" */
  title?: string;
  /** @default "text" */
  text?: string;
  /** Title and text in one, read where there is no text. @default "contents" */
  contents?: string;
}

export interface ReadPassagesOptions extends ReadRowsOptions {
  /** Where the fields are, if not under their usual names. */
  fields?: PassageFields;
}

/**
 * Passages of a JSON Lines, JSON, CSV, TSV or Parquet file: `id`, `title` (may be absent) and `text`; or `contents`, as Search-R1's corpora
 * have it: the title on the first line, in quotes, and the text below. Errors as {@link readQuestions}.
 *
 * @example
 * const search = SearchEnvironment.fromPassages(await readPassages("passages.jsonl"));
 */
export async function readPassages(file: string, options: ReadPassagesOptions = {}): Promise<Passage[]> {
  const passages: Passage[] = [];
  const report = newReport(file);
  for await (const { passage } of passagesOf(file, options, report)) passages.push(passage);
  tellSkipped(report, options);
  if (passages.length === 0) {
    const bad = report.skipped > 0 ? ` (${report.skipped} bad rows: ${report.first[0]?.message})` : "";
    fail("ERR_DATA_EMPTY", `Expected passages in ${file} but received none${bad}`);
  }
  return passages;
}

/**
 * The passages of several files one by one, as {@link readPassages} reads them. `read`: bytes so far, of all files, where lines are read one by one (JSON
 * Lines that are not gzipped). No two of them may share an id.
 */
export async function* streamPassages(
  files: readonly string[],
  options: ReadPassagesOptions = {},
): AsyncGenerator<{ passage: Passage; read: number }> {
  const claim = uniqueIds();
  let before = 0;
  for (const file of files) {
    const report = newReport(file);
    let inFile = 0;
    let some = false;
    for await (const { passage, read } of passagesOf(file, options, report, claim)) {
      some = true;
      inFile = read;
      yield { passage, read: before + read };
    }
    tellSkipped(report, options);
    if (!some) fail("ERR_DATA_EMPTY", `Expected passages in ${file} but received none`);
    before += inFile;
  }
}

async function* passagesOf(
  file: string,
  options: ReadPassagesOptions,
  report: SkippedRows,
  claim = uniqueIds(),
): AsyncGenerator<{ passage: Passage; read: number }> {
  const { fields = {}, ids } = options;
  const own = ids === "row" ? { ...fields, id: "id" } : fields;
  const rows = rowsOf(file, options, (row, place) => toPassage(row, place, own), report, claim);
  for await (const { item, read } of rows) yield { passage: item, read };
}

function toPassage(row: Row, place: Place, fields: PassageFields): Passage {
  const id = toId(fieldOf(row, fields.id, ["id", "_id"]), place);
  const text = fieldOf(row, fields.text, ["text"]);
  const contents = fieldOf(row, fields.contents, ["contents"]);
  if (text.value === undefined && contents.value !== undefined)
    return { id, ...splitContents(toText(contents, place)) };
  const title = fieldOf(row, fields.title, ["title"]);
  return title.value === undefined || title.value === null
    ? { id, text: toText(text, place) }
    : { id, title: toText(title, place), text: toText(text, place) };
}

/** The title on the first line, with or without quotes, and the text below; one line alone is the text. */
export function splitContents(contents: string): Omit<Passage, "id"> {
  const end = contents.indexOf("\n");
  if (end < 0) return { text: contents };
  const title = contents.slice(0, end).trim();
  const quoted = title.length > 1 && title.startsWith('"') && title.endsWith('"');
  return { title: quoted ? title.slice(1, -1) : title, text: contents.slice(end + 1) };
}
