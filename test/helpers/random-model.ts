// Checkpoints of random shape that are multiples of nothing, for properties that must hold in all of them.
import fc from "fast-check";
import { Random } from "rolegrad";
import { toBf16, type TensorData } from "../../lib/model/safetensors.js";
import { modelTensors, writeModelFiles, type ModelSizes } from "./model-files.js";

export interface ModelShape {
  hidden: number;
  layers: number;
  kvHeads: number;
  /** Queries a key. */
  group: number;
  /** Half of head_dim. */
  halfHead: number;
  intermediate: number;
  vocabulary: number;
  tied: boolean;
  bf16: boolean;
  /** Rank of the adapter of each role. */
  ranks: number[];
  seed: number;
}

export const modelShapes: fc.Arbitrary<ModelShape> = fc.record({
  hidden: fc.integer({ min: 1, max: 60 }),
  layers: fc.integer({ min: 1, max: 3 }),
  kvHeads: fc.integer({ min: 1, max: 3 }),
  group: fc.integer({ min: 1, max: 5 }),
  halfHead: fc.integer({ min: 1, max: 12 }),
  intermediate: fc.integer({ min: 1, max: 90 }),
  // At times more than one chunk of 1024 columns of the head.
  vocabulary: fc.oneof(
    { weight: 4, arbitrary: fc.integer({ min: 3, max: 300 }) },
    fc.integer({ min: 1025, max: 1500 }),
  ),
  tied: fc.boolean(),
  bf16: fc.boolean(),
  ranks: fc.array(fc.integer({ min: 1, max: 17 }), { minLength: 1, maxLength: 8 }),
  seed: fc.nat(),
});

/** role0, role1, ... */
export function rolesOf({ ranks }: ModelShape): string[] {
  return ranks.map((_, i) => `role${i}`);
}

/** The ranks by adapter, as createAdapters takes them. */
export function ranksOf({ ranks }: ModelShape): Record<string, number> {
  return Object.fromEntries(ranks.map((rank, i) => [`role${i}`, rank]));
}

/** Writes config.json and model.safetensors of random weights; returns the folder. */
export async function writeRandomModel(directory: string, shape: ModelShape): Promise<string> {
  const { hidden, kvHeads, group, halfHead, bf16, seed } = shape;
  const sizes: ModelSizes = { ...shape, heads: kvHeads * group, headDim: 2 * halfHead };
  const random = new Random(seed, "random model");
  const tensors = modelTensors(sizes).map(({ name, shape: dimensions, kind }): TensorData => {
    const about = kind === "norm" ? 1 : 0;
    const size = {
      embedding: 1,
      head: 3.4 / Math.sqrt(hidden),
      norm: 0.5,
      weight: 1.7 / Math.sqrt(dimensions.at(-1) as number),
      bias: 0.3,
      headNorm: 0,
    }[kind];
    const length = dimensions.reduce((a, b) => a * b, 1);
    const values = Float32Array.from({ length }, () => about + (2 * random.next() - 1) * size);
    return bf16
      ? { name, dtype: "BF16", shape: dimensions, data: toBf16(values) }
      : { name, dtype: "F32", shape: dimensions, data: values };
  });
  return writeModelFiles(directory, sizes, tensors, { max_position_embeddings: 2048 });
}
