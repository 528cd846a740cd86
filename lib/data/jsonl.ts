import { fail } from "../errors.js";
import { at, excerpt, type Place, type RawRow, type Row } from "./place.js";
import { readChunks } from "./source.js";

// A line longer than this is no row of text but another kind of file.
const MAX_LINE_BYTES = 64 * 2 ** 20;

/**
 * The objects of a JSON Lines file, with their places. Blank lines are skipped. A missing or unreadable file ->
 * ERR_DATA_NOT_FOUND, ERR_DATA_UNREADABLE; a line that is not UTF-8, not JSON or not an object -> ERR_DATA_LINE.
 */
export async function* readJsonLines(file: string): AsyncGenerator<{ row: Row; place: Place }> {
  for await (const { place, parse } of jsonLinesRows(file)) yield { row: parse(), place };
}

/** The lines of a JSON Lines file that are not blank. Errors of the file as {@link readJsonLines}. */
export async function* jsonLinesRows(file: string): AsyncGenerator<RawRow> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let line = 0;
  let number = 0;
  let read = 0;
  for await (const bytes of readLines(file)) {
    read += bytes.length + 1;
    const place = { file, line: ++line };
    let text: string | undefined;
    let cause: unknown;
    try {
      text = decoder.decode(bytes).trim();
    } catch (error) {
      cause = error;
    }
    if (text === "") continue;
    const parse = (): Row =>
      text === undefined ? fail("ERR_DATA_LINE", `Expected UTF-8 at ${at(place)}`, cause) : parseRow(text, place);
    yield { place, number: ++number, parse, read };
  }
}

function parseRow(text: string, place: Place): Row {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const hint = place.line === 1 && text.startsWith("[") ? " (one object a line, no array around them)" : "";
    fail("ERR_DATA_LINE", `Expected JSON at ${at(place)}${hint}: ${(cause as Error).message}`, cause);
  }
  return toRow(value, place);
}

/** `value` as a row: an object, else ERR_DATA_LINE. */
export function toRow(value: unknown, place: Place): Row {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    fail("ERR_DATA_LINE", `Expected a JSON object at ${at(place)} but received ${excerpt(value)}`);
  }
  return value as Row;
}

async function* readLines(file: string): AsyncGenerator<Uint8Array> {
  let parts: Uint8Array[] = [];
  let held = 0;
  let line = 1;
  const hold = (part: Uint8Array): void => {
    parts.push(part);
    held += part.length;
    if (held > MAX_LINE_BYTES) {
      fail("ERR_DATA_LINE", `Expected lines of at most 64 MiB but received a longer one at ${at({ file, line })}`);
    }
  };
  for await (const chunk of readChunks(file, "jsonl")) {
    let from = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      hold(chunk.subarray(from, end));
      yield Buffer.concat(parts);
      parts = [];
      held = 0;
      line++;
      from = end + 1;
    }
    hold(chunk.subarray(from));
  }
  if (held > 0) yield Buffer.concat(parts);
}
