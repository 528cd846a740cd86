import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { fail } from "../errors.js";
import type { EvaluationRecord, StepRecord } from "../run/records.js";
import type { RunEvent } from "./events.js";
import { cleaned, missingField, type LinesFile } from "./lines.js";
import type { Example } from "./examples.js";

/** What a report is made of: a run directory's files, read. */
export interface RunFiles {
  /** Absolute path. */
  directory: string;
  config: Record<string, unknown>;
  /** By step. */
  metrics: StepRecord[];
  /** In the order in which they were made. */
  evaluations: EvaluationRecord[];
  examples: Example[];
  /** events.jsonl: warnings and the like. */
  events: RunEvent[];
  /** What was left out or is not there, for the reader. */
  remarks: string[];
}

/**
 * Reads a run directory. Only config.json must be there. A last line that a stopped run has cut is left out, and said so; any other line that
 * is no JSON object, or lacks a number that is shown -> ERR_RUN_FILE, with file and line.
 */
export async function readRun(directory: string): Promise<RunFiles> {
  const absolute = path.resolve(directory);
  const file = path.join(absolute, "config.json");
  if (!existsSync(file)) {
    fail(
      "ERR_RUN_NOT_FOUND",
      `Expected a run directory (with config.json) at ${absolute}: give the folder that --out named`,
    );
  }
  const config = asObject(await readFile(file, "utf8"), file);
  const remarks: string[] = [];
  const lines = (file: LinesFile): Promise<Record<string, unknown>[]> => readLines(absolute, file, remarks);
  const metrics = (await lines("metrics")) as unknown as StepRecord[];
  const evaluations = (await lines("evaluations")) as unknown as EvaluationRecord[];
  const examples = (await lines("examples")) as unknown as Example[];
  const events: RunEvent[] = await lines("events");
  return {
    directory: absolute,
    config,
    // A run that was resumed may have written a step twice: the last one counts.
    metrics: [...new Map(metrics.map((line) => [line.step, line])).values()].sort((a, b) => a.step - b.step),
    evaluations,
    examples,
    events,
    remarks,
  };
}

const WHAT: Record<string, string> = { roles: "names", segments: "stretches of text" };

async function readLines(directory: string, name: LinesFile, remarks: string[]): Promise<Record<string, unknown>[]> {
  const file = path.join(directory, `${name}.jsonl`);
  if (!existsSync(file)) return [];
  const text = await readFile(file, "utf8");
  const lines = text.split("\n");
  const cut = lines.pop() as string;
  if (cut !== "") {
    if (isJson(cut)) lines.push(cut);
    else
      remarks.push(
        `The last line of ${path.basename(file)} is cut (the run was stopped while it wrote it) and is left out.`,
      );
  }
  return lines.flatMap((line, i) => {
    if (line.trim() === "") return [];
    const place = `${file}:${i + 1}`;
    const row = asObject(line, place);
    const missing = missingField(name, row);
    // An example that another program has put down is none to show.
    if (missing !== undefined && name === "examples" && !("segments" in row)) return [];
    if (missing !== undefined)
      fail("ERR_RUN_FILE", `Expected ${WHAT[missing] ?? "a number"} for ${missing} at ${place}`);
    return [cleaned(name, row)];
  });
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function asObject(text: string, place: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    fail("ERR_RUN_FILE", `Expected JSON at ${place}: ${(cause as Error).message}`, cause);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    fail("ERR_RUN_FILE", `Expected a JSON object at ${place}`);
  return value as Record<string, unknown>;
}
