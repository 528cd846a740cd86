// Writes the run.json files of this folder, MODEL/METHOD.json: node make-runs.mjs. One place for the settings that all of them share.
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";

const models = {
  "3b-instruct": "Qwen/Qwen2.5-3B-Instruct",
  "3b-base": "Qwen/Qwen2.5-3B",
  "7b-instruct": "Qwen/Qwen2.5-7B-Instruct",
  "7b-base": "Qwen/Qwen2.5-7B",
};

/** Learning rates: ten times as much for adapters. */
const rate = { full: 1e-6, adapters: 1e-5 };
const full = { parameters: "full" };
const lora = (rank) => ({ rank, alpha: 2 * rank });

/** What each method changes. */
const methods = {
  // Every parameter: 3B alone, for memory's sake.
  unified: { variant: "shared", ...full },
  reas: { variant: "shared-reason", ...full },
  tool: { variant: "shared-tool", ...full },
  agents: { variant: "agents", ...full },
  // Adapters.
  "lora-16": { variant: "shared", ...lora(16) },
  "lora-16-reas": { variant: "shared-reason", ...lora(16) },
  "lora-16-tool": { variant: "shared-tool", ...lora(16) },
  "dart-stop": { variant: "dart", ...lora(8), crossRole: "stop" },
  "dart-flow": { variant: "dart", ...lora(8), crossRole: "flow" },
  // As the adapters that are kept of dart-stop: what the other role wrote passes no gradient on.
  "dart-reason": { variant: "dart-reason", ...lora(8), crossRole: "stop" },
  "dart-tool": { variant: "dart-tool", ...lora(8), crossRole: "stop" },
  "dart-rank-16": { variant: "dart", ...lora(16), crossRole: "stop" },
  "dart-rank-32": { variant: "dart", ...lora(32), crossRole: "stop" },
  mixture: { variant: "mixture", ...lora(8) },
  random: { variant: "random", ...lora(8), crossRole: "stop" },
};
const of7b = Object.keys(methods).filter((method) => methods[method].parameters !== "full");

function runOf(model, method) {
  const { variant, parameters, rank, alpha, crossRole } = methods[method];
  const trainsAll = parameters === "full";
  return {
    $schema: "../../../assets/run.schema.json",
    model: models[model],
    data: { questions: "../data/train.jsonl", evalQuestions: "../data/eval.jsonl" },
    environment: { kind: "retriever", url: "http://127.0.0.1:8000", topK: 3, batch: {} },
    agent: {
      chat: model.endsWith("instruct"),
      actionBudget: 4,
      maxLength: 4096,
      observationTokens: 600,
      sampling: { temperature: 1, maxNewTokens: 1024 },
    },
    reward: "exact-match",
    variant,
    ...(trainsAll ? { parameters } : { rank, alpha }),
    ...(crossRole && { crossRole }),
    optimizer: { learningRate: trainsAll ? rate.full : rate.adapters, warmupSteps: 10 },
    objective: { clipLow: 0.2, clipHigh: 0.2, klCoefficient: 0.001, klEstimator: "k3" },
    steps: 100,
    questionsPerStep: 32,
    group: 8,
    minibatches: 4,
    gradientCheckpointing: true,
    evaluation: { every: 25, questions: 256, samples: 1, temperature: 1 },
    checkpoint: { every: 5 },
    trajectories: { every: 10 },
    output: `../runs/${model}/${method}`,
  };
}

const out = process.argv[2] ?? import.meta.dirname;
for (const model of Object.keys(models)) {
  await mkdir(path.join(out, model), { recursive: true });
  for (const method of model.startsWith("7b") ? of7b : Object.keys(methods))
    await writeFile(path.join(out, model, `${method}.json`), `${JSON.stringify(runOf(model, method), null, 2)}\n`);
}
