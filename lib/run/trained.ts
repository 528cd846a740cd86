import { readFile } from "node:fs/promises";
import path from "node:path";
import { Adapters, type Routes } from "../adapters/adapters.js";
import { describe } from "../arguments.js";
import { fail } from "../errors.js";
import type { Model } from "../model/model.js";
import { RunDirectory } from "./directory.js";

/**
 * The adapters of a checkpoint of a run directory, and the optimizer steps that they have taken. `checkpoint`: the newest (default), that of the best
 * evaluation, or that of a step. A directory without it -> ERR_RUN_DIRECTORY.
 *
 * @example
 * const { adapters } = await loadTrainedAdapters(model, "runs/search");
 */
export async function loadTrainedAdapters(
  model: Model,
  directory: string,
  options: { checkpoint?: "newest" | "best" | number } = {},
): Promise<{ adapters: Adapters; step: number }> {
  const run = new RunDirectory(directory);
  const { checkpoint = "newest" } = options;
  const steps = await run.checkpoints();
  if (steps.length === 0)
    fail("ERR_RUN_DIRECTORY", `Expected a checkpoint in ${run.path} but there is none: train it first`);
  const wanted = checkpoint === "newest" ? steps.at(-1) : checkpoint === "best" ? (await run.best())?.step : checkpoint;
  const step = steps.find((own) => own === wanted);
  if (step === undefined) {
    const what = checkpoint === "best" ? "a best checkpoint" : `a checkpoint of step ${describe(checkpoint)}`;
    fail("ERR_RUN_DIRECTORY", `Expected ${what} in ${run.path} but there are those of steps ${steps.join(", ")}`);
  }
  const folder = run.checkpointPath(step);
  const { roles, routes, adapters } = JSON.parse(await readFile(path.join(folder, "trainer.json"), "utf8")) as {
    roles: string[];
    routes: Routes;
    adapters: Record<string, number>;
  };
  const folders = new Map(Object.keys(adapters).map((name) => [name, path.join(folder, "adapters", name)]));
  return { adapters: await Adapters.restore(model, roles, routes, folders), step };
}
