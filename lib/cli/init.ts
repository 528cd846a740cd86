import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Command } from "commander";
import { packageRoot } from "../binding.js";
import { fail } from "../errors.js";
import type { RunConfigInput } from "../run/schema.js";
import { printJson } from "./output.js";
import { style } from "./style.js";

/** What `init search` writes: the fields that most runs change. The schema tells of them, and of the others. */
const SEARCH: RunConfigInput = {
  model: "Qwen/Qwen2.5-0.5B-Instruct",
  data: { questions: "questions.jsonl", split: "train", evalSplit: "dev" },
  environment: { kind: "search", passages: "passages.jsonl", topK: 3 },
  agent: { chat: true, actionBudget: 4, maxLength: 4096, sampling: { temperature: 1, maxNewTokens: 512 } },
  variant: "dart",
  rank: 8,
  alpha: 16,
  optimizer: { learningRate: 1e-5, warmupSteps: 10 },
  objective: { clipLow: 0.2, klCoefficient: 0.001 },
  crossRole: "flow",
  steps: 100,
  questionsPerStep: 32,
  group: 8,
  seed: 1,
  evaluation: { every: 10, questions: 100 },
  checkpoint: { every: 10 },
  output: "runs/search",
};

/** `rolegrad init search [FILE]`: a run.json to start from. */
export function register(program: Command): void {
  program
    .command("init")
    .argument("<kind>", "search: answer questions with a search tool")
    .argument("[file]", "where to write it", "run.json")
    .description("write a run.json to start from")
    .option("--json", "print JSON for machines")
    .action(async (kind: string, file: string, options: { json?: boolean }) => {
      if (kind !== "search") fail("ERR_USAGE", `Expected search for the kind of run but received ${kind}`);
      const text = `${JSON.stringify({ $schema: schemaPath(file), ...SEARCH }, null, 2)}\n`;
      await mkdir(path.dirname(file), { recursive: true });
      try {
        await writeFile(file, text, { flag: "wx" });
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code !== "EEXIST") throw cause;
        fail("ERR_FILE_EXISTS", `Expected no file at ${file} but there is one: give another name, or delete it`, cause);
      }
      if (options.json) printJson({ file: path.resolve(file) });
      else console.log(`wrote ${style.bold(file)}\n\n${NEXT.replaceAll("FILE", file)}`);
    });
}

const NEXT = `Say in it (an editor that reads $schema explains each field):
  model                 a checkpoint directory, or a hub id that has been downloaded (Qwen2, Qwen2.5, Qwen3, Llama)
  data.questions        a line each: {"id": "1", "question": "...", "answers": ["..."], "split": "train"}
  environment.passages  a line each: {"id": "1", "title": "...", "text": "..."}
then
  rolegrad eval FILE    how well the model does as it is
  rolegrad train FILE   train it`;

/** The schema that this package ships, as seen from the file. */
function schemaPath(file: string): string {
  const schema = path.join(packageRoot, "assets", "run.schema.json");
  const relative = path
    .relative(path.dirname(path.resolve(file)), schema)
    .split(path.sep)
    .join("/");
  return relative.startsWith(".") ? relative : `./${relative}`;
}
