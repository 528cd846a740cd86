// The intervals of computeInterference against plain loops that resample for real, and against what is known exactly.
import { execFileSync } from "node:child_process";
import t, { type Test } from "tap";
import {
  computeInterference,
  computeInterferenceSync,
  type DenseAccuracy,
  type Effects,
  type Estimate,
  type Interference,
  type InterferenceOptions,
} from "rolegrad/attribution";
import { studentQuantile } from "../lib/attribution/student.js";
import { Random } from "../lib/random.js";
import { close, dense, haldane, randomCounts, table } from "./helpers/tables.js";

const names = ["l1", "l2", "l3", "l12", "l13", "l23"] as const satisfies readonly (keyof Effects)[];
const mean = (x: ArrayLike<number>): number => Array.from(x).reduce((a, b) => a + b, 0) / x.length;
const half = ({ low, high }: Estimate): number => ((high as number) - (low as number)) / 2;

function quantile(values: number[], level: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const place = level * (sorted.length - 1);
  const below = Math.floor(place);
  const next = sorted[Math.min(below + 1, sorted.length - 1)] as number;
  return (sorted[below] as number) + (place - below) * (next - (sorted[below] as number));
}

function median(values: number[]): number {
  return (quantile(values, 0.5) * 2) / 2;
}

/** Figures of questions drawn with replacement, clusters whole: a plain loop. */
function plainBootstrap(result: Interference, units: readonly (readonly number[])[], draws: number): number[][] {
  const random = new Random(1, "plain bootstrap");
  const { l23, l12 } = result.lambda;
  return Array.from({ length: draws }, () => {
    const drawn = units.flatMap(() => units[random.integer(units.length)] as readonly number[]);
    const own = drawn.map((i) => l23[i] as number);
    return [
      own.filter((x) => x < 0).length / own.length,
      median(own),
      mean(own),
      mean(drawn.map((i) => l12[i] as number)),
    ];
  });
}

const estimates = (r: Interference): Estimate[] => [r.interferenceShare, r.median23, r.smoothedMean23, r.means.l12];

/** What percentiles of means over n units lack: Student's tails, and the n - 1 of a sample's variance. */
const widening = (n: number): number => (studentQuantile(0.975, n - 1) / 1.959963984540054) * Math.sqrt(n / (n - 1));

/**
 * Bounds within what 3000 draws leave open: the density at the bounds of a normal is .058 / SD, so a bound's SD is .05 SD. Those of
 * figures from `wider` on are further out by `factor`.
 */
function agree(
  t: Test,
  found: Estimate[],
  draws: number[][],
  what: string,
  { wider, factor }: { wider: number; factor: number },
): void {
  for (const [f, { value, ...bounds }] of found.entries()) {
    const inner = (bound: number | null): number => value + ((bound as number) - value) / (f < wider ? 1 : factor);
    const [low, high] = [inner(bounds.low), inner(bounds.high)];
    const values = draws.map((draw) => draw[f] as number);
    const middle = mean(values);
    const sd = Math.sqrt(mean(values.map((x) => (x - middle) ** 2)));
    close(t, [low, high], [quantile(values, 0.025), quantile(values, 0.975)], 0.3 * sd);
    t.ok(sd > 0, `${what}, figure ${f}`);
  }
}

t.test("intervals are those of a plain bootstrap of the questions", async (t) => {
  for (const questions of [41, 160]) {
    const result = computeInterferenceSync(table(randomCounts(questions, 50, 4), 50), { draws: 20_000 });
    const units = Array.from(result.kept, (_, i) => [i]);
    const plain = plainBootstrap(result, units, 3000).map(([, ...others]) => others);
    const { units: n } = result.resampling!;
    agree(t, estimates(result).slice(1), plain, `${questions} questions`, { wider: 1, factor: widening(n) });
  }
});

