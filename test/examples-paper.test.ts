// examples/paper: every file is a run that can be planned and checked, its settings are the paper's, and finished runs become tables.
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import t from "tap";
import { planRun, readRunConfig, SearchEnvironment, startRetriever } from "rolegrad";
import { rolegrad, runProgram } from "./helpers/command.js";
import { published } from "./helpers/published-configs.js";
import { root } from "./helpers/shared.js";
import { temporary, world, worldRunFile } from "./helpers/world.js";

const folder = path.join(root, "examples/paper");
const models = ["3b-base", "3b-instruct", "7b-base", "7b-instruct"];
const filesOf = (model: string): string[] =>
  readdirSync(path.join(folder, model)).filter((name) => name.endsWith(".json"));
const node = (args: string[]) =>
  runProgram(process.execPath, args, { env: { NODE_OPTIONS: undefined, NO_COLOR: "1" } });
const jsonl = (file: string, rows: readonly object[]): void =>
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));

/** Rows as FlashRAG's files have them. */
const flashRag = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ id: `test_${i}`, question: `who is ${i}`, golden_answers: [`${i}`] }));

t.test("the files are what make-runs.mjs writes", async (t) => {
  const out = temporary();
  t.equal((await node([path.join(folder, "make-runs.mjs"), out])).status, 0);
  for (const model of models) {
    const names = readdirSync(path.join(out, model));
    t.same(filesOf(model), names.sort(), model);
    for (const name of names)
      t.same(
        JSON.parse(readFileSync(path.join(folder, model, name), "utf8")),
        JSON.parse(readFileSync(path.join(out, model, name), "utf8")),
        `${model}/${name}`,
      );
  }
});

t.test("every arm of the tables that is trained has a file, and every file a row", async (t) => {
  const { methods, ablations } = (await import(pathToFileURL(path.join(folder, "paper.mjs")).href)) as {
    methods: Record<string, string>;
    ablations: [string, string][];
  };
  const evaluated = ["base", "dart-keep-reason", "dart-keep-tool", "hybrid-reas", "hybrid-tool", "dart-replay"];
  const trained = Object.keys(methods).filter((name) => !evaluated.includes(name));
  t.ok(["tool", "dart-tool", ...ablations.map(([, name]) => name)].every((name) => trained.includes(name)));
  for (const model of models) {
    const names = filesOf(model).map((name) => name.replace(/\.json$/, ""));
    const whole = ["unified", "reas", "tool", "agents"];
    const wanted = model.startsWith("7b") ? trained.filter((name) => !whole.includes(name)) : trained;
    t.same(new Set(names), new Set(wanted), model);
  }
});

