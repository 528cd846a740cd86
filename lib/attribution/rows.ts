import { fail } from "../errors.js";
import { checkCount, checkName, checkSamples, type CountTable, numberClusters, variantIndex } from "./cells.js";
import { joinOutcomes, rowOutcomes } from "./outcomes.js";
import type { SeedTables } from "./seeds.js";
import { variants } from "./types.js";
import { isObject, show } from "./values.js";

const size = variants.length;

/** One question while its rows come in. */
interface Question {
  /** -1: no row yet. */
  correct: number[];
  samples: number[];
  /** The row that each count came from. */
  row: number[];
  /** Of base, reas, tool, unified, where the rows have them. */
  outcomes: (ArrayLike<number> | undefined)[];
}

/** Rows of one training seed, or those that name none: questions by id. */
type Questions = Map<string, Question>;

/** All rows while they come in. */
interface Rows {
  /** Ids in the order of first appearance. */
  ids: Set<string>;
  clusters: Map<string, string>;
  unnamed: Questions;
  /** By seed, in the order of first appearance. */
  seeds: Map<string, Questions>;
}

/** Joins rows by id, in the order of first appearance: one table, or one for each training seed. */
export function readRows(rows: unknown): SeedTables {
  if (!isObject(rows) || typeof (rows as Partial<Iterable<unknown>>)[Symbol.iterator] !== "function")
    fail("ERR_TABLE", `Expected an iterable of rows for rows but received ${show(rows)}`);
  const all: Rows = { ids: new Set(), clusters: new Map(), unnamed: new Map(), seeds: new Map() };
  let index = 0;
  for (const row of rows as unknown as Iterable<unknown>) readRow(all, row, index++);
  const ids = [...all.ids];
  if (all.seeds.size <= 1) {
    const [name] = all.seeds.keys();
    const own = name === undefined ? all.unnamed : join(all.seeds.get(name) as Questions, all.unnamed);
    return { names: [], sharedBase: false, tables: [toTable(ids, own, all.clusters, "")] };
  }
  return readSeeds(all, ids);
}

/** Several seeds: each has all variants of all questions; base may stand beside all of them. */
function readSeeds(all: Rows, ids: readonly string[]): SeedTables {
  for (const [id, question] of all.unnamed)
    for (const [v, variant] of variants.entries())
      if (v > 0 && question.correct[v] !== -1)
        fail(
          "ERR_TABLE_SEEDS",
          `Expected a seed for variant ${variant} of question ${show(id)}, as other rows have one, but rows[${question.row[v]}] ` +
            "has none. Only rows of base may leave it out",
        );
  const tables = [...all.seeds].map(([name, own]) => {
    for (const [v, variant] of variants.entries())
      if (![...own.values()].some((q) => q.correct[v] !== -1) && !(v === 0 && all.unnamed.size > 0))
        fail(
          "ERR_TABLE_SEEDS",
          `Expected all six variants for seed ${show(name)} but there is no row of ${variant}. Variants are paired by seed`,
        );
    return toTable(ids, join(own, all.unnamed), all.clusters, ` of seed ${show(name)}`);
  });
  return { names: [...all.seeds.keys()], sharedBase: all.unnamed.size > 0, tables };
}

