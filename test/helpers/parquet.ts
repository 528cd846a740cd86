// Parquet files in the layouts of real data sets.
import { execFileSync } from "node:child_process";
import path from "node:path";
import { root } from "./shared.js";

/** The type of a column: a text, an integer of 64 bits, a list of one type, or a struct. */
export type Shape = "text" | "int64" | [Shape] | { [name: string]: Shape };

/** Writes rows (whose fields are those of `shape`) as a Parquet file; without a codec by snappy. */
export function writeParquet(
  file: string,
  shape: Record<string, Shape>,
  rows: readonly Record<string, unknown>[],
  options: { codec?: "UNCOMPRESSED" | "GZIP" | "BROTLI"; rowGroupSize?: number } = {},
): void {
  const input = JSON.stringify({ file, shape, rows, options });
  execFileSync(process.execPath, [path.join(root, "test/helpers/parquet.mjs")], { input });
}
