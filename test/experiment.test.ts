// `rolegrad experiment`: the plans, the cells as runs that can be cut off anywhere, and what is said of them.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { PassThrough } from "node:stream";
import { promisify } from "node:util";
import t from "tap";
import {
  computeInterferenceSync,
  createAdapters,
  experimentPlans,
  loadModel,
  measureVariants,
  Random,
  runExperiment,
  World,
  WORLD_CHECKPOINT,
  writeExperimentReport,
  type Cell,
  type CellStatus,
  type ExperimentPlan,
  type MeasuredPolicy,
  type Question,
  SQL_WORLD_TAGS,
  SqlEnvironment,
  sqlReward,
  type Variant,
  type ExperimentResults,
} from "rolegrad";
import { ask } from "../lib/cli/ask.js";
import { ARMS } from "../lib/experiment/arms.js";
import { budgetOf } from "../lib/experiment/budget.js";
import { cellRun, unavailable } from "../lib/experiment/cell-run.js";
import { ExperimentDirectory } from "../lib/experiment/directory.js";
import { pairedDifference } from "../lib/experiment/paired.js";
import { studentQuantile } from "../lib/attribution/student.js";
import { declaredSeedsOf, expandPlan } from "../lib/experiment/plan.js";
import { rolegrad } from "./helpers/command.js";
import { writeCounts } from "./helpers/counts.js";
import { experimentStatus } from "../lib/experiment/runner.js";
import { baseTokensLeft, cellWorld, makeBase, writeWorlds } from "../lib/experiment/worlds.js";
import { root } from "./helpers/shared.js";
import { temporary, worldRollout } from "./helpers/world.js";

const tiny = experimentPlans["tiny"] as ExperimentPlan;
const full = experimentPlans["full"] as ExperimentPlan;
const SMOKE = "smoke run, no inference";

const installed = existsSync(path.join(root, "node_modules/@sqlite.org/sqlite-wasm"));
const needsEngine = installed ? {} : { skip: "@sqlite.org/sqlite-wasm is not installed" };

const read = (folder: string, name: string): string => readFileSync(path.join(folder, name), "utf8");
const resultsOf = (folder: string): ExperimentResults => JSON.parse(read(folder, "results.json")) as ExperimentResults;

t.test("a plan's cells have names of their own, and come after what they need", (t) => {
  for (const plan of Object.values(experimentPlans)) {
    const cells = expandPlan(plan);
    const place = new Map(cells.map(({ id }, i) => [id, i]));
    t.equal(place.size, cells.length, `${plan.name}: no two cells have a name`);
    const early = cells.filter(({ id, needs }) =>
      needs.some((own) => !((place.get(own) ?? Infinity) < place.get(id)!)),
    );
    t.strictSame(early, [], `${plan.name}: all that is needed comes before`);
    const wanted = plan.studies.flatMap(({ name, arms, seeds }) =>
      arms.flatMap((arm) => seeds.map((seed) => [name, arm, seed])),
    );
    const missing = wanted.filter(
      ([name, arm, seed]) =>
        !cells.some((cell) => cell.arm === arm && cell.seed === seed && cell.studies.includes(String(name))),
    );
    t.strictSame(missing, [], `${plan.name}: every arm of every study has a cell for each of its seeds`);
  }
  t.end();
});

t.test(
  "the full study sweeps the same rates for every arm, in another world and on seeds that nothing else has",
  (t) => {
    const cells = expandPlan(full);
    const sweep = cells.filter(({ samples }) => samples === 0);
    const tuned = cells.filter(({ rate, steps, samples }) => rate === "tuned" && steps > 0 && samples > 0);
    const rates = (arm: string, seed: number): number[] =>
      sweep.flatMap((cell) => (cell.arm === arm && cell.seed === seed ? [cell.rate as number] : []));
    for (const arm of new Set(tuned.map((cell) => cell.arm)))
      for (const seed of full.sweep!.seeds) t.strictSame(rates(arm, seed), full.sweep!.rates, `${arm}, seed ${seed}`);
    const measured = new Set(cells.filter(({ samples }) => samples > 0).map(({ seed }) => seed));
    t.notOk(sweep.some(({ seed }) => measured.has(seed)));
    t.ok(sweep.every((cell) => /world-2/.test(JSON.stringify(cellRun(full, cell, 1e-3).data))));
    t.end();
  },
);

t.test("what has one rate has one number of steps", (t) => {
  const [first, ...others] = full.studies;
  t.throws(() => expandPlan({ ...full, studies: [{ ...first!, steps: 20 }, ...others] }), /primary has 20 steps/);
  const steps = (rate: Cell["rate"]): number[] => [
    ...new Set(
      expandPlan(full).flatMap((cell) =>
        cell.rate === rate && cell.samples > 0 && cell.arm === "unified" ? [cell.steps] : [],
      ),
    ),
  ];
  t.strictSame([steps("tuned"), steps(1e-3)], [[12], [20]]);
  t.end();
});

