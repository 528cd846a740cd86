import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { describe } from "../arguments.js";
import { packageVersion } from "../binding.js";
import { makeFolder, removePartial, writeDurable } from "../durable.js";
import { fail } from "../errors.js";
import { numericsVersion } from "../numerics.js";
import { RunDirectory } from "../run/directory.js";
import { isLock, lockFolder } from "../run/lock.js";
import type { PolicyCounts } from "./measure.js";
import type { Cell, DialectSetting, ExperimentPlan } from "./plan.js";

/** counts/CELL.json: what a cell answered, by question. */
export interface CountsFile extends Omit<PolicyCounts, "seconds" | "decoding" | "outcomes"> {
  cell: string;
  arm: string;
  seed: number;
  balance: number;
  dialect: DialectSetting | null;
  /** Learning rate that it was trained with; 0: not trained. */
  rate: number;
  /** Ids of the questions, in the order of `correct` and `retrieved`. */
  questions: string[];
}

/** costs/CELL.json: what that took. Apart, since no two runs take the same. */
export interface CostsFile extends Pick<PolicyCounts, "seconds" | "decoding"> {
  cell: string;
}

/** failed/CELL.json: why a cell has no result. */
export interface FailureFile {
  cell: string;
  /** What it was at. */
  during: "training" | "measuring" | "probing";
  code: string;
  message: string;
}

/** Where an experiment's files are. */
export class ExperimentDirectory {
  readonly path: string;

  constructor(directory: string) {
    this.path = path.resolve(directory);
  }

  get planFile(): string {
    return path.join(this.path, "experiment.json");
  }

  file(...names: string[]): string {
    return path.join(this.path, ...names);
  }

  run(cell: string): RunDirectory {
    return new RunDirectory(this.file("cells", cell));
  }

  /** The plan of an experiment that has begun here; undefined where none has. */
  async readPlan(): Promise<ExperimentPlan | undefined> {
    if (!existsSync(this.planFile)) return undefined;
    try {
      const { plan } = JSON.parse(await readFile(this.planFile, "utf8")) as { plan: ExperimentPlan };
      if (!Array.isArray(plan.studies)) throw new Error("it has no plan");
      return plan;
    } catch (cause) {
      return fail(
        "ERR_EXPERIMENT_DIRECTORY",
        `Expected the plan of an experiment in ${this.planFile}: ${(cause as Error).message}`,
        cause,
      );
    }
  }

  /** ERR_EXPERIMENT_EXISTS, naming a field, where an experiment of another plan has begun here. */
  async checkPlan(plan: ExperimentPlan): Promise<void> {
    const before = await this.readPlan();
    const wanted = JSON.parse(JSON.stringify(plan)) as ExperimentPlan;
    if (before === undefined || JSON.stringify(before) === JSON.stringify(wanted)) return;
    const field = (Object.keys({ ...before, ...wanted }) as (keyof ExperimentPlan)[]).find(
      (name) => JSON.stringify(before[name]) !== JSON.stringify(wanted[name]),
    );
    const change = `${field} was ${describe(before[field ?? "name"])} there and is ${describe(wanted[field ?? "name"])} now`;
    fail(
      "ERR_EXPERIMENT_EXISTS",
      `Expected ${this.path} to hold no other experiment but ${change}: choose another directory (--out), or name no size to go on with the one there`,
    );
  }

  /** Runs `work` as the only process that writes here, with this plan; another plan's folder -> ERR_EXPERIMENT_EXISTS. */
  async locked<T>(plan: ExperimentPlan, command: readonly string[] | null, work: () => Promise<T>): Promise<T> {
    await makeFolder(this.path);
    const lock = await lockFolder(this.path, command);
    try {
      for (const folder of ["", "data", "counts", "costs", "answers", "probes", "failed"])
        if (existsSync(this.file(folder))) await removePartial(this.file(folder), isLock);
      await this.checkPlan(plan);
      if ((await this.readPlan()) === undefined) {
        const about = { package: "rolegrad", packageVersion: packageVersion(), numericsVersion, plan };
        await writeDurable(this.planFile, `${JSON.stringify(about, null, 2)}\n`);
      }
      return await work();
    } finally {
      await lock.release();
    }
  }

  /** Writes a file whole; its folder is made. Two reports may be made at once (--report beside a study that runs): again where the other took it away. */
  async write(name: string, content: string): Promise<string> {
    const file = this.file(name);
    await makeFolder(path.dirname(file));
    for (let attempt = 1; ; attempt++) {
      try {
        await writeDurable(file, content);
        return file;
      } catch (error) {
        const { code } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException;
        if (attempt === 3 || code !== "ENOENT") throw error;
      }
    }
  }

  failureFile(cell: string): string {
    return this.file("failed", `${cell}.json`);
  }

  /** Undefined where nothing of the cell has failed. */
  async readFailure(cell: string): Promise<FailureFile | undefined> {
    return this.#read<FailureFile>(this.failureFile(cell));
  }

  countsFile(cell: string): string {
    return this.file("counts", `${cell}.json`);
  }

  /** Undefined where the cell has not been measured. */
  async readCounts(cell: string): Promise<CountsFile | undefined> {
    return this.#read<CountsFile>(this.countsFile(cell));
  }

  async readCosts(cell: string): Promise<CostsFile | undefined> {
    return this.#read<CostsFile>(this.file("costs", `${cell}.json`));
  }

  async #read<T>(file: string): Promise<T | undefined> {
    if (!existsSync(file)) return undefined;
    try {
      return JSON.parse(await readFile(file, "utf8")) as T;
    } catch (cause) {
      return fail("ERR_EXPERIMENT_DIRECTORY", `Expected JSON in ${file}: ${(cause as Error).message}`, cause);
    }
  }

  /** Steps that a cell's run has a checkpoint of, or has recorded; and whether its training has ended. */
  async trained(cell: Cell): Promise<{ step: number; finished: boolean }> {
    const run = this.run(cell.id);
    if (!run.exists) return { step: 0, finished: cell.steps === 0 };
    const step = (await run.metrics()).at(-1)?.step ?? 0;
    // What is exported comes last.
    const exported = ["adapters", "model"].some((name) => existsSync(path.join(run.path, name)));
    return { step, finished: step >= cell.steps && exported };
  }
}
