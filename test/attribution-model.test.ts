// The random-effects model through the public API: what covers what is the study's (docs/attribution-study.md); here it is
// repeated in small, with a fixed seed.
import t from "tap";
import { computeInterference, computeInterferenceSync, planSamples } from "rolegrad/attribution";
import { Random } from "rolegrad";
import { closedVariance } from "../lib/attribution/plan-variance.js";
import { parts, runPart, runTruth, Tally } from "../scripts/attribution/parts.mjs";
import { simulate, type Truth, truths } from "../scripts/attribution/tables.mjs";
import { randomCounts, table } from "./helpers/tables.js";

const named = (text: string): Truth => truths.find(({ name }) => name.includes(text)) as Truth;
const quick = { posterior: false, draws: 100 } as const;

t.test("under additive effects with gains of 3 the null holds its level, and the naive tests do not", async (t) => {
  const found = runTruth(named("gains 3"), { tables: 30, questions: 100, samples: 50, seed: 3 });
  const hits = (name: string): number => found[name]!.hits;
  t.equal(hits("naive sign"), 30, "the naive sign test always rejects");
  t.ok(hits("null") >= 25, `share inside its null band in ${hits("null")} of 30`);
  t.ok(
    hits("sign") <= 5 && hits("wilcoxon") <= 5,
    `calibrated tests reject ${hits("sign")} and ${hits("wilcoxon")} of 30`,
  );
  t.ok(hits("mean23") >= 25, `mean23 covered in ${hits("mean23")} of 30`);
  t.ok(hits("smoothed as mean23") <= 5, "the smoothed mean's interval is not one of mean lambda23");
  t.ok(hits("smoothed") >= 25, "but one of its own expectation");
  t.ok(found.trueShare!.of <= 5, "the true share is refused");
});

t.test("mean23 covers the truth where effects are mixed and where nothing is normal", async (t) => {
  for (const name of ["mixed", "not normal"]) {
    const found = runTruth(named(name), { tables: 30, questions: 100, samples: 50, seed: 4 });
    const { fitted, mean23, fixed, trueShare } = found;
    t.equal(fitted!.hits, 30);
    t.ok(mean23!.hits >= 25, `${name}: mean23 covered in ${mean23!.hits} of 30`);
    t.ok(fixed!.hits >= 25, `${name}: the mean of these questions covered in ${fixed!.hits} of 30`);
    t.ok(
      trueShare!.of - trueShare!.hits <= 1 + 0.1 * trueShare!.of,
      `${name}: ${trueShare!.hits} of ${trueShare!.of} true shares`,
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
  t.same(
    few.mean23,
    { ...few.smoothedMean23, low: null, high: null },
    "the smoothed mean's interval is not one of mean23",
  );
  t.equal(few.unavailable.mean23, "too-few-questions");
  t.ok((few.smoothedMean23.low as number) < few.smoothedMean23.value);
  t.ok(few.warnings.some((warning) => warning.startsWith("Fewer than 30 questions")));
  t.equal(few.unavailable.overBest, "too-few-questions");
  t.ok(few.warnings.some((warning) => /^Fewer than 30 questions or clusters: unified less the better/.test(warning)));

  const { table: given } = simulate(named("gains 1"), new Random(3, "model test"), { questions: 100, samples: 50 });
  const additive = computeInterferenceSync(given, quick);
  t.equal(additive.trueShare, null);
  t.match(additive.unavailable.trueShare, /^(no-effect-seen|not-identified)$/);
  const without = computeInterferenceSync(given, { ...quick, model: false });
  t.equal(without.unavailable.model, "not-asked-for");
  t.same(without.mean23, { ...without.smoothedMean23, low: null, high: null });
  t.throws(() => computeInterferenceSync(given, { nullDraws: 1 }), { code: "ERR_INVALID_ARGUMENT" });
  t.throws(() => computeInterferenceSync(given, { model: 1 as unknown as boolean }), { code: "ERR_INVALID_ARGUMENT" });
});

t.test("an aborted signal ends the model too", async (t) => {
  const { table: given } = simulate(named("weak"), new Random(4, "model test"), { questions: 20_000, samples: 50 });
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

t.test("planSamples: the closed form is the sum of the binomial variances where questions are alike", async (t) => {
  const none = { baseSd: 0, gainSd: 0, lambda23Sd: 0, seedByQuestionSd: 0 };
  const found = closedVariance(40, -0.3, { ...none, baseMean: -0.5, gain: 0.8 }, 0);
  const cells = [-0.5, 0.3, 0.3, 0.8].map((logit) => 1 / (1 + Math.exp(-logit)));
  const expected = cells.reduce((sum, p) => sum + 1 / (40 * p * (1 - p)), 0);
  t.ok(Math.abs(found! / expected - 1) < 1e-9, `${found} for ${expected}`);
  t.equal(closedVariance(40, 0, { ...none, baseMean: 800, gain: 0 }, 0), null, "counts that say nothing");
});

t.test("planSamples: the number of samples that it chooses is the one whose plan it gives", async (t) => {
  const asked = { effect: 0.4, power: 0.8, between: { baseSd: 1 } };
  const plan = planSamples(asked);
  t.same(planSamples({ ...asked, samples: plan.samples }), plan);
  t.ok(plan.answers < planSamples({ ...asked, samples: 200 }).answers);
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

t.test("a part of the study that is run in pieces counts what the whole counts", async (t) => {
  const part = parts.find(({ section, name }) => section === "few" && name.includes("weak")) as (typeof parts)[number];
  const settings = { questions: 150, samples: 50, seed: 8 };
  const whole = runPart(part, { ...settings, to: 40 }).counts;
  const pieces = [
    [0, 15],
    [15, 40],
  ].map(([from, to]) => runPart(part, { ...settings, from: from!, to: to! }).counts);
  t.same(new Tally().add(pieces[0]!).add(pieces[1]!).counts, whole);
  t.equal(whole["mean23"]!.refused, 40, "no interval of mean23 from so few questions");
});
