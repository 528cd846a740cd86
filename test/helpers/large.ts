// A random model whose steps take seconds, and what is trained on it.
import { Random } from "rolegrad";
import type { Trajectory } from "rolegrad";
import { randomRow, randomTrajectory } from "./engine.js";
import { modelTensors, writeModelFiles } from "./model-files.js";

/** Writes a model of bf16 weights near U(-0.05, 0.05): 2.6 M parameters a layer at hidden 512. */
export async function writeLargeModel(
  directory: string,
  options: { hidden?: number; layers?: number; vocabulary?: number; intermediate?: number } = {},
): Promise<string> {
  const { hidden = 512, layers = 8, vocabulary = 2000, intermediate = 2 * hidden } = options;
  const heads = 8;
  const headDim = hidden / heads;
  const sizes = { vocabulary, hidden, layers, heads, kvHeads: heads, headDim, intermediate, tied: true };
  let state = 1;
  const tensors = modelTensors(sizes).map(({ name, shape, kind }) => {
    const data = new Uint16Array(shape.reduce((a, b) => a * b, 1));
    for (let i = 0; i < data.length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) | 0;
      // 1, or sign and seven bits of mantissa at the exponent of 2^-5.
      data[i] = kind === "norm" ? 0x3f80 : ((state >>> 16) & 0x807f) | 0x3d00;
    }
    return { name, dtype: "BF16" as const, shape, data };
  });
  return writeModelFiles(directory, sizes, tensors, { max_position_embeddings: 32768 });
}

/** Off-policy trajectories of two groups, so that all of them teach. */
export function longTrajectories(lengths: readonly number[], { vocabulary = 2000, seed = 1 } = {}): Trajectory[] {
  const random = new Random(seed, "long trajectories");
  return lengths.map((length, i) => ({
    ...randomTrajectory(random, `q${i % 2}#${i}`, `q${i % 2}`, randomRow(random, vocabulary, length, 2)),
    reward: i,
  }));
}
