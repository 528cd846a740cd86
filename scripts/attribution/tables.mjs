// Simulated tables of counts with known effects, for the study of coverage (study.mjs) and its tests.

import { drawBinomial, normal } from "../../dist/attribution/draws.js";

export { normal };

const names = ["base", "reas", "tool", "unified", "hybridTool", "hybridReas"];
const trained = names.slice(0, 4);

const exponential = (random) => -Math.log(1 - random.next());

/** Successes of n of probability 1 / (1 + exp(-logit)), by inversion of one uniform number. */
export const binomial = (random, n, logit) => drawBinomial(random.next(), n, logit);

const wide = (random) => -0.5 + 2.5 * normal(random);
const additive = (gain) => (random) => ({ base: wide(random), reas: gain, tool: gain, l23: 0 });

/**
 * The truths: each draws a question's base logit, the gains of reasoning and tool training, and lambda23, in logits. `additive`
 * says that lambda23 is 0 throughout.
 */
export const truths = [
  { name: "additive, gains 0", additive: true, draw: additive(0) },
  { name: "additive, gains 1", additive: true, draw: additive(1) },
  { name: "additive, gains 2", additive: true, draw: additive(2) },
  { name: "additive, gains 3 (ceilings)", additive: true, draw: additive(3) },
  {
    name: "weak: N(-0.2, 0.2)",
    draw: (random) => ({
      base: wide(random),
      reas: 1 + 0.5 * normal(random),
      tool: 1 + 0.5 * normal(random),
      l23: -0.2 + 0.2 * normal(random),
    }),
  },
  {
    name: "mixed: 40 % N(-1.5, 0.3), 60 % N(0.3, 0.3)",
    draw: (random) => ({
      base: wide(random),
      reas: 1 + 0.5 * normal(random),
      tool: 1 + 0.5 * normal(random),
      l23: (random.chance(0.4) ? -1.5 : 0.3) + 0.3 * normal(random),
    }),
  },
  {
    name: "not normal: two humps of base, exponential gains, lambda23 = -1 or 0.5",
    draw: (random) => ({
      base: (random.chance(0.5) ? -2.5 : 1.5) + normal(random),
      reas: exponential(random),
      tool: exponential(random),
      l23: random.chance(0.3) ? -1 : 0.5,
    }),
  },
];

/** One training's shift of the logits of reas, tool and unified: standard deviation `seedSd`. */
export function drawShifts(random, seedSd) {
  return [0, seedSd * normal(random), seedSd * normal(random), seedSd * normal(random)];
}

/**
 * Questions of a truth in `groups` clusters of unequal size (shares 1 : 2 : .. : 5 in turn): a cluster shifts base by N(0, 1), the
 * gains by N(0, 0.5) and, where effects are not additive, lambda23 by N(0, 0.3).
 */
export function drawClustered(truth, random, { questions, groups }) {
  const shifts = Array.from({ length: groups }, () => ({
    base: normal(random),
    reas: 0.5 * normal(random),
    tool: 0.5 * normal(random),
    l23: truth.additive ? 0 : 0.3 * normal(random),
  }));
  const places = shifts.flatMap((_, c) => Array(1 + (c % 5)).fill(c));
  const clusters = Int32Array.from({ length: questions }, (_, q) => places[q % places.length]);
  const effects = Array.from(clusters, (c) => {
    const own = truth.draw(random);
    return Object.fromEntries(Object.entries(own).map(([name, value]) => [name, value + shifts[c][name]]));
  });
  return { clusters, effects };
}

const logitsOf = ({ base, reas, tool, l23 }, shifts) => ({
  base,
  reas: base + reas + shifts[1],
  tool: base + tool + shifts[2],
  unified: base + reas + tool + l23 + shifts[3],
  hybridTool: base + 0.7 * tool,
  hybridReas: base + 0.7 * reas,
});

/** A dense table of `questions` of a truth with the true lambda23 of each; `effects`: reuse of drawn effects. */
export function simulate(truth, random, { questions, samples, shifts = [0, 0, 0, 0], effects }) {
  const drawn = effects ?? Array.from({ length: questions }, () => truth.draw(random));
  const correct = Object.fromEntries(names.map((name) => [name, new Int32Array(drawn.length)]));
  for (const [q, effect] of drawn.entries()) {
    const logits = logitsOf(effect, shifts);
    for (const name of names) correct[name][q] = binomial(random, samples, logits[name]);
  }
  return { table: { samples, correct }, l23: Float64Array.from(drawn, ({ l23 }) => l23), effects: drawn };
}

/** The same with common random numbers: sample j of a question is right where one uniform number is below the variant's accuracy. */
export function simulatePaired(truth, random, { questions, samples, effects }) {
  const { table, ...rest } = simulate(truth, random, { questions, samples: 1, effects });
  const { correct } = table;
  const outcomes = Object.fromEntries(trained.map((name) => [name, new Uint8Array(rest.effects.length * samples)]));
  for (const name of trained) correct[name].fill(0);
  for (const [q, effect] of rest.effects.entries()) {
    const logits = logitsOf(effect, [0, 0, 0, 0]);
    for (let j = 0; j < samples; j++) {
      const u = random.next();
      for (const name of trained) {
        const right = u < 1 / (1 + Math.exp(-logits[name])) ? 1 : 0;
        outcomes[name][q * samples + j] = right;
        correct[name][q] += right;
      }
    }
    for (const name of ["hybridTool", "hybridReas"]) correct[name][q] = binomial(random, samples, logits[name]);
  }
  return { table: { samples, correct, outcomes }, ...rest };
}

const pointEstimates = { model: false, posterior: false, intervals: false };

/** The figures of a large table whose intervals are drawn: what they are at this N, smoothing and ceilings included. */
export const figures = {
  share: ({ interferenceShare }) => interferenceShare,
  smoothed: ({ smoothedMean23 }) => smoothedMean23,
  median: ({ median23 }) => median23,
  additive: ({ contrasts }) => contrasts.additive,
  overBest: ({ contrasts }) => contrasts.overBest,
};

/** What a truth's estimands are, from a table of many questions: over the kept ones. */
export function reference(truth, random, { samples, questions = 40_000, groups, draw = simulate }, compute) {
  const effects = groups === undefined ? undefined : drawClustered(truth, random, { questions, groups }).effects;
  const { table, l23 } = draw(truth, random, { questions, samples, effects });
  const result = compute(table, { ...pointEstimates, commonRandomNumbers: table.outcomes !== undefined });
  const { kept } = result;
  let sum = 0;
  let negative = 0;
  for (const q of kept) {
    sum += l23[q];
    if (l23[q] < 0) negative++;
  }
  const read = Object.fromEntries(Object.entries(figures).map(([name, pick]) => [name, pick(result).value]));
  return { mean23: sum / kept.length, trueShare: negative / kept.length, ...read };
}

/** What the figures of these very questions are on average over `times` samplings (and trainings, where seedSd > 0). */
export function expected(truth, random, { effects, samples, times = 100, seedSd = 0, draw = simulate }, compute) {
  const sums = Object.fromEntries(Object.keys(figures).map((name) => [name, 0]));
  for (let i = 0; i < times; i++) {
    const { table } = draw(truth, random, { samples, effects, shifts: drawShifts(random, seedSd) });
    const result = compute(table, { ...pointEstimates, commonRandomNumbers: table.outcomes !== undefined });
    for (const [name, pick] of Object.entries(figures)) sums[name] += pick(result).value / times;
  }
  return sums;
}
