// The parts of the study of coverage: each simulates tables of one truth and counts what their intervals cover (study.mjs runs them).
import { computeInterferenceSync, planSamples } from "../../dist/attribution/index.js";
import { combineSeeds } from "../../dist/attribution/seeds.js";
import { readTable } from "../../dist/attribution/table.js";
import { Random } from "../../dist/random.js";
import {
  drawClustered,
  drawShifts,
  expected,
  figures,
  normal,
  reference,
  simulate,
  simulatePaired,
  truths,
} from "./tables.mjs";

/** Counts by name: `of` times asked, `hits` of them, `refused` where there was no interval, `sum` of plain values. */
export class Tally {
  counts = {};
  #at(name) {
    return (this.counts[name] ??= { of: 0, hits: 0, refused: 0, sum: 0 });
  }
  rate(name, hit) {
    this.#at(name).of++;
    if (hit) this.#at(name).hits++;
  }
  covers(name, estimate, value) {
    if (estimate === null || estimate.low === null) this.#at(name).refused++;
    else this.rate(name, estimate.low <= value && value <= estimate.high);
  }
  value(name, x) {
    this.#at(name).of++;
    this.#at(name).sum += x;
  }
  /** Adds what another counted. */
  add(counts) {
    for (const [name, own] of Object.entries(counts))
      for (const [key, x] of Object.entries(own)) this.#at(name)[key] += x;
    return this;
  }
}

const quick = { posterior: false, draws: 500 };
const meanOf = (kept, l23) => kept.reduce((sum, q) => sum + l23[q], 0) / kept.length;

/** Intervals of one table against a truth's estimands, in the names of the report. */
function countFigures(tally, result, truly) {
  for (const [name, pick] of Object.entries(figures)) tally.covers(name, pick(result), truly[name]);
}

function countNull(tally, { interferenceShare, calibratedTests, naiveTests, median23, median23Null }) {
  tally.covers("null", interferenceShare.null, interferenceShare.value);
  tally.covers("medianNull", median23Null, median23.value);
  for (const name of ["sign", "wilcoxon"]) {
    tally.rate(`naive ${name}`, naiveTests[name].pValue < 0.05);
    if (calibratedTests !== null) tally.rate(name, calibratedTests[name].pValue < 0.05);
  }
}

/** One training seed: mean23, of questions like these and of these very ones, the drawn figures, the null and the true share. */
const oneSeed = {
  prepare: ({ truth }, random, { samples }) => reference(truth, random, { samples }, computeInterferenceSync),
  table({ truth }, random, settings, truly, tally) {
    const { table, l23 } = simulate(truth, random, settings);
    const result = computeInterferenceSync(table, quick);
    const { mean23, smoothedMean23, model, trueShare } = result;
    countFigures(tally, result, truly);
    countNull(tally, result);
    tally.covers("smoothed as mean23", smoothedMean23, truly.mean23);
    tally.covers("trueShare", trueShare, truly.trueShare);
    tally.rate("fitted", model !== null);
    if (model === null) return;
    tally.covers("mean23", mean23, truly.mean23);
    tally.value("bias", mean23.value - truly.mean23);
    if (mean23.high === null) return tally.covers("fixed", mean23, 0); // no interval of these questions either
    const half = ((mean23.high - mean23.value) * model.standardErrors.fixed) / model.standardErrors.questions;
    const { value } = mean23;
    tally.covers("fixed", { low: value - half, high: value + half }, meanOf(result.kept, l23));
  },
};

/** The drawn figures of these very questions, sampled again: `population: "fixed"`. */
const sameQuestions = {
  prepare: () => null,
  table({ truth, paired }, random, { questions, samples }, _, tally) {
    const draw = paired ? simulatePaired : simulate;
    const { table, effects } = draw(truth, random, { questions, samples });
    const truly = expected(truth, random, { effects, samples, draw }, computeInterferenceSync);
    const options = { ...quick, model: false, population: "fixed", commonRandomNumbers: paired };
    countFigures(tally, computeInterferenceSync(table, options), truly);
  },
};

