import type { SqlRows } from "./protocol.js";

/** A result to be read: values as SQLite writes them, null for NULL; `rows` are the first of `total`. */
export type SqlTable = SqlRows<string | null>;

/**
 * One line of column names, one a row, and how many rows there are; rows from `maxCharacters` on are left out, and counted.
 *
 * @example
 * sqlTable({ columns: ["name", "age"], rows: [["Ann", "31"], ["Bob", null]], total: 2, complete: true });
 * // "name | age\nAnn | 31\nBob | NULL\n(2 rows)"
 */
export function sqlTable({ columns, rows, total, complete }: SqlTable, maxCharacters = Infinity): string {
  const line = (cells: readonly (string | null)[]): string =>
    cells.map((cell) => (cell === null ? "NULL" : oneLine(cell))).join(" | ");
  const head = line(columns);
  const lines = [head.length > maxCharacters ? `${head.slice(0, maxCharacters)}…` : head];
  let left = maxCharacters - lines[0]!.length;
  for (const row of rows) {
    const text = line(row);
    left -= text.length + 1;
    if (left < 0) break;
    lines.push(text);
  }
  const shown = lines.length - 1;
  const all = `${complete ? "" : "more than "}${total} row${total === 1 && complete ? "" : "s"}`;
  if (shown < total || !complete) {
    const rest = `${complete ? "" : "more than "}${total - shown}`;
    lines.push(`(the first ${shown} of ${all}; ${rest} left out)`);
  } else lines.push(`(${all})`);
  return lines.join("\n");
}

const oneLine = (text: string): string => text.replace(/\r\n|[\n\r]/g, "\\n");

/** A query without the fence of Markdown that models like to put around code. */
export function unfenced(text: string): string {
  return /^\s*```[ \t]*\w*[ \t]*\r?\n(.*?)\r?\n?[ \t]*```\s*$/s.exec(text)?.[1] ?? text;
}
