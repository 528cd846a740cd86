// rolegrad init, train, eval, inspect: what they print, their exit codes, Ctrl-C.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import t from "tap";
import { inspectDirectory, readRunConfig, resolveRunConfig, WORLD_CHECKPOINT } from "rolegrad";
import { rolegrad } from "./helpers/command.js";
import { needsShared, root, shared } from "./helpers/shared.js";
import { temporary, worldRunFile } from "./helpers/world.js";

const objects = (stdout: string) =>
  stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));

t.test("init writes a run.json that is valid, with its schema, and overwrites nothing", async (t) => {
  const cwd = temporary();
  const first = await rolegrad(["init", "search"], { cwd });
  t.match(first, { status: 0, stdout: /wrote run\.json[^]*rolegrad train run\.json/, stderr: "" });
  const file = path.join(cwd, "run.json");
  const run = JSON.parse(readFileSync(file, "utf8")) as { $schema: string };
  t.equal(path.resolve(cwd, run.$schema), path.join(root, "assets/run.schema.json"));
  t.match(resolveRunConfig(run, file), { variant: "dart", steps: 100, output: path.join(cwd, "runs/search") });
  t.match(await rolegrad(["init", "search"], { cwd }), { status: 1, stderr: /ERR_FILE_EXISTS.*run\.json/ });
  t.match(await rolegrad(["init", "search", "sub/other.json"], { cwd }), { status: 0 });
});

for (const [kind, expected] of [
  ["sql", { environment: { kind: "sqlite" }, agent: { prompt: /\{schema\}/, spans: [{ open: "<sql>" }] } }],
  ["mcp", { environment: { kind: "mcp", tools: undefined }, agent: { spans: [], prompt: /\{tools\}/ } }],
  ["chat", { agent: { format: "chat", chat: false, spans: [], tools: [{ name: "search" }] } }],
] as const)
  t.test(`init ${kind} writes one that is valid, and says what belongs in it`, async (t) => {
    const cwd = temporary();
    const { status, stdout } = await rolegrad(["init", kind], { cwd });
    t.equal(status, 0);
    t.match(stdout, /data\.questions +a line each[^]*rolegrad train run\.json --check/);
    const config = await readRunConfig(path.join(cwd, "run.json"));
    t.match(config, { ...expected, output: path.join(cwd, `runs/${kind}`) });
  });