/** Questions like these, without the model: few of them, or paired outcomes. */
const withoutModel = {
  prepare: ({ truth, paired }, random, { samples }) =>
    reference(truth, random, { samples, draw: paired ? simulatePaired : simulate }, computeInterferenceSync),
  table({ truth, paired }, random, settings, truly, tally) {
    const { table } = (paired ? simulatePaired : simulate)(truth, random, settings);
    const result = computeInterferenceSync(table, { ...quick, commonRandomNumbers: paired });
    countFigures(tally, result, truly);
    tally.covers("mean23", result.mean23, truly.mean23);
    tally.covers("null", result.interferenceShare.null, result.interferenceShare.value);
  },
};

/** Questions in clusters of unequal size. */
const clustered = {
  prepare: ({ truth }, random, { samples }) =>
    reference(truth, random, { samples, groups: 5000 }, computeInterferenceSync),
  table({ truth, groups }, random, { questions, samples }, truly, tally) {
    const { clusters, effects } = drawClustered(truth, random, { questions, groups });
    const { table } = simulate(truth, random, { samples, effects });
    const result = computeInterferenceSync({ ...table, clusters }, quick);
    countFigures(tally, result, truly);
    countNull(tally, result);
    tally.covers("mean23", result.mean23, truly.mean23);
    const alone = computeInterferenceSync(table, { ...quick, nullDraws: 10 });
    tally.covers("mean23 without clusters", alone.mean23, truly.mean23);
  },
};

/** Five trainings of the same questions, of which the first three stand alone too. */
const severalSeeds = {
  prepare: oneSeed.prepare,
  table({ truth, shared, seedSd }, random, { questions, samples }, truly, tally) {
    const { effects } = simulate(truth, random, { questions, samples: 1 });
    const target = expected(truth, random, { effects, samples, seedSd }, computeInterferenceSync);
    const each = Array.from({ length: 5 }, () => {
      const shifts = drawShifts(random, seedSd);
      return simulate(truth, random, { samples, shifts, effects }).table.correct;
    });
    const correct = Object.fromEntries(Object.keys(each[0]).map((name) => [name, each.map((own) => own[name])]));
    if (shared) correct.base = each[0].base;
    const given = { seeds: each.map((_, s) => `s${s}`), samples, correct };
    const whole = computeInterferenceSync(given, { ...quick, draws: 100, nullDraws: 10 });
    const tables = readTable(given);
    const three = combineSeeds(
      { names: tables.names.slice(0, 3), sharedBase: shared === true, tables: tables.tables.slice(0, 3) },
      whole.seeds.results.slice(0, 3),
      {},
    );
    const own = meanOf(
      whole.kept,
      Float64Array.from(effects, ({ l23 }) => l23),
    );
    for (const [count, result] of Object.entries({ 3: three, 5: whole })) {
      tally.covers(`mean23 ${count}`, result.mean23, own);
      tally.covers(`mean23 of all questions ${count}`, result.mean23, truly.mean23);
      for (const [name, pick] of Object.entries(figures)) tally.covers(`${name} ${count}`, pick(result), target[name]);
      tally.rate(`excludes 0 ${count}`, result.mean23.low > 0 || result.mean23.high < 0);
    }
    const { calibratedTests } = whole.seeds.results[0];
    if (calibratedTests !== null) tally.rate("wilcoxon 1", calibratedTests.wilcoxon.pValue < 0.05);
    tally.covers("mean23 1", whole.seeds.results[0].mean23, truly.mean23);
  },
};

/** Questions that nearly all variants always answer: what is refused, and what is said where it is not. */
const saturated = {
  prepare: () => null,
  table({ truth }, random, settings, _, tally) {
    const { table } = simulate(truth, random, settings);
    const { mean23, interferenceShare, trueShare, model } = computeInterferenceSync(table, quick);
    tally.covers("mean23", mean23, 0);
    tally.rate("no model", model === null);
    tally.rate("no interval of mean23", mean23.low === null);
    tally.covers("null", interferenceShare.null, interferenceShare.value);
    tally.rate("no true share", trueShare === null);
  },
};

