// Several training seeds: pairs, t intervals, variance components.
import t from "tap";
import {
  type AccuracyRow,
  type AccuracyTable,
  computeInterference,
  computeInterferenceSync,
  type DenseSeeds,
  type Estimate,
  type Interference,
  summary,
  type VariantName,
} from "rolegrad/attribution";
import { studentQuantile } from "../lib/attribution/student.js";
import { Random } from "../lib/random.js";
import { close, dense, designRows, randomCounts, table } from "./helpers/tables.js";

const seedNames = ["11", "12", "13"];
const bySeed = seedNames.map((_, s) => randomCounts(40, 50, 20 + s));

function rowsOf(base: "own" | "shared"): AccuracyRow[] {
  return bySeed.flatMap((counts, s) =>
    counts.flatMap((_, q) =>
      designRows.flatMap((variant, v): AccuracyRow[] => {
        const row = { variant: variant as VariantName, id: `q${q}`, samples: 50 };
        if (v > 0 || base === "own") return [{ ...row, correct: counts[q]![v]!, seed: seedNames[s]! }];
        return s > 0 ? [] : [{ ...row, correct: bySeed[0]![q]![0]! }];
      }),
    ),
  );
}

function denseSeeds(): DenseSeeds {
  const each = bySeed.map(dense);
  const correct = Object.fromEntries(designRows.map((name) => [name, each.map((own) => own[name])]));
  return { samples: 50, seeds: seedNames, correct: correct as unknown as DenseSeeds["correct"] };
}

t.test("Student's quantiles are SciPy's", async (t) => {
  const degrees = [1, 2, 3, 9, 30, 100];
  const known = [12.706204736432, 4.302652729911, 3.182446305284, 2.262157162741, 2.042272456301, 1.983971518524];
  close(
    t,
    degrees.map((d) => studentQuantile(0.975, d) / known[degrees.indexOf(d)]!),
    degrees.map(() => 1),
    2e-10,
  );
  close(t, [studentQuantile(0.995, 4)], [4.60409487135], 1e-10);
});

