import { native } from "../binding.js";
import { fail, RolegradError } from "../errors.js";
import type { Design, EffectsFit, FitOptions } from "./types.js";
import { isArrayLike, isObject, optionsObject, show } from "./values.js";

/** A design whose columns cannot all be told apart (ERR_RANK_DEFICIENT). */
export class RankDeficientError extends RolegradError {
  /**
   * Groups of columns bound together by linear relations, in the order of the columns; a column of zeros is a group of its
   * own.
   */
  readonly confounded: readonly (readonly string[])[];
  /** The other columns: what the data say of them does not depend on the confounded ones. */
  readonly identifiable: readonly string[];

  constructor(message: string, confounded: readonly (readonly string[])[], identifiable: readonly string[]) {
    super("ERR_RANK_DEFICIENT", message);
    this.confounded = confounded;
    this.identifiable = identifiable;
  }
}

/**
 * Effects under any design: lambda = argmin |x lambda - z|^2 for each question, by Householder QR with column pivoting.
 * With the six variants' own design this is Eq. 7-8; with more variants than columns it is least squares.
 *
 * `z` are logits, [variants] for one question or [Q, variants], nested or flat row-major.
 *
 * Throws ERR_DESIGN_SHAPE, ERR_DESIGN_VALUE (not a finite number), ERR_INVALID_ARGUMENT, and {@link RankDeficientError} with
 * `.confounded` and `.identifiable` where columns of x are linearly dependent.
 *
 * @example
 * const x = [[1, 0], [1, 1], [1, 1]];
 * fitEffects({ variants: ["base", "run1", "run2"], columns: ["base", "training"], x }, [-1, 0.5, 0.7]).lambda; // -1, 1.6
 */
export function fitEffects(
  design: Design,
  z: ArrayLike<number> | ArrayLike<ArrayLike<number>>,
  options: FitOptions = {},
): EffectsFit {
  optionsObject(options, "options");
  const { tolerance = 1e-10 } = options;
  if (typeof tolerance !== "number" || !(tolerance >= 0 && tolerance < 1))
    fail("ERR_INVALID_ARGUMENT", `Expected a number from 0 to 1 for options.tolerance but received ${show(tolerance)}`);
  if (!isObject(design))
    fail("ERR_DESIGN_SHAPE", `Expected { variants, columns, x } for the design but received ${show(design)}`);
  const rows = names(design.variants, "variants");
  const columns = names(design.columns, "columns");
  const x = matrix(design.x, rows.length, columns.length, "x", "one row a variant");
  if (x.length !== rows.length * columns.length)
    fail("ERR_DESIGN_SHAPE", `Expected x [${rows.length}, ${columns.length}] but received ${x.length} values`);
  const logits = matrix(z, undefined, rows.length, "z", "one value a variant");

  const fit = native.leastSquares(x, rows.length, columns.length, logits, tolerance);
  if (fit.lambda === null || fit.residual === null) throw rankDeficient(columns, fit.rank, fit.group);
  return {
    columns,
    questions: fit.residual.length,
    lambda: fit.lambda,
    residualSumOfSquares: fit.residual,
    degreesOfFreedom: rows.length - columns.length,
  };
}

function rankDeficient(columns: readonly string[], rank: number, group: Int32Array): RankDeficientError {
  const confounded: string[][] = [];
  for (const [j, column] of columns.entries()) {
    const g = group[j] as number;
    if (g >= 0) (confounded[g] ??= []).push(column);
  }
  const identifiable = columns.filter((_, j) => group[j] === -1);
  const groups = confounded.map((group) => group.join(" with ")).join("; ");
  return new RankDeficientError(
    `Expected a design of rank ${columns.length} but received one of rank ${rank}. These columns cannot be told apart ` +
      `(a column named alone is zero): ${groups}. Add variants in which they differ, or drop columns`,
    confounded,
    identifiable,
  );
}

function names(list: unknown, name: string): string[] {
  if (!isArrayLike(list) || list.length === 0)
    fail("ERR_DESIGN_SHAPE", `Expected names for ${name} but received ${show(list)}`);
  const result = Array.from(list, (value, i) => {
    if (typeof value !== "string")
      fail("ERR_DESIGN_SHAPE", `Expected a string for ${name}[${i}] but received ${show(value)}`);
    return value;
  });
  const again = result.find((value, i) => result.indexOf(value) !== i);
  if (again !== undefined)
    fail("ERR_DESIGN_SHAPE", `Expected unique names for ${name} but received ${show(again)} twice`);
  return result;
}

/** [rows, columns] from nested or flat values; `rows` undefined: any number. */
function matrix(values: unknown, rows: number | undefined, columns: number, name: string, shape: string): Float64Array {
  if (!isArrayLike(values)) fail("ERR_DESIGN_SHAPE", `Expected numbers for ${name} but received ${show(values)}`);
  const finite = (value: unknown, place: string): number => {
    if (typeof value !== "number" || !Number.isFinite(value))
      fail("ERR_DESIGN_VALUE", `Expected a finite number for ${place} but received ${show(value)}`);
    return value;
  };
  if (!isArrayLike(values[0])) {
    const expected = rows === undefined ? `a multiple of ${columns}` : `${rows * columns}`;
    if (values.length % columns !== 0 || (rows !== undefined && values.length !== rows * columns))
      fail("ERR_DESIGN_SHAPE", `Expected ${expected} values for ${name} (${shape}) but received ${values.length}`);
    return Float64Array.from(values, (value, i) => finite(value, `${name}[${i}]`));
  }
  if (rows !== undefined && values.length !== rows)
    fail("ERR_DESIGN_SHAPE", `Expected ${rows} rows for ${name} (${shape}) but received ${values.length}`);
  const result = new Float64Array(values.length * columns);
  for (let i = 0; i < values.length; i++) {
    const row = values[i];
    if (!isArrayLike(row) || row.length !== columns)
      fail(
        "ERR_DESIGN_SHAPE",
        `Expected ${columns} values for ${name}[${i}] but received ${isArrayLike(row) ? row.length : show(row)}`,
      );
    for (let j = 0; j < columns; j++) result[i * columns + j] = finite(row[j], `${name}[${i}][${j}]`);
  }
  return result;
}
