import {
  type CountArguments,
  type InterferenceArguments,
  type InterferenceValues,
  type ModelArguments,
  type ModelValues,
  native,
} from "../binding.js";
import { fail, RolegradError } from "../errors.js";
import { type CountTable, questionLabel } from "./cells.js";
import { applyModel, modelArguments, type ModelChoice, modelChoice } from "./model.js";
import { wilcoxonArguments } from "./naive-tests.js";
import {
  bootstrapArguments,
  describeResampling,
  effectCovariance,
  estimate,
  meanEstimates,
  widened,
} from "./resampling.js";
import { combineSeeds, type SeedTables } from "./seeds.js";
import { readTable } from "./table.js";
import {
  type AccuracyTable,
  type AsyncInterferenceOptions,
  type Interference,
  type InterferenceOptions,
  type Smoothing,
  variants,
} from "./types.js";
import { choice, flag, optionsObject, show } from "./values.js";
import { warnings } from "./warnings.js";

const smoothings: readonly Smoothing[] = ["haldane", "laplace", "none"];

/**
 * Interference between reasoning and tool use from a table of accuracies: z = X lambda (Eq. 7-8) for every question, and
 * what the signs and sizes of lambda23 say, with 95 % intervals from the bootstrap (`options.population` says of what). A
 * table of several training seeds gives one result for each, and their mean with a t interval over seeds.
 *
 * The work is done off the JavaScript thread; the table is read and copied before this returns. See
 * {@link computeInterferenceSync} for the errors; ERR_ABORTED when `options.signal` is aborted.
 *
 * @example
 * const correct = {
 *   base: [10, 22], reas: [15, 30], tool: [18, 28], unified: [20, 33], hybridTool: [14, 25], hybridReas: [13, 24],
 * };
 * const result = await computeInterference({ samples: 50, correct });
 * console.log(result.lambda.l23, result.counts);
 */
export async function computeInterference(
  table: AccuracyTable,
  options: AsyncInterferenceOptions = {},
): Promise<Interference> {
  return compute(prepare(readTable, table, options), options);
}

/** {@link computeInterference} of a checked table. */
export async function computeInterferenceOf(
  table: CountTable,
  options: AsyncInterferenceOptions,
): Promise<Interference> {
  const read = (own: CountTable): SeedTables => ({ names: [], sharedBase: false, tables: [own] });
  return compute(prepare(read, table, options), options);
}

