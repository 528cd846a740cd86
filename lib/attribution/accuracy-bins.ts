import { fail } from "../errors.js";
import { type CountTable, variantIndex } from "./cells.js";
import { computeInterferenceOf } from "./interference.js";
import { halvesOf, singleTable } from "./halves.js";
import type { AccuracyTable, AsyncInterferenceOptions, Interference, Variant } from "./types.js";
import { variants } from "./types.js";
import { isArrayLike, optionsObject, show } from "./values.js";

const defaultEdges = [0, 0.25, 0.5, 0.75, 1];

/** Options of {@link effectsByAccuracy}. */
export interface AccuracyBinOptions extends AsyncInterferenceOptions {
  /**
   * Bounds of the bins, increasing numbers from 0 to 1: a question is in the bin that its accuracy is at least the lower and
   * below the upper bound of; the last bin holds its upper bound too. Default [0, 0.25, 0.5, 0.75, 1].
   */
  edges?: ArrayLike<number> | undefined;
  /**
   * The other half of the samples: a table of the same questions in the same order whose accuracies choose the bin. Its noise
   * is independent of that in the effects, so any variant may be binned by.
   */
  heldOut?: AccuracyTable | undefined;
  /**
   * Whose mean accuracy a question is binned by. Default hybridTool and hybridReas, which lambda23 is not made of; with
   * `heldOut` default base, reas, tool and unified. Without it base, reas, tool and unified are refused: their noise is in
   * lambda23 as well, so that bins by it would show an effect where there is none.
   */
  variants?: readonly Variant[] | undefined;
}

/** The questions of one bin. */
export interface AccuracyBin {
  /** Bounds of the accuracy. */
  low: number;
  high: number;
  /** Indices into the table's questions. */
  questions: Int32Array;
  /**
   * What the bin's questions say by themselves, indices counted within `questions`: share with interval and counts, means,
   * and the null band where the result has one. Null where no question of the bin is kept.
   */
  interference: Interference | null;
}

/**
 * lambda23 by accuracy: questions in bins, and everything of {@link computeInterference} for each bin by itself. Interference
 * that concentrates on questions of high accuracy may be a ceiling's making: compare each bin with its own null. lambda12 and
 * lambda13 do hold the hybrids' noise: do not read them from bins by the hybrids.
 *
 * Throws what computeInterference throws; ERR_INVALID_ARGUMENT (edges; variants that are in lambda23 without `heldOut`),
 * ERR_TABLE_SEEDS (several seeds), ERR_TABLE_LENGTH (a held-out table of other questions), ERR_ABORTED.
 *
 * @example
 * for (const { low, high, interference } of await effectsByAccuracy(table))
 *   console.log(low, high, interference?.interferenceShare, interference?.counts);
 */
export async function effectsByAccuracy(
  table: AccuracyTable,
  options: AccuracyBinOptions = {},
): Promise<AccuracyBin[]> {
  optionsObject(options, "options");
  const { edges: given = defaultEdges, heldOut, variants: chosen, ...rest } = options;
  const edges = readEdges(given);
  const by = readVariants(chosen, heldOut !== undefined);
  const own = singleTable(table, "the table");
  const other = heldOut === undefined ? own : singleTable(heldOut, "options.heldOut");
  if (other.questions !== own.questions)
    fail(
      "ERR_TABLE_LENGTH",
      `Expected ${own.questions} questions for options.heldOut, as in the table, but received ${other.questions}`,
    );
  const differs = own.ids?.findIndex((id, q) => other.ids !== undefined && other.ids[q] !== id) ?? -1;
  if (differs >= 0)
    fail(
      "ERR_TABLE_UNMATCHED",
      `Expected question ${show(own.ids?.[differs])} at place ${differs} of options.heldOut but received ` +
        show(other.ids?.[differs]),
    );

  return binned(own, other, edges, by, rest);
}

/** Options of {@link effectsByHalves}. */
export interface AccuracyHalvesOptions extends AsyncInterferenceOptions {
  /** As those of {@link AccuracyBinOptions}. */
  edges?: ArrayLike<number> | undefined;
  /** Whose mean accuracy in the one half a question is binned by. Default base, reas, tool and unified. */
  variants?: readonly Variant[] | undefined;
}

/**
 * {@link effectsByAccuracy} by a held-out half: each question's samples are split in two (see {@link splitHalves}), the first half's
 * accuracy chooses the bin and the second half gives the effects; and the other way round. Both are estimates of the same, of half
 * of the samples each, and not independent: the questions are the same. `options.seed` keys the split too.
 *
 * Throws what effectsByAccuracy and splitHalves throw.
 *
 * @example
 * const [bySecond, byFirst] = await effectsByHalves(table);
 * console.log(bySecond.at(-1)?.interference?.mean23, byFirst.at(-1)?.interference?.mean23);
 */
