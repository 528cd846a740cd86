// Tables of several training seeds: a sample of trainings, where one seed is a single one.
import { fail, RolegradError } from "../errors.js";
import { checkName, type CountTable } from "./cells.js";
import { readDense, readVariants } from "./dense.js";
import { baseVariance } from "./shared-base.js";
import { effectCovariance, effectNames, level, normalQuantile } from "./resampling.js";
import { studentQuantile } from "./student.js";
import {
  type Effects,
  type Estimate,
  type Interference,
  type Unavailable,
  type VarianceComponents,
  variants,
} from "./types.js";
import { isArrayLike, show } from "./values.js";
import { signTest, wilcoxonTest } from "./naive-tests.js";
import { averagedDistribution } from "./null-distribution.js";
import type { WilcoxonOptions } from "./types.js";

/** One table a seed, questions in the same order in all; `names` is empty where there is one seed. */
export interface SeedTables {
  names: string[];
  /** Base names no seed and stands beside every one. */
  sharedBase: boolean;
  tables: CountTable[];
}

/** Checks and copies a dense table of several seeds. */
export function readDenseSeeds(table: Record<string, unknown>): SeedTables {
  const given = table["seeds"];
  if (!isArrayLike(given) || given.length === 0 || given.length > 65_536)
    fail("ERR_TABLE_SEEDS", `Expected names of training seeds for seeds but received ${show(given)}`);
  const names = Array.from(given, (name, s) => checkName(name, "ERR_TABLE_SEEDS", () => `seeds[${s}]`));
  const again = names.find((name, s) => names.indexOf(name) !== s);
  if (again !== undefined) fail("ERR_TABLE_SEEDS", `Expected unique seeds but received ${show(again)} twice`);
  if (table["outcomes"] !== undefined)
    fail("ERR_TABLE_OUTCOMES", "Expected a table of one training seed beside outcomes but received several");

  const arrays = readVariants(table["correct"], "correct");
  const base = arrays[0];
  const sharedBase = isArrayLike(base) && base.length > 0 && !isArrayLike(base[0]);
  for (const [v, array] of arrays.entries())
    if (!(v === 0 && sharedBase) && (!isArrayLike(array) || array.length !== names.length))
      fail(
        "ERR_TABLE_SEEDS",
        `Expected ${names.length} arrays, one a seed, for correct.${variants[v]} but received ` +
          (isArrayLike(array) ? `${array.length}` : show(array)),
      );
  const tables = names.map((name, s) => {
    const correct = Object.fromEntries(
      variants.map((variant, v) => [variant, v === 0 && sharedBase ? base : (arrays[v] as ArrayLike<unknown>)[s]]),
    );
    try {
      return readDense({ ...table, correct });
    } catch (error) {
      if (error instanceof RolegradError)
        throw new RolegradError(error.code, `Seed ${show(name)}: ${error.message}`, { cause: error });
      throw error;
    }
  });
  const questions = tables[0]?.questions as number;
  for (const [s, own] of tables.entries())
    if (own.questions !== questions)
      fail(
        "ERR_TABLE_SEEDS",
        `Expected the same questions in every seed but received ${questions} for seed ${show(names[0])} and ` +
          `${own.questions} for seed ${show(names[s])}`,
      );
  return { names: names.length > 1 ? names : [], sharedBase: sharedBase && names.length > 1, tables };
}

/**
 * Mean of one figure a seed and its t interval over seeds; null where a seed has none. `shared` is the variance of what all
 * seeds have in common, which their spread does not show.
 */
function overSeeds(
  values: readonly (number | undefined)[],
  shared = 0,
  bounds?: { low: number; high: number },
): Estimate | null {
  const known = values.filter((value) => value !== undefined);
  if (known.length < values.length) return null;
  const n = known.length;
  const mean = known.reduce((sum, x) => sum + x, 0) / n;
  const variance = known.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (n - 1);
  const t = studentQuantile((1 + level) / 2, n - 1);
  const half = Math.sqrt((t * t * variance) / n + normalQuantile ** 2 * shared);
  const { low = -Infinity, high = Infinity } = bounds ?? {};
  return { value: mean, low: Math.max(low, mean - half), high: Math.min(high, mean + half), level };
}

/** Means of values and of bounds over seeds: as wide as if their errors were one and the same; null where a seed has none. */
function averaged(estimates: readonly (Estimate | null)[]): Estimate | null {
  const over = (pick: (estimate: Estimate) => number | null): number | null =>
    estimates.reduce<number | null>((sum, estimate) => {
      const value = estimate === null ? null : pick(estimate);
      return sum === null || value === null ? null : sum + value / estimates.length;
    }, 0);
  const value = over((estimate) => estimate.value);
  return value === null ? null : { value, low: over(({ low }) => low), high: over(({ high }) => high), level };
}