async function compute(requests: Requests, options: AsyncInterferenceOptions): Promise<Interference> {
  const { signal } = options;
  if (signal !== undefined && typeof (signal as Partial<AbortSignal> | null)?.throwIfAborted !== "function")
    fail("ERR_INVALID_ARGUMENT", `Expected an AbortSignal for options.signal but received ${show(signal)}`);
  const aborted = (): RolegradError =>
    new RolegradError("ERR_ABORTED", "The computation was aborted by its signal", { cause: signal?.reason });
  if (signal?.aborted) throw aborted();
  const results: Interference[] = [];
  for (const request of requests.each) {
    const job = native.interferenceAsync(request.table, request.options);
    let abort = job.abort;
    const stop = (): void => abort();
    signal?.addEventListener("abort", stop, { once: true });
    try {
      const result = toInterference(request, await job.promise);
      if (signal?.aborted) throw aborted();
      const given = modelArguments(request.model, request.counts, result, request.smoothing);
      const model = given === null ? null : native.interferenceModelAsync(given.table, given.options);
      abort = model?.abort ?? abort;
      results.push(withModel(request, result, (await model?.promise) ?? null, given?.options ?? null));
      if (signal?.aborted) throw aborted();
    } catch (error) {
      throw signal?.aborted && error instanceof RolegradError && error.code === "ERR_ABORTED" ? aborted() : error;
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }
  return together(requests, results, options);
}

/**
 * {@link computeInterference} without a promise: a hundred questions take about a millisecond.
 *
 * Throws a RolegradError that names row, question and variant: ERR_TABLE (neither form), ERR_TABLE_ROW, ERR_TABLE_ID,
 * ERR_TABLE_VARIANT (unknown or missing), ERR_TABLE_DUPLICATE, ERR_TABLE_UNMATCHED (an id without all six variants),
 * ERR_TABLE_COUNT (k not an integer in 0..N), ERR_TABLE_SAMPLES (N not an integer >= 1), ERR_TABLE_LENGTH (arrays of
 * different lengths), ERR_TABLE_SEEDS (several seeds that are not paired), ERR_TABLE_CLUSTER, ERR_TABLE_OUTCOMES (outcomes
 * of samples that are missing or do not fit), ERR_TABLE_EMPTY, ERR_TABLE_ALL_DROPPED (no variant ever right),
 * ERR_INFINITE_LOGIT (k = 0 or k = N under `smoothing: "none"`), ERR_WILCOXON_EXACT (an exact test asked for with ties),
 * ERR_INVALID_ARGUMENT (an option), ERR_INVALID_SEED.
 *
 * @example
 * const rows = ["base", "reas", "tool", "unified", "hybrid-tool", "hybrid-reas"].map((variant, i) => ({
 *   variant, id: "q1", correct: 10 + i, samples: 50,
 * }));
 * computeInterferenceSync({ rows }).mean23.value;
 */
export function computeInterferenceSync(table: AccuracyTable, options: InterferenceOptions = {}): Interference {
  const requests = prepare(readTable, table, options);
  const results = requests.each.map((request) => {
    const result = toInterference(request, native.interference(request.table, request.options));
    const given = modelArguments(request.model, request.counts, result, request.smoothing);
    const values = given === null ? null : native.interferenceModel(given.table, given.options);
    return withModel(request, result, values, given?.options ?? null);
  });
  return together(requests, results, options);
}

interface Request {
  counts: CountTable;
  table: CountArguments;
  options: InterferenceArguments;
  smoothing: Smoothing;
  model: ModelChoice | null;
}

/** One request for each training seed. */
interface Requests {
  seeds: SeedTables;
  each: Request[];
}

function prepare<T>(read: (table: T) => SeedTables, table: T, options: InterferenceOptions): Requests {
  optionsObject(options, "options");
  const { smoothing = "haldane", posterior = true, wilcoxon = {}, commonRandomNumbers = false } = options;
  const chosen = {
    smoothing: choice(smoothings, smoothing, "options.smoothing"),
    posterior: flag(posterior, "options.posterior"),
    wilcoxon: wilcoxonArguments(wilcoxon, "options.wilcoxon"),
  };
  const bootstrap = bootstrapArguments(options);
  const paired = flag(commonRandomNumbers, "options.commonRandomNumbers");
  const model = modelChoice(options);
  const seeds = read(table);
  const each = seeds.tables.map((counts): Request => {
    if (smoothing === "none") refuseInfinite(counts);
    if (paired && counts.outcomes.length === 0)
      fail(
        "ERR_TABLE_OUTCOMES",
        "Expected outcomes in the table for commonRandomNumbers but received counts alone: they do not say what samples of " +
          "the same random numbers have in common. Give outcomes for base, reas, tool and unified, or sample the variants " +
          "with different random numbers",
      );
    const { questions, correct, samples, variantStride, questionStride, clusters } = counts;
    return {
      counts,
      table: { questions, correct, samples, variantStride, questionStride },
      options: {
        ...chosen,
        intervals: bootstrap === null ? null : { ...bootstrap, clusters },
        outcomes: paired ? counts.outcomes : new Uint8Array(0),
      },
      smoothing,
      model,
    };
  });
  return { seeds, each };
}

/** The one result, or what several seeds say together. */
function together({ seeds, each }: Requests, results: Interference[], options: InterferenceOptions): Interference {
  const [first] = results as [Interference];
  if (results.length === 1) return first;
  const result = combineSeeds(seeds, results, options.wilcoxon ?? {});
  const [request] = each as [Request];
  result.warnings.push(...warnings(result, request.counts, request.options.posterior));
  return result;
}

/** Names the first cell of a kept question whose logit is infinite without smoothing. */
function refuseInfinite(counts: CountTable): void {
  const { questions, correct, samples, variantStride, questionStride } = counts;
  for (let q = 0; q < questions; q++) {
    if (variants.every((_, v) => correct[v * questions + q] === 0)) continue; // dropped
    for (const [v, variant] of variants.entries()) {
      const k = correct[v * questions + q];
      const n = samples[v * variantStride + q * questionStride];
      if (k === 0 || k === n)
        fail(
          "ERR_INFINITE_LOGIT",
          `Expected counts between 0 and the samples, both excluded, for smoothing "none" but variant ${variant} of ` +
            `${questionLabel(counts, q)} has ${k} of ${n}. Use smoothing "haldane" or "laplace", or leave the question out`,
        );
    }
  }
}

function toInterference(request: Request, values: InterferenceValues): Interference {
  const { counts, unsaturated } = values;
  const { jeffreys, uniform } = { jeffreys: values.posteriorNegative, uniform: values.posteriorUniform };
  const free = unsaturated.negative + unsaturated.zero + unsaturated.positive;
  const resampling = describeResampling(request.options.intervals, request.counts, values.kept);
  const intervals = widened(values, resampling, request.options.outcomes.length > 0);
  const result: Interference = {
    scope: "these checkpoints",
    resampling,
    seeds: null,
    commonRandomNumbers: request.options.outcomes.length > 0,
    smoothing: request.smoothing,
    kept: values.kept,
    dropped: values.dropped,
    saturated: values.saturated,
    lambda: values.lambda,
    counts,
    interferenceShare: {
      ...estimate(counts.negative / values.kept.length, intervals?.share),
      null: null,
      excess: null,
      unsaturatedNull: null,
      unsaturated: free === 0 ? null : estimate(unsaturated.negative / free, intervals?.unsaturated),
    },
    trueShare: null,
    mean23: estimate(values.mean23),
    smoothedMean23: estimate(values.mean23, intervals?.means, 5),
    model: null,
    unavailable: {},
    median23: estimate(values.median23, intervals?.median23),
    median23Null: null,
    distribution23Null: null,
    means: meanEstimates(values.means, intervals),
    covariance: effectCovariance(values.covarianceQuestions, values.covarianceNoise),
    contrasts: {
      additive: estimate(values.additive, intervals?.additive),
      overBest: estimate(values.overBest, intervals?.overBest),
    },
    posteriorNegative: jeffreys,
    posteriors: jeffreys === null || uniform === null ? null : { jeffreys, uniform },
    naiveTests: { sign: values.sign, wilcoxon: values.wilcoxon },
    calibratedTests: null,
    warnings: [],
  };
  const { overBest } = result.contrasts;
  if (overBest.low === null && result.contrasts.additive.low !== null)
    result.unavailable.overBest = "too-few-questions";
  return result;
}

function withModel(
  request: Request,
  result: Interference,
  values: ModelValues | null,
  given: ModelArguments | null,
): Interference {
  applyModel(result, values, request.model, given, request.counts);
  result.warnings = warnings(result, request.counts, request.options.posterior);
  return result;
}
