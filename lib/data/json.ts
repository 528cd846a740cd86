import { fail } from "../errors.js";
import { jsonLinesRows, toRow } from "./jsonl.js";
import type { RawRow } from "./place.js";
import { readChunks } from "./source.js";

/**
 * The objects of a JSON array. A file that does not begin with one is read as JSON Lines, which .json files often are. An array that is
 * not JSON as a whole -> ERR_DATA_FORMAT.
 */
export async function* jsonRows(file: string): AsyncGenerator<RawRow> {
  if (!(await beginsWithArray(file))) {
    yield* jsonLinesRows(file);
    return;
  }
  const chunks: Buffer[] = [];
  for await (const chunk of readChunks(file, "json")) chunks.push(chunk);
  let values: unknown;
  try {
    values = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(chunks)));
  } catch (cause) {
    fail("ERR_DATA_FORMAT", `Expected a JSON array in ${file}: ${(cause as Error).message}`, cause);
  }
  for (const [i, value] of (values as unknown[]).entries()) {
    const place = { file, row: i + 1 };
    yield { place, number: i + 1, parse: () => toRow(value, place) };
  }
}

async function beginsWithArray(file: string): Promise<boolean> {
  for await (const chunk of readChunks(file, "json")) {
    const start = chunk.toString("utf8").trimStart(); // which drops a byte order mark too
    if (start !== "") return start.startsWith("[");
  }
  return false;
}
