import { existsSync } from "node:fs";
import path from "node:path";
import { planMemory } from "../plan/memory.js";
import { countPrompt } from "../plan/data.js";
import { adapterParameters, parameterCount } from "../plan/model.js";
import { longestAnswer, readPlannedModel, shapeOf } from "../plan/shape.js";
import type { MemoryLine } from "../plan/types.js";
import { ARMS } from "./arms.js";
import { resolveCell } from "./cell-run.js";
import type { ExperimentDirectory } from "./directory.js";
import { expandPlan, type ExperimentPlan } from "./plan.js";
import { RolegradError } from "../errors.js";

/** What training an arm holds, as `rolegrad train --plan` counts it: bytes, without the process itself. */
export interface ArmMemory {
  /** Trained parameters. */
  parameters: number;
  /** By part; what an arm has not is not there. */
  bytes: Partial<Record<MemoryLine["name"], number>>;
  total: number;
}

/** The same on every machine: one thread's work space, the narrowest panels, and no bound on the cache but the answers. */
const MACHINE = { processBytes: 0, panel: 32, threads: 1, memoryBytes: 2 ** 50 };

/**
 * Memory of training by arm, of the arms that are trained themselves and that this version can train. None where the folder has no base
 * model, of which it is counted. It depends on the plan and the model alone.
 */
export async function trainingMemory(
  directory: ExperimentDirectory,
  plan: ExperimentPlan,
): Promise<ReadonlyMap<string, ArmMemory>> {
  const found = new Map<string, ArmMemory>();
  for (const cell of expandPlan(plan)) {
    if (
      found.has(cell.arm) ||
      cell.steps === 0 ||
      cell.samples === 0 ||
      ARMS[cell.arm]?.run === undefined ||
      cell.dialect !== null
    )
      continue;
    try {
      const run = resolveCell(plan, cell, 1e-3, directory);
      if (!existsSync(path.join(run.model, "config.json"))) continue;
      const model = readPlannedModel(run.model);
      const { config } = model;
      const tokenizer = existsSync(path.join(model.directory, "tokenizer.json")) ? model.directory : undefined;
      const { tokens } = await countPrompt(run, { tokenizer, vocabulary: config.vocabSize });
      const shape = shapeOf(run, model, longestAnswer(run, run.agent.maxLength ?? config.maxPositions, tokens));
      const { lines } = planMemory(shape, MACHINE);
      const bytes = Object.fromEntries(
        lines.filter(({ name }) => name !== "process").map(({ name, bytes: own }) => [name, own]),
      ) as ArmMemory["bytes"];
      found.set(cell.arm, {
        parameters: shape.full
          ? shape.agents * parameterCount(config)
          : shape.adapters.reduce((sum, size) => sum + adapterParameters(config, size), 0),
        bytes,
        total: Object.values(bytes).reduce((sum, own) => sum + own, 0),
      });
    } catch (error) {
      // A run.json that is not of this version has no cell either, which the page says.
      if (!(error instanceof RolegradError)) throw error;
    }
  }
  return found;
}