t.test("several seeds give each one's own result, and their mean with a t interval", async (t) => {
  const result = await computeInterference({ rows: rowsOf("own") });
  t.equal(result.scope, "training seeds");
  t.same(result.seeds!.names, seedNames);
  const alone = bySeed.map((counts) => computeInterferenceSync(table(counts, 50)));
  t.same(
    result.seeds!.results.map(({ lambda, mean23, interferenceShare, scope }) => [
      lambda,
      mean23,
      interferenceShare,
      scope,
    ]),
    alone.map(({ lambda, mean23, interferenceShare, scope }) => [lambda, mean23, interferenceShare, scope]),
  );
  for (const pick of [
    (r: typeof result) => r.mean23,
    (r: typeof result) => r.interferenceShare,
    (r: typeof result) => r.contrasts.additive,
    (r: typeof result) => r.contrasts.overBest,
    (r: typeof result) => r.means.l12,
  ]) {
    const values = alone.map((r) => pick(r).value);
    const mean = (values[0]! + values[1]! + values[2]!) / 3;
    const sd = Math.sqrt(values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / 2);
    const half = (4.302652729911275 * sd) / Math.sqrt(3);
    const { value, low, high } = pick(result);
    close(t, [value, low!, high!], [mean, mean - half, mean + half], 1e-9);
  }
  t.equal(result.seeds!.degreesOfFreedom, 2);
  t.same(result, computeInterferenceSync(denseSeeds()), "dense tables say the same");
  t.match(summary(result), /on average over 3 training seeds \(95 % interval/);
  close(
    t,
    [result.lambda.l23[7]!, result.posteriors!.uniform[7]!],
    [0, 0].map(
      (_, i) => alone.reduce((sum, r) => sum + (i === 0 ? r.lambda.l23[7]! : r.posteriors!.uniform[7]!), 0) / 3,
    ),
    1e-14,
  );
});

t.test("base may stand beside every seed", async (t) => {
  const result = computeInterferenceSync({ rows: rowsOf("shared") });
  t.equal(result.seeds!.sharedBase, true);
  const own = denseSeeds();
  const shared = { ...own, correct: { ...own.correct, base: own.correct.base[0] as ArrayLike<number> } } as DenseSeeds;
  t.same(computeInterferenceSync(shared), result);
  const alone = computeInterferenceSync(
    table(
      bySeed[2]!.map((k, q) => [bySeed[0]![q]![0]!, ...k.slice(1)]),
      50,
    ),
  );
  t.same(result.seeds!.results[2]!.lambda, alone.lambda);
});

t.test("the noise of a base that all seeds share is in the intervals", async (t) => {
  // 200 tables of the same accuracies, 5 seeds that differ by their counts alone: the spread between seeds lacks base's part.
  const random = new Random(6, "shared base");
  const [tables, seeds, questions, n] = [200, 5, 60, 20];
  const draw = (p: number): number => {
    let k = 0;
    for (let j = 0; j < n; j++) k += random.next() < p ? 1 : 0;
    return k;
  };
  const accuracy = Array.from({ length: questions }, () =>
    [0, 0.05, 0.1, 0.12].map((up) => 0.15 + up + 0.6 * random.next()),
  );
  const results = Array.from({ length: tables }, () => {
    const each = Array.from({ length: seeds }, () => accuracy.map((own) => [...own, 0.5, 0.5].map(draw)));
    const correct = Object.fromEntries(
      designRows.map((name, v) => [
        name,
        v === 0 ? each[0]!.map((k) => k[0]!) : each.map((own) => own.map((k) => k[v]!)),
      ]),
    );
    return computeInterferenceSync(
      { samples: n, seeds: ["a", "b", "c", "d", "e"], correct } as unknown as AccuracyTable,
      { posterior: false, intervals: false, model: false },
    );
  });
  const figures: Record<string, (r: Interference) => Estimate> = {
    share: (r) => r.interferenceShare,
    unsaturated: (r) => r.interferenceShare.unsaturated!,
    mean: (r) => r.smoothedMean23,
    l1: (r) => r.means.l1,
    l2: (r) => r.means.l2,
    median: (r) => r.median23,
    additive: (r) => r.contrasts.additive,
  };
  for (const [name, pick] of Object.entries(figures)) {
    const truth = results.reduce((sum, r) => sum + pick(r).value / tables, 0);
    const covered = results.filter((r) => pick(r).low! <= truth && truth <= pick(r).high!).length / tables;
    t.ok(covered >= 0.92, `${name}: ${covered}`);
  }
  // Half widths: t of the spread between seeds, and 1.96 standard deviations of base's mean logit.
  const [{ means, seeds: report }] = results as [Interference];
  t.equal(report!.sharedBase, true);
  const base = report!.results[0]!;
  const logit = base.covariance.noise[0]! / base.kept.length;
  close(t, [means.l1.high! - means.l1.value], [1.959963984540054 * Math.sqrt(logit)], 1e-12);
});

t.test("seeds of which one has no model have the smoothed mean, and say so", async (t) => {
  // The second seed drops 15 of 40 questions: too few are left for a model.
  const each = bySeed.map((counts, s) => counts.map((k, q) => (s === 1 && q < 15 ? k.map(() => 0) : k)));
  const correct = Object.fromEntries(designRows.map((name) => [name, each.map((own) => dense(own)[name])]));
  const given = { samples: 50, seeds: seedNames, correct } as unknown as AccuracyTable;
  const result = computeInterferenceSync(given);
  t.same(
    result.seeds!.results.map(({ model }) => model === null),
    [false, true, false],
  );
  t.same(result.mean23, { ...result.smoothedMean23, low: null, high: null });
  t.match(result.warnings[0], /for 1 of 3 training seeds \(12\): mean23 is the mean of the smoothed lambda23 in all/);
  t.equal(result.interferenceShare.null, null);
  t.match(result.unavailable, { null: "several-seeds", mean23: "several-seeds", calibratedTests: "several-seeds" });
  t.equal(result.calibratedTests, null);
  t.equal(
    computeInterferenceSync(given, { model: false }).unavailable.mean23,
    "not-asked-for",
    "the reason of all seeds",
  );
  t.notMatch(computeInterferenceSync(given, { model: false }).warnings.join(" "), /random-effects model is fitted for/);

  const whole = computeInterferenceSync(denseSeeds());
  const shares = whole.seeds!.results.map(({ interferenceShare }) => interferenceShare.null!);
  for (const bound of ["value", "low", "high"] as const)
    close(t, [whole.interferenceShare.null![bound]!], [shares.reduce((sum, own) => sum + own[bound]! / 3, 0)], 1e-14);
  t.equal(whole.unavailable.null, undefined);
  t.ok(whole.median23Null !== null && whole.interferenceShare.excess !== null);
  t.match(summary(whole), /additive effects alone would show/);
  t.ok(
    whole.seeds!.results.every(({ calibratedTests }) => calibratedTests !== null),
    "each seed has its own tests",
  );
  t.same([whole.calibratedTests, whole.unavailable.calibratedTests], [null, "several-seeds"]);
});

t.test("one seed, named or not, is these checkpoints", async (t) => {
  const rows = rowsOf("own").filter(({ seed }) => seed === "12");
  const result = computeInterferenceSync({ rows });
  t.equal(result.scope, "these checkpoints");
  t.equal(result.seeds, null);
  const none = rows.map(({ seed: _, ...row }) => row);
  t.same(computeInterferenceSync({ rows: none }), result);
});

t.test("variance components find what was put in", async (t) => {
  // z of a cell = question + what its model adds: an offset of SD .4 a seed and model, of SD .5 a question, seed and model.
  const random = new Random(5, "components");
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next());
  const [seeds, questions, n] = [40, 300, 50];
  const draw = (z: number): number => {
    const s = 1 / (1 + Math.exp(-z));
    let k = 0;
    for (let j = 0; j < n; j++) k += random.next() < s ? 1 : 0;
    return k;
  };
  const own = Array.from({ length: questions }, () => 0.7 * normal());
  const base = own.map((b) => draw(0.3 * b));
  const each = Array.from({ length: seeds }, () => {
    const unified = 0.4 * normal();
    return own.map((b, q) => {
      const l23 = b + unified + 0.5 * normal();
      return [base[q]!, draw(0.2), draw(0.3), draw(0.5 - 0.3 * b + l23), 25, 25];
    });
  });
  const correct = Object.fromEntries(
    designRows.map((name, v) => [name, v === 0 ? base : each.map((counts) => counts.map((k) => k[v]!))]),
  );
  const { seeds: report } = computeInterferenceSync(
    { samples: n, seeds: Array.from({ length: seeds }, (_, s) => s), correct } as unknown as AccuracyTable,
    { posterior: false, intervals: false },
  );
  const found = report!.components!;
  t.equal(found.questions, questions);
  // 39 degrees of freedom leave 23 % (one SD) of the seeds' variance open; the others are within a few percent.
  t.ok(found.seed > 0.07 && found.seed < 0.27, `seed ${found.seed} of .16`);
  t.ok(Math.abs(found.question - 0.49) < 0.12, `question ${found.question} of .49`);
  t.ok(Math.abs(found.seedByQuestion - 0.25) < 0.06, `seed x question ${found.seedByQuestion} of .25`);
  t.ok(found.binomial > 0.3 && found.binomial < 0.6, `binomial ${found.binomial}`);
});

