import { fail } from "../errors.js";
import { type CountTable, questionLabel } from "./cells.js";
import type { TrainedVariant } from "./types.js";
import { isArrayLike, isObject, show } from "./values.js";

/** In the order of the bits. */
const trained: readonly TrainedVariant[] = ["base", "reas", "tool", "unified"];

/** The place of each trained variant in `variants`. */
const place: readonly number[] = [0, 1, 2, 3];

/**
 * The outcomes of single samples as bits [Q, N], or nothing where none are given. Throws ERR_TABLE_OUTCOMES where they do not
 * fit the counts.
 */
export function readOutcomes(
  outcomes: unknown,
  table: { questions: number; correct: Int32Array; samples: Int32Array },
): Uint8Array {
  if (outcomes === undefined) return new Uint8Array(0);
  const { questions, correct, samples } = table;
  if (!isObject(outcomes) || isArrayLike(outcomes))
    fail(
      "ERR_TABLE_OUTCOMES",
      `Expected an object with ${trained.join(", ")} for outcomes but received ${show(outcomes)}`,
    );
  if (samples.length !== 1)
    fail("ERR_TABLE_OUTCOMES", "Expected one number of samples for all cells beside outcomes but received several");
  const n = samples[0] as number;
  const size = questions * n;
  for (const variant of trained) {
    const values = outcomes[variant];
    if (!isArrayLike(values) || values.length !== size)
      fail(
        "ERR_TABLE_OUTCOMES",
        `Expected ${size} outcomes [${questions} questions, ${n} samples] for outcomes.${variant} but received ` +
          (isArrayLike(values) ? `${values.length}` : show(values)),
      );
  }
  const bits = new Uint8Array(size);
  for (const [v, variant] of trained.entries()) {
    const values = outcomes[variant] as ArrayLike<unknown>;
    for (let q = 0, i = 0; q < questions; q++) {
      let right = 0;
      for (let j = 0; j < n; j++, i++) {
        const value = values[i];
        if (value !== 0 && value !== 1)
          fail("ERR_TABLE_OUTCOMES", `Expected 0 or 1 for outcomes.${variant}[${i}] but received ${show(value)}`);
        right += value;
        bits[i] = (bits[i] as number) | (value << v);
      }
      const k = correct[(place[v] as number) * questions + q];
      if (right !== k)
        fail(
          "ERR_TABLE_OUTCOMES",
          `Expected outcomes.${variant} of question ${q} to add up to correct.${variant}[${q}], ${k}, but they add up to ${right}`,
        );
    }
  }
  return bits;
}

/** The outcomes of one row; only those of trained variants are kept. Throws ERR_TABLE_OUTCOMES. */
export function rowOutcomes(
  outcomes: unknown,
  v: number,
  { samples, correct, at }: { samples: number; correct: number; at: () => string },
): ArrayLike<number> | undefined {
  if (outcomes === undefined) return undefined;
  if (!isArrayLike(outcomes) || outcomes.length !== samples)
    fail(
      "ERR_TABLE_OUTCOMES",
      `Expected ${samples} outcomes, one a sample, for ${at()} but received ${isArrayLike(outcomes) ? outcomes.length : show(outcomes)}`,
    );
  let right = 0;
  for (let j = 0; j < samples; j++) {
    const value = outcomes[j];
    if (value !== 0 && value !== 1)
      fail("ERR_TABLE_OUTCOMES", `Expected 0 or 1 for ${at()}[${j}] but received ${show(value)}`);
    right += value;
  }
  if (right !== correct)
    fail(
      "ERR_TABLE_OUTCOMES",
      `Expected ${at()} to add up to ${correct}, as correct says, but they add up to ${right}`,
    );
  return v < trained.length ? (outcomes as ArrayLike<number>) : undefined;
}

/**
 * A table with the outcomes that its rows have: all of base, reas, tool and unified, or none, and then one number of samples. Throws
 * ERR_TABLE_OUTCOMES.
 */
export function joinOutcomes(
  table: CountTable,
  outcomesOf: (question: number) => readonly (ArrayLike<number> | undefined)[],
): CountTable {
  const { questions, samples } = table;
  const each = Array.from({ length: questions }, (_, q) => outcomesOf(q));
  if (each.every((own) => own.every((values) => values === undefined))) return table;
  const n = samples[0] as number;
  const bits = new Uint8Array(questions * n);
  for (const [q, own] of each.entries())
    for (const [v, variant] of trained.entries()) {
      const values = own[v];
      const what = `variant ${variant} of ${questionLabel(table, q)}`;
      if (values === undefined)
        fail("ERR_TABLE_OUTCOMES", `Expected outcomes for ${what}, as other rows have them, but there are none`);
      if (values.length !== n)
        fail(
          "ERR_TABLE_OUTCOMES",
          `Expected one number of samples for all rows beside outcomes but received ${n} and, for ${what}, ${values.length}`,
        );
      for (let j = 0; j < n; j++) bits[q * n + j] = (bits[q * n + j] as number) | ((values[j] as number) << v);
    }
  const other = samples.find((size) => size !== n);
  if (other !== undefined)
    fail(
      "ERR_TABLE_OUTCOMES",
      `Expected one number of samples for all rows beside outcomes but received ${n} and ${other}`,
    );
  return { ...table, samples: Int32Array.of(n), variantStride: 0, questionStride: 0, outcomes: bits };
}
