import { open, type FileHandle } from "node:fs/promises";
import { fail, RolegradError } from "../errors.js";
import { importOptional } from "../optional.js";
import type { RawRow, Row } from "./place.js";
import { unreadable } from "./source.js";

// What the packages do by themselves; other codecs need hyparquet-compressors.
const BUILT_IN = new Set(["UNCOMPRESSED", "SNAPPY"]);

/**
 * The rows of a Parquet file: lists as arrays, structs as objects, integers as numbers (as text beyond 2^53), times as ISO text. Needs the
 * package hyparquet, and hyparquet-compressors for gzip, zstd or brotli (else ERR_OPTIONAL_MISSING). A file that is none -> ERR_DATA_FORMAT.
 */
export async function* parquetRows(file: string): AsyncGenerator<RawRow> {
  const hyparquet = await importOptional<typeof import("hyparquet")>("hyparquet", "Parquet files");
  let codec: string | undefined;
  const handle = await open(file).catch((cause: unknown) => unreadable(file, "parquet", cause));
  try {
    const { size } = await handle.stat();
    const source = { byteLength: size, slice: (from: number, to = size) => readPart(handle, from, to) };
    const metadata = await hyparquet.parquetMetadataAsync(source);
    const codecs = metadata.row_groups.flatMap(({ columns }) =>
      columns.map(({ meta_data: meta }) => meta?.codec ?? ""),
    );
    codec = codecs.find((each) => each !== "" && !BUILT_IN.has(each));
    const compressors =
      codec === undefined
        ? undefined
        : (
            await importOptional<typeof import("hyparquet-compressors")>(
              "hyparquet-compressors",
              `Parquet files with ${codec.toLowerCase()}`,
            )
          ).compressors;
    let from = 0;
    for (const { num_rows: count } of metadata.row_groups) {
      const to = from + Number(count);
      const rows = await hyparquet.parquetReadObjects({
        file: source,
        metadata,
        rowStart: from,
        rowEnd: to,
        ...(compressors && { compressors }),
      });
      if (rows.length !== to - from) throw new Error(`${rows.length} rows where ${to - from} were announced`);
      for (const [i, row] of rows.entries()) {
        const number = from + i + 1;
        yield { place: { file, row: number }, number, parse: () => plain(row) as Row };
      }
      from = to;
    }
  } catch (cause) {
    if (cause instanceof RolegradError) throw cause;
    if (typeof (cause as NodeJS.ErrnoException).syscall === "string") unreadable(file, "parquet", cause);
    const of = codec === undefined ? "" : ` of ${codec.toLowerCase()}`;
    fail("ERR_DATA_FORMAT", `Expected a Parquet file${of} at ${file}: ${(cause as Error).message}`, cause);
  } finally {
    await handle.close();
  }
}

async function readPart(handle: FileHandle, from: number, to: number): Promise<ArrayBuffer> {
  const bytes = new Uint8Array(to - from);
  for (let done = 0; done < bytes.length;) {
    const { bytesRead } = await handle.read(bytes, done, bytes.length - done, from + done);
    if (bytesRead === 0) throw new Error(`it ends at byte ${from + done}`);
    done += bytesRead;
  }
  return bytes.buffer;
}

/** A value as JSON would have it. */
function plain(value: unknown): unknown {
  if (typeof value === "bigint") {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : String(value);
  }
  if (typeof value !== "object" || value === null) return value;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (value instanceof Uint8Array) return Buffer.from(value).toString("base64");
  if (ArrayBuffer.isView(value)) return Array.from(value as unknown as ArrayLike<unknown>, plain);
  if (Array.isArray(value)) return value.map(plain);
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, plain(each)]));
}