/** Questions of which the first `negative` have lambda23 < 0 and the others lambda23 > 0. */
const signs = (questions: number, negative: number): number[][] =>
  Array.from({ length: questions }, (_, q) => [25, 25, 25, q < negative ? 10 : 40, 25, 25]);
const cheap = { draws: 100, posterior: false, model: false } as const;

t.test("the share's interval is Wilson's, and covers the true share at 0, 1 and few questions too", async (t) => {
  // The ends solve (p - share)^2 = z^2 p (1 - p) / Q.
  for (const [negative, questions] of [
    [0, 40],
    [7, 40],
    [40, 40],
    [407, 660],
  ] as const) {
    const { interferenceShare } = computeInterferenceSync(table(signs(questions, negative), 50), cheap);
    const { value, low, high } = interferenceShare;
    t.same(interferenceShare.unsaturated, { value, low, high, level: 0.95 });
    t.ok((high as number) - (low as number) > 0.05);
    for (const p of [low as number, high as number])
      if (p > 0 && p < 1) close(t, [((p - value) ** 2 * questions) / (p * (1 - p))], [1.959963984540054 ** 2], 1e-9);
  }
  // Coverage, exactly: over all numbers of negative questions with their binomial probabilities.
  const coverages = [30, 100].flatMap((questions) => {
    const found = Array.from({ length: questions + 1 }, (_, k) => {
      const { low, high } = computeInterferenceSync(table(signs(questions, k), 50), cheap).interferenceShare;
      return [low as number, high as number] as const;
    });
    return [0.02, 0.1, 0.3, 0.5, 0.8, 0.95, 0.99].map((p) =>
      binomial(questions, p).reduce((sum, x, k) => sum + (found[k]![0] <= p && p <= found[k]![1] ? x : 0), 0),
    );
  });
  t.ok(Math.min(...coverages) > 0.92, `at least ${Math.min(...coverages)}`);
  t.ok(mean(coverages) > 0.945, `on average ${mean(coverages)}`);
});

t.test("one cluster has no intervals, and clusters of one sign have a share with one", async (t) => {
  const one = computeInterferenceSync({ ...table(signs(30, 10), 50), clusters: new Array(30).fill("a") }, cheap);
  for (const { low, high } of [...estimates(one), one.interferenceShare.unsaturated!, ...Object.values(one.contrasts)])
    t.same([low, high], [null, null]);
  const clusters = Array.from({ length: 30 }, (_, q) => q % 10);
  const { interferenceShare } = computeInterferenceSync({ ...table(signs(30, 0), 50), clusters }, cheap);
  t.equal(interferenceShare.low, 0);
  close(t, [interferenceShare.high!], [1.959963984540054 ** 2 / (10 + 1.959963984540054 ** 2)], 1e-12);
});

t.test("a mean's interval has the width of its standard error, in tables of every size", async (t) => {
  for (const questions of [30, 1500, 2047, 2048, 7000]) {
    const result = computeInterferenceSync(table(randomCounts(questions, 50, 5), 50), {
      draws: 4000,
      posterior: false,
    });
    for (const name of names) {
      const x = result.lambda[name];
      const middle = mean(x);
      const error = Math.sqrt(mean(x.map((value) => (value - middle) ** 2)) / x.length);
      // 4000 draws leave 3.6 % (two SD) open in each bound.
      close(t, [half(result.means[name]) / (1.96 * widening(questions) * error)], [1], 0.07);
      close(t, [result.means[name].value], [middle], 1e-12);
    }
    t.same(result.resampling, { population: "questions", units: questions, clustered: false, draws: 4000, seed: 0 });
  }
});

