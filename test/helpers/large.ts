// A random model whose steps take seconds, and what is trained on it.
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { Random } from "rolegrad";
import type { Trajectory } from "rolegrad";
import { writeSafetensors } from "../../lib/model/safetensors.js";
import { randomRow, randomTrajectory } from "./engine.js";

const heads = 8;

/** Writes a model of bf16 weights near U(-0.05, 0.05): 2.6 M parameters a layer at hidden 512. */
export async function writeLargeModel(
  directory: string,
  { hidden = 512, layers = 8, vocabulary = 2000 }: { hidden?: number; layers?: number; vocabulary?: number } = {},
): Promise<string> {
  const intermediate = 2 * hidden;
  const tensors: Parameters<typeof writeSafetensors>[1] = [];
  let state = 1;
  const add = (name: string, shape: number[], constant?: number): void => {
    const data = new Uint16Array(shape.reduce((a, b) => a * b, 1));
    for (let i = 0; i < data.length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) | 0;
      // Sign and seven bits of mantissa at the exponent of 2^-5.
      data[i] = constant ?? ((state >>> 16) & 0x807f) | 0x3d00;
    }
    tensors.push({ name, dtype: "BF16", shape, data });
  };
  const one = 0x3f80;
  add("model.embed_tokens.weight", [vocabulary, hidden]);
  add("model.norm.weight", [hidden], one);
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}`;
    add(`${prefix}.input_layernorm.weight`, [hidden], one);
    add(`${prefix}.post_attention_layernorm.weight`, [hidden], one);
    for (const name of ["q", "k", "v"]) {
      add(`${prefix}.self_attn.${name}_proj.weight`, [hidden, hidden]);
      add(`${prefix}.self_attn.${name}_proj.bias`, [hidden]);
    }
    add(`${prefix}.self_attn.o_proj.weight`, [hidden, hidden]);
    add(`${prefix}.mlp.gate_proj.weight`, [intermediate, hidden]);
    add(`${prefix}.mlp.up_proj.weight`, [intermediate, hidden]);
    add(`${prefix}.mlp.down_proj.weight`, [hidden, intermediate]);
  }
  await mkdir(directory, { recursive: true });
  await writeSafetensors(path.join(directory, "model.safetensors"), tensors);
  const config = {
    model_type: "qwen2",
    vocab_size: vocabulary,
    hidden_size: hidden,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: heads,
    intermediate_size: intermediate,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    tie_word_embeddings: true,
    max_position_embeddings: 32768,
  };
  await writeFile(path.join(directory, "config.json"), JSON.stringify(config));
  return directory;
}

/** Off-policy trajectories of two groups, so that all of them teach. */
export function longTrajectories(lengths: readonly number[], { vocabulary = 2000, seed = 1 } = {}): Trajectory[] {
  const random = new Random(seed, "long trajectories");
  return lengths.map((length, i) => ({
    ...randomTrajectory(random, `q${i % 2}#${i}`, `q${i % 2}`, randomRow(random, vocabulary, length, 2)),
    reward: i,
  }));
}
