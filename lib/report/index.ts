import { rename, writeFile } from "node:fs/promises";
import path from "node:path";
import { page } from "./page.js";
import { readRun } from "./run.js";
import { answerReader } from "./reader.js";
import { readAdapters } from "./setup.js";
import { readTraces } from "./status.js";
import { frozenViewer } from "./viewer.js";

export { annotate, type AnnotateOptions } from "./annotate.js";
export { exampleOf, pickExample, writeExamples, type Example } from "./examples.js";
export type { TextSegment } from "./text.js";

/**
 * Makes report.html of a run directory's files (config.json, metrics.jsonl, evaluations.jsonl, examples.jsonl, events.jsonl, trajectories/,
 * adapters/; all but the first may be missing) and returns its path. One file that needs no network, and no script to be read: charts, a sample of
 * the answers with their roles and calls, evaluations, setup. It is the page that `rolegrad watch` serves, frozen. Errors: ERR_RUN_NOT_FOUND, ERR_RUN_FILE.
 *
 * @example
 * await writeReport("runs/quickstart"); // runs/quickstart/report.html
 */
export async function writeReport(directory: string): Promise<string> {
  const run = await readRun(directory);
  const file = path.join(run.directory, "report.html");
  const [adapters, traces, reader] = await Promise.all([
    readAdapters(run.directory),
    readTraces(run.directory),
    answerReader(run),
  ]);
  const viewer = await frozenViewer(run.directory, reader);
  await writeFile(`${file}.partial`, page({ run, adapters, traces, now: Date.now(), viewer }));
  await rename(`${file}.partial`, file);
  return file;
}
