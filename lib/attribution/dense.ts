import { fail } from "../errors.js";
import {
  checkCount,
  checkName,
  checkSamples,
  type CountTable,
  numberClusters,
  questionLabel,
  variantIndex,
} from "./cells.js";
import { readOutcomes } from "./outcomes.js";
import { variants } from "./types.js";
import { isArrayLike, isObject, show } from "./values.js";

/** Cells of six variants are numbered in 31 bits. */
const mostQuestions = Math.floor((2 ** 31 - 1) / variants.length);

/** Checks and copies a table in its dense form. */
export function readDense(table: Record<string, unknown>): CountTable {
  const arrays = readVariants(table["correct"], "correct");
  const [first, questions] = lengthOf(arrays[0], `correct.${variants[0]}`);
  for (const [v, array] of arrays.entries()) {
    const [, length] = lengthOf(array, `correct.${variants[v]}`);
    if (length !== questions)
      fail(
        "ERR_TABLE_LENGTH",
        `Expected ${questions} counts for correct.${variants[v]}, as for ${first}, but received ${length}`,
      );
  }
  if (questions > mostQuestions)
    fail("ERR_TABLE_LENGTH", `Expected at most ${mostQuestions} counts for ${first} but received ${questions}`);
  const ids = readNames(table["ids"], questions, "ids", "ERR_TABLE_ID");
  if (ids !== undefined) checkUnique(ids);
  const clusters = readNames(table["clusters"], questions, "clusters", "ERR_TABLE_CLUSTER");
  const { samples, variantStride, questionStride } = readSamples(table["samples"], questions);

  const correct = new Int32Array(variants.length * questions);
  for (const [v, array] of arrays.entries()) {
    const own = correct.subarray(v * questions, (v + 1) * questions);
    const given = array as ArrayLike<unknown>;
    // Counts are checked where they are copied to; what a count of 32 bits does not hold comes out negative.
    if (isIntegers(given)) own.set(given);
    else
      for (let q = 0; q < questions; q++) {
        const k = given[q];
        own[q] = typeof k === "number" && (k | 0) === k ? k : -1;
      }
    for (let q = 0; q < questions; q++) {
      const k = own[q] as number;
      if (k >= 0 && k <= (samples[v * variantStride + q * questionStride] as number)) continue;
      checkCount(given[q], samples[v * variantStride + q * questionStride] as number, () => {
        const place = `correct.${variants[v]}[${q}]`;
        return ids === undefined ? place : `${place} (${questionLabel({ ids }, q)})`;
      });
    }
  }
  const outcomes = readOutcomes(table["outcomes"], { questions, correct, samples });
  return {
    questions,
    correct,
    samples,
    variantStride,
    questionStride,
    ids,
    clusters: numberClusters(clusters),
    outcomes,
  };
}

/** One value for each variant, in the order of `variants`; both spellings of the hybrids are taken. */
export function readVariants(record: unknown, name: string): unknown[] {
  if (!isObject(record) || isArrayLike(record))
    fail("ERR_TABLE", `Expected an object with ${variants.join(", ")} for ${name} but received ${show(record)}`);
  const values: unknown[] = [];
  const from: (string | undefined)[] = [];
  for (const [key, value] of Object.entries(record)) {
    const v = variantIndex(key, `a key of ${name}`);
    if (from[v] !== undefined)
      fail("ERR_TABLE_DUPLICATE", `Expected ${name} to name each variant once but received both ${from[v]} and ${key}`);
    values[v] = value;
    from[v] = key;
  }
  for (const [v, variant] of variants.entries())
    if (values[v] === undefined) fail("ERR_TABLE_VARIANT", `Expected ${name}.${variant} but it is not there`);
  return values;
}

function isIntegers(array: ArrayLike<unknown>): array is Int32Array {
  return (
    array instanceof Int32Array ||
    array instanceof Uint8Array ||
    array instanceof Uint16Array ||
    array instanceof Int16Array ||
    array instanceof Int8Array ||
    array instanceof Uint32Array
  );
}

function lengthOf(array: unknown, name: string): [name: string, length: number] {
  if (!isArrayLike(array)) fail("ERR_TABLE", `Expected an array for ${name} but received ${show(array)}`);
  return [name, array.length];
}

function readSamples(
  samples: unknown,
  questions: number,
): Pick<CountTable, "samples" | "variantStride" | "questionStride"> {
  if (isArrayLike(samples)) {
    if (samples.length !== questions)
      fail(
        "ERR_TABLE_LENGTH",
        `Expected ${questions} numbers for samples, one a question, but received ${samples.length}`,
      );
    const values = new Int32Array(questions);
    for (let q = 0; q < questions; q++) values[q] = checkSamples(samples[q], () => `samples[${q}]`);
    return { samples: values, variantStride: 0, questionStride: 1 };
  }
  if (isObject(samples)) {
    const values = readVariants(samples, "samples").map((n, v) => checkSamples(n, () => `samples.${variants[v]}`));
    return { samples: Int32Array.from(values), variantStride: 1, questionStride: 0 };
  }
  return { samples: Int32Array.of(checkSamples(samples, () => "samples")), variantStride: 0, questionStride: 0 };
}

function readNames(names: unknown, questions: number, name: string, code: string): string[] | undefined {
  if (names === undefined) return undefined;
  const [, length] = lengthOf(names, name);
  if (length !== questions) fail("ERR_TABLE_LENGTH", `Expected ${questions} names for ${name} but received ${length}`);
  return Array.from({ length }, (_, q) => checkName((names as ArrayLike<unknown>)[q], code, () => `${name}[${q}]`));
}

function checkUnique(ids: readonly string[]): void {
  const seen = new Map<string, number>();
  for (const [q, id] of ids.entries()) {
    const before = seen.get(id);
    if (before !== undefined)
      fail("ERR_TABLE_DUPLICATE", `Expected unique ids but ids[${before}] and ids[${q}] are both ${show(id)}`);
    seen.set(id, q);
  }
}
