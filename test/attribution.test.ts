// What computeInterference says of tables that can be worked out by hand, or with exact integers.
import t from "tap";
import {
  computeInterference,
  computeInterferenceSync,
  fitEffects,
  signTest,
  summary,
  wilcoxonTest,
} from "rolegrad/attribution";
import {
  close,
  dense,
  designColumns,
  designRows,
  designX,
  exactSign,
  haldane,
  randomCounts,
  table,
} from "./helpers/tables.js";

t.test("lambda is Eq. 7-8 in closed form, and the general solve of the design agrees", async (t) => {
  const counts = randomCounts(60, 50, 1);
  const { lambda, kept } = computeInterferenceSync(table(counts, 50));
  for (const [i, q] of kept.entries()) {
    const z = counts[q]!.map((k) => haldane(k, 50));
    const [base, reas, tool, unified, hybridTool, hybridReas] = z as [number, number, number, number, number, number];
    const closed = [
      base,
      hybridTool - base,
      hybridReas - base,
      tool - hybridTool,
      reas - hybridReas,
      unified - tool - reas + base,
    ];
    const effects = [lambda.l1, lambda.l2, lambda.l3, lambda.l12, lambda.l13, lambda.l23].map((l) => l[i]!);
    close(t, effects, closed, 1e-13);
    const solved = fitEffects({ variants: designRows, columns: designColumns, x: designX }, z);
    close(t, effects, solved.lambda, 1e-12);
    t.ok(solved.residualSumOfSquares[0]! < 1e-24);
  }
});

t.test("counts are by exact sign, zeros included", async (t) => {
  // Small N makes many ties and zeros; the last questions are zeros that rounded logits miss.
  const counts = [...randomCounts(500, 6, 2), [1, 1, 3, 3, 0, 0], [2, 5, 2, 5, 1, 1], [4, 4, 4, 4, 4, 4]];
  const { lambda, counts: found, kept } = computeInterferenceSync(table(counts, 6));
  const signs = Array.from(kept, (q) => exactSign(counts[q]!, 6));
  t.same(found, {
    negative: signs.filter((s) => s < 0).length,
    zero: signs.filter((s) => s === 0).length,
    positive: signs.filter((s) => s > 0).length,
  });
  t.same(Array.from(lambda.l23, Math.sign), signs, "lambda23 itself has these signs");
  t.ok(found.zero > 20);
});

t.test("signs stay exact with a million samples", async (t) => {
  const n = 1_000_000;
  // Accuracies so near to 1/2 that lambda23 is about 1e-18 where it is not 0.
  const counts = [
    [500_000, 499_999, 500_001, 500_000, 1, 1],
    [500_000, 500_000, 500_000, 500_000, 1, 1],
    [500_000, 500_000, 499_999, 499_999, 1, 1],
    [400_000, 400_001, 399_999, 400_000, 1, 1],
    [999_999, 1_000_000, 999_998, 999_999, 1, 1],
    [0, 0, 0, 1_000_000, 1, 1],
    [1_000_000, 0, 0, 1_000_000, 1, 1],
  ];
  const { lambda } = computeInterferenceSync(table(counts, n));
  t.same(
    Array.from(lambda.l23, Math.sign),
    counts.map((k) => exactSign(k, n)),
  );
});

t.test("questions that no variant answered are dropped, counted and indexed", async (t) => {
  const result = computeInterferenceSync(
    table(
      [
        [0, 0, 0, 0, 0, 0],
        [1, 2, 3, 4, 5, 6],
        [0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0],
      ],
      10,
    ),
  );
  t.same([...result.kept], [1, 2]);
  t.same([...result.dropped], [0, 3]);
  t.equal(result.lambda.l23.length, 2);
  t.equal(result.interferenceShare.value, result.counts.negative / 2);
  t.ok(result.warnings.some((warning) => warning.startsWith("2 of 4 questions (50.0 %) were never answered")));
});

t.test("a kept question at 0 or N in all four trained variants is saturated", async (t) => {
  const counts = [
    [10, 10, 10, 10, 3, 3],
    [0, 10, 0, 10, 3, 3],
    [0, 10, 0, 9, 3, 3],
    [0, 0, 0, 0, 0, 2],
    [0, 0, 0, 0, 0, 0],
  ];
  const result = computeInterferenceSync(table(counts, 10));
  t.same([...result.saturated], [0, 1, 3]);
  const unsaturated = computeInterferenceSync(table([counts[2]!], 10));
  const { value, low, high, level } = unsaturated.interferenceShare;
  t.same(result.interferenceShare.unsaturated, { value, low, high, level });
  t.equal(computeInterferenceSync(table([counts[0]!], 10)).interferenceShare.unsaturated, null);
});

