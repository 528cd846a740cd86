// What the benches of whole models share: the checkpoint, adapters that change something, and a model that is closed.
import type { Adapters } from "../adapters/adapters.js";
import { createAdapters } from "../adapters/create.js";
import { modulesOf, moduleShape, TARGETS } from "../adapters/modules.js";
import { type Model, loadModel } from "../model/model.js";
import type { Precision } from "../model/precision.js";
import { Random } from "../random.js";
import { type Size, type SizeName, sizes } from "./checkpoint.js";
import { memoryNeeded } from "./counts.js";
import { collectGarbage } from "./memory.js";
import type { BenchContext } from "./types.js";

export type Dtype = "float32" | "bfloat16";
export const rank = 8;
const alpha = 16;
export const roles = ["reason", "tool"];

/** Adapters of DART's shape: rank 8 on every linear, one for each of two roles; B is zero. */
export function dartAdapters(model: Model): Adapters {
  return createAdapters(model, { roles, rank, alpha, seed: 1 });
}

/** Gives every B small random values, so that the adapters matter. */
export function fillAdapters(adapters: Adapters): void {
  for (const name of adapters.names) {
    for (const module of modulesOf(adapters.model.config, TARGETS)) {
      const [rows] = moduleShape(adapters.model.config, module);
      const random = new Random(2, `bench/${name}/${module}`);
      const { a } = adapters.get(name, module);
      adapters.set(name, module, {
        a,
        b: Float32Array.from({ length: rows * rank }, () => 0.04 * random.next() - 0.02),
      });
    }
  }
}

/** Runs `work` with a model of this size; says why not, and does nothing, where disk or memory do not suffice. */
export async function* withModel<T>(
  context: BenchContext,
  size: SizeName,
  options: { dtype: Dtype; rows: number; copies?: number; what: string },
  work: (model: Model) => AsyncGenerator<T, void, undefined>,
): AsyncGenerator<T, void, undefined> {
  const { dtype, rows, copies, what } = options;
  const skip = (why: string): void => context.remark(`${what}: skipped. ${why}`);
  const needed = memoryNeeded(sizes[size], dtype, rows, copies);
  const available = process.availableMemory();
  if (available < needed)
    return skip(`Expected ${Math.ceil(needed / 1e6)} MB of memory but ${Math.floor(available / 1e6)} MB are free`);
  context.status(`${what}: writing a checkpoint`);
  const checkpoint = await context.checkpoints.get(size, context.signal);
  if ("skipped" in checkpoint) return skip(checkpoint.skipped);
  context.status(what);
  const model = await loadModel(checkpoint.directory, {
    dtype: dtype === "float32" ? "float32" : "auto",
    precision: context.precision,
    signal: context.signal,
  });
  try {
    yield* work(model);
  } finally {
    model.close();
    await collectGarbage();
  }
}

/** The storage types that a size is run in. */
export function dtypesOf(size: SizeName, precision: Precision = "exact"): readonly Dtype[] {
  if (precision === "bf16-multiply") return ["bfloat16"]; // weights are, whatever was stored
  return sizes[size].dtype === "BF16" ? ["float32", "bfloat16"] : ["float32"];
}

/** "tiny"; with its storage type where there is more than one. */
export function sizeLabel(size: SizeName, dtype: Dtype): string {
  return dtypesOf(size).length === 1 ? size : `${size} ${dtype === "float32" ? "f32" : "bf16"}`;
}

/** A size as the peer wants it. */
export function peerSize(s: Size): object {
  const { hidden, layers, heads, kvHeads, intermediate, vocabulary } = s;
  return { hidden, layers, heads, kvHeads, intermediate, vocabulary };
}