t.test("clusters are resampled whole", async (t) => {
  // Questions of a cluster have the same counts but for a few: intervals are wider than without clusters.
  const random = new Random(2, "clusters");
  const counts = randomCounts(60, 50, 6).flatMap((k) => Array.from({ length: 1 + random.integer(4) }, () => k));
  const clusters: string[] = [];
  for (const [q, k] of counts.entries()) clusters.push(k === counts[q - 1] ? (clusters[q - 1] as string) : `c${q}`);
  const options = { draws: 20_000 };
  const result = computeInterferenceSync({ ...table(counts, 50), clusters }, options);
  const units = [...new Set(clusters)].map((name) => clusters.flatMap((own, i) => (own === name ? [i] : [])));
  agree(t, estimates(result), plainBootstrap(result, units, 3000), "clusters", { wider: 0, factor: widening(60) });
  const plain = computeInterferenceSync(table(counts, 50), options);
  t.ok(half(result.smoothedMean23) > 1.2 * half(plain.smoothedMean23));
  t.match(result.resampling, { units: 60, clustered: true });
  const rows = counts.flatMap((_, q) =>
    (["base", "reas", "tool", "unified", "hybridTool", "hybridReas"] as const).map((variant, v) => ({
      variant,
      id: q,
      correct: counts[q]![v]!,
      samples: 50,
      cluster: clusters[q],
    })),
  );
  t.same(computeInterferenceSync({ rows }, options).smoothedMean23, result.smoothedMean23, "and from rows");
});

t.test("clusters of one question each are plain resampling", async (t) => {
  const counts = randomCounts(300, 50, 7);
  const plain = computeInterferenceSync(table(counts, 50), { draws: 20_000 });
  const clustered = computeInterferenceSync(
    { ...table(counts, 50), clusters: counts.map((_, q) => q) },
    { draws: 20_000 },
  );
  t.same(clustered.means, plain.means, "the same bits for what is drawn in both");
  t.same(clustered.contrasts, plain.contrasts);
  for (const pick of [(r: Interference) => r.interferenceShare, (r: Interference) => r.median23]) {
    const [a, b] = [pick(plain), pick(clustered)];
    close(t, [b.low!, b.high!], [a.low!, a.high!], 0.15 * half(a));
  }
});

/** Binomial(n, p) probabilities of 0..n. */
function binomial(n: number, p: number): number[] {
  const terms = [(1 - p) ** n];
  for (let k = 0; k < n; k++) terms.push(((terms[k] as number) * (n - k) * p) / ((k + 1) * (1 - p)));
  return terms;
}

t.test("population fixed is binomial noise alone: exact variances of the redrawn cells", async (t) => {
  const n = 20;
  const counts = [...randomCounts(80, n, 8), [0, 0, 20, 20, 0, 20], [20, 20, 20, 20, 20, 20]];
  const options = { population: "fixed", draws: 20_000 } as const;
  const result = computeInterferenceSync(table(counts, n), options);
  const variance = (pick: (k: number) => number) =>
    counts.map((cells) =>
      cells.map((k) => {
        const p = binomial(n, (k + 0.5) / (n + 1));
        const first = p.reduce((sum, q, x) => sum + q * pick(x), 0);
        return p.reduce((sum, q, x) => sum + q * (pick(x) - first) ** 2, 0);
      }),
    );
  const z = variance((k) => haldane(k, n));
  const s = variance((k) => k / n);
  const error = (cells: number[][], used: number[]): number =>
    Math.sqrt(cells.reduce((sum, own) => sum + used.reduce((a, v) => a + own[v]!, 0), 0)) / counts.length;
  close(t, [half(result.smoothedMean23) / (1.96 * error(z, [0, 1, 2, 3]))], [1], 0.04);
  close(t, [half(result.means.l12) / (1.96 * error(z, [2, 4]))], [1], 0.04);
  close(t, [half(result.contrasts.additive) / (1.96 * error(s, [0, 1, 2, 3]))], [1], 0.04);
  const questions = computeInterferenceSync(table(counts, n), { draws: 2000 });
  t.ok(half(result.smoothedMean23) < half(questions.smoothedMean23), "and less than other questions would give");
  for (const { low, high, value } of [...estimates(result), result.contrasts.overBest])
    t.ok((low as number) < value && value < (high as number));
  t.match(result.resampling, { population: "fixed", units: counts.length, clustered: false });
});

