import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { Adapters, type Routes } from "../adapters/adapters.js";
import { fail } from "../errors.js";
import type { Model } from "../model/model.js";
import type { Writer } from "../rollout/writers.js";
import { RunDirectory } from "./directory.js";
import type { PolicySampling } from "./policy.js";
import type { EvaluationRecord } from "./records.js";

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
  const { folder, step } = await checkpointOf(directory);
  return { adapters: await restoreAdapters(model, folder), step };
}

/**
 * What full training has made of a run's models, as of its newest checkpoint: directories by the base role and by agents' names, for loadRun. Empty where
 * adapters were trained.
 */
export async function trainedModels(directory: string, base: string): Promise<Record<string, string>> {
  const { folder } = await checkpointOf(directory);
  const parts = await agentFolders(folder, base);
  const models = Object.entries(parts).map(([name, own]): [string, string] => [name, path.join(own, "model")]);
  return Object.fromEntries(models.filter(([, own]) => existsSync(own)));
}

/**
 * The policy of a run's newest checkpoint, to sample from: on the models of loadRun, which has been given {@link trainedModels}.
 *
 * @example
 * const { sampling, policy, step } = await loadTrainedPolicy(setup, "runs/search");
 * await evaluate({ ...sampling, model: setup.model, rollout: { ...setup.rollout, ...sampling }, policy, step, questions });
 */
export async function loadTrainedPolicy(
  {
    model,
    agents = {},
    rollout,
  }: { model: Model; agents?: Record<string, Model>; rollout: { router: { base: string } } },
  directory: string,
): Promise<{ sampling: PolicySampling; policy: EvaluationRecord["policy"]; step: number }> {
  const { folder, step } = await checkpointOf(directory);
  const parts = await agentFolders(folder, rollout.router.base);
  const writerOf = async (name: string, own: Model): Promise<Writer> => {
    const from = parts[name];
    if (from === undefined) return fail("ERR_CHECKPOINT", `Expected an agent ${name} in ${folder} but there is none`);
    const full = existsSync(path.join(from, "model"));
    return { model: own, ...(!full && { adapters: await restoreAdapters(own, from) }) };
  };
  const { adapters } = await writerOf(rollout.router.base, model);
  const writers: Record<string, Writer> = {};
  for (const [name, own] of Object.entries(agents)) writers[name] = await writerOf(name, own);
  const several = Object.keys(agents).length > 0;
  return {
    sampling: { ...(adapters && { adapters }), ...(several && { writers }) },
    policy: several ? "agents" : adapters === undefined ? "model" : "adapters",
    step,
  };
}

/** Where each trainer's state is, by the name of its agent; of one trainer by `base`. */
async function agentFolders(folder: string, base: string): Promise<Record<string, string>> {
  const agents = path.join(folder, "agents");
  if (!existsSync(agents)) return { [base]: folder };
  return Object.fromEntries((await readdir(agents)).map((name) => [name, path.join(agents, name)]));
}

async function checkpointOf(directory: string): Promise<{ folder: string; step: number }> {
  const run = new RunDirectory(directory);
  const step = (await run.checkpoints()).at(-1);
  if (step === undefined)
    fail("ERR_RUN_DIRECTORY", `Expected a checkpoint in ${run.path} but there is none: train it first`);
  return { folder: run.checkpointPath(step), step };
}

async function restoreAdapters(model: Model, folder: string): Promise<Adapters> {
  const { roles, routes, adapters } = JSON.parse(await readFile(path.join(folder, "trainer.json"), "utf8")) as {
    roles: string[];
    routes: Routes;
    adapters: Record<string, number>;
  };
  const folders = new Map(Object.keys(adapters).map((name) => [name, path.join(folder, "adapters", name)]));
  return Adapters.restore(model, roles, routes, folders);
}