t.test("unpaired seeds are refused by seed, variant, question and row", async (t) => {
  const rows = rowsOf("own");
  const without = (drop: (row: AccuracyRow) => boolean): AccuracyTable => ({ rows: rows.filter((row) => !drop(row)) });
  const own = denseSeeds();
  const cases: [string, AccuracyTable, string, RegExp][] = [
    [
      "a variant that a seed lacks",
      without((row) => row.seed === "12" && row.variant === "tool"),
      "ERR_TABLE_SEEDS",
      /for seed "12".*no row of tool/,
    ],
    [
      "a question that a seed lacks",
      without((row) => row.seed === "13" && row.id === "q4"),
      "ERR_TABLE_SEEDS",
      /question "q4" of seed "13".*base, reas/,
    ],
    [
      "a row without a seed",
      { rows: rows.map((row, i) => (i === 9 ? { ...row, seed: undefined } : row)) },
      "ERR_TABLE_SEEDS",
      /seed for variant unified of question "q1".*rows\[9\]/,
    ],
    [
      "a base with and without a seed",
      { rows: [...rows, { variant: "base", id: "q0", correct: 1, samples: 50 }] },
      "ERR_TABLE_DUPLICATE",
      /base of question "q0".*rows\[0\] and rows\[720\]/,
    ],
    ["too few arrays", { ...own, seeds: ["a", "b"] }, "ERR_TABLE_SEEDS", /2 arrays, one a seed, for correct\.base.*3/],
    ["a seed twice", { ...own, seeds: ["a", "b", "a"] }, "ERR_TABLE_SEEDS", /unique seeds.*"a" twice/],
    ["no seeds", { ...own, seeds: [] }, "ERR_TABLE_SEEDS", /names of training seeds/],
    [
      "a count in the second seed",
      {
        ...own,
        correct: {
          ...own.correct,
          tool: (own.correct.tool as number[][]).map((k, s) => (s === 1 ? k.map(() => 51) : k)),
        },
      },
      "ERR_TABLE_COUNT",
      /Seed "12".*correct\.tool\[0\].*51/,
    ],
  ];
  for (const [claim, bad, code, message] of cases) {
    t.throws(() => computeInterferenceSync(bad), { code, message }, claim);
    await t.rejects(computeInterference(bad), { code, message }, claim);
  }
});
