// Halves of the samples: what a split draws, that it keeps noise out of bins by accuracy, and pairs of common random numbers, from
// the files to the command line.
import { readFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import {
  type AccuracyRow,
  type AccuracyRows,
  computeInterference,
  type DenseAccuracy,
  effectsByAccuracy,
  effectsByHalves,
  interferenceCsv,
  interferenceFigures,
  readAccuracyTable,
  splitHalves,
  type TrainedVariant,
} from "rolegrad/attribution";
import { Random } from "rolegrad";
import { binomial } from "../scripts/attribution/tables.mjs";
import { rolegrad } from "./helpers/command.js";
import { dense, designRows, randomCounts, table } from "./helpers/tables.js";

const trained = ["base", "reas", "tool", "unified"] as const satisfies TrainedVariant[];
const rowsOf = ({ rows }: AccuracyRows): AccuracyRow[] => [...rows];

t.test("two halves add up to the table; an odd number leaves the second one more", (t) => {
  const counts = randomCounts(40, 7, 2);
  const [first, second] = splitHalves(table(counts, 7), { seed: 5 });
  const [one, other] = [rowsOf(first), rowsOf(second)];
  t.equal(one.length, 240);
  for (const [i, row] of one.entries()) {
    const rest = other[i] as AccuracyRow;
    t.same([row.samples, rest.samples], [3, 4]);
    t.same([rest.id, rest.variant], [row.id, row.variant]);
    t.equal(row.correct + rest.correct, counts[Math.floor(i / 6)]?.[i % 6]);
  }
  t.strictSame(splitHalves(table(counts, 7), { seed: 5 }), [first, second], "the same seed gives the same halves");
  t.notSame(splitHalves(table(counts, 7), { seed: 6 })[0], first);
  t.end();
});

t.test("how many right samples a half gets is hypergeometric, as if they were dealt out one by one", (t) => {
  // [N, k] and the chances of 0, 1, 2, ... in a half of floor(N / 2).
  const cases: [n: number, k: number, chances: number[]][] = [
    [4, 2, [1 / 6, 4 / 6, 1 / 6]],
    [5, 1, [3 / 5, 2 / 5]],
    [6, 4, [0, 3 / 15, 9 / 15, 3 / 15]].map((x) => x) as [number, number, number[]],
    [3, 3, [0, 1]],
    [2, 0, [1]],
  ];
  for (const [n, k, chances] of cases) {
    const questions = 4000;
    const [half] = splitHalves(table(new Array<number[]>(questions).fill(new Array<number>(6).fill(k)), n));
    const seen = chances.map(() => 0);
    for (const { correct } of half.rows) seen[correct] = (seen[correct] as number) + 1;
    const cells = 6 * questions;
    for (const [x, chance] of chances.entries()) {
      const error = Math.sqrt((chance * (1 - chance)) / cells);
      const share = (seen[x] as number) / cells;
      t.ok(
        Math.abs(share - chance) <= 4 * error,
        `${k} of ${n}: ${x} in ${share.toFixed(4)}, by chance ${chance.toFixed(4)}`,
      );
    }
  }
  // Of millions of samples the tails are left out, and mean and variance are still right.
  const [n, k] = [2_000_001, 600_000];
  const [half] = splitHalves(table(new Array<number[]>(300).fill(new Array<number>(6).fill(k)), n));
  const drawn = rowsOf(half).map(({ correct }) => correct);
  const m = Math.floor(n / 2);
  const mean = (m * k) / n;
  const sd = Math.sqrt((mean * (1 - k / n) * (n - m)) / (n - 1));
  const off = drawn.reduce((sum, x) => sum + x - mean, 0) / drawn.length;
  const spread = Math.sqrt(drawn.reduce((sum, x) => sum + (x - mean) ** 2, 0) / drawn.length);
  t.ok(Math.abs(off) < (4 * sd) / Math.sqrt(drawn.length), `mean off by ${off.toFixed(1)}`);
  t.ok(Math.abs(spread / sd - 1) < 0.08, `spread ${spread.toFixed(1)}, should be ${sd.toFixed(1)}`);
  t.end();
});

t.test("bins by a half show no effect where there is none; bins by the same samples do", async (t) => {
  const random = new Random(1, "halves test");
  // All four accuracies of a question are one and the same: lambda23 is 0, and the counts differ by noise alone.
  const counts = Array.from({ length: 1000 }, () => {
    const logit = 1.5 * (random.next() - 0.5);
    return designRows.map(() => binomial(random, 16, logit));
  });
  const given = table(counts, 16);
  const options = { model: false, draws: 100, posterior: false, variants: ["unified"] as const };
  const same = await effectsByAccuracy(given, { ...options, heldOut: given });
  const top = same.at(-1)?.interference?.smoothedMean23;
  t.ok((top?.low as number) > 0.3, `by its own noise the top bin shows ${top?.value.toFixed(2)}`);
  const halves = await effectsByHalves(given, options);
  for (const bins of halves)
    for (const { low, interference, questions } of bins) {
      const found = interference?.smoothedMean23;
      const error = ((found?.high as number) - (found?.low as number)) / 3.92;
      t.ok(
        Math.abs(found?.value as number) < 3.5 * error + 0.03,
        `from ${low}: ${found?.value.toFixed(2)} of ${questions.length}`,
      );
    }
  t.same(
    halves.map((bins) => bins.reduce((sum, { questions }) => sum + questions.length, 0)),
    [1000, 1000],
  );
});

t.test("what has no halves is refused by name", async (t) => {
  t.throws(() => splitHalves(table([[1, 0, 1, 0, 1, 0]], 1)), {
    code: "ERR_TABLE_SAMPLES",
    message: /at least 2 samples.*base of question 0 has 1/,
  });
  const one = [3, 4];
  const seeds = {
    samples: 8,
    seeds: [1, 2],
    correct: Object.fromEntries(designRows.map((name) => [name, [one, one]])),
  };
  t.throws(() => splitHalves(seeds as never), { code: "ERR_TABLE_SEEDS" });
  await t.rejects(effectsByHalves(seeds as never), { code: "ERR_TABLE_SEEDS" });
  t.throws(
    () =>
      splitHalves(
        table(
          one.map((k) => new Array<number>(6).fill(k)),
          8,
        ),
        { seed: -1 },
      ),
    { code: "ERR_INVALID_SEED" },
  );
});

// ---- pairs ----

const Q = 50;
const N = 12;
const random = new Random(2, "pairs");
/** Whether sample j of a question is right in each variant: one number decides for all, so that they go together. */
const right = Array.from({ length: Q }, () => {
  const at = random.next();
  const gains = [0, 0.1, 0.15, 0.2, 0.1, 0.1];
  return Array.from({ length: N }, () => {
    const u = random.next();
    return gains.map((gain) => (u < Math.min(0.9, at + gain) ? 1 : 0));
  });
});
const whole: DenseAccuracy = {
  samples: N,
  ids: right.map((_, q) => `q${q}`),
  correct: dense(
    right.map((samples) => designRows.map((_, v) => samples.reduce((sum, own) => sum + (own[v] as number), 0))),
  ),
  outcomes: Object.fromEntries(
    trained.map((name, v) => [name, right.flatMap((samples) => samples.map((own) => own[v] as number))]),
  ) as Record<TrainedVariant, number[]>,
};

type Line = Record<string, unknown>;
const lines = (rows: readonly Line[]): string => rows.map((row) => `${JSON.stringify(row)}\n`).join("");

/** A row for each answer of variant v, in an order of its own. */
function answersOf(v: number, row: (q: number, j: number, right: number) => Line, shuffled: boolean): Line[] {
  const rows = right.flatMap((samples, q) => samples.map((own, j) => row(q, j, own[v] as number)));
  return shuffled ? new Random(v, "order").shuffle(rows) : rows;
}

t.test("halves of pairs keep them: a sample goes into the same half in all four", (t) => {
  const [first, second] = splitHalves(whole).map(rowsOf) as [AccuracyRow[], AccuracyRow[]];
  // Sixteen patterns of right and wrong over the four variants: as often in both halves as in the table.
  const patterns = (rows: readonly AccuracyRow[], q: number): string[] => {
    const own = rows.filter(({ id, outcomes }) => id === `q${q}` && outcomes !== undefined);
    return Array.from({ length: own[0]?.samples ?? 0 }, (_, j) => own.map(({ outcomes }) => outcomes?.[j]).join(""));
  };
  for (let q = 0; q < Q; q++)
    t.same(
      [...patterns(first, q), ...patterns(second, q)].sort(),
      (right[q] as number[][]).map((own) => own.slice(0, 4).join("")).sort(),
    );
  t.end();
});

t.test(
  "pairs are read from answers with numbers, ids of trajectories or their order; what tells none is refused by name",
  async (t) => {
    const written: [name: string, shuffled: boolean, row: (q: number, j: number, own: number) => Line][] = [
      ["numbers", true, (q, j, own) => ({ id: `q${q}`, correct: own, sample: j })],
      ["order", false, (q, _, own) => ({ id: `q${q}`, correct: own })],
      [
        "rolegrad",
        true,
        (q, j, own) => ({ id: `q${q}#${j}`, question: `q${q}`, policyVersion: 3, finish: "stop", reward: own }),
      ],
      ["verl", false, (q, _, own) => ({ input: `q${q}`, output: "x", score: own, step: 1 })],
    ];
    const options = { commonRandomNumbers: true, population: "fixed", draws: 200 } as const;
    const expected = await computeInterference(whole, options);
    t.ok(expected.commonRandomNumbers);
    for (const [name, shuffled, row] of written) {
      const folder = t.testdir(
        Object.fromEntries(
          designRows.map((variant, v) => [`${name}-${variant}.jsonl`, lines(answersOf(v, row, shuffled))]),
        ),
      );
      const files = Object.fromEntries(
        designRows.map((variant) => [variant, path.join(folder, `${name}-${variant}.jsonl`)]),
      );
      const read = await readAccuracyTable(files, { outcomes: true });
      const found = await computeInterference({ rows: read.rows }, options);
      const byId = (result: typeof found, ids: readonly string[]): [string, number][] =>
        Array.from(result.kept, (q, i): [string, number] => [ids[q] as string, result.lambda.l23[i] as number]).sort();
      const ids = [...new Set(read.rows.map(({ id }) => String(id)))];
      t.same(byId(found, ids), byId(expected, whole.ids as string[]), name);
      // In the order of the questions of the table everything is the same, pairs and all.
      const rows = (whole.ids as string[]).flatMap((id) => read.rows.filter((own) => own.id === id));
      const again = await computeInterference({ rows }, options);
      t.same(again.covariance.noise, expected.covariance.noise, `${name}: noise of pairs`);
      const plain = await readAccuracyTable(files);
      t.ok(
        plain.rows.every(({ outcomes }) => outcomes === undefined),
        "kept only where they are asked for",
      );
    }

    const paired = { outcomes: true } as const;
    const counts = { rows: rowsOf({ rows: await loaded(whole) }).map(({ outcomes: _, ...row }) => row) };
    await t.rejects(readAccuracyTable(counts, paired), {
      code: "ERR_TABLE_OUTCOMES",
      message: /single answers.*counts at rows\[0\] \(variant base of question "q0"\)/,
    });
    const folder = t.testdir({
      base: lines(answersOf(0, (q, j, own) => ({ id: `q${q}`, correct: own, sample: j + (q === 3 ? 1 : 0) }), false)),
      twice: lines(answersOf(0, (q, _, own) => ({ id: `q${q}`, correct: own, sample: 4 }), false)),
      other: lines(answersOf(1, (q, j, own) => ({ id: `q${q}`, correct: own, sample: j }), false)),
      text: lines(answersOf(1, (q, _, own) => ({ id: `q${q}`, correct: own, sample: "first" }), false)),
    });
    const at = (name: string): string => path.join(folder, name);
    const six = (base: string): Record<string, string> => ({
      ...Object.fromEntries(designRows.map((name) => [name, at("other")])),
      base: at(base),
    });
    await t.rejects(readAccuracyTable(six("base"), paired), {
      code: "ERR_TABLE_OUTCOMES",
      message: /same answers of question "q3" in base and reas.*no answer of number 12 in reas/,
    });
    await t.rejects(readAccuracyTable(six("twice"), paired), {
      code: "ERR_TABLE_DUPLICATE",
      message: /number 4 for variant base of question "q0".*twice:2/,
    });
    await t.rejects(readAccuracyTable(six("text"), paired), {
      code: "ERR_TABLE_OUTCOMES",
      message: /sample at .*text:1 .*"first"/,
    });
  },
);

async function loaded(given: DenseAccuracy): Promise<AccuracyRow[]> {
  return (await readAccuracyTable(given, { outcomes: true })).rows;
}

t.test("rows with outcomes that do not fit are refused by row", async (t) => {
  const rows = await loaded(whole);
  const broken: [change: (row: AccuracyRow) => Partial<AccuracyRow>, message: RegExp][] = [
    [() => ({ outcomes: [1] }), /Expected 12 outcomes.*rows\[0\]\.outcomes .*received 1/],
    [({ outcomes }) => ({ outcomes: Array.from(outcomes ?? [], (x) => 1 - x) }), /rows\[0\]\.outcomes .*add up to/],
    [() => ({ outcomes: undefined }), /outcomes for variant base of question "q0", as other rows have them/],
    [({ outcomes }) => ({ outcomes: Array.from(outcomes ?? [], (x) => 2 * x) }), /Expected 0 or 1/],
  ];
  for (const [change, message] of broken) {
    const changed = rows.map((row, i) => (i === 0 ? { ...row, ...change(row) } : row));
    await t.rejects(computeInterference({ rows: changed }), { code: "ERR_TABLE_OUTCOMES", message });
  }
});

t.test("the command line takes pairs and halves, writes both, and its JSON reads back with its pairs", async (t) => {
  const folder = t.testdir(
    Object.fromEntries(
      designRows.map((variant, v) => [
        `${variant}.jsonl`,
        lines(answersOf(v, (q, j, own) => ({ id: `q${q}`, correct: own, try: j }), true)),
      ]),
    ),
  );
  const at = (name: string): string => path.join(folder, name);
  const args = ["interference", folder, "--population", "fixed", "--draws", "200", "--paired", "--sample-field", "try"];
  const first = await rolegrad([
    ...args,
    "--halves",
    "--json",
    "--csv",
    at("f.csv"),
    "--svg",
    at("svg"),
    "--html",
    at("p.html"),
  ]);
  t.equal(first.status, 0, first.stderr);
  const result = JSON.parse(first.stdout) as Awaited<ReturnType<typeof computeInterference>> & { byHalves: unknown[] };
  t.ok(result.commonRandomNumbers);
  t.equal(result.byHalves.length, 2);
  t.match(readFileSync(at("f.csv"), "utf8"), /^,by_second_half_accuracy_0_to_0\.25_questions,\d+/m);
  t.match(readFileSync(at("svg/by-accuracy.svg"), "utf8"), /Effects by accuracy in the other half/);
  t.match(readFileSync(at("p.html"), "utf8"), /by the first half<\/th>/);

  const text = await rolegrad([...args, "--halves"]);
  t.match(text.stdout, /^75 to 100 % in the second half +\d+ +-?\d/m);
  const { stdout } = await rolegrad([...args, "--json"]);
  const saved = t.testdir({ "saved.json": stdout });
  const again = await rolegrad(["interference", path.join(saved, "saved.json"), ...args.slice(2, 7), "--json"]);
  t.equal(again.status, 0, again.stderr);
  t.same((JSON.parse(again.stdout) as typeof result).covariance, (JSON.parse(stdout) as typeof result).covariance);

  const wide = t.testdir({ "t.csv": "id,samples,base,reas,tool,unified,hybrid-tool,hybrid-reas\na,1,1,0,1,0,1,1\n" });
  const refused = await rolegrad(["interference", path.join(wide, "t.csv"), "--paired"]);
  t.match(refused, { status: 1, stderr: /ERR_TABLE_OUTCOMES.*counts at \S*t\.csv:2 \(variant base of question "a"\)/ });
  const single = await rolegrad(["interference", path.join(wide, "t.csv"), "--halves"]);
  t.match(single, { status: 1, stderr: /ERR_TABLE_SAMPLES.*at least 2 samples/ });
  t.match(await rolegrad([...args.slice(0, 2), "--sample-field", "try"]), {
    status: 2,
    stderr: /--paired with --sample-field/,
  });
});

t.test("the chart and the CSV show both ways of the halves", async (t) => {
  const given = table(randomCounts(200, 20, 4), 20);
  const result = await computeInterference(given, { model: false, draws: 200 });
  const byHalves = await effectsByHalves(given, { model: false, draws: 200 });
  const figures = await interferenceFigures(result, { table: given, byHalves });
  const svg = figures.at(-1)?.svg ?? "";
  const bins = byHalves.flat().filter(({ interference }) => interference !== null);
  t.equal([...svg.matchAll(/<circle/g)].length, 2 * bins.length, "a mean and a share for each");
  t.notMatch(svg, /NaN|undefined/);
  const csv = await interferenceCsv(result, { byHalves });
  for (const by of ["second", "first"])
    t.match(csv, new RegExp(`^,by_${by}_half_accuracy_0\\.25_to_0\\.5_interference_share,`, "m"));
  for (const wrong of [3, [], [[], 3], [byHalves[0]]])
    await t.rejects(interferenceCsv(result, { byHalves: wrong as never }), { code: "ERR_INVALID_ARGUMENT" });
});
