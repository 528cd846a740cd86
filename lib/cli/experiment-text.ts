import type { Budget } from "../experiment/budget.js";
import type { Cell, CellState, CellStatus, ExperimentPlan } from "../experiment/index.js";
import type { EvaluationRecord, StepRecord } from "../run/records.js";
import type { ExperimentOutput } from "./experiment.js";
import { grouped } from "./numbers.js";
import { formatSeconds, formatTable } from "./output.js";
import { short } from "./quickstart.js";
import { style } from "./style.js";

/** States that say something else than their names, and those in which something goes on. */
const SAID: Partial<Record<CellState, string>> = { preparing: "making its base" };
const RUNNING: readonly CellState[] = ["preparing", "training", "measuring", "probing"];
const said = (state: CellState): string => SAID[state] ?? state;

const INTERVAL = 200;
const BAR = 16;

/** What `rolegrad experiment` says to a reader: on a terminal a table of cells that is drawn over, else a line for what ends. */
export class ExperimentText implements ExperimentOutput {
  readonly #stream = process.stderr;
  readonly #states = new Map<string, CellStatus>();
  #share = 0;
  #note = "";
  #drawn = 0;
  #lines = 0;
  #stamp: string | undefined;

  begin({ directory, plan, statuses, budget }: Parameters<ExperimentOutput["begin"]>[0]): void {
    this.#stamp = plan.stamp;
    for (const status of statuses) this.#states.set(status.cell.id, status);
    console.log(`${style.bold("rolegrad experiment")} ${plan.name}: ${short(directory)}`);
    this.#sayStamp();
    console.log(budgetText(plan, statuses, budget));
  }

  #sayStamp(): void {
    if (this.#stamp !== undefined) console.log(style.warning(this.#stamp));
  }

  list(statuses: CellStatus[]): void {
    const rows = statuses.map((status) => [status.cell.id, said(status.state), ...numbers(status), status.why ?? ""]);
    console.log(formatTable([["cell", "state", "steps", "EM", ""], ...rows], { right: [2, 3] }));
  }

