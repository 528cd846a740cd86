import { existsSync } from "node:fs";
import { readdir, readFile, rename, writeFile } from "node:fs/promises";
import path from "node:path";
import { loadTokenizer } from "../model/tokenizer.js";
import { parseTrajectory, type Trajectory } from "../rollout/trajectory.js";
import { exampleOf, pickExample, type Example } from "./examples.js";
import { page } from "./page.js";
import { readRun, type RunFiles } from "./run.js";
import { readAdapters } from "./setup.js";

export { annotate, type AnnotateOptions } from "./annotate.js";
export { exampleOf, pickExample, writeExamples, type Example } from "./examples.js";

/**
 * Makes report.html of a run directory (config.json, metrics.jsonl, evaluations.jsonl, examples.jsonl, adapters/; all but the first may be
 * missing) and returns its path. One file that needs no script and no network. Errors: ERR_RUN_NOT_FOUND, ERR_RUN_FILE.
 *
 * @example
 * await writeReport("runs/quickstart"); // runs/quickstart/report.html
 */
export async function writeReport(directory: string): Promise<string> {
  const run = await readRun(directory);
  const examples = run.examples.length > 0 ? run.examples : await examplesOfEvaluations(run);
  const file = path.join(run.directory, "report.html");
  await writeFile(`${file}.partial`, page(run, await readAdapters(run.directory), examples));
  await rename(`${file}.partial`, file);
  return file;
}

/** Without examples.jsonl: answers of the first and the last evaluation, where the tokenizer of the run's model is still there to read them. */
async function examplesOfEvaluations({ directory, config, remarks }: RunFiles): Promise<Example[]> {
  const folder = path.join(directory, "trajectories");
  const names = existsSync(folder) ? (await readdir(folder)).filter((name) => /^eval-\d+\.jsonl$/.test(name)).sort() : [];
  const model = config["model"];
  if (names.length === 0 || typeof model !== "string") return [];
  const tokenizer = await loadTokenizer(model).catch(() => undefined);
  if (tokenizer === undefined) {
    remarks.push(`No answers are shown: the tokenizer of ${model} is not there to read them.`);
    return [];
  }
  const read = async (name: string): Promise<Trajectory[]> => {
    const lines = (await readFile(path.join(folder, name), "utf8")).split("\n");
    return lines.filter((line) => line !== "").map(parseTrajectory);
  };
  const first = await read(names[0] as string);
  const last = names.length > 1 ? await read(names.at(-1) as string) : [];
  const agent = config["agent"] as { roles?: unknown } | undefined;
  const roles = Array.isArray(agent?.roles) ? agent.roles.map(String) : [];
  const pair = pickExample(first, last);
  const shown = pair === undefined ? first.slice(0, 1) : [pair.before, pair.after];
  const question = (id: string) => ({ id, question: `Question ${id}`, answers: [] });
  return shown.map((trajectory) => exampleOf(trajectory, question(trajectory.question), tokenizer, roles));
}