function readRow(all: Rows, row: unknown, index: number): void {
  const at = `rows[${index}]`;
  if (!isObject(row))
    fail("ERR_TABLE_ROW", `Expected { variant, id, correct, samples } for ${at} but received ${show(row)}`);
  const id = checkName(row["id"], "ERR_TABLE_ID", () => `${at}.id`);
  const v = variantIndex(row["variant"], `${at}.variant (question ${show(id)})`);
  const seed = row["seed"] ?? undefined;
  const name = seed === undefined ? undefined : checkName(seed, "ERR_TABLE_SEEDS", () => `${at}.seed`);

  const cell = (field: string) => () => `${at}.${field} (variant ${variants[v]} of question ${show(id)})`;
  const samples = checkSamples(row["samples"], cell("samples"));
  const correct = checkCount(row["correct"], samples, cell("correct"));
  if ((row["cluster"] ?? undefined) !== undefined) {
    const cluster = checkName(row["cluster"], "ERR_TABLE_CLUSTER", cell("cluster"));
    const before = all.clusters.get(id);
    if (before !== undefined && before !== cluster)
      fail(
        "ERR_TABLE_CLUSTER",
        `Expected one cluster for question ${show(id)} but received ${show(before)} and, in ${at}, ${show(cluster)}`,
      );
    all.clusters.set(id, cluster);
  }

  all.ids.add(id);
  const questions = questionsOf(all, name);
  let question = questions.get(id);
  if (question === undefined) {
    const none = () => new Array<number>(size).fill(-1);
    questions.set(id, (question = { correct: none(), samples: none(), row: none(), outcomes: [] }));
  }
  if (question.correct[v] !== -1) duplicate(id, v, question.row[v] as number, index);
  question.correct[v] = correct;
  question.samples[v] = samples;
  question.row[v] = index;
  question.outcomes[v] = rowOutcomes(row["outcomes"] ?? undefined, v, { samples, correct, at: cell("outcomes") });
}

/** Those of a seed so far, or of none. */
function questionsOf(all: Rows, seed: string | undefined): Questions {
  if (seed === undefined) return all.unnamed;
  const known = all.seeds.get(seed);
  if (known !== undefined) return known;
  const fresh: Questions = new Map<string, Question>();
  all.seeds.set(seed, fresh);
  return fresh;
}

function duplicate(id: string, v: number, first: number, second: number): never {
  fail(
    "ERR_TABLE_DUPLICATE",
    `Expected one row for variant ${variants[v]} of question ${show(id)} but received rows[${first}] and rows[${second}]`,
  );
}

/** The questions of a seed with the rows that name none. */
function join(own: Questions, unnamed: Questions): Questions {
  if (unnamed.size === 0) return own;
  const joined = new Map<string, Question>(unnamed);
  for (const [id, question] of own) {
    const other = unnamed.get(id);
    if (other === undefined) {
      joined.set(id, question);
      continue;
    }
    for (let v = 0; v < size; v++)
      if (question.correct[v] !== -1 && other.correct[v] !== -1) {
        const [a, b] = [question.row[v] as number, other.row[v] as number];
        duplicate(id, v, Math.min(a, b), Math.max(a, b));
      }
    const cells = (field: "correct" | "samples" | "row") =>
      question[field].map((value, v) => (question.correct[v] === -1 ? (other[field][v] as number) : value));
    const outcomes = variants.map((_, v) => (question.correct[v] === -1 ? other : question).outcomes[v]);
    joined.set(id, { correct: cells("correct"), samples: cells("samples"), row: cells("row"), outcomes });
  }
  return joined;
}

/** `of`: what messages say of the table. */
function toTable(
  ids: readonly string[],
  own: Questions,
  clusters: ReadonlyMap<string, string>,
  of: string,
): CountTable {
  const correct = new Int32Array(size * ids.length);
  const samples = new Int32Array(size * ids.length);
  for (const [q, id] of ids.entries()) {
    const question = own.get(id);
    const missing = variants.filter((_, v) => (question?.correct[v] ?? -1) === -1);
    if (question === undefined || missing.length > 0)
      fail(
        of === "" ? "ERR_TABLE_UNMATCHED" : "ERR_TABLE_SEEDS",
        `Expected all six variants for question ${show(id)}${of} but there is no row for ${missing.join(", ")}. ` +
          `Ids must be the same in all variants${of === "" ? "" : " and seeds"}`,
      );
    for (let v = 0; v < size; v++) {
      correct[v * ids.length + q] = question.correct[v] as number;
      samples[v * ids.length + q] = question.samples[v] as number;
    }
  }
  const table: CountTable = {
    questions: ids.length,
    correct,
    samples,
    variantStride: ids.length,
    questionStride: 1,
    ids,
    clusters: clusters.size === 0 ? new Int32Array(0) : numberClusters(ids.map((id) => clusters.get(id))),
    outcomes: new Uint8Array(0),
  };
  return joinOutcomes(table, (q) => (own.get(ids[q] as string) as Question).outcomes);
}
