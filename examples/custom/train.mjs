// Trains an agent with the tool of environment.mjs and the reward of reward.mjs:
//   node train.mjs [--model DIR] [--data DIR] [--steps N] [--out DIR]
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { loadModel, readQuestions, RoleRouter, trainRun } from "rolegrad";
import { referenceBook } from "./environment.mjs";
import thrifty from "./reward.mjs";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const { values } = parseArgs({
  options: {
    model: { type: "string", default: here("../../assets/world") },
    data: { type: "string", default: here("../hotpotqa-search/data") }, // questions.jsonl, passages.jsonl
    steps: { type: "string", default: "6" },
    out: { type: "string", default: here("runs/library") },
  },
});
const settings = {
  rollout: {
    maxLength: 200,
    actionBudget: 4,
    finalAnswer: false,
    output: { open: "<information> ", close: "</information>" },
  },
  adapters: { rank: 8, alpha: 16 },
  trainer: { optimizer: { learningRate: 3e-3, betas: [0.9, 0.99] } },
  questionsPerStep: 16,
  group: 8,
  seed: 1,
};
const interrupted = new AbortController();
process.once("SIGINT", () => interrupted.abort(new Error("interrupted")));

const questions = await readQuestions(path.join(values.data, "questions.jsonl"), { split: "train" });
const dev = await readQuestions(path.join(values.data, "questions.jsonl"), { split: "dev" });
const model = await loadModel(values.model);
try {
  const { status, directory } = await trainRun(
    {
      ...settings,
      model,
      rollout: {
        ...settings.rollout,
        router: new RoleRouter({
          roles: ["reason", "tool"],
          base: "reason",
          spans: [{ role: "tool", open: "<search>", close: "</search>" }],
        }),
        environment: await referenceBook(path.join(values.data, "passages.jsonl")),
        reward: thrifty,
        prompt: ({ question }) => ` Question: ${question}\n`,
      },
      questions,
      steps: Number(values.steps),
      evaluation: { questions: dev, samples: 4, split: "dev" },
      checkpoint: { every: 5 },
      directory: values.out,
      description: { ...settings, model: values.model, data: values.data }, // what makes this run what it is: config.json
    },
    {
      signal: interrupted.signal,
      onStep: ({ step, reward, rewardParts, seconds }) =>
        console.log(
          `step ${step}: reward ${reward.toFixed(3)}, right ${rewardParts.right.toFixed(3)}, calls ${rewardParts.calls.toFixed(2)}, ${seconds.toFixed(1)} s`,
        ),
      onEvaluation: ({ step, exactMatch, low, high }) =>
        console.log(
          `after ${step} steps: exact match ${exactMatch.toFixed(3)} [${low.toFixed(3)}, ${high.toFixed(3)}]`,
        ),
    },
  );
  console.log(`${status}: ${directory}`);
} finally {
  model.close();
}