export async function effectsByHalves(
  table: AccuracyTable,
  options: AccuracyHalvesOptions = {},
): Promise<[bySecond: AccuracyBin[], byFirst: AccuracyBin[]]> {
  optionsObject(options, "options");
  const { edges: given = defaultEdges, variants: chosen, ...rest } = options;
  const edges = readEdges(given);
  const by = readVariants(chosen, true);
  const [first, second] = halvesOf(singleTable(table, "the table"), rest.seed ?? 0);
  return [await binned(first, second, edges, by, rest), await binned(second, first, edges, by, rest)];
}

/** Effects of `own` by the accuracy of variants `by` in `other`. */
async function binned(
  own: CountTable,
  other: CountTable,
  edges: readonly number[],
  by: readonly number[],
  options: AsyncInterferenceOptions,
): Promise<AccuracyBin[]> {
  const members: number[][] = edges.slice(1).map(() => []);
  for (let q = 0; q < own.questions; q++) {
    const accuracy = by.reduce((sum, v) => sum + accuracyOf(other, v, q), 0) / by.length;
    const bin = edges.findIndex((edge, i) => i > 0 && (accuracy < edge || i === edges.length - 1)) - 1;
    members[bin]?.push(q);
  }
  const bins: AccuracyBin[] = [];
  for (const [i, questions] of members.entries()) {
    const answered = questions.some((q) => variants.some((_, v) => (own.correct[v * own.questions + q] as number) > 0));
    bins.push({
      low: edges[i] as number,
      high: edges[i + 1] as number,
      questions: Int32Array.from(questions),
      interference: answered ? await computeInterferenceOf(subset(own, questions), options) : null,
    });
  }
  return bins;
}

function readEdges(edges: unknown): number[] {
  const list = isArrayLike(edges) && edges.length <= 1001 ? Array.from(edges) : [];
  const increasing = list.every((x, i) => typeof x === "number" && (i === 0 || x > (list[i - 1] as number)));
  if (list.length < 2 || !increasing || list[0] !== 0 || list.at(-1) !== 1)
    fail(
      "ERR_INVALID_ARGUMENT",
      `Expected 2 to 1001 increasing numbers from 0 to 1 for options.edges but received ` +
        (list.length > 0 && list.length < 20 ? list.map((x) => show(x)).join(", ") : show(edges)),
    );
  return list as number[];
}

/** Numbers of the variants that accuracies are taken from. */
function readVariants(chosen: readonly Variant[] | undefined, heldOut: boolean): number[] {
  const names: unknown = chosen ?? (heldOut ? variants.slice(0, 4) : variants.slice(4));
  if (!isArrayLike(names) || names.length === 0)
    fail("ERR_INVALID_ARGUMENT", `Expected variants for options.variants but received ${show(names)}`);
  return Array.from(names, (name) => {
    const v = variantIndex(name, "options.variants");
    if (v < 4 && !heldOut)
      fail(
        "ERR_INVALID_ARGUMENT",
        `Expected hybridTool or hybridReas for options.variants but received ${show(name)}, whose noise is in lambda23 too. ` +
          "Give the other half of the samples as options.heldOut to bin by it",
      );
    return v;
  });
}

function accuracyOf(table: CountTable, v: number, q: number): number {
  const n = table.samples[v * table.variantStride + q * table.questionStride] as number;
  return (table.correct[v * table.questions + q] as number) / n;
}

/** The table of some of the questions. */
function subset(table: CountTable, questions: readonly number[]): CountTable {
  const pick = (values: Int32Array, rows: number, stride: number): Int32Array => {
    const result = new Int32Array(rows * questions.length);
    for (let v = 0; v < rows; v++)
      for (const [i, q] of questions.entries()) result[v * questions.length + i] = values[v * stride + q] as number;
    return result;
  };
  const { variantStride, questionStride, samples, ids, clusters, outcomes } = table;
  const perQuestion = questionStride === 1;
  const rows = perQuestion && variantStride > 0 ? variants.length : 1;
  const n = samples[0] as number;
  const numbers = new Map<number, number>();
  return {
    questions: questions.length,
    correct: pick(table.correct, variants.length, table.questions),
    samples: perQuestion ? pick(samples, rows, variantStride) : samples,
    variantStride: perQuestion && variantStride > 0 ? questions.length : variantStride,
    questionStride,
    ids: ids === undefined ? undefined : questions.map((q) => ids[q] as string),
    clusters: Int32Array.from(clusters.length === 0 ? [] : questions, (q) => {
      const cluster = clusters[q] as number;
      const number = numbers.get(cluster) ?? numbers.size;
      numbers.set(cluster, number);
      return number;
    }),
    outcomes:
      outcomes.length === 0
        ? outcomes
        : Uint8Array.from(questions.flatMap((q) => Array.from(outcomes.subarray(q * n, (q + 1) * n)))),
  };
}