t.test("the primary endpoint has ten seeds in every arm; leas has three settings of balance with 50 samples", (t) => {
  const cells = expandPlan(full);
  for (const arm of ["unified", "dart-stop", "placebo", "two-agent"]) {
    const own = cells.filter((cell) => cell.arm === arm && cell.studies.includes("primary"));
    t.equal(new Set(own.map(({ seed }) => seed)).size, 10, arm);
  }
  const leas = cells.filter(({ studies }) => studies.includes("leas"));
  t.ok(leas.every(({ samples }) => samples === 50));
  t.strictSame([...new Set(leas.map(({ balance }) => balance))], [1, 0.1, 0.03]);
  t.strictSame(
    [...new Set(leas.filter(({ balance }) => balance !== 1).map(({ arm }) => arm))],
    ["unified"],
    "a single role's loss is not scaled: Adam would undo it",
  );
  t.end();
});

t.test("runs of one seed differ in nothing but their arm, so they ask the same questions in the same order", (t) => {
  const trained = expandPlan(full).filter(({ steps, samples }) => steps > 0 && samples > 0);
  const rest = (cell: Cell): string => {
    const {
      variant: _v,
      parameters: _p,
      rank: _r,
      alpha: _a,
      crossRole: _c,
      steps: _s,
      output: _o,
      ...run
    } = cellRun(full, cell, 1e-3);
    const { objective, ...others } = run;
    return JSON.stringify([others, objective?.klCoefficient]);
  };
  for (const seed of new Set(trained.map((cell) => cell.seed)))
    t.equal(
      new Set(trained.filter((cell) => cell.seed === seed && cell.dialect === null).map(rest)).size,
      1,
      `seed ${seed}`,
    );
  t.not(rest(trained.find(({ seed }) => seed === 11)!), rest(trained.find(({ seed }) => seed === 12)!));
  t.end();
});

t.test("differences are paired by seed, with Student's t", (t) => {
  // Tables of Student's distribution, 97.5 %.
  for (const [degrees, value] of [[1, 12.7062], [2, 4.30265], [3, 3.18245], [4, 2.77645], [9, 2.26216], [29, 2.04523]] as const)
    t.ok(Math.abs(studentQuantile(0.975, degrees) - value) < 1e-4, `${degrees} degrees of freedom`); // prettier-ignore
  const a = new Map([[1, 0.5], [2, 0.7], [3, 0.9], [4, 0.1]]); // prettier-ignore
  const b = new Map([[3, 0.6], [2, 0.5], [1, 0.4]]); // prettier-ignore
  const found = pairedDifference(a, b, { infer: true })!;
  // Differences .1, .2, .3: mean .2, s .1, half a width 4.30265 * .1 / sqrt 3.
  t.ok(Math.abs(found.mean - 0.2) < 1e-12 && Math.abs(found.high! - 0.2 - 0.248414) < 1e-5, "those that both have");
  t.match(pairedDifference(a, b, { infer: false }), { low: null, high: null });
  t.equal(pairedDifference(new Map([[1, 1]]), new Map([[2, 1]]), { infer: true }), undefined);
  t.end();
});

const world = new World({ seed: 1 });
const model = await loadModel(WORLD_CHECKPOINT);
t.teardown(() => model.close());

