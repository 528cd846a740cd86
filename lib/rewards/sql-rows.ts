import type { SqlValue } from "../environments/sql/protocol.js";

/**
 * Whether a query of SQLite orders its result: whether it has ORDER BY outside of all parentheses. In a query that SQLite accepts this is exact,
 * since ORDER is no name unless it is quoted, and what orders something else (a subquery, a window, an aggregate) stands in parentheses.
 *
 * @example
 * isOrdered("SELECT a FROM t ORDER BY a"); // true
 * isOrdered("SELECT a FROM (SELECT a FROM t ORDER BY a LIMIT 3)"); // false
 */
export function isOrdered(sql: string): boolean {
  let depth = 0;
  for (const [token] of sql.matchAll(TOKEN)) {
    if (token === "(") depth++;
    else if (token === ")") depth--;
    else if (depth === 0 && token.toLowerCase() === "order") return true;
  }
  return false;
}

// Comments and everything quoted as wholes; of the rest only words and parentheses count. A comment or "[" without its end goes on to the end.
const TOKEN =
  /--[^\n]*|\/\*.*?(?:\*\/|$)|'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|[\p{L}\p{N}_$\u0080-\uffff]+|[()]/gsu;

/**
 * Whether two results are the same rows: as multisets, or row by row. NULL equals NULL; numbers compare by value (1 equals 1.0), within the
 * relative tolerance unless both are whole; text and blobs byte by byte, and never equal to a number, as SQLite has it ('1' is not 1).
 */
export function sameRows(
  a: readonly SqlValue[][],
  b: readonly SqlValue[][],
  { ordered, tolerance = 1e-9 }: { ordered: boolean; tolerance?: number },
): boolean {
  if (a.length !== b.length) return false;
  const same = (one: SqlValue[], two: SqlValue[]): boolean =>
    one.length === two.length && one.every((value, i) => sameValue(value, two[i]!, tolerance));
  if (ordered) return a.every((row, i) => same(row, b[i]!));

  // Most rows have their equal to the bit. What is left may differ in the last digits of numbers alone, so it is compared within those rows that
  // agree in everything else, from small to large.
  const left = new Map<string, { row: SqlValue[]; times: number }>();
  for (const row of b) {
    const key = row.map(exactKey).join("\u0001");
    const entry = left.get(key);
    if (entry === undefined) left.set(key, { row, times: 1 });
    else entry.times++;
  }
  const unmatched: SqlValue[][] = [];
  for (const row of a) {
    const key = row.map(exactKey).join("\u0001");
    const entry = left.get(key);
    if (entry === undefined || entry.times === 0) unmatched.push(row);
    else entry.times--;
  }
  const wanted = new Map<string, SqlValue[][]>();
  for (const { row, times } of left.values()) {
    const key = row.map(coarseKey).join("\u0001");
    const bucket = wanted.get(key) ?? [];
    for (let i = 0; i < times; i++) bucket.push(row);
    wanted.set(key, bucket);
  }
  for (const bucket of wanted.values()) bucket.sort(byNumbers);
  for (const row of unmatched.sort(byNumbers)) {
    const bucket = wanted.get(row.map(coarseKey).join("\u0001")) ?? [];
    const at = bucket.findIndex((other) => same(row, other));
    if (at < 0) return false;
    bucket.splice(at, 1);
  }
  return true;
}

function sameValue(a: SqlValue, b: SqlValue, tolerance: number): boolean {
  if (isNumber(a) && isNumber(b)) {
    // Below and above compare a bigint with a number by value, as === does not; NaN is none of SQLite's values.
    if (!(a < b) && !(a > b)) return true;
    if (isWhole(a) && isWhole(b)) return false;
    const [x, y] = [Number(a), Number(b)];
    return (
      Math.abs(x - y) <= tolerance * Math.max(Math.abs(x), Math.abs(y)) && Number.isFinite(x) && Number.isFinite(y)
    );
  }
  if (a instanceof Uint8Array && b instanceof Uint8Array) return Buffer.compare(a, b) === 0;
  return a === b;
}

const isNumber = (value: SqlValue): value is number | bigint => typeof value === "number" || typeof value === "bigint";
const isWhole = (value: number | bigint): boolean => typeof value === "bigint" || Number.isInteger(value);

function exactKey(value: SqlValue): string {
  if (value === null) return "0";
  // A whole float beyond 2^53 has the key of the integer that it is.
  if (isNumber(value)) return `n${isWhole(value) ? BigInt(value) : value}`;
  return coarseKey(value);
}

function coarseKey(value: SqlValue): string {
  if (value === null) return "0";
  if (isNumber(value)) return "n";
  // The length goes first, so that no text can look like the border between two.
  return typeof value === "string" ? `t${value.length}:${value}` : `b${Buffer.from(value).toString("hex")}`;
}

function byNumbers(a: readonly SqlValue[], b: readonly SqlValue[]): number {
  for (const [i, value] of a.entries()) {
    const other = b[i]!;
    if (!isNumber(value) || !isNumber(other)) continue;
    if (value < other) return -1;
    if (value > other) return 1;
  }
  return 0;
}
