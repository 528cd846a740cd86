// The random-effects model through the public API: what covers what is the study's (docs/attribution-study.md); here it is
// repeated in small, with a fixed seed.
import t from "tap";
import { computeInterference, computeInterferenceSync, planSamples } from "rolegrad/attribution";
import { Random } from "rolegrad";
import { runTruth } from "../scripts/attribution/study.mjs";
import { simulate, type Truth, truths } from "../scripts/attribution/tables.mjs";
import { randomCounts, table } from "./helpers/tables.js";

const named = (text: string): Truth => truths.find(({ name }) => name.includes(text)) as Truth;
const quick = { posterior: false, draws: 100 } as const;

t.test("under additive effects with gains of 3 the null holds its level, and the naive tests do not", async (t) => {
  const found = runTruth(named("gains 3"), { tables: 30, questions: 100, samples: 50, seed: 3 });
  t.equal(found.naiveSign, 30, "the naive sign test always rejects");
  t.ok(found.outside <= 5, `share outside its null band in ${found.outside} of 30`);
  t.ok(found.sign <= 5 && found.wilcoxon <= 5, `calibrated tests reject ${found.sign} and ${found.wilcoxon} of 30`);
  t.ok(found.mean23 >= 25, `mean23 covered in ${found.mean23} of 30`);
  t.ok(found.shareGiven <= 5, "the true share is refused");
});

t.test("mean23 covers the truth where effects are mixed and where nothing is normal", async (t) => {
  for (const name of ["mixed", "not normal"]) {
    const found = runTruth(named(name), { tables: 30, questions: 100, samples: 50, seed: 4 });
    t.equal(found.fitted, 30);
    t.ok(found.mean23 >= 25, `${name}: mean23 covered in ${found.mean23} of 30`);
    t.ok(found.fixed >= 25, `${name}: the mean of these questions covered in ${found.fixed} of 30`);
    t.ok(
      found.shareGiven - found.trueShare <= 1 + 0.1 * found.shareGiven,
      `${name}: ${found.trueShare} of ${found.shareGiven} true shares`,
    );
  }
});

t.test("a table says what the model found, and the promise says the same", async (t) => {
  const drawn = simulate(named("mixed"), new Random(1, "model test"), { questions: 400, samples: 50 });
  const result = computeInterferenceSync(drawn.table, quick);
  t.strictSame(await computeInterference(drawn.table, quick), result);
  const { mean23, smoothedMean23, model, interferenceShare, calibratedTests, trueShare } = result;
  t.ok(model !== null && model.spread23 > 0.5 && model.spread23 < 1.3 && !model.oneStep);
  t.same(result.unavailable, {});
  t.not(mean23.value, smoothedMean23.value);
  t.same(smoothedMean23, result.means.l23);
  t.ok((mean23.low as number) < -0.4 && (mean23.high as number) > -0.4);
  t.ok(interferenceShare.null !== null && interferenceShare.excess !== null);
  t.equal(interferenceShare.excess?.value, interferenceShare.value - (interferenceShare.null?.value as number));
  t.ok(interferenceShare.value > (interferenceShare.null?.high as number), "the share is above its null band");
  t.ok((calibratedTests?.wilcoxon.pValue as number) < 0.001 && (calibratedTests?.sign.pValue as number) < 0.01);
  t.ok(trueShare !== null && (trueShare.low as number) <= 0.49 && (trueShare.high as number) >= 0.49);

  const other = computeInterferenceSync(drawn.table, { ...quick, seed: 1 });
  t.not(other.interferenceShare.null?.value, interferenceShare.null?.value, "another seed draws another null");
  t.equal(other.mean23.value, mean23.value, "and leaves the fit alone");
  const fixed = computeInterferenceSync(drawn.table, { ...quick, population: "fixed" });
  t.equal(fixed.mean23.value, mean23.value);
  t.ok((fixed.mean23.high as number) < (mean23.high as number), "these very questions: a shorter interval");
});

t.test("a hundred questions are fitted in few passes", async (t) => {
  // What a small table costs, in counts that no other program on the machine can change. EM alone took hundreds.
  for (const name of ["gains 3", "mixed", "weak"]) {
    const { table: drawn } = simulate(named(name), new Random(5, "passes"), { questions: 100, samples: 50 });
    const { model } = computeInterferenceSync(drawn, quick);
    t.ok(model !== null && model.passes.laplace <= 150, `${name}: ${model?.passes.laplace} of Laplace's approximation`);
    t.ok(model !== null && model.passes.propagation <= 16, `${name}: ${model?.passes.propagation} of propagation`);
    t.ok(model !== null && model.passes.information <= 14, `${name}: ${model?.passes.information} of derivatives`);
  }
});

