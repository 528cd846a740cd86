import { existsSync } from "node:fs";
import { readdir, readFile, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { describe } from "../arguments.js";
import { native, packageVersion } from "../binding.js";
import {
  appendDurable,
  makeFolder,
  PARTIAL,
  removeFolder,
  removePartial,
  syncFolder,
  writeDurable,
  writeError,
  writeFolder,
} from "../durable.js";
import { fail, RolegradError } from "../errors.js";
import { numericsVersion } from "../numerics.js";
import { parseTrajectory, serializeTrajectory, type Trajectory } from "../rollout/trajectory.js";
import type { BestCheckpoint } from "./best.js";
import { isLock, lockFolder } from "./lock.js";
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
  "sampler",
  "guards",
  "logKl",
  "trackLossRoles",
  "tensorboard",
];

/**
 * The folder that a run writes: config.json, metrics.jsonl, evaluations.jsonl, events.jsonl, trajectories/, checkpoints/, adapters/. Lines are appended as
 * they come; every other file is written beside its place and renamed, so that what is there is whole. Each is on the disk before what follows from it
 * begins, so that a process or a machine may stop at any moment. What cannot be written -> ERR_DISK_FULL, ERR_WRITE.
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

  /**
   * Runs `work` as the only process that writes here (another -> ERR_RUN_LOCKED): makes the folder, and removes what killed processes left half-written.
   * A folder with something else in it -> ERR_RUN_EXISTS.
   */
  async locked<T>(command: readonly string[] | null, work: () => Promise<T>): Promise<T> {
    try {
      await makeFolder(this.path);
      await this.#checkEmpty();
      const lock = await lockFolder(this.path, command);
      try {
        for (const folder of ["", "checkpoints", "trajectories"])
          await removePartial(path.join(this.path, folder), isLock);
        return await work();
      } finally {
        await lock.release();
      }
    } catch (error) {
      throw await this.#withCheckpoint(await writeError(error, this.path));
    }
  }

  async #checkEmpty(): Promise<void> {
    const own = `${path.basename(this.configFile)}${PARTIAL}`; // of a process that was killed as it began
    const others = (await readdir(this.path)).filter((name) => !isLock(name) && name !== own);
    if (!this.exists && others.length > 0)
      fail("ERR_RUN_EXISTS", `Expected a new or empty folder for the run but ${this.path} holds other files`);
  }

  /** An error of writing says what there is to go on from. */
  async #withCheckpoint(error: unknown): Promise<unknown> {
    if (!(error instanceof RolegradError) || !["ERR_DISK_FULL", "ERR_WRITE"].includes(error.code)) return error;
    const newest = await this.checkpoints().then(
      (steps) => steps.at(-1),
      () => undefined,
    );
    const rest =
      newest === undefined
        ? "No checkpoint had been written; the same command begins once that is put right"
        : `The newest whole checkpoint is ${this.checkpointPath(newest)}; the same command goes on from there once that is put right`;
    return new RolegradError(error.code, `${error.message}. ${rest}`, { cause: error.cause ?? error });
  }

  /** Makes the folder, writes config.json and sees that a checkpoint could be written. A folder with something else in it -> ERR_RUN_EXISTS. */
  async begin(run: RunDescription, command: readonly string[] | null): Promise<void> {
    await makeFolder(this.path);
    const old = this.exists ? await this.readConfig() : undefined;
    if (old === undefined) await this.#checkEmpty();
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
    await writeDurable(this.configFile, `${JSON.stringify({ ...run, ...provenance }, null, 2)}\n`);
    // What would fail at the first checkpoint fails here, before hours of work.
    const probe = path.join(this.path, "checkpoints", `probe${PARTIAL}`);
    await makeFolder(path.dirname(probe));
    await writeDurable(probe, "Can this be written?\n");
    await rm(probe);
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
    await appendDurable(path.join(this.path, "metrics.jsonl"), `${JSON.stringify(record)}\n`);
  }

  metrics(): Promise<StepRecord[]> {
    return readRecords<StepRecord>(path.join(this.path, "metrics.jsonl"));
  }

  async appendEvaluation(record: EvaluationRecord): Promise<void> {
    await appendDurable(path.join(this.path, "evaluations.jsonl"), `${JSON.stringify(record)}\n`);
  }

  evaluations(): Promise<EvaluationRecord[]> {
    return readRecords<EvaluationRecord>(path.join(this.path, "evaluations.jsonl"));
  }

  async appendEvent(event: RunEvent): Promise<void> {
    await appendDurable(path.join(this.path, "events.jsonl"), `${JSON.stringify(event)}\n`);
  }

  events(): Promise<RunEvent[]> {
    return readRecords<RunEvent>(path.join(this.path, "events.jsonl"));
  }

  /** Writes trajectories/NAME.jsonl, e.g. of step-000001 or eval-000000. */
  async writeTrajectories(name: string, trajectories: readonly Trajectory[]): Promise<void> {
    await makeFolder(path.join(this.path, "trajectories"));
    const lines = trajectories.map((trajectory) => `${serializeTrajectory(trajectory)}\n`).join("");
    await writeDurable(path.join(this.path, "trajectories", `${name}.jsonl`), lines);
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
      const lines = await readLines<{ step: number }>(file);
      const kept = lines.filter(({ record }) => record.step <= step);
      const content = kept.map(({ line }) => `${line}\n`).join("");
      if (content !== (await readFile(file, "utf8"))) await writeDurable(file, content);
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
    await makeFolder(path.dirname(folder));
    await writeFolder(folder, write);
  }

  /** Removes all checkpoints but the newest `keep` (0: none) and that of `best`. */
  async prune(keep: number, best?: number): Promise<void> {
    if (keep === 0) return;
    for (const step of (await this.checkpoints()).slice(0, -keep)) {
      if (step !== best) await removeFolder(this.checkpointPath(step));
    }
  }

  get #bestFile(): string {
    return path.join(this.path, "checkpoints", "best.json");
  }

  /** What checkpoints/best.json says; undefined where there is none, or none that can be read. */
  async best(): Promise<BestCheckpoint | undefined> {
    try {
      const best = JSON.parse(await readFile(this.#bestFile, "utf8")) as BestCheckpoint;
      return existsSync(this.checkpointPath(best.step)) ? best : undefined;
    } catch {
      return undefined; // it follows from evaluations.jsonl, and is written again
    }
  }

  /** Names the best checkpoint, or none. */
  async writeBest(best: BestCheckpoint | undefined): Promise<void> {
    if (best !== undefined) {
      const text = `${JSON.stringify(best)}\n`;
      const found = await readFile(this.#bestFile, "utf8").catch(() => undefined);
      if (found !== text) await writeDurable(this.#bestFile, text);
    } else if (existsSync(this.#bestFile)) {
      await rm(this.#bestFile);
      await syncFolder(path.dirname(this.#bestFile));
    }
  }
}

/** "step-000020" */
export function stepName(step: number): string {
  return `step-${String(step).padStart(6, "0")}`;
}

async function readRecords<T>(file: string): Promise<T[]> {
  return (await readLines<T>(file)).map(({ record }) => record);
}

/** The lines of a file that is appended to, and what they say. A last line that was cut short is no line. */
async function readLines<T>(file: string): Promise<{ line: string; record: T }[]> {
  if (!existsSync(file)) return [];
  const lines = (await readFile(file, "utf8")).split("\n").slice(0, -1);
  return lines.map((line, i) => {
    try {
      return { line, record: JSON.parse(line) as T };
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
