// What the random models of tests have in common: the tensors of a decoder, and the files of a checkpoint.
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { writeSafetensors, type TensorData } from "../../lib/model/safetensors.js";

export interface ModelSizes {
  vocabulary: number;
  hidden: number;
  layers: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  intermediate: number;
  /** Without an lm_head. */
  tied: boolean;
}

export interface ModelTensor {
  name: string;
  shape: number[];
  /** "headNorm" is Qwen3's, of queries and keys. */
  kind: "embedding" | "head" | "norm" | "weight" | "bias" | "headNorm";
}

/** Every tensor of a model, in the order in which random numbers are drawn for them. */
export function modelTensors(
  { vocabulary, hidden, layers, heads, kvHeads, headDim, intermediate, tied }: ModelSizes,
  { bias = true, headNorms = false }: { bias?: boolean; headNorms?: boolean } = {},
): ModelTensor[] {
  const linears: [name: string, rows: number, columns: number][] = [
    ["self_attn.q_proj", heads * headDim, hidden],
    ["self_attn.k_proj", kvHeads * headDim, hidden],
    ["self_attn.v_proj", kvHeads * headDim, hidden],
    ["self_attn.o_proj", hidden, heads * headDim],
    ["mlp.gate_proj", intermediate, hidden],
    ["mlp.up_proj", intermediate, hidden],
    ["mlp.down_proj", hidden, intermediate],
  ];
  const list: ModelTensor[] = [];
  const add = (kind: ModelTensor["kind"], name: string, ...shape: number[]) => list.push({ kind, name, shape });
  add("embedding", "model.embed_tokens.weight", vocabulary, hidden);
  if (!tied) add("head", "lm_head.weight", vocabulary, hidden);
  add("norm", "model.norm.weight", hidden);
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}`;
    add("norm", `${prefix}.input_layernorm.weight`, hidden);
    add("norm", `${prefix}.post_attention_layernorm.weight`, hidden);
    for (const [name, rows, columns] of linears) {
      add("weight", `${prefix}.${name}.weight`, rows, columns);
      if (bias && /[qkv]_proj/.test(name)) add("bias", `${prefix}.${name}.bias`, rows);
    }
    if (!headNorms) continue;
    for (const name of ["q_norm", "k_norm"]) add("headNorm", `${prefix}.self_attn.${name}.weight`, headDim);
  }
  return list;
}

/** Writes model.safetensors and config.json, of Qwen2 unless `more` says otherwise; returns the folder. */
export async function writeModelFiles(
  directory: string,
  sizes: ModelSizes,
  tensors: TensorData[],
  more: { model_type?: string; max_position_embeddings?: number; rope_scaling?: object } = {},
): Promise<string> {
  await mkdir(directory, { recursive: true });
  await writeSafetensors(path.join(directory, "model.safetensors"), tensors);
  const config = {
    model_type: "qwen2",
    vocab_size: sizes.vocabulary,
    hidden_size: sizes.hidden,
    num_hidden_layers: sizes.layers,
    num_attention_heads: sizes.heads,
    num_key_value_heads: sizes.kvHeads,
    head_dim: sizes.headDim,
    intermediate_size: sizes.intermediate,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    tie_word_embeddings: sizes.tied,
    max_position_embeddings: 1024,
    ...more,
  };
  await writeFile(path.join(directory, "config.json"), JSON.stringify(config));
  return directory;
}
