import { existsSync } from "node:fs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import path from "node:path";
import { Adapters, type Routes } from "../adapters/adapters.js";
import { fail } from "../errors.js";
import type { Model } from "../model/model.js";
import { readSafetensors, writeSafetensors, type TensorData } from "../model/safetensors.js";
import type { Trainer } from "./trainer.js";

interface State {
  version: 1;
  steps: number;
  roles: string[];
  routes: Routes;
  /** Optimizer steps by adapter. */
  adapters: Record<string, number>;
}

/** adapters/NAME (PEFT), optimizer.safetensors (moments), trainer.json (written last: a directory with it is complete). */
export async function writeState(trainer: Trainer, directory: string): Promise<void> {
  const { adapters } = trainer;
  if (adapters === undefined)
    fail("ERR_UNSUPPORTED", "Expected a trainer of adapters: full training is saved by saveModel()");
  await mkdir(directory, { recursive: true });
  for (const name of adapters.names) await adapters.save(path.join(directory, "adapters", name), name);
  const { steps, first, second } = trainer.native.state();
  const tensors = adapters.names.flatMap((name, i): TensorData[] =>
    [first[i] as Float32Array, second[i] as Float32Array].map((data, k) => ({
      name: `${name}.${k === 0 ? "exp_avg" : "exp_avg_sq"}`,
      dtype: "F32",
      shape: [data.length],
      data,
    })),
  );
  await writeSafetensors(path.join(directory, "optimizer.safetensors"), tensors);
  const state: State = {
    version: 1,
    steps: trainer.steps,
    roles: [...adapters.roles],
    routes: adapters.routes,
    adapters: Object.fromEntries(adapters.names.map((name, i) => [name, steps[i] ?? 0])),
  };
  const file = path.join(directory, "trainer.json");
  await writeFile(`${file}.partial`, `${JSON.stringify(state, null, 2)}\n`);
  await rename(`${file}.partial`, file);
}

export async function readState(
  directory: string,
  model: Model,
  make: (adapters: Adapters) => Trainer,
): Promise<{ trainer: Trainer; steps: number }> {
  const file = path.join(directory, "trainer.json");
  if (!existsSync(file)) fail("ERR_CHECKPOINT", `Expected a complete checkpoint but ${file} does not exist`);
  let state: State;
  try {
    state = JSON.parse(await readFile(file, "utf8")) as State;
  } catch (cause) {
    fail("ERR_CHECKPOINT", `Expected JSON in ${file}: ${(cause as Error).message}`, cause);
  }
  if (state.version !== 1)
    fail("ERR_CHECKPOINT", `Expected version 1 in ${file} but received ${String(state.version)}`);
  const folder = (name: string | null): string | null =>
    name === null ? null : path.join(directory, "adapters", name);
  const loaded = await Adapters.load(
    model,
    Object.fromEntries(state.roles.map((role) => [role, folder(state.routes[role] ?? null)])),
  );
  const adapters = loaded;
  const trainer = make(adapters);
  const moments = await readSafetensors(path.join(directory, "optimizer.safetensors"));
  // Adapters.load names an adapter after its first role; the files are by the adapter's own name.
  const saved = new Map(state.roles.map((role) => [adapters.routes[role], state.routes[role]]));
  adapters.names.forEach((name, i) => {
    const own = saved.get(name) ?? name;
    const first = moments.get(`${own}.exp_avg`)?.data;
    const second = moments.get(`${own}.exp_avg_sq`)?.data;
    if (first === undefined || second === undefined)
      fail("ERR_CHECKPOINT", `Expected moments of adapter ${own} in ${directory}`);
    trainer.native.restore(i, state.adapters[own] ?? 0, first, second);
  });
  return { trainer, steps: state.steps };
}