t.test("more samples leave less binomial noise, and beyond the tables of a cell just so", async (t) => {
  // 1200 samples are drawn one by one, 64 at a time; 1000 from a table.
  const fixed = { population: "fixed", draws: 4000, posterior: false } as const;
  const widths = [1000, 1200].map((n) => {
    const counts = randomCounts(20, 10, 9).map((k) => k.map((x) => Math.round(((x + 1) / 12) * n)));
    return half(computeInterferenceSync(table(counts, n), fixed).smoothedMean23) * Math.sqrt(n);
  });
  close(t, [widths[1]! / widths[0]!], [1], 0.06);
});

t.test("the same seed gives the same bits on any number of threads, another seed others", async (t) => {
  const script = `
    import { computeInterferenceSync } from "rolegrad/attribution";
    const k = (v) => Int32Array.from({ length: 5000 }, (_, q) => (q * 7919 * v + q * q) % 51);
    const correct = { base: k(1), reas: k(2), tool: k(3), unified: k(4), hybridTool: k(5), hybridReas: k(6) };
    const strip = ({ means, median23, contrasts, interferenceShare, posteriorNegative: [p] }) =>
      JSON.stringify([means, median23, contrasts, interferenceShare, p]);
    const run = (options, table = {}) => strip(computeInterferenceSync({ samples: 50, correct, ...table }, options));
    const clusters = correct.base.map((_, q) => q >> 2);
    console.log(run({}), run({ seed: 1 }), run({}, { clusters }), run({ population: "fixed", draws: 100 }));`;
  const run = (threads: string): string =>
    execFileSync(process.execPath, ["--input-type=module", "-e", script], {
      env: { ...process.env, ROLEGRAD_THREADS: threads },
      encoding: "utf8",
    });
  const [one, three] = [run("1"), run("3")];
  t.equal(one, three);
  const [first, second] = one.split("] [");
  t.not(first?.slice(1), second);
});

t.test("one question and saturated tables have intervals without a NaN", async (t) => {
  for (const counts of [
    [[3, 4, 5, 6, 4, 5]],
    [[10, 10, 10, 10, 10, 10]],
    [
      [0, 0, 0, 0, 1, 0],
      [10, 10, 10, 10, 1, 1],
    ],
  ])
    for (const population of ["questions", "fixed"] as const) {
      const { interferenceShare, median23, means, contrasts, kept, warnings } = computeInterferenceSync(
        table(counts, 10),
        {
          population,
        },
      );
      const drawn = [median23, ...Object.values(means), contrasts.additive];
      const alone = population === "questions" && interferenceShare.low !== null && kept.length === 1;
      for (const { value, low, high } of [interferenceShare, ...(alone ? [] : drawn)])
        t.ok(low !== null && high !== null && low <= value + 1e-9 && value - 1e-9 <= high, `${low} ${value} ${high}`);
      if (!alone) continue;
      t.ok([...drawn, contrasts.overBest].every(({ low, high }) => low === null && high === null), "one question has no spread"); // prettier-ignore
      t.ok(warnings.some((warning) => warning.startsWith("One question alone was answered")));
    }
});