t.test("measureVariants counts k of N; streams are each variant's own, or all variants' one", async (t) => {
  const rollout = worldRollout();
  const questions = world.questions("dev", 3, 0);
  const adapters = createAdapters(model, { roles: ["reason", "tool"], rank: 2, alpha: 4 });
  const names = ["base", "reas", "tool", "unified", "hybridTool", "hybridReas"] as const;
  // New adapters change nothing: all six are one policy.
  const policies = Object.fromEntries(
    names.map((name, i) => [name, { model, rollout, ...(i > 0 && { adapters }) }]),
  ) as Record<Variant, MeasuredPolicy>;
  const rowsOf = async (): Promise<Map<string, number[]>> => {
    const { rows } = await measureVariants(policies, questions, { samples: 12, seed: 1 });
    const list = [...rows];
    t.equal(list.length, 18);
    t.ok(
      list.every(
        ({ correct, samples }) => samples === 12 && correct >= 0 && correct <= 12 && Number.isInteger(correct),
      ),
    );
    return new Map(names.map((name) => [name, list.flatMap((row) => (row.variant === name ? [row.correct] : []))]));
  };
  const own = await rowsOf();
  t.ok(new Set([...own.values()].map(String)).size > 1, "equal policies do not draw the same answers");
  t.strictSame(await rowsOf(), own, "the same seed gives the same counts");
  const common = await measureVariants(policies, questions, { samples: 12, seed: 1, streams: "common" });
  t.equal(new Set(names.map((name) => Array.from(common.correct[name]).join())).size, 1, "with common streams they do");
  const outcomes = Array.from(common.outcomes!.unified);
  t.equal(outcomes.length, 36);
  t.strictSame(
    questions.map((_, q) => outcomes.slice(12 * q, 12 * (q + 1)).reduce((sum, right) => sum + right, 0)),
    common.correct.unified,
    "outcomes are what is counted",
  );
  t.strictSame(Array.from(common.outcomes!.tool), outcomes, "sample by sample");
  // Paired: equal answers share their noise; what stays is that of the one sample of fair coins.
  const widthOf = (commonRandomNumbers: boolean): number => {
    const { low, high } = computeInterferenceSync(common, { commonRandomNumbers, population: "fixed" }).contrasts
      .additive;
    return high! - low!;
  };
  t.ok(widthOf(true) > 0 && widthOf(true) < 0.7 * widthOf(false), `${widthOf(true)} < 0.7 * ${widthOf(false)}`);
  const { reas: _, ...five } = policies;
  await t.rejects(measureVariants(five as typeof policies, questions, { streams: "common" }), {
    code: "ERR_TABLE_VARIANT",
    message: /no reas/,
  });
  const table = await measureVariants(policies, questions, { samples: 12, seed: 1 });
  t.equal(computeInterferenceSync(table).kept.length + computeInterferenceSync(table).dropped.length, 3);

  const wrong: [object, RegExp][] = [
    [{ samples: 0 }, /samples/],
    [{ seed: -1 }, /seed/],
    [{ temperature: NaN }, /temperature/],
    [{ streams: "same" }, /streams/],
  ];
  for (const [options, message] of wrong)
    await t.rejects(measureVariants(policies, questions, options), { code: "ERR_INVALID_ARGUMENT", message });
  await t.rejects(measureVariants(policies, []), { code: "ERR_RUN_QUESTIONS" });
  await t.rejects(measureVariants(policies, [questions[0]!, questions[0]!]), { code: "ERR_RUN_QUESTIONS" });
  const other = { other: { model, rollout } } as unknown as Parameters<typeof measureVariants>[0];
  await t.rejects(measureVariants(other, questions), { code: "ERR_TABLE_VARIANT" });
  const reason = new Error("enough");
  await t.rejects(measureVariants(policies, questions, { signal: AbortSignal.abort(reason) }), reason);
});

/** Runs the tiny study, and sends a signal once `when` says so. How it ended: exit code, signal. */
async function ended(
  folder: string,
  signal: "SIGKILL" | "SIGINT",
  when: (event: Record<string, unknown>) => boolean,
): Promise<[number | null, string | null]> {
  const args = ["experiment", "--size", "tiny", "--json", "--out", folder];
  const child = spawn(process.execPath, [path.join(root, "bin/rolegrad.js"), ...args], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const closed = once(child, "close") as Promise<[number | null, string | null]>;
  for await (const line of createInterface({ input: child.stdout }))
    if (when(JSON.parse(line) as Record<string, unknown>)) child.kill(signal);
  return closed;
}

const whole = path.join(temporary(), "whole");

t.test("the whole study: every cell a run directory, stamped outputs, budget before it starts", async (t) => {
  const { status, stdout, stderr } = await rolegrad(["experiment", "--size", "tiny", "--out", whole]);
  t.equal(status, 0, stderr);
  const [before = "", after = ""] = stdout.split(/^cell /m);
  t.match(before, SMOKE);
  t.match(before, /11 cells, 0 finished; left: 12 steps, \d+ answers, about/, "the budget");
  t.match(after, /finished: 11 of 11 cells\nsmoke run, no inference\n/);
  t.match(stderr, /reas-lr0.001-s1: training\nreas-lr0.001-s1: measuring\nreas-lr0.001-s1: finished, exact match 0/);
  t.notMatch(stdout + stderr, "\x1b");
  const results = resultsOf(whole);
  t.equal(results.stamp, SMOKE);
  t.match(read(whole, "report.html"), SMOKE);
  t.ok(
    read(whole, "counts.csv")
      .trim()
      .split("\n")
      .slice(1)
      .every((line) => line.endsWith(`,"${SMOKE}"`)),
  );
  t.equal(read(whole, "counts.csv").trim().split("\n").length, 1 + 9 * tiny.questions);
  const inspected = await rolegrad(["inspect", path.join(whole, "cells", "reas-lr0.001-s1"), "--json"]);
  t.equal(inspected.status, 0, inspected.stderr);
  const chosen = results.sweep["dart-stop"]!;
  t.strictSame(Object.keys(chosen.exactMatch), ["0.001", "0.003"]);
  t.equal(
    results.measured.find(({ id }) => id === "dart-stop-s1")?.rate,
    chosen.chosen,
    "the tuned rate is the sweep's",
  );
  t.equal(results.leas.length, 1);
  const { share, mean23, effects } = results.leas[0]!;
  t.ok([share, mean23, effects.l12.mean].every(({ low, high }) => low === null && high === null));
  const leak = results.probes["dart-stop-s1"]?.leak;
  t.ok(leak!.flow.norms["tool"]!["reason"]! > 0, "plain autograd leaks");
  t.equal(leak?.trained.norms["tool"]?.["reason"], 0, "as it was trained nothing does");
  const answers = (name: string): string[] =>
    read(whole, `data/world-1-${name}questions.jsonl`)
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { answers: string[] }).answers[0]!);
  t.strictSame(answers("aligned-"), answers("").map((answer) => `${answer} vo`), "aligned: the same, marked"); // prettier-ignore
  const angles = ["base-s1", "base-d1-s1", "base-aligned-s1"].map((cell) => results.probes[cell]?.angles);
  t.ok(
    angles.every(
      (own) => own?.parameters === "backbone" && own.whole.advantage.shifted !== null && own.layers.length === 3,
    ),
  );
  t.notSame(angles[0]!.whole, angles[1]!.whole);
});

