import { stripVTControlCharacters } from "node:util";

/** One JSON object on a line of stdout. Typed arrays become arrays; what JSON cannot say (NaN, infinities) is null. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, plain)}\n`);
}

function plain(_key: string, value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) return Array.from(value as Float64Array);
  return value;
}

/** Options of {@link formatTable}. */
export interface TableOptions {
  /** Columns set flush right, by number; the others are flush left. */
  right?: readonly number[];
  /** Put before each line. */
  indent?: string;
}

/** Rows as aligned columns, two spaces apart; colours do not count as width. */
export function formatTable(rows: readonly (readonly string[])[], options: TableOptions = {}): string {
  const { right = [], indent = "" } = options;
  const width = (cell: string) => stripVTControlCharacters(cell).length;
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, width(cell))));
  const line = (row: readonly string[]) =>
    row.map((cell, i) => {
      const padding = " ".repeat((widths[i] ?? 0) - width(cell));
      return right.includes(i) ? padding + cell : cell + padding;
    });
  return rows.map((row) => `${indent}${line(row).join("  ")}`.trimEnd()).join("\n");
}

/** 1536 -> "1.5 KiB". */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; bytes >= 1024 && unit < units.length - 1; unit++) bytes /= 1024;
  return `${unit === 0 ? bytes : bytes.toFixed(1)} ${units[unit]}`;
}

/** 75.2 -> "1m 15s", 3.21 -> "3.2s". */
export function formatSeconds(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)}s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}m ${whole % 60}s` : `${Math.floor(minutes / 60)}h ${minutes % 60}m`;
}
