import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { Adapters, type AdapterInfo } from "../adapters/adapters.js";
import { routersOf } from "../adapters/mixture.js";
import { modulesOf } from "../adapters/modules.js";
import { describe } from "../arguments.js";
import { fail } from "../errors.js";
import type { RunConfig } from "./schema.js";
import { planVariant } from "./variants.js";

/** An adapter's directory holds one of these. */
const CONFIGS = ["adapter_config.json", "mixture.json"];

/**
 * Gives adapters the weights of saved ones of the same names, in a run directory (its newest checkpoint), a checkpoint, or a directory with one for
 * each name. One that is not there, or of another rank, alpha, form or other trained tokens -> ERR_ADAPTER_INVALID.
 */
export async function beginWith(adapters: Adapters, directory: string): Promise<void> {
  const { model, roles, routes, names, trainableTokens } = adapters;
  const folders = foldersOf(directory, names);
  const saved = await Adapters.restore(model, roles, routes, folders);
  for (const [i, wanted] of adapters.list.entries())
    checkAlike(saved.list[i] as AdapterInfo, wanted, folders.get(wanted.name) as string);
  if (saved.trainableTokens.join() !== trainableTokens.join()) {
    const tokens = (ids: readonly number[]): string => (ids.length === 0 ? "none" : ids.join(", "));
    const but = `but received those of ${tokens(saved.trainableTokens)}`;
    fail(
      "ERR_ADAPTER_INVALID",
      `Expected trained rows of the tokens ${tokens(trainableTokens)} in ${directory} ${but}`,
    );
  }
  for (const { name, targets, experts } of adapters.list) {
    for (const module of modulesOf(model.config, targets)) adapters.set(name, module, saved.get(name, module));
    if (experts > 0)
      for (const { layer, block } of routersOf(model.config))
        adapters.setRouter(layer, block, saved.getRouter(layer, block));
  }
  for (const token of trainableTokens) adapters.setToken(token, saved.getToken(token));
}

/** The files of `initialAdapters` that decide what a run begins with. */
export function initialFiles({ initialAdapters, variant, agent }: RunConfig): Record<string, string> {
  if (initialAdapters === undefined) return {};
  const { routes } = planVariant(variant, agent.roles);
  const names = [...new Set(Object.values(routes).filter((name) => name !== null))];
  const files = [...foldersOf(initialAdapters, names)].flatMap(([name, folder]) =>
    readdirSync(folder).map((file) => [`initial adapter ${name}, ${file}`, path.join(folder, file)] as const),
  );
  return Object.fromEntries(files);
}

function foldersOf(directory: string, names: readonly string[]): Map<string, string> {
  const holds = (folder: string, name: string): boolean =>
    CONFIGS.some((file) => existsSync(path.join(folder, name, file)));
  const newest = newestCheckpoint(directory);
  // Where a checkpoint has those of one trainer, and of several agents each one's.
  const within = (folder: string, name: string): string[] => [
    path.join(folder, "adapters"),
    path.join(folder, "agents", name, "adapters"),
  ];
  const placesOf = (name: string): string[] => [
    directory,
    ...(newest === undefined ? [] : within(newest, name)),
    ...within(directory, name),
  ];
  const count = names.length === 0 ? 0 : placesOf("").length;
  const place = Array.from({ length: count }, (_, i) => i).find((i) => {
    return names.some((name) => holds(placesOf(name)[i] as string, name));
  });
  const rootOf = (name: string): string => placesOf(name)[place ?? 0] as string;
  const missing = names.find((name) => !holds(rootOf(name), name));
  if (missing !== undefined) {
    const what =
      "initialAdapters: a run directory, a checkpoint, or a directory with an adapter's directory for each name";
    fail("ERR_ADAPTER_INVALID", `Expected the adapter ${missing} in ${rootOf(missing)} but there is none (${what})`);
  }
  return new Map(names.map((name) => [name, path.join(rootOf(name), name)]));
}

/** A run directory's newest checkpoint. */
function newestCheckpoint(directory: string): string | undefined {
  const folder = path.join(directory, "checkpoints");
  const names = existsSync(folder) ? readdirSync(folder).filter((name) => /^step-\d+$/.test(name)) : [];
  const newest = names.sort().at(-1);
  return newest === undefined ? undefined : path.join(folder, newest);
}

function checkAlike(saved: AdapterInfo, wanted: AdapterInfo, folder: string): void {
  for (const field of ["rank", "alpha", "experts", "rsLora", "targets", "rankPattern", "alphaPattern"] as const) {
    const [own, run] = [saved[field], wanted[field]].map(form);
    if (own === run) continue;
    const values = `${field} ${describe(wanted[field])}, that of the run, but it has ${describe(saved[field])}`;
    fail(
      "ERR_ADAPTER_INVALID",
      `Expected the adapter in ${folder} to have ${values}: change the run's, or give another adapter`,
    );
  }
}

/** Targets are a set. */
function form(value: unknown): string {
  return JSON.stringify(Array.isArray(value) ? [...(value as string[])].sort() : value);
}