t.test("wrong options of the intervals are refused by name", async (t) => {
  const good = table(randomCounts(5, 10, 1), 10);
  const cases: [InterferenceOptions, string, RegExp][] = [
    [{ draws: 99 }, "ERR_INVALID_ARGUMENT", /100 to 1000000 for options\.draws.*99/],
    [{ seed: -1 }, "ERR_INVALID_SEED", /options\.seed.*-1/],
    [{ population: "both" as "fixed" }, "ERR_INVALID_ARGUMENT", /"questions" or "fixed" for options\.population/],
    [{ intervals: 1 as unknown as boolean }, "ERR_INVALID_ARGUMENT", /options\.intervals/],
    [{ commonRandomNumbers: true }, "ERR_TABLE_OUTCOMES", /outcomes.*commonRandomNumbers.*counts alone/],
  ];
  for (const [options, code, message] of cases) {
    t.throws(() => computeInterferenceSync(good, options), { code, message });
    await t.rejects(computeInterference(good, options), { code, message });
  }
  const inner = table([[3, 4, 5, 6, 4, 5]], 10);
  t.throws(() => computeInterferenceSync(inner, { population: "fixed", smoothing: "none" }), {
    code: "ERR_INVALID_ARGUMENT",
    message: /population "fixed"/,
  });
});

t.test("an abort ends the draws", async (t) => {
  const k = Int32Array.from({ length: 300_000 }, (_, q) => (q * 7919) % 51);
  const correct = { base: k, reas: k.toReversed(), tool: k, unified: k, hybridTool: k, hybridReas: k };
  for (const population of ["questions", "fixed"] as const) {
    const controller = new AbortController();
    const options = { draws: 1_000_000, posterior: false, population, signal: controller.signal };
    const job = computeInterference({ samples: 50, correct }, options);
    setTimeout(() => controller.abort(new Error("enough")), 200);
    await t.rejects(job, { code: "ERR_ABORTED", cause: { message: "enough" } });
  }
});

/** Outcomes [Q, N] of four variants from one stream a sample: right where its number is below the variant's accuracy. */
function commonOutcomes(accuracies: readonly (readonly number[])[], n: number): DenseAccuracy {
  const random = new Random(3, "common");
  const trained = ["base", "reas", "tool", "unified"] as const;
  const outcomes = Object.fromEntries(trained.map((name) => [name, new Uint8Array(accuracies.length * n)])) as Record<
    (typeof trained)[number],
    Uint8Array
  >;
  const counts = accuracies.map((own, q) => {
    const k = [0, 0, 0, 0, n >> 1, n >> 1];
    for (let j = 0; j < n; j++) {
      const u = random.next();
      for (const [v, name] of trained.entries()) {
        const right = u < own[v]! ? 1 : 0;
        outcomes[name][q * n + j] = right;
        k[v]! += right;
      }
    }
    return k;
  });
  return { samples: n, correct: dense(counts), outcomes };
}

t.test("samples with common random numbers stay together", async (t) => {
  const n = 50;
  const accuracies = Array.from({ length: 40 }, (_, q) => [0.3, 0.5, 0.45, 0.6].map((s) => s + (q % 5) / 20));
  const common = commonOutcomes(accuracies, n);
  const options = { population: "fixed", draws: 10_000 } as const;
  const paired = computeInterferenceSync(common, { ...options, commonRandomNumbers: true });
  const independent = computeInterferenceSync(common, options);
  // The additive contrast of each sample is u - t - r + b: its own variance is what is left.
  const { base, reas, tool, unified } = common.outcomes!;
  const d = Array.from(base, (b, i) => unified[i]! - tool[i]! - reas[i]! + b);
  const variance = Array.from({ length: 40 }, (_, q) => {
    const own = d.slice(q * n, (q + 1) * n);
    return mean(own.map((x) => (x - mean(own)) ** 2)) / n;
  });
  close(t, [half(paired.contrasts.additive) / (1.96 * Math.sqrt(mean(variance) / 40))], [1], 0.05);
  t.ok(
    half(paired.contrasts.additive) < 0.8 * half(independent.contrasts.additive),
    "less than of independent samples",
  );
  t.ok(paired.covariance.noise[35]! < 0.7 * independent.covariance.noise[35]!);
  t.equal(paired.commonRandomNumbers, true);
  t.equal(paired.posteriors, null);
  t.match(paired.warnings.join(" "), /independent: not computed where they share random numbers/);
  for (const { low, high } of [paired.interferenceShare, paired.interferenceShare.unsaturated!, paired.median23])
    t.same([low, high], [null, null], "signs of observed pairs drawn again cover too little");
  t.ok(
    computeInterferenceSync(common, { ...options, population: "questions", commonRandomNumbers: true }).median23.low,
  );
  t.same(paired.lambda, independent.lambda, "and the figures themselves do not change");

  const wrong = {
    ...common,
    outcomes: { ...common.outcomes!, tool: Array.from(common.outcomes!.tool).slice(1) },
  } as DenseAccuracy;
  t.throws(() => computeInterferenceSync(wrong), { code: "ERR_TABLE_OUTCOMES", message: /outcomes\.tool.*1999/ });
  const flipped = Array.from(common.outcomes!.reas);
  flipped[7] = 1 - flipped[7]!;
  t.throws(() => computeInterferenceSync({ ...common, outcomes: { ...common.outcomes!, reas: flipped } }), {
    code: "ERR_TABLE_OUTCOMES",
    message: /outcomes\.reas of question 0.*add up to/,
  });
});

