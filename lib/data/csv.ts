import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { parse, type Parser } from "csv-parse";
import { fail } from "../errors.js";
import { at, excerpt, type RawRow, type Row } from "./place.js";
import { readChunks, withoutMark } from "./source.js";

const MAX_RECORD_BYTES = 64 * 2 ** 20;

/**
 * The records of a CSV or TSV file below its header, each a row of the cells that are not empty, as text. Quoted cells may hold line
 * ends; a row's place is the line that it begins on. Quotes that do not close, or a header that names a column twice -> ERR_DATA_FORMAT: where
 * rows begin is then unknown. A row with more or fewer cells than the header, or not UTF-8 -> ERR_DATA_LINE.
 */
export async function* csvRows(file: string, format: "csv" | "tsv"): AsyncGenerator<RawRow> {
  const lines = new LineCounter();
  let header: string[] | undefined;
  let number = 0;
  let start = 0;
  for await (const { record, info } of records(file, format, lines)) {
    const place = { file, line: lines.at(start) };
    start = info.bytes;
    if (record.length === 1 && record[0]!.trim() === "" && header?.length !== 1) continue;
    if (header === undefined) {
      header = checkHeader(cellsOf(record, at(place)), file);
      continue;
    }
    const columns = header;
    yield { place, number: ++number, parse: () => toRow(columns, cellsOf(record, at(place)), at(place)) };
  }
}

interface CsvRecord {
  /** Cells, a byte a character: so a byte that is no UTF-8 is found in its row and spoils no other. */
  record: string[];
  /** Bytes up to the end of the record. */
  info: { bytes: number };
}

async function* records(file: string, format: "csv" | "tsv", lines: LineCounter): AsyncGenerator<CsvRecord> {
  // Records that were found before an error are lost with it, so where the last one ended is noted as it is found.
  let end = 0;
  const parser: Parser = parse({
    delimiter: format === "tsv" ? "\t" : ",",
    record_delimiter: ["\r\n", "\n"],
    encoding: "latin1",
    relax_column_count: true,
    max_record_size: MAX_RECORD_BYTES,
    info: true,
    on_record: (record: string[], { bytes }: { bytes: number }) => {
      end = bytes;
      return record;
    },
  });
  const chunks = lines.watch(withoutMark(readChunks(file, format)));
  // The parser throws whatever ends it, a failure of the file included; nobody waits for the promise where its reader stops early.
  pipeline(Readable.from(chunks), parser).catch(() => undefined);
  try {
    yield* parser as AsyncIterable<CsvRecord>;
  } catch (cause) {
    const { code, message } = cause as { code?: string; message: string };
    if (!/^(CSV|INVALID)_/.test(code ?? "")) throw cause;
    fail(
      "ERR_DATA_FORMAT",
      `Expected CSV with closed quotes, "" for a quote inside, in the row at ${at({ file, line: lines.at(end) })}: ${message}`,
      cause,
    );
  } finally {
    parser.destroy();
  }
}

/** Which line a byte of a stream stands on, for bytes that are asked for in order. */
class LineCounter {
  #seen = 0;
  #line = 1;
  #ends: number[] = [];
  #next = 0;

  async *watch(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of chunks) {
      for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, end + 1)) this.#ends.push(this.#seen + end);
      this.#seen += chunk.length;
      yield chunk;
    }
  }

  at(offset: number): number {
    while (this.#next < this.#ends.length && this.#ends[this.#next]! < offset) {
      this.#next++;
      this.#line++;
    }
    if (this.#next > 65_536) {
      this.#ends = this.#ends.slice(this.#next);
      this.#next = 0;
    }
    return this.#line;
  }
}

function cellsOf(record: string[], where: string): string[] {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  try {
    return record.map((cell) => decoder.decode(Buffer.from(cell, "latin1")));
  } catch (cause) {
    return fail("ERR_DATA_LINE", `Expected UTF-8 at ${where}`, cause);
  }
}

function checkHeader(names: string[], file: string): string[] {
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined)
    fail("ERR_DATA_FORMAT", `Expected a header of distinct columns in ${file} but received ${excerpt(twice)} twice`);
  return names;
}

function toRow(columns: string[], cells: string[], where: string): Row {
  if (cells.length !== columns.length) {
    fail(
      "ERR_DATA_LINE",
      `Expected ${columns.length} cells, as the header has, at ${where} but received ${cells.length}`,
    );
  }
  return Object.fromEntries(columns.map((name, i) => [name, cells[i]] as const).filter(([, cell]) => cell !== ""));
}
