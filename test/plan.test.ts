// `rolegrad train --plan`: what it counts, what it needs, what it says.
import { rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import {
  loadTokenizer,
  planRun,
  readRunConfig,
  resolveRunConfig,
  WORLD_CHECKPOINT,
  type RunConfigInput,
  type RunPlan,
} from "rolegrad";
import { dataBytes } from "../lib/plan/data.js";
import { adapterParameters, packedBytes, parameterCount } from "../lib/plan/model.js";
import { parseModelConfig } from "../lib/model/config.js";
import { rolegrad } from "./helpers/command.js";
import { published } from "./helpers/published-configs.js";
import { temporary, world, worldRunFile } from "./helpers/world.js";

const machine = { gflops: 20_000, readGBps: 400, memoryGiB: 1024, threads: 8 };

/** A config.json alone, in a folder. */
function configOf(name: keyof typeof published): string {
  const file = path.join(temporary(), "config.json");
  writeFileSync(file, JSON.stringify(published[name]));
  return file;
}

async function plan(
  change: Partial<RunConfigInput> = {},
  name: keyof typeof published = "Qwen2.5-3B",
): Promise<RunPlan> {
  const run = {
    model: "Qwen/Qwen2.5-3B",
    data: { questions: "questions.jsonl" },
    environment: { kind: "retriever", url: "http://127.0.0.1:8000" },
    agent: { observationTokens: 500, maxLength: 4096 },
    ...change,
  };
  return planRun(resolveRunConfig(run, "run.json"), { modelConfig: configOf(name), machine });
}

const bytesOf = ({ memory }: RunPlan, name: string): number =>
  memory.lines.find((line) => line.name === name)?.bytes ?? 0;
const secondsOf = ({ step }: RunPlan, name: string): number =>
  step.lines.find((line) => line.name === name)?.seconds ?? 0;

t.test("parameters are those that the publishers name", async (t) => {
  for (const [name, parameters] of [
    ["Qwen2.5-0.5B", 494_032_768],
    ["Qwen2.5-3B", 3_085_938_688],
    ["Qwen2.5-7B-Instruct", 7_615_616_512],
    ["Llama-3.1-8B-Instruct", 8_030_261_248],
    ["Qwen3-0.6B", 596_049_920],
  ] as const)
    t.equal(parameterCount(parseModelConfig(published[name], name)), parameters, name);
});

t.test("an adapter has r (d_in + d_out) numbers on each of the seven linears", async (t) => {
  const config = parseModelConfig(published["Qwen2.5-3B"], "config.json");
  const [h, kv, inner] = [2048, 256, 11008];
  const each = 2 * (h + h) + 2 * (h + kv) + 3 * (h + inner);
  t.equal(adapterParameters(config, { rank: 8, experts: 0 }), 36 * 8 * each);
});

t.test("weights of bf16 take two bytes a parameter and some padding", async (t) => {
  const config = parseModelConfig(published["Qwen2.5-7B-Instruct"], "config.json");
  const ratio = packedBytes(config, { width: 2, panel: 32 }) / (2 * parameterCount(config));
  t.ok(ratio >= 1 && ratio < 1.001, String(ratio));
});

t.test("config.json alone is enough, and what dominates is named", async (t) => {
  const own = await plan();
  t.match(own.model, { parameters: 3_085_938_688, stored: "bfloat16", held: "bfloat16" });
  t.equal(
    own.memory.bytes,
    own.memory.lines.reduce((sum, { bytes }) => sum + bytes, 0),
  );
  const largest = Math.max(...own.memory.lines.map(({ bytes }) => bytes));
  t.equal(bytesOf(own, own.memory.most), largest);
  t.same(own.warnings, []);
});

t.test("each choice of a run moves the line that it is about", async (t) => {
  const own = await plan();
  const checkpointing = await plan({ gradientCheckpointing: true });
  t.ok(bytesOf(checkpointing, "activations") < bytesOf(own, "activations") / 3, "checkpointing keeps inputs alone");
  t.ok(secondsOf(checkpointing, "backward") > 1.3 * secondsOf(own, "backward"), "and makes the rest again");
  const half = await plan({ microBatchTokens: 4096 });
  t.ok(bytesOf(half, "activations") < 0.55 * bytesOf(own, "activations"));
  const full = await plan({ parameters: "full", variant: "shared" });
  t.ok(bytesOf(full, "optimizer") > 20 * own.model.parameters, "masters, moments and f64 sums of every parameter");
  t.ok(Math.abs(bytesOf(full, "weights") / bytesOf(own, "weights") - 2) < 0.01, "which is f32");
  t.ok(bytesOf(full, "reference") > 0);
  t.equal(
    bytesOf(
      await plan({ parameters: "full", variant: "shared", logKl: false, objective: { klCoefficient: 0 } }),
      "reference",
    ),
    0,
  );
  const agents = await plan({ parameters: "full", variant: "agents" });
  t.equal(bytesOf(agents, "optimizer"), 2 * bytesOf(full, "optimizer"), "2-Agent: twice");
  t.equal(bytesOf(await plan({ variant: "agents" }), "weights"), bytesOf(own, "weights"), "adapters share the weights");
  t.equal(bytesOf(await plan({ logKl: false, objective: { klCoefficient: 0 } }), "scoring"), 0);
  const small = await plan({ agent: { observationTokens: 500, maxLength: 4096, cacheTokens: 8192 } });
  t.ok(bytesOf(small, "cache") < bytesOf(own, "cache") / 4);
  const sixteen = await plan({ rank: 16 });
  t.ok(Math.abs(sixteen.trains.parameters / own.trains.parameters - 2) < 1e-9);
  const exact = await plan({ crossRole: "exact" });
  t.ok(Math.abs(secondsOf(exact, "backward") / secondsOf(own, "backward") - 2) < 1e-6, "a backward pass an adapter");
});

t.test("work follows the updates of a step: epochs repeat it, minibatches the optimizer alone", async (t) => {
  const one = await plan();
  const work = ({ step }: RunPlan, name: string) => step.lines.find((line) => line.name === name)!;
  const twice = await plan({ epochs: 2 });
  const four = await plan({ minibatches: 4 });
  const both = await plan({ epochs: 2, minibatches: 4 });
  for (const name of ["forward", "backward"]) {
    t.equal(work(twice, name).flops, 2 * work(one, name).flops);
    t.equal(work(four, name).flops, work(one, name).flops);
    t.ok(work(four, name).bytes >= work(one, name).bytes, "weights are read for each of them");
  }
  for (const [updates, own] of [
    [2, twice],
    [4, four],
    [8, both],
  ] as const)
    t.equal(work(own, "optimizer").bytes, updates * work(one, "optimizer").bytes);
  t.equal(work(both, "decode").flops, work(one, "decode").flops, "answers are sampled once");
  // Parts of whole groups: no more of them than questions.
  const few = await plan({ questionsPerStep: 2, minibatches: 4 });
  t.equal(work(few, "optimizer").bytes, 2 * work(one, "optimizer").bytes);
});

t.test("where memory does not suffice it says so, and what would help", async (t) => {
  const file = configOf("Qwen2.5-7B-Instruct");
  const run = worldRunFile({ model: "Qwen/Qwen2.5-7B", agent: { maxLength: 4096 } });
  const options = ["--plan", "--model-config", file, "--device", "gflops=100,readGBps=10,memoryGiB=8"];
  const { status, stdout } = await rolegrad(["train", run, ...options]);
  t.equal(status, 0);
  t.match(stdout, /Qwen2.5-7B: 7,615,616,512 parameters, bfloat16/);
  t.match(stdout, /Memory at its highest: \d+\.\d GiB of 8\.0 GiB/);
  t.match(stdout, /warning: this machine's memory does not suffice/);
  t.match(stdout, /warning: gradientCheckpointing/);
});

t.test(
  "prompts are counted by the tokenizer, with the questions that are there; passages in memory count",
  async (t) => {
    const file = worldRunFile();
    const own = await planRun(await readRunConfig(file), { machine });
    const tokenizer = await loadTokenizer(WORLD_CHECKPOINT);
    const lengths = world.questions("train", 12, 0).map(({ question }) => tokenizer.encode(question).length);
    const mean = Math.ceil(lengths.reduce((a, b) => a + b) / lengths.length);
    t.equal(own.answer.prompt, tokenizer.encode(" Question: \n").length + mean);
    const questions = path.join(path.dirname(file), "questions.jsonl");
    const passages = path.join(path.dirname(file), "passages.jsonl");
    const before = dataBytes(await readRunConfig(file));
    t.equal(before, 5 * (statSync(questions).size + statSync(passages).size));
    rmSync(questions);
    rmSync(passages);
    const none = await readRunConfig(file);
    t.equal(dataBytes(none), 0, "nor need they be there");
    t.equal((await planRun(none, { machine })).answer.prompt, tokenizer.encode(" Question: \n").length + 40);
  },
);

t.test("a checkpoint that is here is planned on this machine, which is measured", async (t) => {
  const { status, stdout } = await rolegrad(["train", worldRunFile(), "--plan", "--json"]);
  t.equal(status, 0);
  const own = JSON.parse(stdout);
  t.match(own, { event: "plan", model: { parameters: 584_960, stored: "bfloat16" }, machine: { source: "measured" } });
  t.ok(own.machine.gflops > 1 && own.machine.readGBps > 0.5 && own.memory.fits);
});

t.test("what it cannot plan it refuses by name", async (t) => {
  const run = worldRunFile();
  const refused = async (pattern: RegExp, status: number, ...args: string[]) =>
    t.match(await rolegrad(["train", run, ...args]), { status, stderr: pattern });
  await refused(/ERR_USAGE.*Expected --plan with --model-config/, 2, "--model-config", "x.json");
  await refused(/gflops=NUMBER/, 2, "--plan", "--device", "gflops=fast");
  await refused(/gflops=NUMBER/, 2, "--plan", "--device", "tflops=2");
  await refused(/ERR_MODEL_NOT_FOUND/, 1, "--plan", "--model-config", path.join(temporary(), "config.json"));
  await refused(
    /ERR_INVALID_ARGUMENT.*more answerTokens .* than the prompt's \d+ but received 2/,
    1,
    "--plan",
    "--answer-tokens",
    "2",
  );
  const tokens = { promptTokens: 60, machine };
  await t.rejects(planRun(await readRunConfig(run), { ...tokens, answerTokens: 60 }), { code: "ERR_INVALID_ARGUMENT" });
  t.match((await planRun(await readRunConfig(run), { ...tokens, answerTokens: 61 })).answer, {
    prompt: 60,
    written: 1,
  });
  const short = worldRunFile({ agent: { maxLength: 100_000 } });
  const config = await readRunConfig(short);
  await t.rejects(planRun(config, { machine }), { code: "ERR_CONFIG" });
  for (const wrong of [
    null,
    7,
    { answerTokens: 0 },
    { promptTokens: 1.5 },
    { modelConfig: "" },
    { modelConfig: 3 },
    { machine: 5 },
    { machine: { gflops: -1 } },
    { machine: { memoryGiB: "4" } },
    { signal: {} },
  ])
    await t.rejects(planRun(await readRunConfig(run), wrong as never), { code: "ERR_INVALID_ARGUMENT" });
});
