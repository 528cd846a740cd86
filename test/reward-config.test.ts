// `reward` of run.json: names, modules and sums; what is refused; what a run records of them.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { loadRun, parseTrajectory, readRunConfig, resolveRunConfig, retrievalHit, trainRun } from "rolegrad";
import type { EvaluationRecord, Judged, RunConfigInput, ScoredParts, StepRecord, Trajectory } from "rolegrad";
import { loadReward } from "../lib/run/reward.js";
import { rolegrad } from "./helpers/command.js";
import { root } from "./helpers/shared.js";
import { temporary, world, worldRunFile } from "./helpers/world.js";

const smallest: RunConfigInput = {
  model: "models/tiny",
  data: { questions: "questions.jsonl" },
  environment: { kind: "search", passages: "passages.jsonl" },
};
const resolve = (reward: unknown) => resolveRunConfig({ ...smallest, reward }, "/data/run.json").reward;
const agent = {
  spans: [{ open: "<search>", close: "</search>" }],
  output: { open: "<information>", close: "</information>" },
  answer: { open: "<answer>", close: "</answer>" },
};
const question = { id: "q1", question: "Where?", answers: ["Oslo"] };
const judged = (response: string): Judged => ({ response, calls: [], finish: "stop" });

/** A module of this source in a folder of its own; returns the file. */
function module(source: string, name = "reward.mjs"): string {
  const file = path.join(temporary(), name);
  writeFileSync(file, source);
  return file;
}

t.test("a reward is a name, a module beside the file, or a list with weights", async (t) => {
  t.notOk("reward" in resolveRunConfig(smallest, "run.json"), "a run that says nothing stays as it was");
  t.equal(resolve("f1"), "f1");
  t.equal(resolve("./own/reward.mjs"), "/data/own/reward.mjs");
  t.equal(resolve("reward.ts"), "/data/reward.ts");
  const list = ["f1", { reward: "../reward.mjs", weight: 0.5, options: { scale: 2 } }];
  t.same(resolve(list), ["f1", { reward: "/reward.mjs", weight: 0.5, options: { scale: 2 } }]);
  t.same(resolve(resolve(list)), resolve(list), "a resolved one resolves to itself");
});

t.test("the example of the documentation is a reward", async (t) => {
  const page = readFileSync(path.join(root, "docs/rewards.md"), "utf8");
  const block = (language: string): string => new RegExp(`\`\`\`${language}\\n([^]*?)\`\`\``).exec(page)![1]!;
  const file = module(block("js"));
  const { reward } = resolveRunConfig({ ...smallest, ...JSON.parse(block("json")) }, path.join(file, "../run.json"));
  const response = "<think>hm</think>".padEnd(210, "x") + "<answer>Oslo</answer>";
  const { score, parts } = (await (await loadReward(reward, agent))(judged(response), question)) as ScoredParts;
  t.same(parts, { "exact-match": 1, format: 1, brief: 31 });
  t.ok(Math.abs(score - (1 + 0.1 - 0.31)) < 1e-12);
});

t.test("what is wrong with a reward is an ERR_CONFIG that names the field", async (t) => {
  for (const [reward, said] of [
    [
      "F1",
      /json: reward: Expected exact-match, f1, cover-match, format, sql, or the path of a module.* but received "F1"/,
    ],
    ["toString", /reward: Expected exact-match, .* but received "toString"/],
    ["", /reward: Expected a text that is not empty/],
    [3, /reward: Expected a text or an object or a list but received 3/],
    [[], /reward: Expected a list of at least 1/],
    [["f1", 3], /reward\[1\]: Expected a text or an object but received 3/],
    [["f1", { reward: "em" }], /reward\[1\]: Expected exact-match, .* but received "em"/],
    [
      ["f1", { reward: "f1", weight: 2 }],
      /reward\[1\]: Expected a name that no other reward has but received "f1" twice/,
    ],
    [{ reward: "f1", wieght: 1 }, /Expected no field reward\.wieght; reward has reward, name, weight, options/],
    [[{ reward: "f1", wieght: 1 }], /Expected no field reward\[0\]\.wieght; reward\[0\] has reward, name, weight/],
    [{ weight: 1 }, /reward\.reward: Expected a text but it is missing/],
    [[{ reward: "f1", weight: "1" }], /reward\[0\]\.weight: Expected a number but received "1"/],
    [{ reward: "f1", options: { unit: 1 } }, /reward\.options: Expected other options \("f1" has none\).*unit/],
    [{ reward: "cover-match", options: { unit: "word" } }, /reward\.options\.unit: .*"cover-match" has unit/],
  ] as const)
    t.throws(() => resolve(reward), { code: "ERR_CONFIG", message: said }, JSON.stringify(reward));
});

