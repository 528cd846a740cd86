import { createReadStream } from "node:fs";
import { createGunzip } from "node:zlib";
import { pipeline } from "node:stream";
import { fail } from "../errors.js";

/** What a file of rows may be. Text formats may be gzipped (.gz). */
export const DATA_FORMATS = ["jsonl", "json", "csv", "tsv", "parquet"] as const;
export type DataFormat = (typeof DATA_FORMATS)[number];

const NAMES: Record<DataFormat, string> = {
  jsonl: "a JSON Lines file",
  json: "a JSON file",
  csv: "a CSV file",
  tsv: "a TSV file",
  parquet: "a Parquet file",
};

const EXTENSIONS: Record<string, DataFormat> = {
  json: "json",
  csv: "csv",
  tsv: "tsv",
  tab: "tsv",
  parquet: "parquet",
  pq: "parquet",
};

/** The format that a file's name says; JSON Lines where it says none. */
export function formatOf(file: string): DataFormat {
  const extension = /\.([^./\\]+)$/.exec(file.replace(/\.gz$/i, ""))?.[1]?.toLowerCase() ?? "";
  return Object.hasOwn(EXTENSIONS, extension) ? EXTENSIONS[extension]! : "jsonl";
}

/** Throws ERR_DATA_NOT_FOUND or ERR_DATA_UNREADABLE for what opening or reading a file came to. */
export function unreadable(file: string, format: DataFormat, cause: unknown): never {
  const code = (cause as NodeJS.ErrnoException).code === "ENOENT" ? "ERR_DATA_NOT_FOUND" : "ERR_DATA_UNREADABLE";
  const why = code === "ERR_DATA_NOT_FOUND" ? "but there is none" : `but ${(cause as Error).message}`;
  return fail(code, `Expected ${NAMES[format]} at ${file} ${why}`, cause);
}

/** The bytes of a file; those inside it where its name ends in .gz. */
export async function* readChunks(file: string, format: DataFormat): AsyncGenerator<Buffer> {
  const stream = createReadStream(file);
  // The callback is there so that an error is thrown below and nowhere else.
  const source = /\.gz$/i.test(file) ? pipeline(stream, createGunzip(), () => undefined) : stream;
  try {
    yield* source as AsyncIterable<Buffer>;
  } catch (cause) {
    unreadable(file, format, cause);
  } finally {
    source.destroy();
    stream.destroy();
  }
}

const BOM = Buffer.from([0xef, 0xbb, 0xbf]);

/** The chunks without the byte order mark that may stand first. */
export async function* withoutMark(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let head: Buffer | undefined = Buffer.alloc(0);
  for await (const chunk of chunks) {
    if (head === undefined) yield chunk;
    else {
      head = Buffer.concat([head, chunk]);
      if (head.length < BOM.length) continue;
      yield head.subarray(0, 3).equals(BOM) ? head.subarray(3) : head;
      head = undefined;
    }
  }
  if (head !== undefined && head.length > 0) yield head;
}