  onCell(status: CellStatus): void {
    const { cell, state, exactMatch, why } = status;
    const before = this.#states.get(cell.id)?.state;
    this.#states.set(cell.id, status);
    this.#share = state === "training" ? status.step / Math.max(1, cell.steps) : 0;
    this.#note = "";
    if (this.#stream.isTTY) return this.#draw(true);
    if (state === before && state === "finished") return;
    const match = exactMatch === undefined ? "" : `, exact match ${exactMatch.toFixed(3)}`;
    console.error(`${cell.id}: ${why === undefined ? `${said(state)}${match}` : reason(status)}`);
  }

  onStep({ id, steps }: Cell, { step, reward }: StepRecord): void {
    const status = this.#states.get(id);
    if (status !== undefined) this.#states.set(id, { ...status, step });
    this.#share = step / steps;
    this.#note = `reward ${reward.toFixed(2)}`;
    this.#draw();
  }

  onEvaluation({ id }: Cell, { exactMatch }: EvaluationRecord): void {
    const status = this.#states.get(id);
    if (status !== undefined) this.#states.set(id, { ...status, exactMatch });
    this.#draw();
  }

  onProgress({ phase, done, total }: { phase: string; done: number; total: number }): void {
    if (phase !== "measure") return;
    this.#share = done / total;
    this.#note = `${grouped(done)} of ${grouped(total)} answers`;
    this.#draw();
  }

  clear(): void {
    if (this.#stream.isTTY && this.#lines > 0) this.#stream.write(`\x1b[${this.#lines}A\x1b[J`);
    this.#lines = 0;
  }

  end({ status, plan, directory, report, statuses }: Parameters<ExperimentOutput["end"]>[0]): void {
    this.#stamp = plan.stamp;
    const done = statuses.filter(({ state }) => state === "finished");
    this.list(done);
    const left = statuses.filter(({ state }) => state === "waiting").length;
    const missing = statuses.filter(({ state }) => state === "unavailable");
    const failed = statuses.filter(({ state }) => state === "failed");
    console.log(`${status}: ${done.length} of ${statuses.length} cells`);
    for (const why of new Set(missing.map((one) => one.why)))
      console.log(`  ${missing.filter((one) => one.why === why).length} cells cannot run here: ${why}`);
    for (const one of failed) console.log(`  ${one.cell.id} ${reason(one)}`);
    if (failed.length > 0) console.log("  (--retry tries what failed again)");
    this.#sayStamp();
    console.log(`report: ${short(report)}`);
    if (left > 0) console.log(`${left} cells are left; the same command goes on (--out ${short(directory)})`);
  }

  /** A window of the table around the cell that runs. */
  #draw(always = false): void {
    const now = performance.now();
    if (!this.#stream.isTTY || (!always && now - this.#drawn < INTERVAL)) return;
    this.#drawn = now;
    this.clear();
    const all = [...this.#states.values()];
    const active = all.findIndex(({ state }) => RUNNING.includes(state));
    const height = Math.max(4, Math.min(24, (this.#stream.rows || 24) - 4));
    const from = Math.max(0, Math.min(active - (height >> 1), all.length - height));
    const rows = all.slice(from, from + height).map((status) => {
      const running = RUNNING.includes(status.state);
      const share = running
        ? this.#share
        : status.state === "finished"
          ? 1
          : status.step / Math.max(1, status.cell.steps);
      return [status.cell.id, said(status.state), bar(share), ...numbers(status), running ? this.#note : ""];
    });
    const done = all.filter(({ state }) => state === "finished").length;
    const head = `${done} of ${all.length} cells${this.#stamp === undefined ? "" : `; ${this.#stamp}`}`;
    const width = (this.#stream.columns || 80) - 1;
    const lines = [head, ...formatTable(rows, { right: [3, 4] }).split("\n")].map((line) => line.slice(0, width));
    this.#stream.write(`${lines.join("\n")}\n`);
    this.#lines = lines.length;
  }
}

/** A failure says itself what it is. */
function reason({ state, why = "" }: CellStatus): string {
  return state === "failed" ? why : `${said(state)} (${why})`;
}

function bar(share: number): string {
  const filled = Math.round(Math.min(1, share) * BAR);
  return "█".repeat(filled) + "░".repeat(BAR - filled);
}

function numbers({ cell, step, exactMatch }: CellStatus): string[] {
  return [cell.steps === 0 ? "" : `${step}/${cell.steps}`, exactMatch === undefined ? "" : exactMatch.toFixed(3)];
}

/** Cells, steps, answers and minutes by study. What is left of a finished cell is its probe. */
export function budgetText(plan: ExperimentPlan, statuses: readonly CellStatus[], budget: Budget): string {
  const { cells, steps, answers, minutes, byCell, calibration } = budget;
  const names = [...(plan.sweep === undefined ? [] : ["sweep"]), ...plan.studies.map(({ name }) => name)];
  const rows = names.map((name) => {
    // A cell of several studies is counted with the first.
    const own = statuses.filter(({ cell }) => cell.studies[0] === name);
    const left = own.filter(({ state }) => state === "waiting");
    const time = own.reduce((sum, { cell }) => sum + (byCell[cell.id] ?? 0), 0);
    const training = left.reduce((sum, { cell, step }) => sum + Math.max(0, cell.steps - step), 0);
    return [name, String(own.length), String(left.length), grouped(training), formatSeconds(60 * time)];
  });
  const machine = `${(calibration.rollout + calibration.update).toFixed(2)} s a step by ${calibration.from}`;
  const blocked = [
    cells.failed === 0 ? "" : `, ${cells.failed} failed`,
    cells.unavailable === 0 ? "" : `, ${cells.unavailable} not available here`,
  ].join("");
  return [
    formatTable([["study", "cells", "left", "steps left", "time"], ...rows], { right: [1, 2, 3, 4] }),
    `${cells.total} cells, ${cells.finished} finished${blocked}; left: ${grouped(steps)} steps, ${grouped(answers)} answers, about ` +
      `${style.bold(formatSeconds(60 * minutes))} (${machine})`,
  ].join("\n");
}
