import { rm } from "node:fs/promises";
import { checkObject, checkSignal, describe } from "../arguments.js";
import { fail } from "../errors.js";
import { serializeTrajectory } from "../rollout/trajectory.js";
import { choosePolicy, type PolicyChoice } from "../run/chosen-policy.js";
import { trainRun } from "../run/loop.js";
import type { EvaluationRecord, StepRecord } from "../run/records.js";
import { trainedModels } from "../run/trained.js";
import { ARMS } from "./arms.js";
import { loadCell, resolveCell, unavailable } from "./cell-run.js";
import { ExperimentDirectory, type CostsFile, type CountsFile, type FailureFile } from "./directory.js";
import { failureText, recordFailure } from "./failure.js";
import { measurePolicy } from "./measure.js";
import { expandPlan, type Cell, type ExperimentPlan } from "./plan.js";
import { hasProbe, probeCell, probeKind } from "./probe.js";
import { ratesOf } from "./rates.js";
import { baseTokensLeft, makeBase, writeWorlds } from "./worlds.js";

/** "preparing": its base is made. "failed": it went astray (not finite), and is not tried again unless that is asked for. */
export type CellState =
  "waiting" | "preparing" | "training" | "measuring" | "probing" | "finished" | "failed" | "unavailable";

/** Where a cell stands. */
export interface CellStatus {
  cell: Cell;
  state: CellState;
  /** Steps that it has taken. */
  step: number;
  /** Exact match: of its answers where it is finished, else of its last evaluation. */
  exactMatch?: number;
  /** Why it cannot run here, or has failed. */
  why?: string;
  /** Gradients that are still to be taken of it. */
  probe?: "leak" | "angles";
}

/** What a caller is told while an experiment goes on. */
export interface ExperimentHooks {
  onCell?: (status: CellStatus) => void;
  onProgress?: (progress: {
    cell: Cell;
    phase: "rollout" | "update" | "evaluation" | "measure";
    step: number;
    done: number;
    total: number;
  }) => void;
  onStep?: (cell: Cell, record: StepRecord) => void;
  onEvaluation?: (cell: Cell, record: EvaluationRecord) => void;
}

/** Options of {@link runExperiment}. */
export interface RunExperimentOptions extends ExperimentHooks {
  directory: string;
  plan: ExperimentPlan;
  /** Arms to run now, with what they need. Default: all. */
  arms?: readonly string[];
  /** Cells to run now, with what they need. Default: all. */
  cells?: readonly string[];
  /** Tries cells again that failed. @default false */
  retry?: boolean;
  signal?: AbortSignal;
  /** The command line's words. */
  command?: readonly string[];
}

/** How {@link runExperiment} ended. */
export interface ExperimentEnd {
  status: "finished" | "interrupted";
  /** Cells that were to be run and have failed, now or before. */
  failed: string[];
}

/** Where every cell stands, without doing anything. */
export async function experimentStatus(directory: string, plan: ExperimentPlan): Promise<CellStatus[]> {
  const own = new ExperimentDirectory(directory);
  const out: CellStatus[] = [];
  const missing = new Map<string, string>();
  for (const cell of expandPlan(plan)) {
    out.push(await statusOf(own, plan, cell, missing));
  }
  return out;
}

