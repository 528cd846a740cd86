import { fail } from "../errors.js";
import { Random } from "../random.js";
import { type CountTable, questionLabel } from "./cells.js";
import { readTable } from "./table.js";
import { type AccuracyRow, type AccuracyRows, type AccuracyTable, variants } from "./types.js";
import { optionsObject, show } from "./values.js";

/** Options of {@link splitHalves}. */
export interface HalvesOptions {
  /** Of the split: an integer from 0 to 2^53 - 1. Default 0. */
  seed?: number | undefined;
}

/**
 * Each question's samples in two halves whose noise is independent: one to choose questions by, one to estimate from. Samples
 * of one question and variant are exchangeable, so how many of the right ones fall into a half is hypergeometric given k, and
 * drawing that number from the counts is the same as dealing out the samples one by one: counts suffice, and where outcomes are
 * known their order would say nothing more. Outcomes of common random numbers keep their pairs: sample j goes into the same half
 * in base, reas, tool and unified. Of an odd number the second half has one more.
 *
 * Throws what {@link computeInterferenceSync} throws for tables; ERR_TABLE_SEEDS (several seeds), ERR_TABLE_SAMPLES (a cell of
 * one sample has no halves), ERR_INVALID_SEED.
 *
 * @example
 * const [one, other] = splitHalves(table);
 * const bins = await effectsByAccuracy(one, { heldOut: other });
 */
export function splitHalves(table: AccuracyTable, options: HalvesOptions = {}): [AccuracyRows, AccuracyRows] {
  optionsObject(options, "options");
  const [first, second] = halvesOf(singleTable(table, "the table"), options.seed ?? 0);
  return [{ rows: rowsOf(first) }, { rows: rowsOf(second) }];
}

/** The one table of a training seed. Throws ERR_TABLE_SEEDS. */
export function singleTable(table: AccuracyTable, name: string): CountTable {
  const { tables } = readTable(table);
  if (tables.length > 1)
    fail(
      "ERR_TABLE_SEEDS",
      `Expected one training seed for ${name} but received ${tables.length}: bin one seed at a time`,
    );
  return tables[0] as CountTable;
}

/** {@link splitHalves} of a checked table. */
export function halvesOf(table: CountTable, seed: number): [CountTable, CountTable] {
  if (!Number.isSafeInteger(seed) || seed < 0)
    fail("ERR_INVALID_SEED", `Expected an integer from 0 to 2^53 - 1 for the halves' seed but received ${show(seed)}`);
  const { questions, correct, samples, variantStride, questionStride } = table;
  const sizes = samples.map((n) => Math.floor(n / 2));
  const counts = new Int32Array(correct.length);
  const random = new Random(seed, "halves");
  const single = table.outcomes.length > 0;
  const outcomes: [Uint8Array, Uint8Array] = single
    ? dealOutcomes(table, random)
    : [new Uint8Array(0), new Uint8Array(0)];
  for (let q = 0; q < questions; q++)
    for (const v of variants.keys()) {
      const place = v * variantStride + q * questionStride;
      const [n, half] = [samples[place] as number, sizes[place] as number];
      if (half === 0)
        fail(
          "ERR_TABLE_SAMPLES",
          `Expected at least 2 samples of each cell to split in halves but ${variants[v]} of ${questionLabel(table, q)} has ${n}`,
        );
      const cell = v * questions + q;
      counts[cell] =
        single && v < 4
          ? countBits(outcomes[0], q * half, half, v)
          : hypergeometric(random.next(), n, correct[cell] as number, half);
    }
  const rest = (all: Int32Array, part: Int32Array): Int32Array => all.map((value, i) => value - (part[i] as number));
  return [
    { ...table, correct: counts, samples: sizes, outcomes: outcomes[0] },
    { ...table, correct: rest(correct, counts), samples: rest(samples, sizes), outcomes: outcomes[1] },
  ];
}

/** The outcomes of each question dealt into two halves, those of one sample together. */
function dealOutcomes({ outcomes, questions, samples }: CountTable, random: Random): [Uint8Array, Uint8Array] {
  const n = samples[0] as number;
  const half = Math.floor(n / 2);
  const halves: [Uint8Array, Uint8Array] = [new Uint8Array(questions * half), new Uint8Array(questions * (n - half))];
  for (let q = 0; q < questions; q++) {
    const own = outcomes.slice(q * n, (q + 1) * n);
    for (let i = 0; i < half; i++) {
      const j = i + random.integer(n - i);
      [own[i], own[j]] = [own[j] as number, own[i] as number];
    }
    halves[0].set(own.subarray(0, half), q * half);
    halves[1].set(own.subarray(half), q * (n - half));
  }
  return halves;
}

function countBits(outcomes: Uint8Array, from: number, size: number, bit: number): number {
  let sum = 0;
  for (let i = from; i < from + size; i++) sum += ((outcomes[i] as number) >> bit) & 1;
  return sum;
}

/**
 * How many of `right` among `all` are in a random part of `part`, by inversion of u in [0, 1). Terms by their ratios outwards
 * from the mode, until what is left does not count: some tens of times the root of `part`.
 */
export function hypergeometric(u: number, all: number, right: number, part: number): number {
  const low = Math.max(0, part - (all - right));
  const high = Math.min(right, part);
  const mode = Math.min(high, Math.max(low, Math.floor(((part + 1) * (right + 1)) / (all + 2))));
  /** The term of x + 1 over that of x. */
  const ratio = (x: number): number => ((right - x) / (x + 1)) * ((part - x) / (all - right - part + x + 1));
  const least = 1e-18;
  let first = mode;
  const below: number[] = [];
  for (let term = 1; first > low && (term /= ratio(first - 1)) > least; first--) below.push(term);
  const terms = [...below.reverse(), 1];
  for (let x = mode, term = 1; x < high && (term *= ratio(x)) > least; x++) terms.push(term);
  let left = u * terms.reduce((sum, term) => sum + term, 0);
  const place = terms.findIndex((term) => (left -= term) < 0);
  return first + (place < 0 ? terms.length - 1 : place);
}

function rowsOf(table: CountTable): AccuracyRow[] {
  const { questions, correct, samples, variantStride, questionStride, ids, clusters, outcomes } = table;
  const n = samples[0] as number;
  return Array.from({ length: questions }, (_, q) =>
    variants.map((variant, v): AccuracyRow => ({
      variant,
      id: ids?.[q] ?? q,
      correct: correct[v * questions + q] as number,
      samples: samples[v * variantStride + q * questionStride] as number,
      ...(clusters.length > 0 && { cluster: clusters[q] }),
      ...(outcomes.length > 0 &&
        v < 4 && { outcomes: outcomes.subarray(q * n, (q + 1) * n).map((bits) => (bits >> v) & 1) }),
    })),
  ).flat();
}