t.test("a study that is killed in a training and interrupted in a measurement ends with the same bytes", async (t) => {
  const folder = path.join(temporary(), "killed");
  const kill = await ended(
    folder,
    "SIGKILL",
    ({ event, cell, step }) => event === "step" && cell === "reas-lr0.001-s1" && step === 1,
  );
  t.strictSame(kill, [null, "SIGKILL"]);
  t.notOk(existsSync(path.join(folder, "counts", "reas-lr0.001-s1.json")));
  const interrupt = await ended(
    folder,
    "SIGINT",
    ({ event, cell, state }) => event === "cell" && cell === "unified-lr0.001-s1" && state === "measuring",
  );
  t.strictSame(interrupt, [130, null], "Ctrl-C");
  t.ok(existsSync(path.join(folder, "report.html")), "saves, and reports what there is");
  const before = read(folder, "counts/reas-lr0.001-s1.json");
  const states: CellStatus[] = [];
  const { status } = await runExperiment({ directory: folder, plan: tiny, onCell: (own) => states.push(own) });
  t.equal(status, "finished");
  t.strictSame(
    states.filter(({ state }) => state === "training").map(({ cell }) => cell.id),
    [],
    "what had been trained is not trained again",
  );
  await writeExperimentReport(folder, tiny);
  t.equal(read(folder, "counts/reas-lr0.001-s1.json"), before);
  for (const file of ["results.json", "counts.csv"]) t.equal(read(folder, file), read(whole, file), file);
});

t.test("a time limit stops with everything saved, and the same command goes on", async (t) => {
  const folder = path.join(temporary(), "pieces");
  const first = await rolegrad(["experiment", "--size", "tiny", "--minutes", "0", "--json", "--out", folder]);
  t.equal(first.status, 0, first.stderr);
  t.match(first.stdout, '"status":"out of time"');
  t.ok(existsSync(path.join(folder, "report.html")), "a report of nothing");
  const one = await rolegrad(["experiment", "--json", "--only", "hybrid-tool", "--out", folder]);
  t.equal(one.status, 0, one.stderr);
  t.strictSame(
    readdirSync(path.join(folder, "counts")),
    ["hybrid-tool-lr0.001-s1.json", "tool-lr0.001-s1.json"],
    "with what it needs",
  );
  const listed = await rolegrad(["experiment", "--cells", "--out", folder]);
  t.match(listed.stdout, /tool-lr0.001-s1 +finished +2\/2 +0\.\d+\n/);
  t.match(listed.stdout, /unified-lr0.001-s1 +waiting/);
});