t.test("clusters of copies widen the interval of mean23", async (t) => {
  const { table: one } = simulate(named("weak"), new Random(2, "model test"), { questions: 100, samples: 50 });
  const twice = (k: ArrayLike<number>): number[] => [...Array.from(k), ...Array.from(k)];
  const correct = Object.fromEntries(Object.entries(one.correct).map(([name, k]) => [name, twice(k)]));
  const clusters = twice(Array.from({ length: 100 }, (_, q) => q));
  const given = { samples: 50, correct: correct as unknown as (typeof one)["correct"] };
  const error = (result: ReturnType<typeof computeInterferenceSync>): number =>
    result.model?.standardErrors.questions as number;
  const ratio =
    error(computeInterferenceSync({ ...given, clusters }, quick)) / error(computeInterferenceSync(given, quick));
  t.ok(Math.abs(ratio - Math.SQRT2) < 0.06, `a factor of ${ratio}`);
});

t.test("what cannot be had is null, and the result says why", async (t) => {
  const few = computeInterferenceSync(table(randomCounts(12, 50, 3), 50), quick);
  t.equal(few.unavailable.model, "too-few-questions");
  t.same([few.model, few.trueShare, few.calibratedTests, few.interferenceShare.null], [null, null, null, null]);
  t.same(few.mean23, few.smoothedMean23);
  t.ok(few.warnings.some((warning) => warning.startsWith("Fewer than 30 questions")));

  const { table: given } = simulate(named("gains 1"), new Random(3, "model test"), { questions: 100, samples: 50 });
  const additive = computeInterferenceSync(given, quick);
  t.equal(additive.trueShare, null);
  t.match(additive.unavailable.trueShare, /^(no-effect-seen|not-identified)$/);
  const without = computeInterferenceSync(given, { ...quick, model: false });
  t.equal(without.unavailable.model, "not-asked-for");
  t.same(without.mean23, without.smoothedMean23);
  t.throws(() => computeInterferenceSync(given, { nullDraws: 1 }), { code: "ERR_INVALID_ARGUMENT" });
  t.throws(() => computeInterferenceSync(given, { model: 1 as unknown as boolean }), { code: "ERR_INVALID_ARGUMENT" });
});

t.test("an aborted signal ends the model too", async (t) => {
  const { table: given } = simulate(named("weak"), new Random(4, "model test"), { questions: 3000, samples: 50 });
  const controller = new AbortController();
  const pending = computeInterference(given, { ...quick, signal: controller.signal });
  setTimeout(() => controller.abort(), 60);
  await t.rejects(pending, { code: "ERR_ABORTED" });
});

t.test("planSamples: the planned study has the power that was asked for", async (t) => {
  const plan = planSamples({ effect: -0.35, power: 0.8, samples: 50 });
  t.same([plan.seeds, plan.samples], [1, 50]);
  t.equal(plan.answers, plan.questions * 50 * 6);
  const random = new Random(5, "plan test");
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next());
  const truth: Truth = {
    name: "planned",
    draw: () => ({
      base: -0.5 + 2.5 * normal(),
      reas: 1 + 0.5 * normal(),
      tool: 1 + 0.5 * normal(),
      l23: -0.35 + 0.5 * normal(),
    }),
  };
  const studies = 100;
  let seen = 0;
  for (let study = 0; study < studies; study++) {
    const { table: given } = simulate(truth, random, { questions: plan.questions, samples: 50 });
    const { mean23 } = computeInterferenceSync(given, { ...quick, nullDraws: 10 });
    if ((mean23.high as number) < 0) seen++;
  }
  const power = seen / studies;
  t.ok(Math.abs(power - 0.8) < 0.12, `power ${power} with ${plan.questions} questions`);
});

t.test("planSamples: fixed sizes are kept, seeds cost what they cost, and the impossible is refused", async (t) => {
  const one = planSamples({ effect: 0.3, power: 0.8, samples: 50, questions: 300 });
  t.equal(one.questions, 300);
  t.ok(one.power > 0.8);
  const seeds = planSamples({ effect: 0.3, power: 0.8, samples: 50, seedSd: 0.2 });
  t.ok(seeds.seeds >= 3 && seeds.answers > planSamples({ effect: 0.3, power: 0.8, samples: 50 }).answers);
  t.throws(() => planSamples({ effect: 0.3, power: 0.9, samples: 50, seedSd: 0.3, seeds: 2 }), { code: "ERR_PLAN" });
  for (const wrong of [
    { effect: 0, power: 0.8 },
    { effect: 1, power: 2 },
    { effect: 1, power: 0.8, seeds: 1.5 },
  ])
    t.throws(() => planSamples(wrong), { code: "ERR_INVALID_ARGUMENT" });
});
