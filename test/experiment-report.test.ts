// What the report of `rolegrad experiment` says of hand-made counts and results: nothing is trained here.
import { mkdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import t from "tap";
import {
  experimentPlans,
  planRun,
  Random,
  writeExperimentReport,
  type ExperimentPlan,
  type ExperimentResults,
} from "rolegrad";
import { resolveCell } from "../lib/experiment/cell-run.js";
import { writeWorlds } from "../lib/experiment/worlds.js";
import { ExperimentDirectory } from "../lib/experiment/directory.js";
import type { LeasResult } from "../lib/experiment/leas.js";
import { trainingMemory } from "../lib/experiment/memory.js";
import { meanShare } from "../lib/experiment/paired.js";
import { expandPlan, type Cell } from "../lib/experiment/plan.js";
import { cost, sweep } from "../lib/experiment/report-arms.js";
import { cosineOverDialect } from "../lib/experiment/report-dose.js";
import { summary } from "../lib/experiment/report-summary.js";
import { bounded, points, rails } from "../lib/experiment/sections.js";
import { shareVerdict } from "../lib/experiment/verdict.js";
import { writeCounts } from "./helpers/counts.js";
import { launch, needsChromium, violations, withPages } from "./helpers/browser.js";
import { temporary } from "./helpers/world.js";

const quick = experimentPlans["quick"] as ExperimentPlan;
const { stamp: _stamp, ...whole } = quick;
const inferring: ExperimentPlan = whole;

const RIGHT: Record<string, number> = { base: 0.2, unified: 0.55, "dart-stop": 0.9, placebo: 0.6 };

/** A study's folder with counts of every cell that `has` takes, and its report. */
async function reported(
  plan: ExperimentPlan,
  {
    has = () => true,
    right,
    samples: answers = () => 20,
  }: { has?: (cell: Cell) => boolean; right?: (cell: Cell) => number; samples?: (cell: Cell) => number } = {},
): Promise<{ results: ExperimentResults; page: string; text: string }> {
  const folder = temporary();
  const random = new Random(1, "test/experiment-report");
  mkdirSync(path.join(folder, "counts"));
  for (const cell of expandPlan(plan).filter((own) => own.samples > 0 && has(own))) {
    writeCounts(folder, cell, random, right?.(cell) ?? RIGHT[cell.arm] ?? 0.4, answers(cell));
  }
  const page = readFileSync(await writeExperimentReport(folder, plan), "utf8");
  const results = JSON.parse(readFileSync(path.join(folder, "results.json"), "utf8")) as ExperimentResults;
  return { results, page, text: textOf(page) };
}

function textOf(page: string): string {
  return page
    .replace(/<(style|script)[\s\S]*?<\/\1>/g, " ")
    .replace(/<[^>]+>/g, " ")
    .replaceAll("&lt;", "<")
    .replaceAll("&#39;", "'")
    .replace(/\s+/g, " ");
}

/** Paths of every bound that is a number. */
function boundsOf(value: unknown, at: string[] = []): string[] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, own]) =>
    (key === "low" || key === "high") && typeof own === "number"
      ? [[...at, key].join(".")]
      : boundsOf(own, [...at, key]),
  );
}

const smoke = await reported(quick);
const declared = await reported(inferring);

t.test("a stamped study has no interval but the null's bands", (t) => {
  const bounds = boundsOf({ ...smoke.results, probes: {} });
  const nulls = /\.(null|unsaturatedNull|median23Null)\.(low|high)$/;
  t.ok(
    bounds.some((own) => nulls.test(own)),
    "there are bands",
  );
  t.strictSame(
    bounds.filter((own) => !nulls.test(own)),
    [],
  );
  t.ok(smoke.results.leas.every(({ pValues }) => pValues === null));
  t.notMatch(smoke.text, /its band in|interim/, "nothing is decided");
  t.end();
});

