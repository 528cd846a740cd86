// Where the random-effects model has little to go by: it says so, and what it gives holds its rates.
import t from "tap";
import { computeInterferenceSync, type AccuracyTable, type Interference, planSamples } from "rolegrad/attribution";
import { Random } from "rolegrad";
import { simulate, type Truth, truths } from "../scripts/attribution/tables.mjs";

const names = ["base", "reas", "tool", "unified", "hybridTool", "hybridReas"] as const;
type Name = (typeof names)[number];
const quick = { posterior: false, draws: 100 } as const;

/** Counts of questions with these logits. */
function counts(random: Random, samples: number, questions: Record<Name, number>[]): Record<Name, number[]> {
  const draw = (logit: number): number => {
    let k = 0;
    for (let i = 0; i < samples; i++) if (random.next() < 1 / (1 + Math.exp(-logit))) k++;
    return k;
  };
  return Object.fromEntries(names.map((name) => [name, questions.map((one) => draw(one[name]))])) as Record<
    Name,
    number[]
  >;
}

function rates(make: (random: Random) => AccuracyTable): {
  excludes0: number;
  rejects: number;
  outside: number;
  all: Interference[];
} {
  const all = Array.from({ length: 40 }, (_, i) => computeInterferenceSync(make(new Random(i, "limits")), quick));
  const count = (f: (result: Interference) => boolean): number => all.filter(f).length;
  return {
    all,
    excludes0: count(({ mean23 }) => mean23.low !== null && (mean23.low > 0 || (mean23.high as number) < 0)),
    rejects: count(({ calibratedTests }) => calibratedTests !== null && calibratedTests.wilcoxon.pValue < 0.05),
    outside: count(
      ({ interferenceShare: { value, null: band } }) =>
        band !== null && (value < (band.low as number) || value > (band.high as number)),
    ),
  };
}

t.test("questions at floor and ceiling do not make certainty", async (t) => {
  for (const [p, samples, questions] of [
    [1, 50, 40],
    [0.999, 50, 60],
    [0.95, 1, 40],
    [0.99, 50, 60],
  ] as const) {
    const logit = p === 1 ? 100 : Math.log(p / (1 - p));
    const alike = Object.fromEntries(names.map((name) => [name, logit])) as Record<Name, number>;
    const all = Array.from({ length: questions }, () => alike);
    const found = rates((random) => ({ samples, correct: counts(random, samples, all) }));
    t.ok(found.rejects <= 5 && found.excludes0 <= 5, `p ${p}: ${found.rejects} tests, ${found.excludes0} means of 40`);
    if (p === 0.99) continue;
    for (const { unavailable, warnings } of found.all) {
      t.equal(unavailable.model, "too-few-unsaturated");
      t.ok(warnings.some((warning) => warning.includes("off floor and ceiling")));
    }
    if (p === 1) t.same([found.all[0]?.mean23.low, found.all[0]?.mean23.high], [null, null]);
  }
});

t.test("below ten clusters there is no interval, from ten on it holds its level", async (t) => {
  const clustered = (groups: number) => (random: Random) => {
    const normal = (): number => Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next());
    const each = Array.from({ length: groups }, () => [2 * normal() - 0.5, 1 + 0.5 * normal(), 1 + 0.5 * normal()]);
    const clusters = Array.from({ length: 60 }, (_, q) => q % groups);
    const logits = clusters.map((group) => {
      const [mean, reas, tool] = each[group] as [number, number, number];
      const base = mean + 0.5 * normal();
      return {
        base,
        reas: base + reas,
        tool: base + tool,
        unified: base + reas + tool,
        hybridTool: base,
        hybridReas: base,
      };
    });
    return { samples: 50, clusters, correct: counts(random, 50, logits) };
  };
  for (const groups of [1, 9]) {
    const { all } = rates(clustered(groups));
    for (const result of all) {
      t.same([result.mean23.low, result.mean23.high], [null, null]);
      t.same([result.interferenceShare.null, result.calibratedTests, result.trueShare], [null, null, null]);
      if (result.model !== null) t.equal(result.unavailable.null, "too-few-clusters");
    }
  }
  const fixed = computeInterferenceSync(clustered(3)(new Random(1, "limits")), { ...quick, population: "fixed" });
  t.ok(fixed.mean23.low !== null, "these very questions: clusters do not matter");
  for (const groups of [12]) {
    const { all, ...found } = rates(clustered(groups));
    t.ok(all.every(({ calibratedTests }) => calibratedTests !== null));
    t.ok(
      Object.values(found).every((n) => n <= 6),
      `${groups} clusters: ${JSON.stringify(found)} of 40`,
    );
  }
});

