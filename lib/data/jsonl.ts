import { createReadStream } from "node:fs";
import { fail } from "../errors.js";

/** A line of a file, for messages: "questions.jsonl:12". */
export interface Place {
  file: string;
  line: number;
}

export type Row = Record<string, unknown>;

// A line longer than this is no row of text but another kind of file.
const MAX_LINE_BYTES = 64 * 2 ** 20;

/**
 * The objects of a JSON Lines file, with their places and the bytes read up to the end of each. Blank lines are skipped. A missing or unreadable file ->
 * ERR_DATA_NOT_FOUND, ERR_DATA_UNREADABLE; a line that is not UTF-8, not JSON or not an object -> ERR_DATA_LINE.
 */
export async function* readJsonLines(file: string): AsyncGenerator<{ row: Row; place: Place; read: number }> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let line = 0;
  let read = 0;
  for await (const bytes of readLines(file)) {
    read += bytes.length + 1;
    const place = { file, line: ++line };
    let text: string;
    try {
      text = decoder.decode(bytes).trim();
    } catch (cause) {
      fail("ERR_DATA_LINE", `Expected UTF-8 at ${at(place)}`, cause);
    }
    if (text !== "") yield { row: parseRow(text, place), place, read };
  }
}

export function at(place: Place): string {
  return `${place.file}:${place.line}`;
}

function parseRow(text: string, place: Place): Row {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const hint = place.line === 1 && text.startsWith("[") ? " (one object a line, no array around them)" : "";
    fail("ERR_DATA_LINE", `Expected JSON at ${at(place)}${hint}: ${(cause as Error).message}`, cause);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    fail("ERR_DATA_LINE", `Expected a JSON object at ${at(place)} but received ${excerpt(value)}`);
  }
  return value as Row;
}

/** A value in a message: its JSON, cut. */
export function excerpt(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
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
  for await (const chunk of readChunks(file)) {
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

async function* readChunks(file: string): AsyncGenerator<Buffer> {
  const stream = createReadStream(file);
  try {
    yield* stream;
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code === "ENOENT" ? "ERR_DATA_NOT_FOUND" : "ERR_DATA_UNREADABLE";
    fail(code, `Expected a JSON Lines file at ${file}: ${(cause as Error).message}`, cause);
  } finally {
    stream.destroy();
  }
}