t.test("each seed's share stands beside its own null band, whatever the number of seeds", (t) => {
  const rows = declared.results.leas.filter(({ balance }) => balance === 1);
  t.strictSame(rows.map(({ seed, share }) => [seed, share.null === null]), [[1, false], [2, false], [null, false]]); // prettier-ignore
  t.match(declared.text, /seed 1: [\d.]+ % \([^)]+\), null [\d.]+ % \([^)]+\); seed 2: [\d.]+ % \([^)]+\), null/);
  t.match(declared.text, /its band (in|on one side in) all 2 seeds/, "what they decide");
  t.match(declared.text, /w 0\.03 : the share is .*its band/, "at every setting");
  t.match(
    readFileSync(new URL("../docs/experiment.md", import.meta.url), "utf8").replace(/\s+/g, " "),
    "outside its band in every seed, on the same side",
  );
  t.end();
});

t.test("answers a question are said of each variant that has others", async (t) => {
  const { text } = await reported(quick, { samples: ({ balance }) => (balance === 1 ? 20 : 10) });
  t.match(text, / w 0\.03 1 40 x 20 \(unified 10\) /);
  t.match(text, / w 1 1 40 x 20 \d/);
});

t.test("several seeds decide only outside their bands on the same side", (t) => {
  const seed = (value: number, number: number): LeasResult =>
    ({ seed: number, share: { value, null: { value: 0.3, low: 0.2, high: 0.4, level: 0.95 } } }) as LeasResult;
  const verdict = (...values: number[]): string =>
    shareVerdict(
      values.map((value, i) => seed(value, i + 1)),
      3,
    );
  t.equal(verdict(0.5, 0.6, 0.41), "above its band in all 3 seeds: interference");
  t.equal(verdict(0.1, 0.1, 0.19), "below its band in all 3 seeds: synergy");
  t.match(verdict(0.5, 0.6, 0.4), /^not outside .*seed 3 inside/, "on the bound is inside");
  t.match(verdict(0.5, 0.1, 0.5), /^not outside .*seed 2 below/);
  t.match(verdict(0.3, 0.3, 0.3), /^not outside/);
  t.equal(verdict(0.5, 0.6), "undecided (interim: 2 of 3 seeds)");
  t.end();
});

t.test("all seeds together have no counts, and the mean over seeds of the shares", (t) => {
  const [one, other, all] = declared.results.leas.filter(({ balance }) => balance === 1) as [
    LeasResult,
    LeasResult,
    LeasResult,
  ];
  t.equal(all.counts, null);
  const close = (a: number, b: number): boolean => Math.abs(a - b) < 1e-12;
  for (const name of ["l2", "l3", "l12", "l13", "l23"] as const)
    t.ok(close(all.effects[name].negative, (one.effects[name].negative + other.effects[name].negative) / 2), name);
  t.ok(close(all.effects.l23.negative, all.share.value), "it is the share");
  t.end();
});

t.test("the primary endpoint has no interval until all of its seeds have ended, in no study's row", async (t) => {
  const primary = ({ results }: { results: ExperimentResults }): ExperimentResults["comparisons"] =>
    results.comparisons.filter(
      ({ a, b, balance }) => balance === 1 && a === "dart-stop" && ["unified", "placebo"].includes(b),
    );
  const done = primary(declared).filter((own) => own.primary);
  t.equal(done.length, 2);
  t.ok(done.every(({ low, high, interim }) => low !== null && high !== null && interim === null));
  const seeds = [1, 2, 3, 4];
  const arms = ["base", "unified", "dart-stop", "placebo"];
  const main = { name: "main", about: "", arms, seeds, rate: 1e-3, samples: 20 };
  const plan: ExperimentPlan = { ...inferring, studies: [main, { ...main, name: "again", seeds: [1, 2] }] };
  // One arm of one pair is missing a seed: the other pair waits for it too.
  const part = await reported(plan, { has: ({ id }) => !/placebo.*-s4/.test(id) });
  const rows = primary(part);
  t.strictSame(rows.map(({ study }) => study), ["main", "main", "again", "again"]); // prettier-ignore
  t.ok(rows.every(({ low, high, interim }) => low === null && high === null && interim?.seeds === 3 && interim.of === 4)); // prettier-ignore
  t.match(
    part.text,
    /DART less one LoRA of rank 16 \(unified\) .{0,90}points \+[\d.]+ \(interim: 3 of 4 seeds\) points/,
  );
  const other = part.results.comparisons.find(({ a, b, study }) => a === "unified" && b === "base" && study === "main");
  t.ok(other!.low !== null, "what is not the endpoint has its interval");
});