t.test("train says what it does a line a step, where things are, and the same command goes on", async (t) => {
  const file = worldRunFile();
  const cwd = path.dirname(file);
  const first = await rolegrad(["train", "run.json", "--steps", "1"], { cwd });
  t.match(first, { status: 0, stderr: "" });
  t.match(first.stdout, /questions +12 to train on, 6 to evaluate on\npassages +570 indexed/);
  t.match(first.stdout, /\nstep 0: exact match 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] on 6 dev questions \(the model alone, /);
  t.match(
    first.stdout,
    /\nstep 1\/1 {2}reward 0\.\d{3} {2}loss -?\d\.\d{4} {2}gradients reason \S+ tool \S+ {2}updates reason \S+ tool \S+ {2}KL \S+ {2}calls /,
  );
  t.match(
    first.stdout,
    /\ndone: 1 steps in .*\n +run directory +out\n +checkpoint +out\/checkpoints\/step-000001\n +best +out\/checkpoints\/step-000001 \(exact match .*\)\n +adapters +out\/adapters\n +report +out\/report\.html/,
  );
  for (const name of ["report.html", "adapters/tool/adapter_config.json", "examples.jsonl"])
    t.ok(existsSync(path.join(cwd, "out", name)), name);
  t.match(JSON.parse(readFileSync(path.join(cwd, "out/config.json"), "utf8")), {
    command: ["rolegrad", "train", "run.json", "--steps", "1"],
    hashes: { model: /^[0-9a-f]{64}$/, questions: /^[0-9a-f]{64}$/, passages: /^[0-9a-f]{64}$/ },
    modelParameters: 584_960,
    agent: { maxLength: 256 },
  });

  const rest = await rolegrad(["train", "run.json", "--resume"], { cwd });
  t.match(rest, { status: 0, stdout: /going on after step 1\nstep 2\/2/ });
  t.match(await rolegrad(["train", "run.json"], { cwd }), { status: 0, stdout: /step 2 of 2 is done already/ });
  t.match(await rolegrad(["train", "run.json", "--seed", "2"], { cwd }), {
    status: 1,
    stderr: /ERR_RUN_EXISTS.*seed was 1/,
  });

  const evaluated = await rolegrad(["eval", "out", "--json"], { cwd });
  const recorded = objects(readFileSync(path.join(cwd, "out/evaluations.jsonl"), "utf8"));
  t.same(
    recorded.map(({ step }) => step),
    [0, 1, 2],
  );
  t.match(objects(evaluated.stdout)[0], { ...recorded[2], seconds: Number }, "eval repeats the run's own figures");
  const base = await rolegrad(["eval", "out", "--policy", "base", "--questions", "3", "--temperature", "0"], { cwd });
  t.match(base, { status: 0, stdout: /on 3 dev questions \(the model alone, temperature 0, / });
  const alone = await rolegrad(["eval", "run.json", "--json"], { cwd });
  t.match(objects(alone.stdout)[0], { ...recorded[0], seconds: Number }, "a run.json stands for the model as it is");

  t.match(await rolegrad(["inspect", "out"], { cwd }), {
    status: 0,
    stdout: /steps +2 of 2\n[^]*exact match[^]*checkpoints\/step-000002\nbest +checkpoints\/step-\d{6} \(exact match /,
  });
  const kinds = {
    out: "run",
    "out/adapters/tool": "adapter",
    "out/checkpoints/step-000002": "checkpoint",
    [path.join(root, "assets/world")]: "model",
  };
  for (const [folder, kind] of Object.entries(kinds))
    t.equal((await inspectDirectory(path.resolve(cwd, folder))).kind, kind, folder);
});

t.test("with --json train prints one object a line", async (t) => {
  const { status, stdout } = await rolegrad(["train", worldRunFile(), "--steps", "1", "--json"]);
  t.equal(status, 0);
  t.match(objects(stdout), [
    { event: "start", step: 0, steps: 1, questions: 12, passages: 570 },
    { event: "evaluation", step: 0, policy: "base" },
    { event: "step", step: 1, reward: Number },
    { event: "evaluation", step: 1, policy: "adapters" },
    { event: "checkpoint", step: 1 },
    { event: "finished", step: 1, report: /report\.html$/ },
  ]);
});

t.test("bad data are found before a model is loaded, and skipped rows are told", async (t) => {
  const data = { questions: "questions.jsonl", split: "train", evalSplit: "dev" } as const;
  const file = worldRunFile({ data, model: "no/model" });
  const cwd = path.dirname(file);
  t.match(await rolegrad(["train", file, "--check"]), {
    status: 0,
    stdout: "12 questions to train on, 6 to evaluate on, 570 passages\n",
  });
  appendFileSync(path.join(cwd, "questions.jsonl"), '{"id": "bad"}\n');
  appendFileSync(path.join(cwd, "passages.jsonl"), "[]\n[]\n");
  for (const args of [[], ["--check"]])
    t.match(await rolegrad(["train", file, ...args]), {
      status: 1,
      stderr: /ERR_DATA_FIELD.*answers at .*questions\.jsonl:25/,
    });
  const run = {
    ...(JSON.parse(readFileSync(file, "utf8")) as object),
    data: { ...data, onBadRow: "skip", shuffle: 3 },
  };
  writeFileSync(file, JSON.stringify(run));
  t.match(objects((await rolegrad(["train", file, "--check", "--json"])).stdout), [
    {
      questions: 12,
      skipped: [
        { file: /questions\.jsonl$/, rows: 25, skipped: 1 },
        { rows: 572, skipped: 2 },
      ],
    },
  ]);
  writeFileSync(file, JSON.stringify({ ...run, model: WORLD_CHECKPOINT }));
  const trained = await rolegrad(["train", "run.json", "--steps", "1"], { cwd });
  t.match(trained, { status: 0, stderr: "" });
  t.match(trained.stdout, /\nskipped +1 of 25 rows of .*questions\.jsonl skipped: .*:25 .*\nskipped +2 of 572 rows/);
  const evaluated = await rolegrad(["eval", "run.json", "--questions", "1", "--json"], { cwd });
  t.match(evaluated, { status: 0, stderr: /1 of 25 rows[^]*2 of 572 rows/ });
  t.equal(objects(evaluated.stdout).length, 1);
});

t.test("Ctrl-C ends with a checkpoint, and the same command goes on from it", async (t) => {
  const file = worldRunFile({ steps: 1000, evaluation: { questions: 1 } });
  const child = spawn(process.execPath, [path.join(root, "bin/rolegrad.js"), "train", file], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    lines.push(line);
    if (line.startsWith("step 3/")) child.kill("SIGINT");
  }
  const status = child.exitCode ?? ((await once(child, "close")) as [number])[0];
  t.equal(status, 130);
  const step = Number(/interrupted after step (\d+) of 1000/.exec(lines.join("\n"))?.[1]);
  t.ok(step >= 3, `after step ${step}`);
  const goOn = await rolegrad(["train", file, "--steps", String(step + 1), "--json"]);
  t.equal(goOn.status, 0);
  t.match(objects(goOn.stdout)[0], { event: "start", step });
  t.match(objects(goOn.stdout).at(-1), { event: "finished", step: step + 1, stepsTaken: 1 });
});

t.test("what is wrong is said with a code: 1 for the work, 2 for the command line", async (t) => {
  const file = worldRunFile();
  const cases = [
    [["train", file, "--steps", "many"], 2, /'--steps <n>' argument 'many' is invalid\. Expected a whole number/],
    [["train", file, "--resume"], 1, /ERR_RUN_NOT_FOUND/],
    [["train", worldRunFile({ model: "no/model" })], 1, /ERR_MODEL_NOT_FOUND.*hf download no\/model/],
    [
      ["train", worldRunFile({ data: { questions: "questions.jsonl", split: "test" } })],
      1,
      /ERR_DATA_EMPTY.*found: "train", "dev"/,
    ],
    [["eval", file, "--policy", "trained"], 1, /ERR_RUN_DIRECTORY.*train it first/],
    [["eval", file, "--policy", "best"], 2, /ERR_USAGE/],
    [["eval", "nowhere"], 1, /ERR_RUN_NOT_FOUND/],
    [["eval", worldRunFile({ data: { questions: "questions.jsonl" } })], 1, /ERR_CONFIG.*data\.evalSplit/],
    [["init", "robot"], 2, /ERR_USAGE/],
    [["inspect", path.dirname(file)], 1, /ERR_INSPECT/],
  ] as const;
  const results = await Promise.all(cases.map(([args]) => rolegrad(args)));
  for (const [i, [args, status, said]] of cases.entries())
    t.match(results[i], { status, stderr: said }, args.join(" "));
});

t.test(
  "with random weights the run says why nothing is earned, and shows an answer",
  needsShared("data/hotpotqa", "fixtures/qwen2-tiny"),
  async (t) => {
    const data = shared("data/hotpotqa") as string;
    const file = worldRunFile({
      model: shared("fixtures/qwen2-tiny") as string,
      data: { questions: path.join(data, "questions.jsonl"), split: "train" },
      environment: { kind: "search", passages: path.join(data, "passages.jsonl") },
      agent: { prompt: "{question}\n", sampling: { maxNewTokens: 32 } },
    });
    const { status, stdout } = await rolegrad(["train", file]);
    t.equal(status, 0);
    t.match(stdout, /passages +3,897 indexed/);
    t.match(stdout, /The reward is about zero \(0\.000 over the last 2 steps\)/);
    t.match(stdout, /16 of 16 \(100 %\) made no parsable tool call: no <search>…<\/search>/);
    t.match(stdout, /16 of 16 \(100 %\) gave no answer: no <answer>…<\/answer>/);
    t.match(stdout, /One of these answers:\n\n +prompt │ [^]*\n +reason │ /);
  },
);