t.test(
  "every file is accepted, has the paper's settings, and can be planned for the published architectures",
  async (t) => {
    const machine = { gflops: 10_000, readGBps: 1000, memoryGiB: 512, threads: 8 };
    const configs = Object.fromEntries(
      (["Qwen2.5-3B", "Qwen2.5-7B-Instruct"] as const).map((name) => {
        const file = path.join(temporary(), "config.json");
        writeFileSync(file, JSON.stringify(published[name]));
        return [name.slice(8, 9), file];
      }),
    );
    for (const model of models)
      for (const name of filesOf(model)) {
        const config = await readRunConfig(path.join(folder, model, name));
        const full = config.parameters === "full";
        t.match(
          config,
          {
            steps: 100,
            minibatches: 4,
            optimizer: { learningRate: full ? 1e-6 : 1e-5, warmupSteps: 10 },
            objective: { clipLow: 0.2, clipHigh: 0.2, klCoefficient: 0.001 },
            agent: { actionBudget: 4, sampling: { temperature: 1 } },
            environment: { kind: "retriever", topK: 3 },
            ...(config.variant.startsWith("dart-") && { crossRole: "stop" }),
          },
          `${model}/${name}`,
        );
        t.equal(config.questionsPerStep * config.group, 256, "rollout batch");
        t.equal(256 / (config.minibatches ?? 1), 64, "gradient batch");
        const plan = await planRun(config, { modelConfig: configs[model[0]!]!, machine });
        t.ok(plan.memory.bytes > 2 * plan.model.parameters && plan.memory.fits, "a plan");
      }
    t.equal((await readRunConfig(path.join(folder, "3b-base/lora-16.json"))).rank, 16);
    for (const name of ["tool", "dart-tool"]) {
      const args = [
        "--plan",
        "--json",
        "--model-config",
        configs["3"]!,
        "--device",
        "gflops=10,readGBps=10,memoryGiB=512",
      ];
      const { status, stdout } = await rolegrad(["train", path.join(folder, `3b-instruct/${name}.json`), ...args]);
      t.equal(status, 0, name);
      t.equal(JSON.parse(stdout).trains.parameters > 1e9, name === "tool", "every parameter, or an adapter");
    }
    const rows = readFileSync(path.join(folder, "README.md"), "utf8").matchAll(/^\| (\S+\/\S+) +\| (\d+\.\d) GiB /gm);
    for (const [, name, gibibytes] of rows) {
      const config = await readRunConfig(path.join(folder, `${name}.json`));
      const own = { gflops: 2000, readGBps: 300, memoryGiB: 256, threads: 64 };
      const { memory } = await planRun(config, { modelConfig: configs[name![0]!]!, machine: own });
      // This process takes some memory too.
      t.ok(Math.abs(memory.bytes / 2 ** 30 - Number(gibibytes)) < 1, `${name} takes what the README says`);
    }
  },
);

t.test("prepare.mjs reads FlashRAG's folders, and --check takes what it writes and a search server", async (t) => {
  const data = temporary();
  for (const [name, split] of [
    ["nq", "train"],
    ["nq", "test"],
    ["hotpotqa", "train"],
    ["hotpotqa", "dev"],
    ["bamboogle", "test"],
  ] as const) {
    mkdirSync(path.join(data, "flash", name), { recursive: true });
    jsonl(path.join(data, "flash", name, `${split}.jsonl`), flashRag(name === "bamboogle" ? 3 : 600));
  }
  const { status, stdout, stderr } = await node([
    path.join(folder, "prepare.mjs"),
    path.join(data, "flash"),
    path.join(data, "data"),
  ]);
  t.equal(status, 0, stderr);
  t.match(stdout, "1200 questions to train on, 1203 to evaluate on, 1024 of them first for the attribution");
  t.match(stderr, "not evaluated on: triviaqa, popqa, 2wikimultihopqa, musique");
  const search = SearchEnvironment.fromPassages([{ id: "1", title: "Seine", text: "A river." }]);
  const server = await startRetriever(search, { port: 0 });
  t.teardown(() => server.close());
  const run = JSON.parse(readFileSync(path.join(folder, "3b-instruct/dart-stop.json"), "utf8"));
  run.environment.url = server.url;
  mkdirSync(path.join(data, "3b-instruct"));
  const file = path.join(data, "3b-instruct/dart-stop.json");
  writeFileSync(file, JSON.stringify(run));
  const checked = await rolegrad(["train", file, "--check"]);
  t.match(checked, { status: 0, stdout: /^1,200 questions to train on, 256 to evaluate on/ });
});

