import { readFile } from "node:fs/promises";
import path from "node:path";
import { Adapters, type Routes } from "../adapters/adapters.js";
import { fail } from "../errors.js";
import type { Model } from "../model/model.js";
import { RunDirectory } from "./directory.js";

/**
 * The adapters of a run directory's newest checkpoint, and the optimizer steps that they have taken. A directory without a checkpoint ->
 * ERR_RUN_DIRECTORY.
 *
 * @example
 * const { adapters } = await loadTrainedAdapters(model, "runs/search");
 */
export async function loadTrainedAdapters(
  model: Model,
  directory: string,
): Promise<{ adapters: Adapters; step: number }> {
  const run = new RunDirectory(directory);
  const step = (await run.checkpoints()).at(-1);
  if (step === undefined)
    fail("ERR_RUN_DIRECTORY", `Expected a checkpoint in ${run.path} but there is none: train it first`);
  const folder = run.checkpointPath(step);
  const { roles, routes, adapters } = JSON.parse(await readFile(path.join(folder, "trainer.json"), "utf8")) as {
    roles: string[];
    routes: Routes;
    adapters: Record<string, number>;
  };
  const folders = new Map(Object.keys(adapters).map((name) => [name, path.join(folder, "adapters", name)]));
  return { adapters: await Adapters.restore(model, roles, routes, folders), step };
}
