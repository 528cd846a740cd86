// Small training runs on the embedded world.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import {
  exactMatchReward,
  RoleRouter,
  World,
  WORLD_CHECKPOINT,
  WORLD_TAGS,
  type Model,
  type RolloutParts,
  type RunConfigInput,
  type RunSetup,
} from "rolegrad";

export const world = new World({ seed: 1 });

const folders: string[] = [];
process.on("exit", () => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })));

/** A new folder, which is removed when the tests of the file have ended. */
export function temporary(): string {
  const folder = mkdtempSync(path.join(tmpdir(), "rolegrad-run-"));
  folders.push(folder);
  return folder;
}

/** How answers are written about the world. */
export function worldRollout(): RolloutParts {
  return {
    router: new RoleRouter({
      roles: ["reason", "tool"],
      base: "reason",
      spans: [{ role: "tool", ...WORLD_TAGS.tool }],
    }),
    environment: world.environment(),
    reward: exactMatchReward(WORLD_TAGS.answer),
    prompt: (question) => world.prompt(question),
    output: WORLD_TAGS.output,
    answer: WORLD_TAGS.answer,
    maxLength: 256,
  };
}

/** A run of two steps of 4 questions x 4 answers. */
export function worldSetup(model: Model, directory: string, change: Partial<RunSetup> = {}): RunSetup {
  return {
    model,
    rollout: worldRollout(),
    adapters: { rank: 4, alpha: 8 },
    trainer: { optimizer: { learningRate: 3e-3, warmupSteps: 2 } },
    questions: world.questions("train", 10, 0),
    steps: 2,
    questionsPerStep: 4,
    group: 4,
    seed: 1,
    directory,
    description: { name: "test", seed: 1 },
    ...change,
  };
}

/** A run.json with its data, in a folder of their own; returns the file. */
export function worldRunFile(change: Partial<RunConfigInput> = {}): string {
  const folder = temporary();
  const write = (name: string, rows: readonly object[]): void =>
    writeFileSync(path.join(folder, name), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  write("questions.jsonl", [...world.questions("train", 12, 0), ...world.questions("dev", 12, 0)]);
  write("passages.jsonl", world.pages);
  const run: RunConfigInput = {
    model: WORLD_CHECKPOINT,
    data: { questions: "questions.jsonl", split: "train", evalSplit: "dev" },
    environment: {
      kind: "search",
      passages: "passages.jsonl",
      topK: 1,
      titleWeight: 2,
      passage: "{title}. {text}",
      separator: " ",
    },
    agent: { prompt: " Question: {question}\n", output: WORLD_TAGS.output, maxLength: 256 },
    optimizer: { learningRate: 3e-3 },
    steps: 2,
    questionsPerStep: 4,
    group: 4,
    evaluation: { questions: 6 },
    output: "out",
    ...change,
  };
  const file = path.join(folder, "run.json");
  writeFileSync(file, JSON.stringify(run));
  return file;
}