t.test("built-in rewards look at the agent's tags and take options", async (t) => {
  const score = async (reward: Parameters<typeof loadReward>[0], response: string) =>
    (await loadReward(reward, { ...agent, answer: { open: "[", close: "]" } }))(judged(response), question);
  t.equal(await score(undefined, "[Oslo]"), 1);
  t.equal(await score(undefined, "<answer>Oslo</answer>"), 0);
  t.equal(await score("f1", "[in Oslo]"), 2 / 3);
  t.equal(await score("cover-match", "[in Oslo]"), 1);
  t.equal(await score("format", "<think>x</think>[in Oslo]"), 1);
  t.equal(await score("format", "<search>[in Oslo]"), 0);
  t.same(await score({ reward: "cover-match", options: { unit: "characters" }, weight: 2 }, "[Oslofjord]"), {
    score: 2,
    parts: { "cover-match": 1 },
  });
  t.same(await score({ reward: "format", options: { tags: [] }, name: "tags" }, "<think>[Oslo]"), {
    score: 1,
    parts: { tags: 1 },
  });
});

t.test("a module's default function gets trajectory, question and options, and may be async", async (t) => {
  const source = `export default async ({ response }, { answers }, { scale = 1 }) => scale * response.length + answers.length;`;
  const file = module(source);
  t.equal(await (await loadReward(file, agent))(judged("four"), question), 5);
  const both = await loadReward([{ reward: file, weight: 10, options: { scale: 2 } }, "exact-match"], agent);
  t.same(await both(judged("four"), question), { score: 90, parts: { reward: 9, "exact-match": 0 } });
});

t.test("a module that is no reward is named", async (t) => {
  const refused = (file: string, message: RegExp) =>
    t.rejects(loadReward(file, agent), { code: "ERR_REWARD_MODULE", message });
  await refused("/nowhere/reward.mjs", /Expected a reward in \/nowhere\/reward\.mjs but it cannot be imported: /);
  await refused(module("export default 3;"), /reward\.mjs to export a function as its default but it exports default/);
  await refused(module("export const reward = () => 1;"), /its default but it exports reward$/);
  await refused(module("export default ("), /reward\.mjs but it cannot be imported/);
  await refused(module("throw new Error('no key');"), /cannot be imported: no key/);
});

t.test("a run trains on the sum and records its parts, and goes on with the same module alone", async (t) => {
  const own = module("export default ({ calls }) => ({ score: -calls.length, parts: { called: calls.length } });");
  const reward = ["exact-match", { reward: own, name: "cost", weight: 0.125 }];
  const file = worldRunFile({ reward, steps: 1, evaluation: { questions: 12, samples: 4 } });
  const config = await readRunConfig(file);
  const setup = await loadRun(config);
  try {
    await trainRun(setup);
  } finally {
    setup.close();
  }
  const lines = (name: string): string[] => readFileSync(path.join(config.output, name), "utf8").trim().split("\n");
  const of = (prefix: string): Trajectory[] =>
    readdirSync(path.join(config.output, "trajectories"))
      .filter((name) => name.startsWith(prefix))
      .flatMap((name) => lines(`trajectories/${name}`).map(parseTrajectory));
  const trained = of("step-");
  t.ok(trained.length > 0 && trained.some(({ calls }) => calls.length > 0));
  for (const { reward, rewardParts, calls } of trained) {
    t.match(rewardParts, { cost: -calls.length, "cost.called": calls.length, "exact-match": /^[01]$/ });
    t.equal(reward, (rewardParts?.["exact-match"] ?? NaN) - 0.125 * calls.length);
  }
  const step = JSON.parse(lines("metrics.jsonl")[0]!) as StepRecord;
  t.same(Object.keys(step.rewardParts ?? {}), ["exact-match", "cost", "cost.called"]);
  t.equal(step.rewardParts?.["cost.called"], step.searches);

  const evaluation = JSON.parse(lines("evaluations.jsonl").at(-1)!) as EvaluationRecord;
  const answers = new Map([...world.questions("dev", 12, 0)].map(({ id, answers }) => [id, answers]));
  const last = of("eval-000001");
  const hits = last.filter((own) => retrievalHit(own, { answers: answers.get(own.question)! }));
  t.ok(hits.length > 0 && hits.length < last.length, `${hits.length} of ${last.length}`);
  t.equal(evaluation.retrieval, hits.length / last.length);
  t.equal(evaluation.rewardParts?.["exact-match"], evaluation.exactMatch);
  const percent = (100 * hits.length) / last.length;
  t.match(
    (await rolegrad(["eval", config.output])).stdout,
    `gold answer was retrieved in ${percent.toFixed(0)} % of them`,
  );

  writeFileSync(own, "export default () => 1;");
  t.match(await rolegrad(["train", file]), { status: 1, stderr: /ERR_RUN_EXISTS.*reward cost/ });
});

t.test("a reward that fails ends the run, which names it", async (t) => {
  const own = module("export default () => { throw new Error('no scorer'); };");
  const file = worldRunFile({ reward: own, steps: 1 });
  const { status, stderr } = await rolegrad(["train", file]);
  t.equal(status, 1);
  t.match(stderr, /ERR_REWARD.*reward \S+reward\.mjs for question .+ but it failed: no scorer/);
});
