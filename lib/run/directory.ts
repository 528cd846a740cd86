import { existsSync } from "node:fs";
import { appendFile, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { describe } from "../arguments.js";
import { native, packageVersion } from "../binding.js";
import { fail } from "../errors.js";
import { numericsVersion } from "../numerics.js";
import { parseTrajectory, serializeTrajectory, type Trajectory } from "../rollout/trajectory.js";
import type { RunEvent } from "./events.js";
import type { EvaluationRecord, StepRecord } from "./records.js";

/** Anything that JSON can say; what a run was configured with. */
export type RunDescription = Record<string, unknown>;

/** What config.json says beside the configuration itself. */
const PROVENANCE = [
  "package",
  "packageVersion",
  "numericsVersion",
  "node",
  "cpu",
  "instructionSet",
  "threads",
  "command",
  "startedAt",
];
/** What {@link loadRun} adds to a run.json: taken from the files that it names. */
const MEASURED = ["hashes", "modelParameters"];
/** What two parts of one run may differ in: none of it changes a bit of the training. */
const FREE = [
  ...PROVENANCE,
  "$schema",
  "steps",
  "output",
  "evaluation",
  "checkpoint",
  "trajectories",
  "microBatchTokens",
  "gradientCheckpointing",
  "guards",
  "logKl",
  "tensorboard",
];

/**
 * The folder that a run writes: config.json, metrics.jsonl, evaluations.jsonl, events.jsonl, trajectories/, checkpoints/, adapters/. Lines are appended as
 * they come; every other file is written beside its place and renamed, so that what is there is whole.
 */
export class RunDirectory {
  readonly path: string;

  constructor(directory: string) {
    this.path = path.resolve(directory);
  }

  get configFile(): string {
    return path.join(this.path, "config.json");
  }

  /** True where the folder is a run's. */
  get exists(): boolean {
    return existsSync(this.configFile);
  }

  /** config.json; a missing or broken one -> ERR_RUN_DIRECTORY. */
  async readConfig(): Promise<RunDescription> {
    let config: unknown;
    try {
      config = JSON.parse(await readFile(this.configFile, "utf8"));
    } catch (cause) {
      fail("ERR_RUN_DIRECTORY", `Expected a run directory with ${this.configFile}: ${(cause as Error).message}`, cause);
    }
    if (typeof config !== "object" || config === null || !("package" in config))
      fail("ERR_RUN_DIRECTORY", `Expected the configuration of a run in ${this.configFile} but it is another file`);
    return config;
  }

  /** The run.json that config.json was made from, defaults filled in. */
  async readRun(): Promise<RunDescription> {
    const added = [...PROVENANCE, ...MEASURED];
    return Object.fromEntries(Object.entries(await this.readConfig()).filter(([name]) => !added.includes(name)));
  }

  /** Makes the folder and writes config.json. A folder with something else in it -> ERR_RUN_EXISTS. */
  async begin(run: RunDescription, command: readonly string[] | null): Promise<void> {
    await mkdir(this.path, { recursive: true });
    const old = this.exists ? await this.readConfig() : undefined;
    if (old === undefined && (await readdir(this.path)).length > 0) {
      fail("ERR_RUN_EXISTS", `Expected a new or empty folder for the run but ${this.path} holds other files`);
    }
    const { kernels, threads } = native.cpuInfo();
    const provenance = {
      package: "rolegrad",
      packageVersion: packageVersion(),
      numericsVersion,
      node: process.versions.node,
      cpu: os.cpus()[0]?.model.trim() ?? null,
      instructionSet: kernels,
      threads,
      command,
      startedAt: old?.["startedAt"] ?? new Date().toISOString(),
    };
    await writeWhole(this.configFile, `${JSON.stringify({ ...run, ...provenance }, null, 2)}\n`);
  }

  /**
   * Throws ERR_RUN_EXISTS, naming a field, unless the run in this folder can go on as `run`; ERR_NUMERICS_VERSION where this version of the
   * package would go on with other bits.
   */
  async checkSame(run: RunDescription): Promise<void> {
    const config = await this.readConfig();
    const began = config["numericsVersion"] ?? 1;
    if (began !== numericsVersion) {
      fail(
        "ERR_NUMERICS_VERSION",
        `Expected the run in ${this.path} to have begun with numerics version ${numericsVersion} but it began with ${describe(began)}: ` +
          "it would not be the run that never stopped. Finish it with the version of rolegrad that began it, or begin again",
      );
    }
    const field = difference(plain({ precision: "exact", ...config }), plain({ precision: "exact", ...run }), FREE);
    if (field === undefined) return;
    const { name, before, after } = field;
    fail(
      "ERR_RUN_EXISTS",
      `Expected ${this.path} to hold no other run but ${name} was ${describe(before)} there and is ${describe(after)} now: ` +
        "choose another output directory, or delete this one",
    );
  }

  async appendMetrics(record: StepRecord): Promise<void> {
    await appendFile(path.join(this.path, "metrics.jsonl"), `${JSON.stringify(record)}\n`);
  }

  metrics(): Promise<StepRecord[]> {
    return readRecords<StepRecord>(path.join(this.path, "metrics.jsonl"));
  }

  async appendEvaluation(record: EvaluationRecord): Promise<void> {
    await appendFile(path.join(this.path, "evaluations.jsonl"), `${JSON.stringify(record)}\n`);
  }

  evaluations(): Promise<EvaluationRecord[]> {
    return readRecords<EvaluationRecord>(path.join(this.path, "evaluations.jsonl"));
  }

  async appendEvent(event: RunEvent): Promise<void> {
    await appendFile(path.join(this.path, "events.jsonl"), `${JSON.stringify(event)}\n`);
  }

  events(): Promise<RunEvent[]> {
    return readRecords<RunEvent>(path.join(this.path, "events.jsonl"));
  }

  /** Writes trajectories/NAME.jsonl, e.g. of step-000001 or eval-000000. */
  async writeTrajectories(name: string, trajectories: readonly Trajectory[]): Promise<void> {
    await mkdir(path.join(this.path, "trajectories"), { recursive: true });
    const lines = trajectories.map((trajectory) => `${serializeTrajectory(trajectory)}\n`).join("");
    await writeWhole(path.join(this.path, "trajectories", `${name}.jsonl`), lines);
  }

  /** What {@link writeTrajectories} wrote; none where it did not. */
  async readTrajectories(name: string): Promise<Trajectory[]> {
    const file = path.join(this.path, "trajectories", `${name}.jsonl`);
    if (!existsSync(file)) return [];
    return (await readFile(file, "utf8")).split("\n").slice(0, -1).map(parseTrajectory);
  }

  /** Drops what is recorded of steps after `step`: they will be taken again. */
  async rewind(step: number): Promise<void> {
    for (const name of ["metrics.jsonl", "evaluations.jsonl", "events.jsonl"]) {
      const file = path.join(this.path, name);
      if (!existsSync(file)) continue;
      const kept = (await readRecords<{ step: number }>(file)).filter((record) => record.step <= step);
      await writeWhole(file, kept.map((record) => `${JSON.stringify(record)}\n`).join(""));
    }
    const folder = path.join(this.path, "trajectories");
    for (const name of existsSync(folder) ? await readdir(folder) : []) {
      if (Number(/-(\d+)\.jsonl?$/.exec(name)?.[1] ?? 0) > step) await rm(path.join(folder, name));
    }
  }

  /** Steps of the checkpoints, in increasing order. */
  async checkpoints(): Promise<number[]> {
    const folder = path.join(this.path, "checkpoints");
    const names = existsSync(folder) ? await readdir(folder) : [];
    const steps = names.map((name) => Number(/^step-(\d+)$/.exec(name)?.[1] ?? NaN));
    return steps.filter((step) => !Number.isNaN(step)).sort((a, b) => a - b);
  }

  checkpointPath(step: number): string {
    return path.join(this.path, "checkpoints", stepName(step));
  }

  /** Writes a folder through `write`; it appears under its name when it is whole. A folder that is there already is replaced. */
  async writeFolder(name: string, write: (folder: string) => Promise<void>): Promise<void> {
    const folder = path.join(this.path, name);
    const partial = `${folder}.partial`;
    await rm(partial, { recursive: true, force: true });
    await mkdir(partial, { recursive: true });
    await write(partial);
    await rm(folder, { recursive: true, force: true });
    await rename(partial, folder);
  }

  /** Removes all checkpoints but the newest `keep` (0: none). */
  async prune(keep: number): Promise<void> {
    if (keep === 0) return;
    for (const step of (await this.checkpoints()).slice(0, -keep)) {
      await rm(this.checkpointPath(step), { recursive: true, force: true });
    }
  }
}

/** "step-000020" */
export function stepName(step: number): string {
  return `step-${String(step).padStart(6, "0")}`;
}

async function writeWhole(file: string, content: string): Promise<void> {
  await writeFile(`${file}.partial`, content);
  await rename(`${file}.partial`, file);
}

/** The lines of a file that is appended to. A last line that was cut short is no line. */
async function readRecords<T>(file: string): Promise<T[]> {
  if (!existsSync(file)) return [];
  const lines = (await readFile(file, "utf8")).split("\n").slice(0, -1);
  return lines.map((line, i) => {
    try {
      return JSON.parse(line) as T;
    } catch (cause) {
      return fail("ERR_RUN_DIRECTORY", `Expected JSON at ${file}:${i + 1}: ${(cause as Error).message}`, cause);
    }
  });
}

/** As a file would give it back. */
function plain(value: RunDescription): RunDescription {
  return JSON.parse(JSON.stringify(value)) as RunDescription;
}

/** The first field in which two values of JSON differ. */
function difference(
  before: unknown,
  after: unknown,
  ignored: readonly string[] = [],
): { name: string; before: unknown; after: unknown } | undefined {
  const isTree = (value: unknown): value is RunDescription => typeof value === "object" && value !== null;
  if (!isTree(before) || !isTree(after)) return Object.is(before, after) ? undefined : { name: "", before, after };
  for (const name of new Set([...Object.keys(before), ...Object.keys(after)])) {
    if (ignored.includes(name)) continue;
    const found = difference(before[name], after[name]);
    if (found !== undefined) return { ...found, name: found.name === "" ? name : `${name}.${found.name}` };
  }
  return undefined;
}
