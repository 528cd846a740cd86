// Checkpoints of random shape that are multiples of nothing, for properties that must hold in all of them.
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import fc from "fast-check";
import { Random } from "rolegrad";
import { toBf16, writeSafetensors, type TensorData } from "../../lib/model/safetensors.js";

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
  const { hidden, layers, kvHeads, group, halfHead, intermediate, vocabulary, tied, bf16, seed } = shape;
  const headDim = 2 * halfHead;
  const heads = kvHeads * group;
  const random = new Random(seed, "random model");
  const tensors: TensorData[] = [];
  const add = (name: string, dimensions: number[], size: number, about = 0): void => {
    const length = dimensions.reduce((a, b) => a * b, 1);
    const values = Float32Array.from({ length }, () => about + (2 * random.next() - 1) * size);
    tensors.push(
      bf16
        ? { name, dtype: "BF16", shape: dimensions, data: toBf16(values) }
        : { name, dtype: "F32", shape: dimensions, data: values },
    );
  };
  const size = 1.7 / Math.sqrt(hidden);
  add("model.embed_tokens.weight", [vocabulary, hidden], 1);
  if (!tied) add("lm_head.weight", [vocabulary, hidden], 2 * size);
  add("model.norm.weight", [hidden], 0.5, 1);
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}`;
    add(`${prefix}.input_layernorm.weight`, [hidden], 0.5, 1);
    add(`${prefix}.post_attention_layernorm.weight`, [hidden], 0.5, 1);
    for (const [name, rows] of [
      ["q", heads],
      ["k", kvHeads],
      ["v", kvHeads],
    ] as const) {
      add(`${prefix}.self_attn.${name}_proj.weight`, [rows * headDim, hidden], size);
      add(`${prefix}.self_attn.${name}_proj.bias`, [rows * headDim], 0.3);
    }
    add(`${prefix}.self_attn.o_proj.weight`, [hidden, heads * headDim], 1.7 / Math.sqrt(heads * headDim));
    add(`${prefix}.mlp.gate_proj.weight`, [intermediate, hidden], size);
    add(`${prefix}.mlp.up_proj.weight`, [intermediate, hidden], size);
    add(`${prefix}.mlp.down_proj.weight`, [hidden, intermediate], 1.7 / Math.sqrt(intermediate));
  }
  mkdirSync(directory, { recursive: true });
  await writeSafetensors(path.join(directory, "model.safetensors"), tensors);
  const config = {
    model_type: "qwen2",
    vocab_size: vocabulary,
    hidden_size: hidden,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: headDim,
    intermediate_size: intermediate,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    tie_word_embeddings: tied,
    max_position_embeddings: 2048,
  };
  writeFileSync(path.join(directory, "config.json"), JSON.stringify(config));
  return directory;
}