t.test("mean, median and contrasts are those of the kept questions", async (t) => {
  const counts = [
    [1, 3, 5, 4, 4, 2],
    [2, 3, 4, 9, 3, 3],
    [0, 0, 0, 0, 0, 0],
    [5, 9, 7, 8, 6, 6],
  ];
  const result = computeInterferenceSync(table(counts, 10));
  const l23 = [0, 1, 3].map((q) => {
    const [base, reas, tool, unified] = counts[q]!.map((k) => haldane(k, 10)) as [number, number, number, number];
    return unified - tool - reas + base;
  });
  const sorted = l23.toSorted((a, b) => a - b);
  close(t, [result.mean23.value, result.median23.value], [(l23[0]! + l23[1]! + l23[2]!) / 3, sorted[1]!], 1e-14);
  close(
    t,
    [result.contrasts.additive.value, result.contrasts.overBest.value],
    [(-0.3 + 0.4 - 0.3) / 3, (-0.1 + 0.5 - 0.1) / 3],
    1e-15,
  );
  const even = computeInterferenceSync(table(counts.slice(0, 3), 10));
  close(t, [even.median23.value], [(l23[0]! + l23[1]!) / 2], 1e-14);
});

t.test("what is not computed is null", async (t) => {
  const result = computeInterferenceSync(table(randomCounts(5, 50, 3), 50), { intervals: false });
  t.equal(result.trueShare, null);
  t.equal(result.interferenceShare.null, null);
  for (const { low, high, level } of [
    result.mean23,
    result.median23,
    result.interferenceShare,
    result.contrasts.additive,
  ])
    t.same({ low, high, level }, { low: null, high: null, level: 0.95 });
  t.equal(result.scope, "these checkpoints");
});

t.test("smoothing is chosen by name and named in the result", async (t) => {
  const counts = [[3, 4, 5, 6, 4, 3]];
  const z = { haldane: [0.5, 0.5], laplace: [1, 1], none: [0, 0] } as const;
  for (const [smoothing, [a, b]] of Object.entries(z) as [
    "haldane" | "laplace" | "none",
    readonly [number, number],
  ][]) {
    const result = computeInterferenceSync(table(counts, 10), { smoothing });
    t.equal(result.smoothing, smoothing);
    close(t, result.lambda.l1, [Math.log((3 + a) / (7 + b))], 1e-15);
  }
});

t.test("the posterior agrees with quadrature of its characteristic function", async (t) => {
  // [base, reas, tool, unified], N, P(lambda23 < 0) from an independent quadrature over complex log-gamma (SciPy).
  const cases: [number[], number, number][] = [
    [[30, 50, 50, 50], 50, 0.937364074502397],
    [[10, 15, 22, 19], 50, 0.898125262948958],
    [[0, 1, 1, 1], 1, 0.805501192036663],
    [[1, 1, 0, 1], 2, 0.205688962554284],
    [[3, 7, 2, 9], 10, 0.120469424862533],
    [[16000, 16100, 16200, 16250], 32768, 0.608872879412665],
  ];
  for (const [k, n, p] of cases) {
    const { posteriorNegative } = computeInterferenceSync(table([[...k, 1, 1]], n));
    close(t, posteriorNegative ?? [], [p], 1e-10);
  }
});

t.test("the posterior can be left out, and is null above 32768 samples with a warning", async (t) => {
  t.equal(computeInterferenceSync(table([[1, 2, 3, 4, 5, 6]], 10), { posterior: false }).posteriorNegative, null);
  const many = computeInterferenceSync(table([[1, 2, 3, 4, 5, 6]], 32769));
  t.equal(many.posteriorNegative, null);
  t.ok(many.warnings.some((warning) => warning.includes("32768")));
});

t.test(
  "different numbers of samples are used as they are, with a warning where they differ in a question",
  async (t) => {
    const correct = dense([
      [1, 2, 3, 4, 5, 6],
      [6, 5, 4, 3, 2, 1],
    ]);
    const one = computeInterferenceSync({ samples: 10, correct });
    t.strictSame(computeInterferenceSync({ samples: [10, 10], correct }), one);
    const each = { base: 10, reas: 10, tool: 10, unified: 10, hybridTool: 10, hybridReas: 10 };
    t.strictSame(computeInterferenceSync({ samples: each, correct }), one);
    const uneven = computeInterferenceSync({ samples: { ...each, base: 20 }, correct });
    close(t, uneven.lambda.l1, [haldane(1, 20), haldane(6, 20)], 1e-15);
    t.ok(uneven.warnings.some((warning) => warning.startsWith("2 of 2 questions (100.0 %) have different numbers")));
  },
);