/** Studies of the size that planSamples finds: how many see the effect. */
const planned = {
  prepare: ({ plan }) => planSamples(plan),
  table({ plan }, random, _, { questions, samples, seeds }, tally) {
    const truth = {
      draw: () => ({
        base: -0.5 + 2.5 * normal(random),
        reas: 1 + 0.5 * normal(random),
        tool: 1 + 0.5 * normal(random),
        l23: plan.effect + 0.5 * normal(random),
      }),
    };
    const effects = Array.from({ length: questions }, () => truth.draw());
    const each = Array.from({ length: seeds }, () => {
      const shifts = [0, 0, 0, seeds === 1 ? 0 : (plan.seedSd ?? 0) * normal(random)];
      return simulate(truth, random, { samples, effects, shifts }).table.correct;
    });
    const correct =
      seeds === 1
        ? each[0]
        : Object.fromEntries(Object.keys(each[0]).map((name) => [name, each.map((own) => own[name])]));
    const given = { samples, correct, ...(seeds === 1 ? {} : { seeds: each.map((_, s) => s) }) };
    const { mean23 } = computeInterferenceSync(given, { ...quick, draws: 100, nullDraws: 10 });
    tally.rate("seen", mean23.low !== null && (plan.effect < 0 ? mean23.high < 0 : mean23.low > 0));
  },
};

const [none, gains1, gains2, ceilings, weak, mixed] = truths;
const high = { draw: (random) => ({ base: 5 + 0.5 * normal(random), reas: 1, tool: 1, l23: 0 }) };
const certain = { draw: () => ({ base: 30, reas: 0, tool: 0, l23: 0 }) };
const part = (section, kind, truth, settings = {}, name = truth.name) => ({
  section,
  kind,
  truth,
  name,
  ...settings,
});

/** All parts, in the order of the report. `questions` and `samples` stand in for those of the study. */
export const parts = [
  ...truths.map((truth) => part("one", oneSeed, truth)),
  ...[gains1, weak, mixed].flatMap((truth) =>
    [5, 10].map((samples) => part("samples", oneSeed, truth, { samples }, `${truth.name}, N = ${samples}`)),
  ),
  ...[none, gains2, weak].flatMap((truth) =>
    [5, 10, 20].map((questions) =>
      part("few", withoutModel, truth, { questions }, `${truth.name}, ${questions} questions`),
    ),
  ),
  ...[ceilings, mixed].map((truth) => part("fixed", sameQuestions, truth, { questions: 60 })),
  ...[gains2, weak, mixed].flatMap((truth) =>
    (truth.additive ? [false] : [false, true]).map((shared) =>
      part(
        "seeds",
        severalSeeds,
        truth,
        { questions: 60, seedSd: 0.2, shared },
        `${truth.name}${shared ? ", one table of base for all" : ""}`,
      ),
    ),
  ),
  ...[gains1, weak].flatMap((truth) =>
    [20, 50].map((groups) => part("clusters", clustered, truth, { groups }, `${truth.name}, ${groups} clusters`)),
  ),
  part("saturated", saturated, certain, { questions: 60 }, "every answer right"),
  part("saturated", saturated, high, { questions: 60 }, "base logits N(5, 0.5), gains 1, additive"),
  ...[gains2, mixed].map((truth) => part("paired", withoutModel, truth, { paired: true }, `${truth.name}, questions`)),
  ...[gains2, mixed].map((truth) =>
    part("paired", sameQuestions, truth, { questions: 60, paired: true }, `${truth.name}, 60 questions sampled again`),
  ),
  ...[
    { effect: -0.35, power: 0.8, samples: 50 },
    { effect: 0.5, power: 0.8, samples: 20 },
    { effect: -0.5, power: 0.8, samples: 50, seedSd: 0.2 },
  ].map((plan) => part("planned", planned, { name: JSON.stringify(plan) }, { plan })),
];

/** Runs tables `from` to `to` of a part: each has its own stream of random numbers. */
export function runPart(part, { questions, samples, seed, from = 0, to }) {
  const settings = { questions: part.questions ?? questions, samples: part.samples ?? samples };
  const stream = (what) => new Random(seed, `attribution-study ${part.section} ${part.name} ${what}`);
  const truly = part.kind.prepare(part, stream("reference"), settings);
  const tally = new Tally();
  for (let table = from; table < to; table++) part.kind.table(part, stream(`table ${table}`), settings, truly, tally);
  return { truly, counts: tally.counts };
}

/** One training seed's part for any truth. */
export function runTruth(truth, { tables, ...settings }) {
  return runPart(part("one", oneSeed, truth), { ...settings, to: tables }).counts;
}
