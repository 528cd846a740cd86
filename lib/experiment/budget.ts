import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { trainRun } from "../run/loop.js";
import { loadRun } from "../run/setup.js";
import { ARMS } from "./arms.js";
import { resolveCell, SWEEP_SAMPLES } from "./cell-run.js";
import { ExperimentDirectory } from "./directory.js";
import type { Cell, ExperimentPlan } from "./plan.js";
import { probeKind, probeSize } from "./probe.js";
import type { CellStatus } from "./runner.js";
import { baseOf, baseTokensLeft, writeWorlds } from "./worlds.js";

/** Seconds on this machine. */
export interface Calibration {
  /** Sampling of one step's answers, and the update on them, of one shared LoRA. */
  rollout: number;
  update: number;
  /** What was looked at. */
  from: "two steps" | "finished cells";
}

/** What a plan costs, by state. */
export interface Budget {
  cells: { total: number; finished: number; failed: number; unavailable: number };
  /** Optimizer steps, and answers beside those of the steps (to evaluate, measure and probe), that are left. */
  steps: number;
  answers: number;
  /** Estimated minutes that are left, and of each cell. */
  minutes: number;
  byCell: Record<string, number>;
  calibration: Calibration;
}

/** How many times a shared LoRA's sampling and update an arm's take, roughly. */
const FACTORS: Record<string, readonly [rollout: number, update: number]> = {
  "two-agent": [1.4, 2],
  "two-agent-full": [1.4, 3],
  full: [1, 1.5],
  "dart-exact": [1, 1.8],
  mixture: [1.4, 1.6],
  "shared-2m": [1, 1.5],
};

/** Positions of an answer to a question on databases, or with long thoughts, against one of the search. */
const LONG = 2;

/**
 * Measures this machine: two steps of the plan's size, in a temporary folder; the second counts. What is played is the search, whose base comes with the package;
 * the databases' answers are longer.
 */
export async function calibrate(plan: ExperimentPlan, signal?: AbortSignal): Promise<Calibration> {
  const folder = await mkdtemp(path.join(tmpdir(), "rolegrad-experiment-"));
  try {
    const directory = new ExperimentDirectory(folder);
    const { base: _, ...world } = plan.world;
    const played = { ...plan, world: { ...world, task: "search" as const } };
    await writeWorlds(played, directory);
    const rest = { seed: 1, balance: 1, dialect: null, studies: [], needs: [], samples: 1, rate: 1e-3 };
    const cell: Cell = { id: "calibration", arm: "unified", steps: 2, ...rest };
    const config = resolveCell(played, cell, 1e-3, directory);
    const setup = await loadRun({ ...config, evaluation: { ...config.evaluation, questions: 1, every: 0 } });
    try {
      const { metrics } = await trainRun(setup, { ...(signal && { signal }) });
      signal?.throwIfAborted();
      const { seconds = 0, rolloutSeconds = 0 } = metrics.at(-1) ?? {};
      const { task, base } = plan.world;
      const longer = task === "sql" || base?.thoughts === "long" ? LONG : 1;
      return {
        rollout: longer * rolloutSeconds,
        update: longer * (seconds - rolloutSeconds),
        from: "two steps",
      };
    } finally {
      setup.close();
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The same of what has been trained: medians over the steps of cells with one shared LoRA. Undefined where there are none. */
export async function calibrationOf(
  directory: string,
  statuses: readonly CellStatus[],
): Promise<Calibration | undefined> {
  const own = new ExperimentDirectory(directory);
  const rollout: number[] = [];
  const update: number[] = [];
  for (const { cell, step } of statuses) {
    if (step === 0 || FACTORS[cell.arm] !== undefined) continue;
    for (const { seconds, rolloutSeconds } of await own.run(cell.id).metrics()) {
      rollout.push(rolloutSeconds);
      update.push(seconds - rolloutSeconds);
    }
  }
  if (rollout.length < 10) return undefined;
  return { rollout: median(rollout), update: median(update), from: "finished cells" };
}

function median(list: readonly number[]): number {
  return [...list].sort((a, b) => a - b)[list.length >> 1] ?? 0;
}

/** Evaluations that a training has still before it: before the first step, on the way, after the last. */
function evaluationsLeft(plan: ExperimentPlan, { samples, steps }: Cell, step: number): number {
  const points = new Set([0, steps]);
  if (samples > 0) for (let at = 0; at <= steps; at += plan.curve.every) points.add(at);
  return steps === 0 ? 0 : [...points].filter((at) => at > step || (at === 0 && step === 0)).length;
}

/** Answers of an evaluation; the sweep's is of the questions that others are measured on, four times each. */
function evaluationAnswers({ questions, curve }: ExperimentPlan, { samples }: Cell): number {
  return samples === 0 ? SWEEP_SAMPLES * questions : curve.questions;
}

/** Updates that taking a probe's gradients is worth, roughly: the leak is taken twice, of each of two roles; angles have their nulls. */
const PROBE_UPDATES = { leak: 4, angles: 3 };
/** Tokens of an answer with its prompt, roughly, and what training all parameters takes against one LoRA: for bases. */
const [ANSWER_TOKENS, FULL] = [70, 1.5];

/** What is left of a plan, and how long it will take. `directory`: where it runs, for what is there beside cells. */
export function budgetOf(
  plan: ExperimentPlan,
  statuses: readonly CellStatus[],
  calibration: Calibration,
  directory?: string,
): Budget {
  const { questionsPerStep, group, questions } = plan;
  const perAnswer = calibration.rollout / (questionsPerStep * group);
  const perUpdate = calibration.update / (questionsPerStep * group);
  const byCell: Record<string, number> = {};
  let [steps, answers, minutes] = [0, 0, 0];
  const folder = directory === undefined ? undefined : new ExperimentDirectory(directory);
  const bases = new Set<string>();
  for (const { cell, state, step, probe } of statuses) {
    const waiting = state === "waiting";
    const kind = waiting ? probeKind(cell, plan) : probe;
    if (!waiting && kind === undefined) continue;
    const [rollout, update] = FACTORS[cell.arm] ?? [1, 1];
    const left = waiting ? Math.max(0, cell.steps - step) : 0;
    const writers = Object.keys(ARMS[cell.arm]?.policy?.writers ?? {}).length;
    let own = waiting
      ? evaluationsLeft(plan, cell, step) * evaluationAnswers(plan, cell) + cell.samples * questions
      : 0;
    let seconds = left * (calibration.rollout * rollout + calibration.update * update);
    if (kind !== undefined) {
      const size = probeSize(kind, plan);
      own += size.questions * size.group;
      seconds += size.questions * size.group * perUpdate * update * PROBE_UPDATES[kind];
    }
    const base = baseOf(plan, cell);
    if (waiting && !bases.has(base)) {
      bases.add(base);
      seconds += (baseTokensLeft(plan, cell, folder) / ANSWER_TOKENS) * perUpdate * FULL;
    }
    seconds += own * perAnswer * (rollout + 0.4 * writers);
    steps += left;
    answers += own;
    minutes += seconds / 60;
    byCell[cell.id] = seconds / 60;
  }
  const count = (state: CellStatus["state"]): number => statuses.filter((one) => one.state === state).length;
  return {
    cells: {
      total: statuses.length,
      finished: count("finished"),
      failed: count("failed"),
      unavailable: count("unavailable"),
    },
    steps,
    answers,
    minutes,
    byCell,
    calibration,
  };
}
