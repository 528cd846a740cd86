import { fail } from "../errors.js";
import type { CountTable } from "./cells.js";
import { readDense } from "./dense.js";
import { readRows } from "./rows.js";
import type { AccuracyTable } from "./types.js";
import { isObject, show } from "./values.js";

/** Checks and copies a table of either form. */
export function readTable(table: AccuracyTable): CountTable {
  if (!isObject(table))
    fail("ERR_TABLE", `Expected { rows } or { samples, correct } for the table but received ${show(table)}`);
  const hasRows = "rows" in table && table.rows !== undefined;
  const hasCorrect = "correct" in table && table.correct !== undefined;
  if (hasRows === hasCorrect)
    fail(
      "ERR_TABLE",
      `Expected either { rows } or { samples, correct } for the table but received ${hasRows ? "both" : "neither"}`,
    );
  const result = hasRows ? readRows(table.rows) : readDense(table);
  if (result.questions === 0)
    fail(
      "ERR_TABLE_EMPTY",
      `Expected at least one question but ${hasRows ? "rows" : "every array of correct"} is empty`,
    );
  return result;
}
