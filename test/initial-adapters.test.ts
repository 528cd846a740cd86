// Runs that begin with saved adapters, and supervised runs of demonstrations alone.
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { loadRun, resolveRunConfig, trainRun, WORLD_CHECKPOINT, type RunConfigInput, type RunResult } from "rolegrad";
import { temporary } from "./helpers/world.js";

const folder = temporary();
const file = path.join(folder, "run.json");
const lines = (name: string, rows: object[]): string => {
  writeFileSync(path.join(folder, name), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  return name;
};
const shown = [
  { prompt: " Question: Who?\n", completion: "<think> I need Kamsel.</think><search> Kamsel town</search>" },
  { prompt: " Question: Where?\n", completion: "<search> Belstad</search><answer> Kamsel</answer>" },
];
const demonstrations = lines("demonstrations.jsonl", shown);
const questions = lines("questions.jsonl", [
  { id: "1", question: "Who?", answers: ["Kamsel"] },
  { id: "2", question: "Where?", answers: ["Belstad"] },
]);
const passages = lines("passages.jsonl", [{ id: "1", title: "Kamsel (town)", text: "Mayor is Belstad." }]);

const supervised = {
  model: WORLD_CHECKPOINT,
  data: { demonstrations },
  objective: { kind: "sft" },
  optimizer: { learningRate: 1e-3 },
  steps: 2,
  questionsPerStep: 1,
} satisfies RunConfigInput;
const reinforced = {
  model: WORLD_CHECKPOINT,
  data: { questions, evalQuestions: questions },
  environment: { kind: "search", passages },
  agent: { maxLength: 100, prompt: " Question: {question}\n", sampling: { maxNewTokens: 20 } },
  steps: 1,
  questionsPerStep: 2,
  group: 2,
} satisfies RunConfigInput;

async function train(json: RunConfigInput, output: string): Promise<RunResult> {
  const setup = await loadRun(resolveRunConfig({ ...json, output: path.join(folder, output) }, file));
  try {
    return await trainRun(setup);
  } finally {
    setup.close();
  }
}

const saved = (output: string, name: string): Buffer =>
  readFileSync(path.join(folder, output, "adapters", name, "adapter_model.safetensors"));

t.test("supervised training needs neither questions nor an environment", async (t) => {
  const { metrics } = await train(supervised, "sft");
  t.ok(metrics[1]!.loss < metrics[0]!.loss);
});

t.test(
  "without a step a run ends with the very adapters that it began with, of a run, a checkpoint or a folder",
  async (t) => {
    cpSync(path.join(folder, "sft/adapters"), path.join(folder, "peft"), { recursive: true });
    for (const [i, from] of ["sft", "sft/checkpoints/step-000002", "peft"].entries()) {
      const json = { ...reinforced, initialAdapters: from, optimizer: { learningRate: 0 } };
      const { evaluations } = await train(json, `same-${i}`);
      t.equal(evaluations[0]!.policy, "adapters", "they are what is evaluated first");
      for (const name of ["reason", "tool"])
        t.ok(saved(`same-${i}`, name).equals(saved("sft", name)), `${from}: ${name}`);
    }
  },
);

t.test("only the adapters that a variant has are wanted", async (t) => {
  await train({ ...reinforced, variant: "dart-tool", initialAdapters: "sft", optimizer: { learningRate: 0 } }, "tool");
  t.ok(saved("tool", "tool").equals(saved("sft", "tool")));
  t.notOk(existsSync(path.join(folder, "tool/adapters/reason")));
});

t.test("a mixture and trained tokens begin as they were saved", async (t) => {
  for (const [name, change] of Object.entries({ mixture: { variant: "mixture" }, tokens: { addTokens: ["<new>"] } })) {
    await train({ ...supervised, ...change }, `${name}-sft`);
    await train({ ...reinforced, ...change, initialAdapters: `${name}-sft`, optimizer: { learningRate: 0 } }, name);
    const adapter = name === "mixture" ? "mixture/mixture.safetensors" : "tool/adapter_model.safetensors";
    const bytes = (run: string) => readFileSync(path.join(folder, run, "adapters", adapter));
    t.ok(bytes(name).equals(bytes(`${name}-sft`)), name);
  }
});

t.test("adapters that do not fit are refused, saying what does not", async (t) => {
  const refused = (change: object, message: RegExp) =>
    t.rejects(train({ ...reinforced, initialAdapters: "sft", ...change }, "refused"), {
      code: "ERR_ADAPTER_INVALID",
      message,
    });
  await refused({ rank: 4, alpha: 16 }, /sft.checkpoints.*reason to have rank 4, that of the run, but it has 8/);
  await refused({ rank: 8, alpha: 8 }, /to have alpha 8, that of the run, but it has 16/);
  await refused({ variant: "shared" }, /the adapter shared in .*sft.* but there is none/);
  await refused({ addTokens: ["<new>"] }, /trained rows of the tokens 1101 .* but received those of none/);
  await refused({ initialAdapters: "nowhere" }, /the adapter reason in .*nowhere but there is none/);
});

t.test("a run goes on only with the adapters that it began with", async (t) => {
  mkdirSync(path.join(folder, "other"));
  cpSync(path.join(folder, "same-0/adapters"), path.join(folder, "other"), { recursive: true });
  const json = { ...reinforced, initialAdapters: "other" };
  await train(json, "begun");
  await train(reinforced, "fresh");
  cpSync(path.join(folder, "fresh/adapters/tool"), path.join(folder, "other/tool"), { recursive: true });
  await t.rejects(train({ ...json, steps: 2 }, "begun"), {
    code: "ERR_RUN_EXISTS",
    message: /hashes\.initial adapter tool, adapter_model\.safetensors/,
  });
});

t.test("what else a run needs is still missed by name", async (t) => {
  const wrong = (json: object, message: RegExp) =>
    t.throws(() => resolveRunConfig(json, file), { code: "ERR_CONFIG", message });
  const { environment: _environment, ...noTool } = reinforced;
  wrong(noTool, /environment: Expected the tool .* but it is missing; its kind is one of "search"/);
  wrong({ ...reinforced, data: {} }, /data\.questions: Expected a file of questions/);
  wrong({ ...supervised, data: { demonstrations, evalSplit: "dev" } }, /data\.questions: Expected a file/);
  const full = { ...reinforced, variant: "shared", parameters: "full", initialAdapters: "sft" };
  wrong(full, /initialAdapters: Expected none with parameters "full"/);
  wrong({ ...supervised, data: { demonstrations, evalQuestions: questions } }, /environment: Expected the tool/);
});