/** Why a figure of the whole is null: the seeds' reason where all have the same. */
function reasonOf(results: readonly Interference[], name: keyof Interference["unavailable"]): Unavailable {
  const reasons = new Set(results.map(({ unavailable }) => unavailable[name]));
  const [only] = reasons;
  return reasons.size === 1 && only !== undefined ? only : "several-seeds";
}

/** Names the seeds without a model where it was asked for: then the mean is the smoothed one in all. */
function modelWarnings(names: readonly string[], results: readonly Interference[]): string[] {
  const missing = names.filter((_, s) => results[s]?.model === null);
  if (missing.length === 0 || results.every(({ unavailable }) => unavailable.model === "not-asked-for")) return [];
  return [
    `No random-effects model is fitted for ${missing.length} of ${names.length} training seeds (${missing.join(", ")}): ` +
      "mean23 is the mean of the smoothed lambda23 in all of them.",
  ];
}

/**
 * What several seeds say together: figures are means over the seeds with t intervals, to which a shared base adds its noise; effects and posteriors of a question
 * are means over the seeds that keep it, and signs are those of these means.
 */
export function combineSeeds(
  { names, sharedBase, tables }: SeedTables,
  results: Interference[],
  wilcoxon: WilcoxonOptions,
): Interference {
  const questions = (tables[0] as CountTable).questions;
  const times = new Int32Array(questions);
  const saturated = new Int32Array(questions);
  for (const result of results) {
    for (const q of result.kept) times[q] = (times[q] as number) + 1;
    for (const q of result.saturated) saturated[q] = (saturated[q] as number) + 1;
  }
  const all = Int32Array.from({ length: questions }, (_, q) => q);
  const kept = all.filter((q) => (times[q] as number) > 0);
  const place = new Int32Array(questions);
  for (const [i, q] of kept.entries()) place[q] = i;
  const average = (pick: (result: Interference) => Float64Array): Float64Array => {
    const sums = new Float64Array(kept.length);
    for (const result of results)
      for (const [i, value] of pick(result).entries()) {
        const at = place[result.kept[i] as number] as number;
        sums[at] = (sums[at] as number) + value;
      }
    return sums.map((sum, i) => sum / (times[kept[i] as number] as number));
  };
  const lambda = Object.fromEntries(
    effectNames.map((name) => [name, average((result) => result.lambda[name])]),
  ) as unknown as Effects;
  const counts = { negative: 0, zero: 0, positive: 0 };
  for (const x of lambda.l23) counts[x < 0 ? "negative" : x > 0 ? "positive" : "zero"]++;

  const share = { low: 0, high: 1 };
  const base = sharedBase ? baseVariance(tables[0] as CountTable, results) : null;
  const mean = (pick: (result: Interference) => number, shared = 0): Estimate =>
    overSeeds(results.map(pick), shared) as Estimate;
  const modelled = results.every(({ model }) => model !== null);
  const fewSamples = results.some(({ unavailable }) => unavailable.mean23 === "too-few-samples");
  const without = (estimate: Estimate): Estimate => ({ ...estimate, low: null, high: null });
  const mean23 = modelled
    ? mean((result) => result.mean23.value, base?.means.l23)
    : without(mean((result) => result.smoothedMean23.value));
  const nullShare = averaged(results.map(({ interferenceShare }) => interferenceShare.null));
  const posteriors = results.every((result) => result.posteriors !== null)
    ? {
        jeffreys: average((result) => (result.posteriors as NonNullable<Interference["posteriors"]>).jeffreys),
        uniform: average((result) => (result.posteriors as NonNullable<Interference["posteriors"]>).uniform),
      }
    : null;
  const matrix = (pick: (result: Interference) => Float64Array): Float64Array =>
    new Float64Array(effectNames.length ** 2).map(
      (_, i) => results.reduce((sum, result) => sum + (pick(result)[i] as number), 0) / results.length,
    );
  const first = results[0] as Interference;
  return {
    ...first,
    scope: "training seeds",
    kept,
    dropped: all.filter((q) => times[q] === 0),
    saturated: kept.filter((q) => saturated[q] === times[q]),
    lambda,
    counts,
    interferenceShare: {
      ...(overSeeds(
        results.map((result) => result.interferenceShare.value),
        base?.share,
        share,
      ) as Estimate),
      null: nullShare,
      excess: averaged(results.map((result) => result.interferenceShare.excess)),
      unsaturatedNull: averaged(results.map((result) => result.interferenceShare.unsaturatedNull)),
      unsaturated: overSeeds(
        results.map((result) => result.interferenceShare.unsaturated?.value),
        base?.unsaturated,
        share,
      ),
    },
    trueShare: null,
    // One estimand for all: a seed without a model has the smoothed mean alone.
    mean23: fewSamples ? without(mean23) : mean23,
    smoothedMean23: mean((result) => result.smoothedMean23.value, base?.means.l23),
    model: null,
    unavailable: {
      model: reasonOf(results, "model"),
      ...(modelled && !fewSamples ? {} : { mean23: reasonOf(results, "mean23") }),
      trueShare: reasonOf(results, "trueShare"),
      ...(nullShare === null ? { null: reasonOf(results, "null") } : {}),
      calibratedTests: reasonOf(results, "calibratedTests"),
    },
    median23Null: averaged(results.map((result) => result.median23Null)),
    distribution23Null: averagedDistribution(results.map((result) => result.distribution23Null)),
    // Student's t of the seeds' own statistics rejected additive effects in 8 % at gains of 2: ceilings move their mean over trainings.
    calibratedTests: null,
    median23: mean((result) => result.median23.value, base?.median23),
    means: Object.fromEntries(
      effectNames.map((name) => [name, mean((result) => result.means[name].value, base?.means[name])]),
    ) as Interference["means"],
    covariance: effectCovariance(
      matrix((result) => result.covariance.questions),
      matrix((result) => result.covariance.noise),
    ),
    contrasts: {
      additive: mean((result) => result.contrasts.additive.value, base?.additive),
      overBest: mean((result) => result.contrasts.overBest.value),
    },
    posteriorNegative: posteriors?.jeffreys ?? null,
    posteriors,
    naiveTests: { sign: signTest(counts.negative, counts.positive), wilcoxon: wilcoxonTest(lambda.l23, wilcoxon) },
    resampling: null,
    seeds: {
      names,
      results,
      degreesOfFreedom: results.length - 1,
      sharedBase,
      components: varianceComponents(tables, results, sharedBase),
    },
    warnings: modelWarnings(names, results),
  };
}