t.test("finished runs become the paper's tables, with dashes where nothing is", async (t) => {
  const runs = temporary();
  const model = path.join(runs, "3b-base");
  mkdirSync(path.join(model, "leas"), { recursive: true });
  const train = async (variant: string, name: string) => {
    const file = worldRunFile({ variant, steps: 1, output: path.join(model, name), evaluation: { questions: 4 } });
    const { status, stderr } = await rolegrad(["train", file]);
    t.equal(status, 0, stderr);
    return file;
  };
  const file = await train("dart", "dart-stop");
  await train("shared", "unified");
  const evaluate = async (out: string, ...args: string[]) => {
    const { status, stderr } = await rolegrad(["eval", ...args, "--out", path.join(model, out)]);
    t.equal(status, 0, stderr);
  };
  const [dart, unified] = [path.join(model, "dart-stop"), path.join(model, "unified")];
  await evaluate("dart-keep-tool.jsonl", dart, "--keep", "tool");
  await evaluate("hybrid-tool.jsonl", unified, "--writer", "reason=base");
  await evaluate("leas/unified.jsonl", unified, "--samples", "4");
  await evaluate("leas/base.jsonl", unified, "--samples", "4", "--policy", "base");
  for (const name of ["reas", "tool", "hybrid-tool", "hybrid-reas"])
    cpSync(path.join(model, "leas/unified.jsonl"), path.join(model, `leas/${name}.jsonl`));

  const questions = path.join(path.dirname(file), "questions.jsonl");
  const all = [...world.questions("dev", 12, 0)].map((question) => ({ ...question, dataset: "world" }));
  jsonl(questions, all);
  const script = path.join(folder, "tables.mjs");
  const { status, stdout, stderr } = await node([script, runs, "--questions", questions, "--json"]);
  t.equal(status, 0, stderr);
  type Table = { title: string; head: string[]; rows: string[][] };
  const tables = JSON.parse(stdout) as Table[];
  const find = (title: string): Table => tables.find((own) => own.title.includes(title))!;
  const row = (title: string, first: string): string[] => find(title).rows.find(([name]) => name!.startsWith(first))!;

  const main = find("exact match");
  t.same(main.head, ["method", "world", "macro average", "by question", "paper (macro)"]);
  const lines = readFileSync(path.join(dart, "evaluations.jsonl"), "utf8").trim().split("\n");
  const last = JSON.parse(lines.at(-1)!);
  const name = "DART, rank 8, crossRole stop";
  t.same(row("exact match", name), [name, ...Array.from({ length: 3 }, () => last.exactMatch.toFixed(3)), "0.405"]);
  t.equal(row("retrieval accuracy", name)[1], last.retrieval.toFixed(3), "as the run itself records it");
  t.same(row("exact match", "2-Agent").slice(1), ["-", "-", "-", "0.406"], "not run, and the paper's figure");
  t.not(row("one adapter kept", "DART-tool, kept")[1], "-");
  t.equal(row("one adapter kept", "hybrid-reas")[1], "-");
  // Where all trained variants are one, lambda23 = z_base - z_unified: negative where the model has become better.
  t.match(row("share of lambda23", "world"), [
    /^world$/,
    /^[01]\.\d{3}/,
    String,
    String,
    /^-?0\.00$/,
    /^-?0\.00$/,
    /^\d$/,
    "-",
  ]);
  t.match((await node([script, runs])).stdout, /^## 3b-base: exact match\n\n\| method +\| .*\n\| -+ /, "Markdown");
});

t.test(
  "averages: each data set counts once, and none is taken over fewer data sets than another method has",
  async (t) => {
    const runs = temporary();
    mkdirSync(path.join(runs, "3b-base"));
    const answers = (name: string, sets: Record<string, number[]>): void =>
      jsonl(
        path.join(runs, "3b-base", `${name}.jsonl`),
        Object.entries(sets).flatMap(([dataset, rewards]) =>
          rewards.map((reward, i) => ({ question: `${dataset}/${i}`, reward, calls: [] })),
        ),
      );
    answers("unified", { nq: [1, 1, 1, 0, 1, 1], bamboogle: [0, 0] });
    answers("dart-stop", { nq: [1, 1, 1, 1, 1, 1] });
    const { stdout } = await node([path.join(folder, "tables.mjs"), runs, "--json"]);
    const [main] = JSON.parse(stdout) as { head: string[]; rows: string[][] }[];
    const row = (name: string): string[] => main!.rows.find(([title]) => title!.startsWith(name))!.slice(1, 5);
    t.same(main!.head.slice(1, 5), ["nq", "bamboogle", "macro average", "by question"]);
    t.same(row("unified"), ["0.833", "0.000", "0.417", "0.625"]);
    t.same(row("DART, rank 8, crossRole stop"), ["1.000", "-", "-", "-"], "not the mean of what is there");
  },
);