t.test("the second task: queries on generated databases, judged by their rows", needsEngine, async (t) => {
  const folder = path.join(temporary(), "sql");
  const { status, stdout, stderr } = await rolegrad(["experiment", "--size", "tiny", "--task", "sql", "--out", folder]);
  t.equal(status, 0, stderr);
  t.match(stderr, /making its base/);
  t.match(stdout, /finished: 7 of 7 cells\nsmoke run, no inference\n/);
  const { questions } = JSON.parse(read(folder, "counts/base-s1.json")) as { questions: string[] };
  t.equal(questions.length, 4);
  t.equal(resultsOf(folder).metric, "execution match");
  const page = read(folder, "report.html");
  t.match(page, /<h2 id="main-title">Execution match<\/h2>/);
  t.notMatch(page, /[Ee]xact match(?!es)|id="retrieval-title"|retrieval, /, "queries have no passages to find");
  const inspected = await rolegrad(["inspect", path.join(folder, "cells", "dart-stop-lr0.001-s1"), "--json"]);
  t.equal(inspected.status, 0, inspected.stderr);
  // A policy that writes the gold query is right: the environment, the reward and the questions belong together.
  const [row] = read(folder, "data/sql-world-1-questions.jsonl").split("\n");
  const question = JSON.parse(row!) as Question & { sql: string };
  t.match(question.question, /^Columns: [^\n]*\n Question: .*\?$/);
  const environment = await SqlEnvironment.open({ databases: path.join(folder, "data/sql-world-1"), workers: 1 });
  t.teardown(() => environment.close());
  const reward = sqlReward({ environment, answer: SQL_WORLD_TAGS.answer });
  const judged = (sql: string): unknown =>
    reward({ response: `<answer> ${sql}</answer>`, calls: [], finish: "stop" }, question);
  t.equal(await judged(question.sql), 1);
  t.equal(await judged("SELECT 1"), 0);
  for (const [args, message] of [
    [["--full", "--task", "sql"], /Expected one of tiny, quick for --size of sql but received full/],
    [["--task", "chess"], /Expected search or sql for --task but received chess/],
    [["--size", "quick-sql"], /Expected one of tiny, quick, full for --size but received quick-sql/],
  ] as const) {
    const wrong = await rolegrad(["experiment", ...args, "--out", path.join(folder, "no")]);
    t.equal(wrong.status, 2, wrong.stderr);
    t.match(wrong.stderr, message);
  }
});

t.test("a world of a plan's own: more entities, hops, and a base from nothing", async (t) => {
  const directory = new ExperimentDirectory(temporary());
  const world: ExperimentPlan["world"] = {
    ...tiny.world,
    size: 2,
    twoHops: 1,
    base: { layers: 1, thoughts: "long" },
  };
  const plan: ExperimentPlan = { ...tiny, world };
  await writeWorlds(plan, directory);
  const rowsOf = <T>(name: string): T[] =>
    readFileSync(directory.file(`data/${name}.jsonl`), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as T);
  t.equal(rowsOf("world-1-pages").length, 2 * new World({ seed: 1 }).pages.length);
  const kinds = new Set(rowsOf<{ hops: number }>("world-1-questions").map(({ hops }) => hops));
  t.strictSame([...kinds], [2], "no question takes one hop");
  const cell = { dialect: null };
  t.equal(baseTokensLeft(plan, cell, directory), 2000);
  await makeBase(plan, cell, directory);
  t.equal(baseTokensLeft(plan, cell, directory), 0);
  const base = await loadModel(directory.file("data/base"));
  t.equal(base.config.layers, 1);
  base.close();
  t.equal(cellWorld(plan, { dialect: null, samples: 2 }).agent.maxLength, 400, "long thoughts have room");
  t.equal(cellWorld(tiny, { dialect: null, samples: 2 }).agent.maxLength, 200);
});

const script = (name: string, ...args: string[]): Promise<{ stdout: string; stderr: string }> =>
  promisify(execFile)(process.execPath, [path.join(root, "scripts/experiment", name), ...args]);

t.test("a study is published as tables, counts and its report", async (t) => {
  const folder = temporary();
  const { stdout } = await script("publish.mjs", whole, folder);
  t.match(stdout, /^11 of 11 cells/);
  const text = read(folder, "README.md");
  t.match(text, SMOKE);
  for (const { name } of tiny.studies) t.match(text, `## ${name}\n`);
  const { measured, sweep } = resultsOf(whole);
  const dart = measured.find(({ id }) => id === "dart-stop-s1")!;
  t.match(text, new RegExp(`DART, stop +\\| w 1 +\\| ${dart.rate} +\\| ${dart.exactMatch.toFixed(3)}`));
  t.match(text, new RegExp(`\\| ${sweep["dart-stop"]!.chosen} +\\|\n`), "the chosen rate");
  const counts = read(folder, "counts.jsonl").trim().split("\n").map((line) => JSON.parse(line) as { cell: string; correct: number[] }); // prettier-ignore
  t.strictSame(counts.map(({ cell }) => cell).sort(), measured.map(({ id }) => id).sort());
  const own = JSON.parse(read(whole, "counts/dart-stop-s1.json")) as { correct: number[] };
  t.strictSame(counts.find(({ cell }) => cell === "dart-stop-s1")?.correct, own.correct);
  t.match(read(folder, "report.html"), SMOKE);
  await t.rejects(script("publish.mjs", temporary(), folder), /Expected an experiment in/);
});