t.test("two priors: (30, 50, 50, 50) of 50 is decided by the prior", async (t) => {
  const { posteriors, posteriorNegative } = computeInterferenceSync(
    table(
      [
        [30, 50, 50, 50, 40, 40],
        [10, 15, 22, 19, 12, 13],
      ],
      50,
    ),
  );
  t.equal(posteriors?.jeffreys, posteriorNegative);
  close(t, posteriors!.jeffreys, [0.937364074502393, 0.898125262948958], 1e-9);
  close(t, posteriors!.uniform, [0.970440077704662, 0.894653684963314], 1e-9);
});

t.test("noise alone correlates effects that share cells", async (t) => {
  // Cells of the same variance v: Var l12 = 2 v, Var l23 = 4 v, Cov = -v, so the correlation is -1 / sqrt 8.
  const counts = Array.from({ length: 30 }, () => [25, 25, 25, 25, 25, 25]);
  const { covariance } = computeInterferenceSync(table(counts, 50));
  const v = 2 / 25.5;
  const at = (m: Float64Array, i: number, j: number): number => m[i * 6 + j]!;
  close(
    t,
    [at(covariance.noise, 5, 5), at(covariance.noise, 3, 3), at(covariance.noise, 3, 5), at(covariance.noise, 5, 3)],
    [4 * v, 2 * v, -v, -v],
    1e-14,
  );
  close(t, [at(covariance.noiseCorrelation, 3, 5)], [-1 / Math.sqrt(8)], 1e-14);
  t.same(Array.from(covariance.questions), new Array(36).fill(0), "equal questions do not vary");
  const mixed = computeInterferenceSync(table(randomCounts(200, 50, 9), 50));
  const [x, y] = [mixed.lambda.l12, mixed.lambda.l23];
  const product = x.reduce((sum, value, i) => sum + (value - mean(x)) * (y[i]! - mean(y)), 0) / (x.length - 1);
  close(t, [at(mixed.covariance.questions, 3, 5)], [product], 1e-11);
});

t.test("of few questions the means' intervals cover what they say", async (t) => {
  // Accuracies drawn alike around one half: the mean of lambda23 is 0. Plain percentiles cover 83 and 91 %.
  for (const questions of [5, 12]) {
    const random = new Random(9, "few questions");
    const tables = Array.from({ length: 1000 }, () =>
      Array.from({ length: questions }, () => [25, 0, 0, 0, 25, 25].map((k) => k || 10 + random.integer(31))),
    );
    const covered = tables.filter((counts) => {
      const { smoothedMean23 } = computeInterferenceSync(table(counts, 50), { ...cheap, draws: 400 });
      return smoothedMean23.low! <= 0 && 0 <= smoothedMean23.high!;
    }).length;
    t.ok(covered >= 930 && covered <= 975, `${covered} of 1000 with ${questions} questions`);
  }
});