async function statusOf(
  directory: ExperimentDirectory,
  plan: ExperimentPlan,
  cell: Cell,
  missing: Map<string, string>,
): Promise<CellStatus> {
  const { step, finished } = await directory.trained(cell);
  const counts = await directory.readCounts(cell.id);
  const of = (state: CellState, exactMatch?: number, why?: string): CellStatus => ({
    cell,
    state,
    step,
    ...(exactMatch !== undefined && { exactMatch }),
    ...(why !== undefined && { why }),
  });
  const failure = await directory.readFailure(cell.id);
  if (counts !== undefined) {
    const probe = failure === undefined && !hasProbe(directory, cell.id) ? probeKind(cell, plan) : undefined;
    return { ...of("finished", exactMatchOf(counts)), ...(probe && { probe }) };
  }
  const last = directory.run(cell.id).exists
    ? (await directory.run(cell.id).evaluations()).at(-1)?.exactMatch
    : undefined;
  if (cell.samples === 0 && finished) return of("finished", last);
  if (failure !== undefined) {
    // A rate that fails in the sweep is a bad one: the others stand.
    if (cell.samples > 0) missing.set(cell.id, `it needs ${cell.id}, which failed`);
    return of("failed", last, failureText(failure));
  }
  const needed = cell.needs.map((id) => missing.get(id)).find((why) => why !== undefined);
  const why = needed ?? unavailable(plan, cell, directory);
  if (why === undefined) return of("waiting", last);
  missing.set(cell.id, why);
  return of("unavailable", last, why);
}

/** Share of right answers. */
export function exactMatchOf({ correct, samples }: Pick<CountsFile, "correct" | "samples">): number {
  return correct.reduce((sum, k) => sum + k, 0) / (samples * correct.length);
}

/**
 * Trains and measures the cells of a plan that have not ended yet, one after another, in EXPERIMENT/cells (each an ordinary run directory) and
 * EXPERIMENT/counts. What has ended is never done again, and a training that was cut off goes on to the same bits. An abort saves and returns "interrupted".
 * A cell that goes astray (ERR_LOSS_NOT_FINITE and the like) is recorded in EXPERIMENT/failed, and the others go on; `retry` tries them again.
 * Another plan's folder -> ERR_EXPERIMENT_EXISTS; an arm or cell that the plan does not have -> ERR_EXPERIMENT_CELL.
 *
 * @example
 * await runExperiment({ directory: "runs/experiment", plan: PLANS.quick, onCell: ({ cell, state }) => console.log(cell.id, state) });
 */
export async function runExperiment(options: RunExperimentOptions): Promise<ExperimentEnd> {
  checkObject(options, "options");
  const { directory, plan, signal, command = null } = options;
  checkSignal(signal);
  const wanted = chosenCells(plan, options);
  const own = new ExperimentDirectory(directory);
  return own.locked(plan, command, async () => {
    await writeWorlds(plan, own);
    if (options.retry === true) await forgetFailures(own, plan, wanted);
    const runner = new Runner(own, options);
    const failed = runner.failed;
    try {
      for (const cell of wanted) {
        signal?.throwIfAborted();
        await runner.cell(cell);
      }
    } catch (error) {
      if (signal?.aborted === true && error === signal.reason) return { status: "interrupted", failed };
      throw error;
    }
    return { status: "finished", failed };
  });
}

/** What failed is tried again; but a rate of the sweep that another training has been chosen by stays as it is. */
async function forgetFailures(
  directory: ExperimentDirectory,
  plan: ExperimentPlan,
  cells: readonly Cell[],
): Promise<void> {
  const begun = expandPlan(plan).filter(({ id }) => directory.run(id).exists);
  for (const { id, samples } of cells)
    if (samples > 0 || !begun.some(({ needs }) => needs.includes(id)))
      await rm(directory.failureFile(id), { force: true });
}

/** The cells that were asked for, with what they need, in the plan's order. */
export function chosenCells(
  plan: ExperimentPlan,
  { arms, cells: names }: Pick<RunExperimentOptions, "arms" | "cells">,
): Cell[] {
  const cells = expandPlan(plan);
  const check = (given: readonly string[] | undefined, known: readonly string[], what: string): void => {
    const wrong = given?.find((name) => !known.includes(name));
    if (wrong !== undefined)
      fail("ERR_EXPERIMENT_CELL", `Expected ${what} of the plan (${known.join(", ")}) but received ${describe(wrong)}`);
  };
  check(arms, [...new Set(cells.map(({ arm }) => arm))], "an arm");
  check(names, cells.map(({ id }) => id), "a cell"); // prettier-ignore
  const byId = new Map(cells.map((cell) => [cell.id, cell]));
  const chosen = new Set<string>();
  const choose = (id: string): void => {
    chosen.add(id);
    byId.get(id)?.needs.forEach(choose);
  };
  for (const { id, arm, samples } of cells) {
    // A sweep is run for what it is needed by.
    if (samples === 0 && (arms !== undefined || names !== undefined) && names?.includes(id) !== true) continue;
    if ((arms?.includes(arm) ?? true) && (names?.includes(id) ?? true)) choose(id);
  }
  return cells.filter(({ id }) => chosen.has(id));
}