t.test("every row of the summary is compared with what it names", (t) => {
  const pairs = [["dart-stop", "full"], ["dart-stop", "unified"], ["dart-stop", "placebo"], ["two-agent-full", "dart-stop"], ["two-agent", "dart-stop"], ["keep-reas", "hybrid-reas"], ["keep-tool", "hybrid-tool"], ["replay", "unified"], ["mixture", "full"], ["mixture", "unified"]] as const; // prettier-ignore
  const comparisons = pairs.map(([a, b], i) => ({
    ...{ study: "main", a, b, balance: 1, dialect: null, primary: false, interim: null },
    ...{ bySeed: { 1: i / 100 }, mean: i / 100, low: null, high: null, level: 0.95 },
  }));
  const text = textOf(
    summary({ ...declared.results, comparisons, leas: [], groups: [], measured: [] }, inferring).text,
  );
  const rows = [
    /DART less full fine-tuning, exact match \+6.35 [^+]*\+0\.0 points/,
    /DART less one LoRA of rank 16 \(unified\) \+8\.9 .*\+3\.3 \(3B-Instruct: [^+]*\+1\.0 points/,
    /DART less the placebo \(random routing\) not run \+2\.0 points/,
    /2-Agent of two full models less DART \+0\.1 [^+]*\+0\.5 [^+]*\+3\.0 points/,
    /2-Agent of two LoRAs of rank 16 less DART not run \+4\.0 points/,
    /DART's reasoning adapter alone less hybrid-reas \+1\.3 [^+]*\+5\.0 points/,
    /DART's tool adapter alone less hybrid-tool \+12\.4 [^+]*\+6\.0 points/,
    /\+17\.5 \(NQ\), \+7\.0 [^+]*\+7\.0 points/,
    /MixLoRA less full fine-tuning \+2\.6 [^+]*\+2\.2 [^+]*\+8\.0 points/,
    /MixLoRA less one LoRA of rank 16 \(unified\) -0\.4 [^+]*\+0\.9 [^+]*\+9\.0 points/,
  ];
  for (const row of rows) t.match(text, row);
  t.end();
});

t.test("DART is compared with every other way to train, in the study that has both", async (t) => {
  const arms = ["full", "unified-2x", "shared-2m", "mixture", "two-agent", "two-agent-full"];
  const all = { name: "main", about: "", arms: ["dart-stop", ...arms], seeds: [1], rate: 1e-3, samples: 20 };
  const { results } = await reported({ ...inferring, studies: [all] });
  for (const arm of arms)
    t.ok(
      results.comparisons.some(({ a, b }) => [a, b].includes("dart-stop") && [a, b].includes(arm)),
      arm,
    );
});

const group = (arm: string, planned: number | "tuned", exactMatch = { mean: 0.5, low: null, high: null } as ExperimentResults["groups"][0]["exactMatch"]): ExperimentResults["groups"][0] => ({ arm, title: arm, balance: 1, dialect: null, planned, seeds: [1], exactMatch, retrieval: 0, cells: [`${arm}-${planned}`] }); // prettier-ignore

t.test("an arm that stands twice is named with its rate, and only then", (t) => {
  const groups = [group("unified", "tuned"), group("unified", 1e-3), group("full", "tuned")];
  const text = textOf(rails(groups)!.text);
  t.match(text, /unified, tuned rate 50\.0 % .*unified, rate 0\.001 50\.0 % .*full 50\.0 %/);
  const measured = groups.map(({ cells: [id], arm }) => ({ id, arm, tokens: 70, answers: 10, searches: 1 }));
  const costs = new Map(measured.map(({ id }) => [id!, { decoding: { computedTokens: 700, peakCacheTokens: 9 } }]));
  const table = textOf(
    cost({ groups, measured } as unknown as ExperimentResults, costs as unknown as Parameters<typeof cost>[1]).text,
  );
  t.match(table, /unified, tuned rate 70\.0 .*unified, rate 0\.001 70\.0 .*full 70\.0/);
  t.end();
});

t.test("intervals end where their scale does", (t) => {
  const { mean, low, high } = meanShare([0.99, 0.7]);
  t.strictSame([mean, low, high], [0.845, 0, 1]);
  t.equal(bounded({ value: 3, low: -4, high: 190 }, [0, 180]), "3.00 (0.00 to 180.00)");
  t.equal(points({ mean: 0.5, low: -0.2, high: 1.2 }), "+50.0 (-20.0 to +100.0)");
  t.ok(declared.results.groups.every(({ exactMatch: { low, high } }) => (low ?? 0) >= 0 && (high ?? 1) <= 1));
  t.end();
});

t.test("the balance is written as w, with lambda23 beside exact match", (t) => {
  const chart = (title: string): string => declared.page.match(new RegExp(`<figure[^>]*id="${title}"[\\s\\S]*?</figure>`))![0]; // prettier-ignore
  for (const id of ["chart-balance", "chart-lambda23-by-balance", "chart-share-of-lambda23-0-by-balance"]) {
    const page = chart(id);
    t.match(textOf(page), / w 0\.03: /, `${id}: marks`);
    t.match(page, /<th scope="row" class="number">0\.03<\/th>/, `${id}: table`);
    t.match(page, "&quot;-1.5228787452803376&quot;:&quot;0.03&quot;", `${id}: what the pointer shows`);
    t.notMatch(textOf(page), "1.52", id);
  }
  t.match(textOf(chart("chart-share-of-lambda23-0-by-balance")), /Seeds that every w has: 1\..*its null, w 0\.03/);
  t.end();
});

t.test("the cosine between the roles is drawn over the dialect, of the seeds that every d has", (t) => {
  const found = [[-1, 1, -0.5], [0, 1, 0.1], [1, 1, 0.6], [-1, 2, -0.3], [0, 2, 0.1], [1, 2, 0.4], [1, 3, 0.9], ["aligned", 1, -0.1], ["aligned", 2, -0.3]] as const; // prettier-ignore
  const probes = Object.fromEntries(
    found.map(([d, seed, value]) => {
      const batch = [{ cosine: { value, low: null, high: null }, corrected: d === 1 ? { value: 0.8 } : null }];
      return [`${d} ${seed}`, { angles: { whole: { advantage: { batch } } } }];
    }),
  );
  const measured = found.map(([dialect, seed]) => ({ id: `${dialect} ${seed}`, dialect, seed }));
  const results = { probes, measured, stamp: null } as unknown as ExperimentResults;
  const text = textOf(cosineOverDialect(results)!.text);
  t.match(text, "of the sums: -0.40 at d -1, -0.20 at d aligned");
  t.match(text, "without noise: 0.80 at d 1");
  t.match(text, "Seeds that every d has: 1, 2.");
  const one = { ...results, measured: measured.filter(({ dialect }) => dialect === 1) } as ExperimentResults;
  t.equal(cosineOverDialect(one), undefined, "one setting is no response");
  t.end();
});

t.test("a rate at the edge of the grid is remarked", (t) => {
  const of = (exactMatch: Record<string, number>, chosen: number): string =>
    textOf(sweep({ groups: [], sweep: { full: { exactMatch, chosen } } } as unknown as ExperimentResults)!.text);
  const rates = { 0.0003: 0.1, 0.001: 0.2, 0.003: 0.3 };
  t.match(of(rates, 0.0003), "the lowest of the grid");
  t.match(of(rates, 0.003), "the highest of the grid");
  t.notMatch(of(rates, 0.001), "of the grid:");
  t.end();
});

t.test("the report has the difficulty of every arm and the details of the share", (t) => {
  t.match(declared.text, "questions between a tenth and nine tenths");
  t.match(declared.text, /without saturated questions .*p, sign test p, Wilcoxon/);
  t.ok(declared.results.leas.filter(({ seed }) => seed !== null).every(({ pValues }) => pValues!.sign <= 1));
  t.notMatch(declared.text, "this version");
  t.end();
});

t.test("memory of training stands beside tokens for each arm, and by part, as the plan counts it", async (t) => {
  const folder = temporary();
  const directory = new ExperimentDirectory(folder);
  const arms = ["base", "unified", "dart-stop", "shared-2m", "full", "two-agent-full", "hybrid-tool", "keep-tool"];
  const studies = [{ name: "main", about: "", arms, seeds: [1], rate: 1e-3, samples: 20 }];
  const plan = { ...inferring, studies };
  t.equal((await trainingMemory(directory, plan)).size, 0, "without a base there is nothing to count");
  await writeWorlds(plan, directory);
  const memory = await trainingMemory(directory, plan);
  const of = (arm: string) => memory.get(arm)!;
  t.notOk(memory.has("hybrid-tool") || memory.has("keep-tool") || memory.has("base"), "what is not trained has none");
  t.equal(of("dart-stop").parameters, of("unified").parameters, "rank 8 a role against one of rank 16");
  t.equal(of("two-agent-full").parameters, 2 * of("full").parameters);
  t.ok(of("shared-2m").bytes.optimizer! > of("unified").bytes.optimizer!, "a second set of moments");
  t.ok(of("full").bytes.optimizer! > 5 * of("unified").bytes.optimizer!);
  for (const { total, bytes } of memory.values())
    t.equal(total, Object.values(bytes).reduce((sum, own) => sum + own, 0)); // prettier-ignore
  const planned = await planRun(
    resolveCell(
      plan,
      expandPlan(plan).find(({ arm }) => arm === "full")!,
      1e-3,
      directory,
    ),
  );
  const line = (name: string): number => planned.memory.lines.find((own) => own.name === name)!.bytes;
  t.equal(of("full").bytes.optimizer, line("optimizer"), "as rolegrad train --plan counts it");
  t.equal(of("full").bytes.cache, line("cache"));

  const groups = [group("unified", 1e-3), group("hybrid-tool", 1e-3)];
  const measured = groups.map(({ cells: [id], arm }) => ({ id, arm, tokens: 70, answers: 10, searches: 1 }));
  const costs = new Map(measured.map(({ id }) => [id!, { decoding: { computedTokens: 700, peakCacheTokens: 9 } }]));
  const results = { groups, measured } as unknown as ExperimentResults;
  const text = textOf(cost(results, costs as unknown as Parameters<typeof cost>[1], memory).text);
  const mebibytes = (of("unified").total / 2 ** 20).toFixed(1);
  t.match(text, `unified 70.0 1.00 9 1.00 ${mebibytes} hybrid-tool 70.0 1.00 9 1.00 - `);
  t.match(
    text,
    new RegExp(`Memory of training by arm .*2-Agent, full ${of("two-agent-full").parameters.toLocaleString("en-US")} `),
  );
});

t.test("the page is accessible and fits a phone and a desk, light and dark", needsChromium, async (t) => {
  const browser = await launch();
  t.teardown(() => browser.close());
  const file = path.join(t.testdir({ "report.html": declared.page }), "report.html");
  await withPages(t, browser, async (open) => {
    for (const [colorScheme, width] of [
      ["light", 390],
      ["dark", 390],
      ["dark", 1280],
    ] as const) {
      // prettier-ignore
      const page = await open(pathToFileURL(file).href, { colorScheme, viewport: { width, height: 900 } });
      await page.evaluate("document.querySelectorAll('details').forEach((own) => { own.open = true; })");
      const name = `${colorScheme}, ${width} px`;
      t.ok(
        Number(await page.evaluate("document.documentElement.scrollWidth - innerWidth")) <= 0,
        `${name}: nothing sticks out`,
      );
      t.strictSame(await violations(page), [], name);
      // What says how to read a table is read without scrolling it.
      const cut = await page.evaluate(`[...document.querySelectorAll(".wide caption")]
        .filter((own) => own.getBoundingClientRect().right > innerWidth).map((own) => own.textContent.trim())`);
      t.strictSame(cut, [], `${name}: captions are whole`);
    }
    const phone = await open(pathToFileURL(file).href, { viewport: { width: 390, height: 900 } });
    const stays =
      await phone.evaluate(`[...document.querySelectorAll(".wide")].filter((own) => own.scrollWidth > own.clientWidth).map((own) => {
      own.scrollLeft = 200;
      const name = own.querySelector("tbody th").getBoundingClientRect();
      return Math.round(name.left - own.getBoundingClientRect().left);
    })`);
    t.ok((stays as number[]).length > 2, "some tables are wider than a phone");
    t.ok(
      (stays as number[]).every((left) => left === 0),
      "and the names of their rows stay where they are",
    );
  });
});