t.test("the search for other settings runs, with bases of its own", needsEngine, async (t) => {
  const folder = temporary();
  const out = path.join(folder, "settings.md");
  const { stdout } = await script(
    "settings.mjs",
    path.join(folder, "runs"),
    "--tiny",
    "--only",
    "layers,sql",
    "--out",
    out,
  );
  const rows = stdout.split("\n").filter((line) => / \| 1 \| /.test(line));
  const arms = rows.map((line) => line.split("|")[1]!.trim());
  t.strictSame(arms, [...Array<string>(8).fill("layers"), ...Array<string>(8).fill("sql")], "every arm of each");
  t.ok(read(folder, "settings.md").includes(stdout.trim()));
});

t.test("a report renders whatever is missing", async (t) => {
  const folder = path.join(temporary(), "part");
  cpSync(whole, folder, { recursive: true });
  for (const name of ["report.html", "results.json", "counts.csv", "probes", "cells"])
    rmSync(path.join(folder, name), { recursive: true });
  for (const name of readdirSync(path.join(folder, "counts")))
    if (!name.startsWith("base")) rmSync(path.join(folder, "counts", name));
  const page = readFileSync(await writeExperimentReport(folder, tiny), "utf8");
  t.match(page, "No setting has all six variants, with a right answer, yet.");
  t.match(page, "3 of 11 cells finished");
  t.strictSame(resultsOf(folder).groups.map(({ arm }) => arm), ["base", "base", "base"]); // prettier-ignore
});

t.test("only a study that is not stamped has intervals over seeds and a primary endpoint", async (t) => {
  const { stamp: _stamp, ...rest } = experimentPlans["quick"] as ExperimentPlan;
  const declared: ExperimentPlan = rest;
  const random = new Random(1, "test/experiment");
  const made: ExperimentResults[] = [];
  for (const plan of [experimentPlans["quick"] as ExperimentPlan, declared]) {
    const folder = temporary();
    mkdirSync(path.join(folder, "counts"));
    for (const cell of expandPlan(plan))
      writeCounts(folder, cell, random, cell.arm === "unified" ? 0.8 : cell.arm === "base" ? 0.2 : 0.6);
    await writeExperimentReport(folder, plan);
    made.push(resultsOf(folder));
    t.equal(read(folder, "report.html").includes(SMOKE), plan.stamp !== undefined);
  }
  const [smoke, whole] = made as [ExperimentResults, ExperimentResults];
  t.ok(smoke.comparisons.length > 0);
  t.ok(
    smoke.comparisons.every(({ low, high, primary }) => low === null && high === null && !primary),
    "it infers nothing",
  );
  t.ok(smoke.groups.every(({ exactMatch: { low } }) => low === null));
  t.ok(smoke.leas.every(({ share, mean23 }) => share.low === null && mean23.low === null));
  const main = whole.comparisons.filter(({ study, balance }) => study === "main" && balance === 1);
  t.ok(main.every(({ low, high, mean }) => low! < mean && mean < high!));
  t.strictSame(main.filter(({ primary }) => primary).map(({ a, b }) => [a, b]), [["dart-stop", "unified"], ["dart-stop", "placebo"]]); // prettier-ignore
  t.strictSame(whole.leas.map(({ balance, seed }) => [balance, seed]), [[1, 1], [1, 2], [1, null], [0.03, 1]]); // prettier-ignore
});