t.test("the standard error of mean23 is the spread of the estimates with few samples too", async (t) => {
  const truth = truths.find(({ name }) => name.includes("mixed")) as Truth;
  for (const samples of [4, 5, 8, 10]) {
    const fits = Array.from({ length: 20 }, (_, i) =>
      computeInterferenceSync(simulate(truth, new Random(i, "few samples"), { questions: 300, samples }).table, {
        ...quick,
        nullDraws: 10,
      }),
    ).filter(({ model }) => model !== null);
    t.ok(fits.length >= 10, `${fits.length} of 20 fitted`);
    t.ok(
      fits.every(({ trueShare, unavailable }) => trueShare === null && unavailable.trueShare !== "not-identified"),
      "no true share from so few samples",
    );
    const values = fits.map(({ mean23 }) => mean23.value);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const spread = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
    const ratios = fits.map(({ model }) => (model?.standardErrors.questions as number) / spread);
    t.ok(
      Math.min(...ratios) > 0.5 && Math.max(...ratios) < 2,
      `N ${samples}: ${Math.min(...ratios)} to ${Math.max(...ratios)}`,
    );
  }
});

t.test("planSamples says much the same for every seed, and refuses what cannot be fitted", async (t) => {
  const sizes = [0, 1].map((seed) => planSamples({ effect: -0.35, power: 0.8, samples: 20, seed }).questions);
  t.ok(Math.max(...sizes) < 1.25 * Math.min(...sizes), sizes.join(", "));
  t.throws(() => planSamples({ effect: -0.35, power: 0.8, samples: 20, between: { baseMean: -10, baseSd: 0 } }), {
    code: "ERR_PLAN",
  });
  t.throws(() => planSamples({ effect: -0.35, power: 0.8, samples: 10 }), {
    code: "ERR_INVALID_ARGUMENT",
    message: /20 to 10000 for options\.samples but received 10/,
  });
});

t.test("a plan has questions enough off floor and ceiling for the model, or counts that it may not", (t) => {
  const wanted = { effect: -2, power: 0.8, samples: 50 } as const;
  const half = planSamples({ ...wanted, between: { baseSd: 10 } });
  t.ok(half.questions > 35, `${half.questions} questions, of which many have nothing to say`);
  t.equal(planSamples({ ...wanted, between: { baseMean: 0, baseSd: 0.1, gain: 0 } }).questions, 30, "all have");
  t.throws(() => planSamples({ ...wanted, questions: 31, between: { baseSd: 10 } }), { code: "ERR_PLAN" });
  t.end();
});

t.test("mean23 has no interval of few samples, of one training or several", (t) => {
  const { table: given } = simulate(truths[1]!, new Random(4, "few samples"), { questions: 100, samples: 10 });
  const one = computeInterferenceSync(given, { draws: 100 });
  t.ok(one.model !== null && Number.isFinite(one.mean23.value));
  t.same([one.mean23.low, one.mean23.high, one.unavailable.mean23], [null, null, "too-few-samples"]);
  t.ok(one.warnings.some((text) => text.startsWith("Fewer than 20 samples a cell: mean23 has no interval")));
  const correct = Object.fromEntries(Object.entries(given.correct).map(([name, own]) => [name, [own, own]]));
  const two = computeInterferenceSync({ ...given, seeds: ["a", "b"], correct } as never, { draws: 100 });
  t.same([two.mean23.low, two.mean23.high, two.unavailable.mean23], [null, null, "too-few-samples"]);
  t.equal(two.mean23.value, one.mean23.value);
  t.end();
});

t.test("a share of these very questions is wider than its draws", (t) => {
  const { table: given } = simulate(truths[1]!, new Random(5, "signs again"), { questions: 100, samples: 50 });
  const { interferenceShare } = computeInterferenceSync(given, { population: "fixed", draws: 4000, model: false });
  // The draws' own percentiles are .080 to either side; times sqrt(.196 / (1 / 6)) they are .0867.
  const half = ((interferenceShare.high as number) - (interferenceShare.low as number)) / 2;
  t.ok(Math.abs(half - 0.0867) < 0.003, `half a width of ${half}`);
  t.end();
});