/** Mean squares of the questions kept in every seed, without replication; null where there are fewer than two. */
function varianceComponents(
  tables: readonly CountTable[],
  results: readonly Interference[],
  sharedBase: boolean,
): VarianceComponents | null {
  const seeds = results.length;
  const seen = new Map<number, { sum: number; squares: number; times: number }>();
  for (const { kept, lambda } of results)
    for (const [i, q] of kept.entries()) {
      const x = lambda.l23[i] as number;
      const own = seen.get(q) ?? { sum: 0, squares: 0, times: 0 };
      seen.set(q, { sum: own.sum + x, squares: own.squares + x * x, times: own.times + 1 });
    }
  const common = new Set([...seen].filter(([, own]) => own.times === seeds).map(([q]) => q));
  const questions = common.size;
  if (questions < 2) return null;

  const rows = [...common].map((q) => seen.get(q) as { sum: number; squares: number });
  const grand = rows.reduce((sum, row) => sum + row.sum, 0) / (seeds * questions);
  const means = results.map(({ kept, lambda }) => {
    let sum = 0;
    for (const [i, q] of kept.entries()) if (common.has(q)) sum += lambda.l23[i] as number;
    return sum / questions;
  });
  const total = rows.reduce((sum, row) => sum + row.squares, 0) - seeds * questions * grand ** 2;
  const betweenQuestions = rows.reduce((sum, row) => sum + seeds * (row.sum / seeds - grand) ** 2, 0);
  const betweenSeeds = means.reduce((sum, mean) => sum + questions * (mean - grand) ** 2, 0);
  const meanSquare = {
    question: betweenQuestions / (questions - 1),
    seed: betweenSeeds / (seeds - 1),
    rest: (total - betweenQuestions - betweenSeeds) / ((questions - 1) * (seeds - 1)),
  };

  // What the binomial counts put into a cell of this layout: base's part is the same in every seed where it is shared.
  let own = 0;
  let base = 0;
  for (const table of tables)
    for (const q of common)
      for (let v = 0; v < 4; v++) {
        const k = table.correct[v * table.questions + q] as number;
        const n = table.samples[v * table.variantStride + q * table.questionStride] as number;
        const variance = 1 / (k + 0.5) + 1 / (n - k + 0.5);
        if (v === 0) base += variance / (seeds * questions);
        else own += variance / (seeds * questions);
      }
  const independent = sharedBase ? own : own + base;
  const cut = (variance: number): number => Math.max(0, variance);
  return {
    seed: cut((meanSquare.seed - meanSquare.rest) / questions),
    question: cut((meanSquare.question - meanSquare.rest) / seeds - (sharedBase ? base : 0)),
    seedByQuestion: cut(meanSquare.rest - independent),
    binomial: own + base,
    questions,
  };
}
