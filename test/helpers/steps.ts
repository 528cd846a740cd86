// Claims that hold whatever is trained: what no bit may depend on, and that a gradient is the derivative.
import type { Test } from "tap";
import { Random } from "rolegrad";
import type { Adapters, Device, Model, Trainer } from "rolegrad";
import { bits, pack, type Row } from "./engine.js";
import { trajectoriesOf } from "./properties.js";
import { devices, withModel } from "./reference.js";
import { relativeError } from "./tensors.js";

/** Whether every sequence gets the bits that it gets alone when all are scored together. */
export async function sameAlone(model: Model, adapters: Adapters, rows: readonly Row[]): Promise<boolean> {
  const options = { adapters, logits: true, temperature: 0.8 };
  const together = await model.forward(pack(rows), options);
  const size = model.config.vocabSize;
  let at = 0;
  for (const row of rows) {
    const alone = await model.forward(pack([row]), options);
    const end = at + row.ids.length;
    if (bits(alone.logprobs) !== bits(together.logprobs.subarray(at, end))) return false;
    if (bits(alone.logits!) !== bits(together.logits!.subarray(at * size, end * size))) return false;
    at = end;
  }
  return true;
}

/** A step on one set of trajectories in other orders and micro-batches ends in one state, as `state` tells it. */
export async function sameInAnySplit(
  t: Test,
  model: Model,
  make: (microBatchTokens: number) => Trainer,
  state: (trainer: Trainer, gradNorms: Record<string, number>) => string,
): Promise<void> {
  const trajectories = trajectoriesOf({ lengths: [30, 25, 40, 8, 33, 21], seed: 3 }, model);
  const seen = new Set<string>();
  for (const microBatchTokens of [8192, 60, 1]) {
    const trainer = make(microBatchTokens);
    const { gradNorms } = await trainer.step(new Random(microBatchTokens, "order").shuffle([...trajectories]));
    seen.add(`${state(trainer, gradNorms)} ${JSON.stringify(gradNorms)}`);
  }
  t.equal(seen.size, 1);
}

/** What `work` gives on the fast kernels is near what it gives on the plain loops. */
export async function nearPlainLoops(
  t: Test,
  directory: string,
  work: (model: Model, device: Device) => Promise<readonly Float32Array[]>,
  what = "",
): Promise<void> {
  const found: Float32Array[] = [];
  for (const device of devices)
    await withModel(directory, { device }, async (model) => {
      const parts = await work(model, device);
      found.push(Float32Array.from(parts.flatMap((x) => [...x])));
    });
  const error = relativeError(found[0]!, found[1]!);
  t.ok(error < 1e-4, `${what}fast kernels against plain loops: ${error}`);
}

/**
 * The slope of the loss along a gradient by central differences of steps `h`, and the gradient's norm, which is the derivative there.
 * `set` puts parameters in place: moved ones, and last those of the start.
 */
export async function slopeAlong(
  loss: () => Promise<number>,
  h: number,
  start: readonly Float32Array[],
  gradient: readonly Float32Array[],
  set: (...moved: Float32Array[]) => void,
): Promise<{ slope: number; norm: number }> {
  const norm = Math.hypot(...gradient.flatMap((x) => [...x]));
  const at = (step: number): Promise<number> => {
    set(...start.map((x, part) => x.map((v, i) => v + (step * gradient[part]![i]!) / norm)));
    return loss();
  };
  const slope = ((await at(h)) - (await at(-h))) / (2 * h);
  set(...start);
  return { slope, norm };
}
