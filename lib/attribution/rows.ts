import { fail } from "../errors.js";
import { checkCount, checkName, checkSamples, type CountTable, variantIndex } from "./cells.js";
import { variants } from "./types.js";
import { isObject, show } from "./values.js";

const size = variants.length;

/** One question while its rows come in. */
interface Question {
  id: string;
  /** -1: no row yet. */
  correct: number[];
  samples: number[];
  /** The row that each count came from. */
  row: number[];
  cluster: string | undefined;
}

/** Joins rows by id, in the order of first appearance. */
export function readRows(rows: unknown): CountTable {
  if (!isObject(rows) || typeof (rows as Partial<Iterable<unknown>>)[Symbol.iterator] !== "function")
    fail("ERR_TABLE", `Expected an iterable of rows for rows but received ${show(rows)}`);
  const questions = new Map<string, Question>();
  const seed: Seed = { value: undefined, row: -1 };
  let index = 0;
  for (const row of rows as unknown as Iterable<unknown>) readRow(questions, seed, row, index++);
  return toTable([...questions.values()]);
}

interface Seed {
  value: string | undefined;
  row: number;
}

function readRow(questions: Map<string, Question>, seed: Seed, row: unknown, index: number): void {
  const at = `rows[${index}]`;
  if (!isObject(row))
    fail("ERR_TABLE_ROW", `Expected { variant, id, correct, samples } for ${at} but received ${show(row)}`);
  const id = checkName(row["id"], "ERR_TABLE_ID", () => `${at}.id`);
  const v = variantIndex(row["variant"], `${at}.variant (question ${show(id)})`);
  checkSeed(seed, row["seed"], index);

  const cell = (field: string) => () => `${at}.${field} (variant ${variants[v]} of question ${show(id)})`;
  const samples = checkSamples(row["samples"], cell("samples"));
  const correct = checkCount(row["correct"], samples, cell("correct"));
  const cluster =
    row["cluster"] === undefined ? undefined : checkName(row["cluster"], "ERR_TABLE_CLUSTER", cell("cluster"));

  let question = questions.get(id);
  if (question === undefined) {
    const none = () => new Array<number>(size).fill(-1);
    question = { id, correct: none(), samples: none(), row: none(), cluster };
    questions.set(id, question);
  }
  if (question.correct[v] !== -1)
    fail(
      "ERR_TABLE_DUPLICATE",
      `Expected one row for variant ${variants[v]} of question ${show(id)} but received rows[${question.row[v]}] and ${at}`,
    );
  if (cluster !== undefined && question.cluster !== undefined && question.cluster !== cluster)
    fail(
      "ERR_TABLE_CLUSTER",
      `Expected one cluster for question ${show(id)} but received ${show(question.cluster)} and, in ${at}, ${show(cluster)}`,
    );
  question.cluster ??= cluster;
  question.correct[v] = correct;
  question.samples[v] = samples;
  question.row[v] = index;
}

function checkSeed(seed: Seed, given: unknown, index: number): void {
  if (given === undefined || given === null) return;
  const value = checkName(given, "ERR_TABLE_SEEDS", () => `rows[${index}].seed`);
  if (seed.value === undefined) {
    seed.value = value;
    seed.row = index;
  } else if (seed.value !== value) {
    fail(
      "ERR_TABLE_SEEDS",
      `Expected one training seed in a table but received ${show(seed.value)} in rows[${seed.row}] and ${show(value)} in ` +
        `rows[${index}]. Several seeds are not supported yet: compute one table a seed`,
    );
  }
}

function toTable(questions: readonly Question[]): CountTable {
  const correct = new Int32Array(size * questions.length);
  const samples = new Int32Array(size * questions.length);
  for (const [q, question] of questions.entries()) {
    const missing = variants.filter((_, v) => question.correct[v] === -1);
    if (missing.length > 0)
      fail(
        "ERR_TABLE_UNMATCHED",
        `Expected all six variants for question ${show(question.id)} but there is no row for ${missing.join(", ")}. ` +
          "Ids must be the same in all variants",
      );
    for (let v = 0; v < size; v++) {
      correct[v * questions.length + q] = question.correct[v] as number;
      samples[v * questions.length + q] = question.samples[v] as number;
    }
  }
  return {
    questions: questions.length,
    correct,
    samples,
    variantStride: questions.length,
    questionStride: 1,
    ids: questions.map((question) => question.id),
    clustered: questions.some((question) => question.cluster !== undefined),
  };
}
