import { existsSync } from "node:fs";
import { cp } from "node:fs/promises";
import path from "node:path";
import { makeFolder, writeFolder } from "../durable.js";
import { RolegradError } from "../errors.js";
import { resolveRunConfig } from "../run/config.js";
import type { RunConfig, RunConfigInput } from "../run/schema.js";
import { loadRun, type LoadedRun, type LoadRunOptions } from "../run/setup.js";
import { trainDialectBase } from "../world/dialect.js";
import { WORLD_CHECKPOINT, WORLD_TAGS } from "../world/text.js";
import { World } from "../world/world.js";
import { ARMS } from "./arms.js";
import type { ExperimentDirectory } from "./directory.js";
import type { Cell, ExperimentPlan } from "./plan.js";

export const ROLES = ["reason", "tool"];

/** Names of the files of a world's data, in the experiment's folder; aligned roles have answers of their own. */
export function worldData(seed: number, aligned = false): { questions: string; pages: string } {
  const of = `data/world-${seed}`;
  return { questions: `${of}-${aligned ? "aligned-" : ""}questions.jsonl`, pages: `${of}-pages.jsonl` };
}

const ALIGNED = { dose: 1, aligned: true };

/** The base, copied: an experiment goes on wherever the package lies. */
const BASE = "data/base";
/** The one base of all doses of the dialect, which knows the mark. */
const DIALECT_BASE = "data/dialect-base";
export const DIALECT_TOKENS = 500_000;
/** Answers a question of an evaluation of the sweep. */
export const SWEEP_SAMPLES = 4;

/** Writes the base and the data of the worlds that the plan plays in, once: an experiment goes on with what it began with, whatever version makes it. */
export async function writeWorlds(plan: ExperimentPlan, directory: ExperimentDirectory): Promise<void> {
  const base = directory.file(BASE);
  if (!existsSync(base)) {
    await makeFolder(path.dirname(base));
    await writeFolder(base, (partial) => cp(WORLD_CHECKPOINT, partial, { recursive: true }));
  }
  const { seed: ownSeed, tuningSeed } = plan.world;
  const hasAligned = plan.studies.some(({ dialect }) => dialect?.includes("aligned") === true);
  const worlds = [
    ...[...new Set([ownSeed, tuningSeed])].map((seed) => ({ seed, aligned: false })),
    ...(hasAligned ? [{ seed: ownSeed, aligned: true }] : []),
  ];
  for (const { seed, aligned } of worlds) {
    const { questions, pages } = worldData(seed, aligned);
    if (existsSync(directory.file(questions)) && existsSync(directory.file(pages))) continue;
    const world = new World({ seed, ...(aligned && { dialect: ALIGNED }) });
    const lines = (rows: readonly object[]): string => rows.map((row) => `${JSON.stringify(row)}\n`).join("");
    const dev = Math.max(plan.questions, plan.curve.questions);
    await directory.write(
      questions,
      lines([...world.questions("train", plan.trainQuestions, 0), ...world.questions("dev", dev, 0)]),
    );
    await directory.write(pages, lines(world.pages));
  }
}

/** The run.json of a cell, as `rolegrad train` would take it. `rate`: what "tuned" has become. */
export function cellRun(plan: ExperimentPlan, cell: Cell, rate: number): RunConfigInput {
  const { tuningSeed, seed: worldSeed } = plan.world;
  const sweep = cell.samples === 0;
  const data = worldData(sweep ? tuningSeed : worldSeed, cell.dialect === "aligned");
  const { rank, ...run } = ARMS[cell.arm]?.run ?? { variant: "shared", rank: 16 };
  const roleWeights = cell.balance === 1 ? {} : { roleWeights: { tool: cell.balance } };
  return {
    model: cell.dialect === null ? BASE : DIALECT_BASE,
    data: { questions: data.questions, split: "train", evalSplit: "dev" },
    environment: {
      kind: "search",
      passages: data.pages,
      topK: 1,
      titleWeight: 2,
      passage: "{title}. {text}",
      separator: " ",
    },
    agent: {
      roles: ROLES,
      base: "reason",
      spans: [{ role: "tool", ...WORLD_TAGS.tool }],
      output: WORLD_TAGS.output,
      answer: WORLD_TAGS.answer,
      prompt: " Question: {question}\n",
      actionBudget: 4,
      finalAnswer: false,
      maxLength: 200,
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

/** Whether the base of the dialect has been made. */
export function hasDialectBase(directory: ExperimentDirectory): boolean {
  return existsSync(directory.file(DIALECT_BASE));
}

/** Trains the base of the dialect where it is not there yet; an abort leaves none. */
export async function makeDialectBase(
  plan: ExperimentPlan,
  directory: ExperimentDirectory,
  signal?: AbortSignal,
): Promise<void> {
  const base = directory.file(DIALECT_BASE);
  if (existsSync(base)) return;
  const { dialectTokens: tokens = DIALECT_TOKENS } = plan.world;
  await writeFolder(base, (partial) => trainDialectBase({ directory: partial, tokens, ...(signal && { signal }) }));
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
  const environment = new World({
    seed: plan.world.seed,
    dialect: cell.dialect === "aligned" ? ALIGNED : { dose: cell.dialect },
  }).environment();
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