t.test("what cannot be is refused by name", async (t) => {
  const given = { directory: whole, plan: tiny };
  await t.rejects(runExperiment({ ...given, cells: ["unified-s9"] }), {
    code: "ERR_EXPERIMENT_CELL",
    message: /a cell of the plan.*"unified-s9"/,
  });
  await t.rejects(runExperiment({ ...given, plan: full }), {
    code: "ERR_EXPERIMENT_EXISTS",
    message: /name was "tiny"/,
  });
  const cases: [string[], number, RegExp][] = [
    [["--only", "darts"], 1, /ERR_EXPERIMENT_CELL.*an arm of the plan \(base, .*received "darts"/],
    [["--quick", "--full"], 2, /ERR_USAGE/],
    [["--report", "--out", path.join(temporary(), "none")], 1, /ERR_EXPERIMENT_NOT_FOUND/],
  ];
  for (const [args, code, message] of cases) {
    const { status, stderr } = await rolegrad(["experiment", ...args]);
    t.equal(status, code, args.join(" "));
    t.match(stderr, message);
  }
});

t.test("every arm has a run.json of this version", (t) => {
  const directory = new ExperimentDirectory(whole);
  const why = expandPlan(full).flatMap((cell) => unavailable(full, cell, directory) ?? []);
  t.strictSame([...new Set(why)], []);
  t.ok(Object.values(ARMS).every(({ run, policy }) => (run === undefined) !== (policy === undefined)));
  t.end();
});

t.test("a begun study is never overwritten as another size's, whatever was asked for", async (t) => {
  const before = read(whole, "report.html");
  for (const rest of [["--report"], ["--yes"]]) {
    const { status, stdout, stderr } = await rolegrad(["experiment", "--full", ...rest, "--out", whole]);
    t.equal(status, 1, rest.join(" "));
    t.match(stderr, /ERR_EXPERIMENT_EXISTS.*name was "tiny"/);
    t.notMatch(stderr, /delete/);
    t.equal(stdout, "", "no budget, no question");
  }
  await t.rejects(writeExperimentReport(whole, full), { code: "ERR_EXPERIMENT_EXISTS" });
  t.equal(read(whole, "report.html"), before);
});

t.test("experiment.json names the version that began it; the data are what they were when it began", async (t) => {
  const folder = path.join(temporary(), "data");
  const options = { directory: folder, plan: tiny, cells: ["base-s1"] };
  await runExperiment(options);
  const { version } = JSON.parse(read(root, "package.json")) as { version: string };
  t.match(JSON.parse(read(folder, "experiment.json")), { packageVersion: version, plan: { name: "tiny" } });
  const pages = path.join(folder, "data", "world-1-pages.jsonl");
  const first = readFileSync(pages, "utf8");
  writeFileSync(pages, `${first}\n`);
  await runExperiment(options);
  t.equal(readFileSync(pages, "utf8"), `${first}\n`, "not written again");
});

t.test("the full study shares no world and no seed with what was looked at before it", (t) => {
  const quick = experimentPlans["quick"] as ExperimentPlan;
  const seen = [quick.world.seed, quick.world.tuningSeed, full.world.tuningSeed];
  t.notOk(seen.includes(full.world.seed));
  const cells = expandPlan(full).filter(({ samples }) => samples > 0);
  const looked = new Set([...quick.studies.flatMap(({ seeds }) => seeds), ...(full.sweep?.seeds ?? [])]);
  t.notOk(cells.some(({ seed }) => looked.has(seed)));
  t.strictSame(declaredSeedsOf(full), [11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
  t.strictSame(declaredSeedsOf(tiny), [1], "without a declaration: those of the first study");
  const exploratory = full.studies.filter(({ name }) => name !== "primary");
  t.ok(exploratory.every(({ seeds }) => seeds.every((seed) => declaredSeedsOf(full).includes(seed))));
  t.end();
});

/** One arm whose loss is not finite after a step, between two that it has nothing to do with, and a rate of a sweep that is as bad. */
const astray: ExperimentPlan = {
  ...tiny,
  name: "astray",
  studies: [
    { name: "main", about: "", arms: ["base", "unified"], seeds: [1], rate: "tuned", samples: 2 },
    { name: "bad", about: "", arms: ["tool", "hybrid-tool"], seeds: [1], rate: 1e30, samples: 2 },
    { name: "good", about: "", arms: ["reas"], seeds: [1], rate: 1e-3, samples: 2 },
  ],
  sweep: { rates: [1e-3, 1e30], seeds: [101] },
};

t.test("a cell that goes astray is recorded as failed, and the study goes on without it", async (t) => {
  const folder = path.join(temporary(), "astray");
  const end = await runExperiment({ directory: folder, plan: astray });
  const bad = ["tune-unified-lr1e+30-s101", "tool-lr1e+30-s1"];
  t.strictSame(end, { status: "finished", failed: bad });
  t.match(JSON.parse(read(folder, `failed/${bad[1]}.json`)), {
    cell: bad[1],
    code: "ERR_LOSS_NOT_FINITE",
    message: /NaN/,
  });
  const statuses = new Map((await experimentStatus(folder, astray)).map((own) => [own.cell.id, own]));
  t.match(statuses.get(bad[1]!), { state: "failed", why: /^failed in (training|measuring) \(ERR_/ });
  t.match(statuses.get("hybrid-tool-lr1e+30-s1"), {
    state: "unavailable",
    why: /needs tool-lr1e\+30-s1, which failed/,
  });
  t.equal(statuses.get("reas-lr0.001-s1")?.state, "finished", "what comes after it");
  await writeExperimentReport(folder, astray);
  const { sweep } = resultsOf(folder);
  t.match(sweep["unified"], { exactMatch: { "1e+30": 0 }, chosen: 1e-3 });

  const states = async (retry: boolean): Promise<string[]> => {
    const seen: string[] = [];
    const onCell = ({ cell, state }: CellStatus): void => void (cell.id === bad[1] && seen.push(state));
    await runExperiment({ directory: folder, plan: astray, retry, onCell });
    return seen;
  };
  t.strictSame(await states(false), ["failed"], "not tried again");
  t.strictSame((await states(true)).at(0), "training", "unless that is asked for");
  const again = await rolegrad(["experiment", "--out", folder]);
  t.equal(again.status, 0, again.stderr);
  t.match(again.stdout, /2 failed, 1 not available here/);
  t.match(again.stdout, /tool-lr1e\+30-s1 failed in/);
});

t.test("an error that says nothing of an arm ends the study, with a report of what there is", async (t) => {
  const folder = path.join(temporary(), "error");
  await runExperiment({ directory: folder, plan: tiny, cells: ["base-s1"] });
  writeFileSync(path.join(folder, "data", "base", "model.safetensors"), "nothing");
  const { status, stderr, stdout } = await rolegrad(["experiment", "--only", "tool", "--json", "--out", folder]);
  t.equal(status, 1, stderr);
  t.match(stdout, '"status":"stopped by an error"');
  t.match(stdout.trim().split("\n").at(-1), /"error":\{"code":"ERR_/);
  t.equal(resultsOf(folder).cells.finished, 1);
  t.notOk(existsSync(path.join(folder, "failed")));
});

t.test("the budget counts each answer that is then taken, those of sweeps and probes too", async (t) => {
  const calibration = { rollout: 1, update: 1, from: "two steps" } as const;
  const empty = temporary();
  const before = budgetOf(tiny, await experimentStatus(empty, tiny), calibration);
  let taken = 0;
  for (const { cell } of await experimentStatus(whole, tiny)) {
    const run = new ExperimentDirectory(whole).run(cell.id);
    for (const { n, samples } of run.exists ? await run.evaluations() : []) taken += n * samples;
    taken += cell.samples === 0 ? 0 : cell.samples * tiny.questions;
  }
  for (const { answers } of Object.values(resultsOf(whole).probes)) taken += answers;
  t.equal(before.answers, taken);
  const after = budgetOf(tiny, await experimentStatus(whole, tiny), calibration, whole);
  t.match(after, { steps: 0, answers: 0, minutes: 0 });
  const folder = path.join(temporary(), "probe");
  cpSync(whole, folder, { recursive: true });
  rmSync(path.join(folder, "probes", "base-s1.json"));
  const left = budgetOf(tiny, await experimentStatus(folder, tiny), calibration, folder);
  t.equal(left.answers, resultsOf(whole).probes["base-s1"]?.answers, "a probe that is left of a finished cell");
  const states: string[] = [];
  await runExperiment({ directory: folder, plan: tiny, cells: ["base-s1"], onCell: ({ state }) => states.push(state) });
  t.strictSame(states, ["probing", "finished"]);
  const dialect = (tokens: number): number => {
    const plan = { ...tiny, world: { ...tiny.world, baseTokens: tokens } };
    const cells = expandPlan(plan).map((cell): CellStatus => ({ cell, state: "waiting", step: 0 }));
    return budgetOf(plan, cells, calibration).minutes;
  };
  t.ok(dialect(1e6) > dialect(1e3), "and the making of the dialect's base");
});

t.test("Ctrl-C at the question is an interrupt; the end of input is no answer", async (t) => {
  const terminal = (): { input: PassThrough; output: PassThrough } => {
    const [input, output] = [new PassThrough(), Object.assign(new PassThrough(), { isTTY: true })];
    return { input, output };
  };
  const controller = new AbortController();
  const reason = new Error("interrupted");
  const stop = (): void => controller.abort(reason);
  process.once("SIGINT", stop);
  t.teardown(() => process.off("SIGINT", stop));
  const first = terminal();
  const asked = ask("Start? ", { ...first, signal: controller.signal });
  first.input.write("\x03");
  await t.rejects(asked, reason);
  const second = terminal();
  const ended = ask("Start? ", { ...second, signal: new AbortController().signal });
  second.input.end();
  t.equal(await ended, undefined);
  const third = terminal();
  const answered = ask("Start? ", { ...third, signal: new AbortController().signal });
  third.input.write("n\n");
  t.equal(await answered, "n");
});

t.test("a time limit longer than a timer can wait is no limit of a moment", async (t) => {
  const args = ["experiment", "--cells", "base-s1", "--minutes", "40000", "--json", "--out", whole];
  const { status, stdout, stderr } = await rolegrad(args);
  t.equal(status, 0, stderr);
  t.match(stdout, '"status":"finished"');
  t.notMatch(stderr, "TimeoutOverflowWarning");
});
