import { fail, RolegradError } from "../../errors.js";
import { checkCount, checkSamples } from "../cells.js";
import { readTable } from "../table.js";
import { type AccuracyRow, type AccuracyTable, type DenseAccuracy, type Variant, variants } from "../types.js";
import { isArrayLike, isObject } from "../values.js";
import { Cells } from "./cells.js";
import { openRows } from "./open.js";
import { rowTaker, shapeOf, type TakeRow } from "./shapes.js";
import { variantOf } from "./variant.js";
import { fileOf, folderOf } from "./sources.js";
import {
  fileFormats,
  type FileFormat,
  type ReadAccuracyOptions,
  type AccuracyFile,
  type LoadedAccuracy,
} from "./types.js";

interface Target {
  file: string;
  variant?: Variant;
  seed?: number;
}

/** Reads the files of a table, or of each variant. */
export async function readFiles(
  source: string | Map<Variant, readonly string[]>,
  options: ReadAccuracyOptions,
): Promise<LoadedAccuracy> {
  const targets = typeof source === "string" ? await oneSource(source) : await variantFiles(source);
  const cells = new Cells(options.outcomes);
  const files: AccuracyFile[] = [];
  for (const target of targets) files.push(await readInto(cells, target, options));
  const name = typeof source === "string" ? source : "the files";
  return { ...cells.finish(options.missing === "drop", name), files };
}

async function oneSource(source: string): Promise<Target[]> {
  const folder = await folderOf(source);
  if (folder === undefined) return [{ file: source }];
  return variantFiles(new Map(variants.map((variant) => [variant, [folder[variant]]])));
}

async function variantFiles(source: Map<Variant, readonly string[]>): Promise<Target[]> {
  const targets: Target[] = [];
  for (const variant of variants) {
    const files = source.get(variant) ?? [];
    for (const [i, file] of files.entries())
      targets.push({ file: await fileOf(file), variant, ...(files.length > 1 && { seed: i + 1 }) });
  }
  return targets;
}

async function readInto(cells: Cells, target: Target, options: ReadAccuracyOptions): Promise<AccuracyFile> {
  const { file, variant, seed } = target;
  const forced = (fileFormats as readonly string[]).includes(options.format ?? "")
    ? (options.format as FileFormat)
    : undefined;
  const opened = await openRows(file, forced);
  if (opened.document !== undefined) {
    if (variant !== undefined)
      fail("ERR_TABLE_FORMAT", `Expected rows of ${variant} in ${file} but received one object of JSON`);
    return readDense(cells, file, opened.document);
  }
  let take: TakeRow | undefined;
  let rows = 0;
  let shape: AccuracyFile["shape"] = "long";
  for await (const found of opened.rows) {
    if (options.signal?.aborted)
      throw new RolegradError("ERR_ABORTED", "The reading was aborted by its signal", { cause: options.signal.reason });
    if (take === undefined) {
      shape = shapeOf(found.row, file, variant !== undefined, options);
      take = rowTaker(shape, found.row, {
        cells,
        options,
        variant,
        seed: seed === undefined ? undefined : String(seed),
      });
    }
    take(found);
    rows++;
  }
  if (rows === 0) fail("ERR_TABLE_EMPTY", `Expected rows in ${file} but there are none`);
  return { ...target, shape, rows };
}

/** { samples, correct }, on its own or as the `table` of what --json printed; null stands for a missing cell. */
function readDense(cells: Cells, file: string, document: Record<string, unknown>): AccuracyFile {
  const value = isObject(document["table"]) ? document["table"] : document;
  if (Array.isArray(value["rows"])) {
    for (const [i, row] of (value["rows"] as AccuracyRow[]).entries()) addRow(cells, row, `${file}: rows[${i}]`);
    return { file, shape: "long", rows: value["rows"].length };
  }
  const table = value as unknown as DenseAccuracy;
  const seeds = value["seeds"];
  if (isArrayLike(seeds)) return readSeeds(cells, file, table, seeds);
  checkTable(holesFilled(table) ?? table, file);
  return { file, shape: "dense", rows: addArrays(cells, file, table, arraysOf(table), undefined) };
}

/** One array a seed for each variant; one table of base may stand beside every seed. */
function readSeeds(cells: Cells, file: string, table: DenseAccuracy, seeds: ArrayLike<unknown>): AccuracyFile {
  if (table.outcomes !== undefined)
    fail("ERR_TABLE_OUTCOMES", `${file}: Expected a table of one training seed beside outcomes but received several`);
  const all = arraysOf(table) as Map<Variant, ArrayLike<unknown>>;
  let rows = 0;
  for (const [variant, values] of all)
    if (isArrayLike(values[0]) && values.length !== seeds.length)
      fail(
        "ERR_TABLE_LENGTH",
        `${file}: Expected an array for each of ${seeds.length} seeds for correct.${variant} but received ${values.length}`,
      );
  for (const [s, seed] of Array.from(seeds).entries()) {
    const arrays = new Map<Variant, ArrayLike<number | null>>();
    for (const [variant, values] of all) {
      const shared = variant === "base" && !isArrayLike(values[0]);
      const own = shared ? values : values[s];
      if (!isArrayLike(own))
        fail("ERR_TABLE", `${file}: Expected an array for correct.${variant}[${s}] (seed ${String(seed)})`);
      arrays.set(variant, own as ArrayLike<number | null>);
    }
    const { samples, ids, clusters } = table;
    const own = { samples, correct: Object.fromEntries(arrays), ...(ids && { ids }), ...(clusters && { clusters }) };
    checkTable(holesFilled(own as DenseAccuracy) ?? (own as DenseAccuracy), `${file}, seed ${String(seed)}`);
    const base = arrays.get("base");
    if (base !== undefined && base === all.get("base")) {
      if (s === 0) addArrays(cells, file, table, new Map([["base", base]]), undefined);
      arrays.delete("base");
    }
    rows = addArrays(cells, file, table, arrays, String(seed));
  }
  return { file, shape: "dense", rows };
}

