import { RolegradError } from "../errors.js";
import { resolveRunConfig } from "../run/config.js";
import type { RunConfig, RunConfigInput } from "../run/schema.js";
import { loadRun, type LoadedRun, type LoadRunOptions } from "../run/setup.js";
import { ARMS } from "./arms.js";
import type { ExperimentDirectory } from "./directory.js";
import type { Cell, ExperimentPlan } from "./plan.js";
import { ALIGNED, cellWorld, searchWorld } from "./worlds.js";

export const ROLES = ["reason", "tool"];

/** Answers a question of an evaluation of the sweep. */
export const SWEEP_SAMPLES = 4;

/** The run.json of a cell, as `rolegrad train` would take it. `rate`: what "tuned" has become. */
export function cellRun(plan: ExperimentPlan, cell: Cell, rate: number): RunConfigInput {
  const sweep = cell.samples === 0;
  const { agent, ...world } = cellWorld(plan, cell);
  const { rank, ...run } = ARMS[cell.arm]?.run ?? { variant: "shared", rank: 16 };
  const roleWeights = cell.balance === 1 ? {} : { roleWeights: { tool: cell.balance } };
  return {
    ...world,
    agent: {
      roles: ROLES,
      base: "reason",
      ...agent,
      actionBudget: 4,
      finalAnswer: false,
      concurrency: 128,
    },
    ...run,
    ...(rank !== undefined && { rank, alpha: 2 * rank }),
    optimizer: { learningRate: rate, betas: [0.9, 0.99], warmupSteps: 3 },
    objective: { klCoefficient: 0, ...roleWeights },
    steps: Math.max(1, cell.steps),
    questionsPerStep: plan.questionsPerStep,
    group: plan.group,
    seed: cell.seed,
    // A sweep is judged by its last evaluation; the one before the first step, which no setting leaves out, is in the budget.
    evaluation: sweep
      ? { every: 0, questions: plan.questions, samples: SWEEP_SAMPLES }
      : { every: plan.curve.every, questions: plan.curve.questions },
    // An arm that goes astray is a result: nothing but what is not finite ends a cell.
    guards: { explosion: { factor: 0 }, zeroReward: { steps: 0 }, unchanged: "off" },
    checkpoint: { every: 10, keep: 1, keepBest: false },
    trajectories: { every: 0 },
    tensorboard: false,
    output: `cells/${cell.id}`,
  };
}

/** {@link cellRun}, with every default filled in. */
export function resolveCell(plan: ExperimentPlan, cell: Cell, rate: number, directory: ExperimentDirectory): RunConfig {
  return resolveRunConfig(cellRun(plan, cell, rate), directory.planFile, { output: directory.run(cell.id).path });
}

/**
 * The parts of a cell's run; the search is that of its dialect. `questions`: so many to evaluate on, if not those of its curve.
 */
export async function loadCell(
  plan: ExperimentPlan,
  cell: Cell,
  rate: number,
  directory: ExperimentDirectory,
  { questions, options }: { questions?: number; options?: LoadRunOptions } = {},
): Promise<LoadedRun> {
  const config = resolveCell(plan, cell, rate, directory);
  const { evaluation } = config;
  const asked = { ...evaluation, questions: questions ?? evaluation.questions };
  const setup = await loadRun({ ...config, evaluation: asked }, options);
  if (cell.dialect === null) return setup;
  const dialect = cell.dialect === "aligned" ? ALIGNED : { dose: cell.dialect };
  const environment = searchWorld(plan, plan.world.seed, dialect).environment();
  return { ...setup, rollout: { ...setup.rollout, environment } };
}

/** Why this version cannot run a cell; undefined where it can. */
export function unavailable(plan: ExperimentPlan, cell: Cell, directory: ExperimentDirectory): string | undefined {
  try {
    resolveCell(plan, cell, typeof cell.rate === "number" ? cell.rate : 1e-3, directory);
    return undefined;
  } catch (error) {
    if (!(error instanceof RolegradError)) throw error;
    return `its run.json is not of this version: ${error.message}`;
  }
}
