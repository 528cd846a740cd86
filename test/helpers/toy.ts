// A random model for a real tokenizer whose rollouts make calls, and what a rollout with it needs.
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { loadTokenizer, Random, RoleRouter } from "rolegrad";
import type { Environment, Question, Reward, Tokenizer, Trajectory } from "rolegrad";
import { writeSafetensors } from "../../lib/model/safetensors.js";
import { normals } from "./engine.js";
import { root } from "./shared.js";

/** The embedded world's tokenizer: tags and end token are atomic. */
export const worldTokenizer = path.join(root, "assets/world");

export const roles = ["reason", "tool"];
export const router = new RoleRouter({
  roles,
  base: "reason",
  spans: [{ role: "tool", open: "<search>", close: "</search>" }],
});

export const questions: Question[] = [
  "Who owns the bank?",
  "Where?",
  "Which river flows through the town of the founder?",
].map((question, i) => ({ id: `q${i}`, question, answers: [] }));

/** Answers by what was asked, sooner or later: when it answers must not matter. */
export const environment: Environment = {
  async act({ text }) {
    await new Promise((resolve) => setTimeout(resolve, Math.floor(Math.random() * 4)));
    return { text: `found ${text.length} of ${text.slice(0, 3)}` };
  },
};

export const reward: Reward = ({ response }) => response.length % 7;

/** A trajectory without its latencies: what must not change from run to run. */
export function outcome({ calls, ...rest }: Trajectory): Record<string, unknown> {
  return { ...rest, calls: calls.map(({ latencyMs: _, ...call }) => call) };
}

/** Extra logits that make for calls, answers and ends now and then, in the world's tokenizer. */
const likely = { "<search>": 4.3, "</search>": 5.2, "<eos>": 3.5, "<answer>": 3.5, "</answer>": 4 };

/** What differs from the usual toy. */
export interface ToySizes {
  hidden?: number;
  heads?: number;
  kvHeads?: number;
  headDim?: number;
  intermediate?: number;
  layers?: number;
  /** Entries of the vocabulary that the tokenizer does not have. */
  extraTokens?: number;
}
/** Rope type llama3; of the toy's four wavelengths the first is short, the second between, the others long. */
const longContext = {
  rope_type: "llama3",
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 128,
};

type Family = "qwen2" | "qwen3" | "llama";
export const families: readonly Family[] = ["qwen2", "qwen3", "llama"];

const tokenizerFiles = ["tokenizer.json", "tokenizer_config.json"];

/**
 * Writes a random model of two layers for a tokenizer: logits are N(0, 1) or so, plus `tokens`. Its vocabulary is larger than the
 * tokenizer's, as Qwen's is. Returns the tokenizer.
 */
export async function writeToyModel(
  directory: string,
  options: {
    tokenizer?: string;
    tokens?: Record<string, number>;
    seed?: number;
    sizes?: ToySizes;
    family?: Family;
  } = {},
): Promise<Tokenizer> {
  const { tokenizer: source = worldTokenizer, tokens = likely, seed = 1, sizes = {}, family = "qwen2" } = options;
  const tokenizer = await loadTokenizer(source);
  const { hidden = 24, heads = 3, kvHeads = 1, headDim = 8, intermediate = 28, layers = 2, extraTokens = 3 } = sizes;
  const vocabulary = tokenizer.vocabularySize + extraTokens;
  const random = new Random(seed, "toy model");
  const tensors: Parameters<typeof writeSafetensors>[1] = [];
  const add = (name: string, shape: number[], deviation: number): Float32Array => {
    const data = normals(
      random,
      shape.reduce((a, b) => a * b, 1),
      deviation,
    );
    tensors.push({ name, dtype: "F32", shape, data });
    return data;
  };
  const embedding = add("model.embed_tokens.weight", [vocabulary, hidden], 0.5);
  const head = add("lm_head.weight", [vocabulary, hidden], 0.3);
  // Column 0 of the embedding is the same for all tokens, so that of the head is a bias of the logits.
  for (let id = 0; id < vocabulary; id++) {
    embedding[id * hidden] = 3;
    head[id * hidden] = 0;
  }
  for (const [token, bias] of Object.entries(tokens)) {
    const id = tokenizer.tokenId(token);
    if (id === undefined) throw new Error(`${source} has no token ${token}`);
    head[id * hidden] = bias / 3;
  }
  add("model.norm.weight", [hidden], 0).fill(1);
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}`;
    add(`${prefix}.input_layernorm.weight`, [hidden], 0).fill(1);
    add(`${prefix}.post_attention_layernorm.weight`, [hidden], 0).fill(1);
    for (const [name, rows, columns] of [
      ["self_attn.q_proj", heads * headDim, hidden],
      ["self_attn.k_proj", kvHeads * headDim, hidden],
      ["self_attn.v_proj", kvHeads * headDim, hidden],
      ["self_attn.o_proj", hidden, heads * headDim],
      ["mlp.gate_proj", intermediate, hidden],
      ["mlp.up_proj", intermediate, hidden],
      ["mlp.down_proj", hidden, intermediate],
    ] as const) {
      add(`${prefix}.${name}.weight`, [rows, columns], 0.15);
      if (family === "qwen2" && /[qkv]_proj/.test(name)) add(`${prefix}.${name}.bias`, [rows], 0.1);
    }
    if (family !== "qwen3") continue;
    for (const name of ["q_norm", "k_norm"]) {
      const norm = add(`${prefix}.self_attn.${name}.weight`, [headDim], 0.2);
      norm.forEach((x, i) => (norm[i] = 1 + x));
    }
  }
  await mkdir(directory, { recursive: true });
  await writeSafetensors(path.join(directory, "model.safetensors"), tensors);
  const config = {
    model_type: family,
    vocab_size: vocabulary,
    hidden_size: hidden,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: headDim,
    intermediate_size: intermediate,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    tie_word_embeddings: false,
    max_position_embeddings: 1024,
    ...(family === "llama" && { rope_scaling: longContext }),
  };
  await writeFile(path.join(directory, "config.json"), JSON.stringify(config));
  for (const file of tokenizerFiles) await copyFile(path.join(source, file), path.join(directory, file));
  return tokenizer;
}