t.test("rows and the dense form of the same table give the same result, whatever the order of the rows", async (t) => {
  const counts = randomCounts(20, 30, 4);
  const rows = designRows.flatMap((variant, v) =>
    counts.map((k, q) => ({
      variant,
      id: `q${q}`,
      correct: k[v]!,
      samples: 30,
      seed: variant === "base" ? undefined : 7,
    })),
  );
  const expected = computeInterferenceSync(table(counts, 30));
  t.strictSame(computeInterferenceSync({ rows }), expected);
  t.strictSame(computeInterferenceSync({ rows: new Set(rows.reverse()) }).counts, expected.counts);
});

t.test("typed arrays and plain arrays are taken alike", async (t) => {
  const correct = dense(randomCounts(9, 30, 5));
  const expected = computeInterferenceSync({ samples: 30, correct });
  const typed = {
    ...correct,
    base: Uint8Array.from(correct.base),
    reas: Float64Array.from(correct.reas),
    tool: Int32Array.from(correct.tool),
  };
  t.strictSame(computeInterferenceSync({ samples: new Uint16Array(9).fill(30), correct: typed }), expected);
});

t.test("the promise gives what the synchronous call gives, and the table may change after the call", async (t) => {
  const given = { samples: 50, correct: dense(randomCounts(300, 50, 6)) };
  const expected = computeInterferenceSync(given);
  const pending = computeInterference(given);
  given.correct.base.fill(0);
  t.strictSame(await pending, expected);
});

t.test("an aborted signal rejects with ERR_ABORTED and its reason", async (t) => {
  const given = table(randomCounts(10, 50, 7), 50);
  const reason = new Error("enough");
  await t.rejects(computeInterference(given, { signal: AbortSignal.abort(reason) }), {
    code: "ERR_ABORTED",
    cause: reason,
  });

  const controller = new AbortController();
  const samples = 32000; // a tenth of a second of posteriors
  const counts = Array.from({ length: 3000 }, (_, q) => [1, 2, 3, 4].map((v) => (q * 7919 * v) % samples).concat(1, 1));
  const pending = computeInterference(table(counts, samples), { signal: controller.signal });
  controller.abort(reason);
  await t.rejects(pending, { code: "ERR_ABORTED", cause: reason });
  t.ok((await computeInterference(given)).kept.length > 0, "the next call works");
});

t.test("the naive tests are the textbook ones", async (t) => {
  close(t, [signTest(9, 1).pValue, signTest(2, 5).pValue, signTest(0, 0).pValue], [22 / 1024, 58 / 128, 1], 1e-15);
  t.same(wilcoxonTest([1.5, -0.2, 3, -2, 0.7, 4]), { statistic: 5, pValue: 0.3125 });
  t.same(wilcoxonTest([0, 0]), { statistic: 0, pValue: 1 });
  // scipy.stats.wilcoxon of these, with ties and zeros.
  const x = [1, -2, 2, 3, 0, -1, 4, 4, -5, 6, 0, 7, 2, -3, 8];
  const asymptotic = [
    ["wilcox", false, 22, 0.09979806083333635],
    ["wilcox", true, 22, 0.1072199020436341],
    ["pratt", false, 30, 0.10431865610998228],
    ["pratt", true, 30, 0.11053972456728266],
  ] as const;
  for (const [zeroMethod, correction, statistic, pValue] of asymptotic) {
    const found = wilcoxonTest(x, { zeroMethod, correction });
    t.equal(found.statistic, statistic);
    close(t, [found.pValue], [pValue], 1e-14);
  }
  t.throws(() => wilcoxonTest([1, 1, 2], { method: "exact" }), { code: "ERR_WILCOXON_EXACT" });
  t.throws(() => wilcoxonTest([1, Number.NaN]), { code: "ERR_INVALID_ARGUMENT", message: /x\[1\]/ });
  t.throws(() => signTest(-1, 2), { code: "ERR_INVALID_ARGUMENT" });
});

t.test("the summary is one sentence with the counts and the mean", async (t) => {
  const interference = computeInterferenceSync(
    table(
      [
        [10, 20, 20, 20, 1, 1],
        [10, 12, 12, 40, 1, 1],
        [5, 5, 5, 5, 1, 1],
      ],
      50,
    ),
  );
  t.match(
    summary(interference),
    /^Reasoning and tool use interfere in 1 of 3 answered questions \(33\.3 %, 95 % interval 6\.1 to 79\.2 %\) and help each other in 1; /,
  );
  t.match(
    summary(interference),
    /gains 0\.43 logits more than the two trainings apart \(mean lambda23 0\.43, median 0\.00; /,
  );
});