class Runner {
  readonly #directory: ExperimentDirectory;
  readonly #options: RunExperimentOptions;
  readonly #cells: ReadonlyMap<string, Cell>;
  readonly #missing = new Map<string, string>();
  readonly failed: string[] = [];

  constructor(directory: ExperimentDirectory, options: RunExperimentOptions) {
    this.#directory = directory;
    this.#options = options;
    this.#cells = new Map(expandPlan(options.plan).map((cell) => [cell.id, cell]));
  }

  async cell(cell: Cell): Promise<void> {
    await this.#run(cell);
    const status = await this.#status(cell);
    if (status.state === "failed") this.failed.push(cell.id);
    this.#options.onCell?.(status);
  }

  #status(cell: Cell): Promise<CellStatus> {
    return statusOf(this.#directory, this.#options.plan, cell, this.#missing);
  }

  async #run(cell: Cell): Promise<void> {
    const { plan, signal, onCell } = this.#options;
    const status = await this.#status(cell);
    if (status.state === "waiting") {
      if (baseTokensLeft(plan, cell, this.#directory) > 0) {
        onCell?.({ ...status, state: "preparing" });
        await makeBase(plan, cell, this.#directory, signal);
      }
      const { finished } = await this.#directory.trained(cell);
      if (!finished) {
        onCell?.({ ...status, state: "training" });
        if (!(await this.#attempt(cell, "training", () => this.#train(cell)))) return;
      }
      if (cell.samples === 0) return;
      onCell?.({ ...status, state: "measuring", step: cell.steps });
      if (!(await this.#attempt(cell, "measuring", () => this.#measure(cell)))) return;
    }
    const now = await this.#status(cell);
    if (now.probe === undefined) return;
    onCell?.({ ...now, state: "probing" });
    await this.#attempt(cell, "probing", () => this.#probe(cell));
  }

  /** Whether it came to its end; what goes astray is recorded. */
  async #attempt(cell: Cell, during: FailureFile["during"], work: () => Promise<void>): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (error) {
      if (await recordFailure(this.#directory, cell, during, error)) return false;
      throw error;
    }
  }

  async #rate(cell: Cell): Promise<number> {
    if (typeof cell.rate === "number") return cell.rate;
    const rates = await ratesOf(this.#directory, this.#options.plan);
    return rates[cell.arm]?.chosen ?? fail("ERR_EXPERIMENT_CELL", `Expected a finished sweep of ${cell.arm}'s rate`);
  }

  async #train(cell: Cell): Promise<void> {
    const { plan, signal, command, onProgress, onStep, onEvaluation } = this.#options;
    const setup = await loadCell(plan, cell, await this.#rate(cell), this.#directory);
    try {
      const { status } = await trainRun(
        { ...setup, ...(command && { command }) },
        {
          ...(signal && { signal }),
          onProgress: (progress) => onProgress?.({ cell, ...progress }),
          onStep: (record) => onStep?.(cell, record),
          onEvaluation: (record) => onEvaluation?.(cell, record),
        },
      );
      if (status === "interrupted") throw signal?.reason;
    } finally {
      setup.close();
    }
  }

  async #probe(cell: Cell): Promise<void> {
    const { plan, signal } = this.#options;
    // The base has no rate; what its run.json would say of one is nothing to it.
    const rate = cell.rate === 0 ? 1e-3 : await this.#rate(cell);
    await probeCell(this.#directory, plan, cell, { rate, ...(signal && { signal }) });
  }

  /** The run whose policy answers, and how it is put together. */
  #policyOf(cell: Cell): { owner: Cell; choice: PolicyChoice } {
    const { policy } = ARMS[cell.arm] ?? {};
    const cellOf = (arm: string): Cell => {
      const id = cell.needs.find((name) => this.#cells.get(name)?.arm === arm && !name.startsWith("tune-"));
      return (
        (id === undefined ? undefined : this.#cells.get(id)) ?? fail("ERR_EXPERIMENT_CELL", `${cell.id} needs ${arm}`)
      );
    };
    const folder = (own: Cell): string => this.#directory.run(own.id).path;
    if (policy === undefined) return { owner: cell, choice: { policy: "trained", directory: folder(cell) } };
    if (policy.of === "base") return { owner: cell, choice: { policy: "base", directory: folder(cell) } };
    const owner = cellOf(policy.of);
    const writers = Object.entries(policy.writers ?? {}).map(([role, from]) => [
      role,
      from === "base" ? from : folder(cellOf(from)),
    ]);
    return {
      owner,
      choice: {
        policy: "trained",
        directory: folder(owner),
        ...(writers.length > 0 && { writers: Object.fromEntries(writers) as Record<string, string> }),
        ...(policy.keep !== undefined && { keep: policy.keep }),
        ...(policy.replay !== undefined && { replay: this.#answersFile(cellOf(policy.replay).id) }),
      },
    };
  }

  #answersFile(cell: string): string {
    return this.#directory.file("answers", `${cell}.jsonl`);
  }

  async #measure(cell: Cell): Promise<void> {
    const { plan, signal, onProgress } = this.#options;
    const { owner, choice } = this.#policyOf(cell);
    const rate = cell.arm === "base" ? 0 : await this.#rate(owner);
    const config = resolveCell(plan, owner, rate === 0 ? 1e-3 : rate, this.#directory);
    const trained = choice.policy === "base" ? {} : await trainedModels(choice.directory, config.agent.base);
    const setup = await loadCell(plan, owner, rate === 0 ? 1e-3 : rate, this.#directory, {
      questions: plan.questions,
      options: { evaluationOnly: true, trained },
    });
    try {
      const chosen = await choosePolicy(setup, config, choice);
      try {
        const questions = setup.evaluation?.questions ?? [];
        const replayed = [...this.#cells.values()].some(
          ({ arm, needs }) => ARMS[arm]?.policy?.replay === cell.arm && needs.includes(cell.id),
        );
        const answers: string[] = [];
        const {
          seconds,
          decoding,
          outcomes: _outcomes,
          ...counts
        } = await measurePolicy(chosen.options, questions, {
          samples: cell.samples,
          seed: cell.seed,
          stream: cell.id,
          ...(signal && { signal }),
          onProgress: (done, total) => onProgress?.({ cell, phase: "measure", step: cell.steps, done, total }),
          ...(replayed && { onTrajectory: (own) => void answers.push(`${serializeTrajectory(own)}\n`) }),
        });
        if (replayed) await this.#directory.write(`answers/${cell.id}.jsonl`, answers.sort().join(""));
        const { id, arm, seed, balance, dialect } = cell;
        const ids = questions.map((question) => question.id);
        const file: CountsFile = { cell: id, arm, seed, balance, dialect, rate, questions: ids, ...counts };
        const costs: CostsFile = { cell: id, seconds, decoding };
        await this.#directory.write(`costs/${id}.json`, `${JSON.stringify(costs)}\n`);
        await this.#directory.write(`counts/${id}.json`, `${JSON.stringify(file)}\n`);
      } finally {
        chosen.close();
      }
    } finally {
      setup.close();
    }
  }
}
