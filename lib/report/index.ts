import { rename, writeFile } from "node:fs/promises";
import path from "node:path";
import { page } from "./page.js";
import { readRun } from "./run.js";
import { readAdapters } from "./setup.js";

export { annotate, type AnnotateOptions } from "./annotate.js";
export { exampleOf, pickExample, writeExamples, type Example } from "./examples.js";
export type { TextSegment } from "./text.js";

/**
 * Makes report.html of a run directory's files (config.json, metrics.jsonl, evaluations.jsonl, examples.jsonl, adapters/; all but the first may
 * be missing) and returns its path. One file that needs no script and no network. Errors: ERR_RUN_NOT_FOUND, ERR_RUN_FILE.
 *
 * @example
 * await writeReport("runs/quickstart"); // runs/quickstart/report.html
 */
export async function writeReport(directory: string): Promise<string> {
  const run = await readRun(directory);
  const file = path.join(run.directory, "report.html");
  await writeFile(`${file}.partial`, page(run, await readAdapters(run.directory)));
  await rename(`${file}.partial`, file);
  return file;
}