type Arrays = Map<Variant, ArrayLike<number | null>>;

/** The arrays of `correct` by variant, however the hybrids are spelled. */
function arraysOf(table: DenseAccuracy): Arrays {
  const record = table.correct as unknown as Record<string, ArrayLike<number | null>>;
  const arrays: Arrays = new Map();
  for (const [name, values] of Object.entries(record)) {
    const variant = variantOf(name);
    if (variant !== undefined && arrays.has(variant))
      fail("ERR_TABLE_DUPLICATE", `Expected one array for variant ${variant} but correct has it twice: ${name}`);
    if (variant !== undefined && isArrayLike(values)) arrays.set(variant, values);
  }
  return arrays;
}

/** Puts arrays of counts into the cells; the number of questions. */
function addArrays(cells: Cells, file: string, table: DenseAccuracy, arrays: Arrays, seed: string | undefined): number {
  const questions = Math.max(0, ...[...arrays.values()].map(({ length }) => length));
  const { samples } = table;
  const n = (variant: Variant, q: number): unknown =>
    isArrayLike(samples) ? samples[q] : isObject(samples) ? samplesOf(samples, variant) : samples;
  for (let q = 0; q < questions; q++) {
    const cluster = table.clusters?.[q];
    const common = {
      id: String(table.ids?.[q] ?? q),
      seed,
      cluster: cluster === undefined ? undefined : String(cluster),
    };
    cells.addQuestion({ ...common, where: `${file}: question ${q}` });
    for (const [variant, counts] of arrays) {
      const k = counts[q];
      if (k === null || k === undefined) continue;
      const where = `${file}: correct.${variant}[${q}]`;
      const size = checkSamples(n(variant, q), () => `the samples of ${where}`);
      cells.addCount(
        { ...common, variant, where },
        checkCount(k, size, () => where),
        size,
        outcomesIn(table, variant, q, size),
      );
    }
  }
  return questions;
}

/** The outcomes of one cell of a table that was checked. */
function outcomesIn({ outcomes }: DenseAccuracy, variant: Variant, q: number, size: number): number[] | undefined {
  const own = (outcomes as Record<string, ArrayLike<number>> | undefined)?.[variant];
  return own === undefined ? undefined : Array.from({ length: size }, (_, j) => own[q * size + j] as number);
}

function samplesOf(samples: Readonly<Record<string, unknown>>, variant: Variant): unknown {
  return Object.entries(samples).find(([name]) => variantOf(name) === variant)?.[1];
}

/** The table with 0 where null stands, so that the rest can be checked as ever; undefined where there is none. */
function holesFilled(table: DenseAccuracy): DenseAccuracy | undefined {
  if (!isObject(table.correct)) return undefined;
  let holes = false;
  const correct = Object.fromEntries(
    Object.entries(table.correct as Record<string, unknown>).map(([name, list]) => {
      if (!isArrayLike(list) || !Array.prototype.includes.call(list, null)) return [name, list];
      holes = true;
      return [name, Array.from(list, (k) => k ?? 0)];
    }),
  );
  return holes ? ({ ...table, correct } as DenseAccuracy) : undefined;
}

/** Errors of a table that came from a file name it. */
function checkTable(table: AccuracyTable, file: string): void {
  try {
    readTable(table);
  } catch (error) {
    if (error instanceof RolegradError && error.code.startsWith("ERR_TABLE"))
      throw new RolegradError(error.code, `${file}: ${error.message}`, { cause: error });
    throw error;
  }
}

/** A row of counts that a caller gave, or that --json printed. */
function addRow(cells: Cells, row: AccuracyRow, where: string): void {
  const take = rowTaker("long", { samples: 1 }, { cells, options: {}, variant: undefined, seed: undefined });
  take({ row: row as unknown as Record<string, unknown>, where });
}

/** The rows of a table in memory, for `missing: "drop"`. */
export function readInMemory(table: AccuracyTable, options: ReadAccuracyOptions): LoadedAccuracy {
  const cells = new Cells(options.outcomes);
  if ("rows" in table && table.rows !== undefined) {
    let i = 0;
    for (const row of table.rows) addRow(cells, row, `rows[${i++}]`);
    return { ...cells.finish(options.missing === "drop", "the table"), files: [] };
  }
  readDense(cells, "the table", table as unknown as Record<string, unknown>);
  return { ...cells.finish(options.missing === "drop", "the table"), files: [] };
}
