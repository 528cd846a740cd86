// A random model for a real tokenizer whose rollouts make calls, and what a rollout with it needs.
import { copyFile } from "node:fs/promises";
import path from "node:path";
import { loadTokenizer, Random, RoleRouter } from "rolegrad";
import type { Environment, Question, Reward, RolloutOptions, Tokenizer, Trajectory } from "rolegrad";
import { normals } from "./engine.js";
import { modelTensors, writeModelFiles } from "./model-files.js";
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

/** Rollouts of four short answers to each question. */
export const shortRollouts = {
  router,
  environment,
  reward,
  group: 4,
  seed: 5,
  sampling: { maxNewTokens: 40 },
  maxLength: 120,
  prompt: ({ question }) => question,
} satisfies RolloutOptions;

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
  const all = { vocabulary, hidden, heads, kvHeads, headDim, intermediate, layers, tied: false };
  const random = new Random(seed, "toy model");
  const deviations = { embedding: 0.5, head: 0.3, norm: 0, weight: 0.15, bias: 0.1, headNorm: 0.2 };
  const tensors = modelTensors(all, { bias: family === "qwen2", headNorms: family === "qwen3" }).map(
    ({ name, shape, kind }) => {
      const count = shape.reduce((a, b) => a * b, 1);
      const drawn = normals(random, count, deviations[kind]);
      const data = /norm/i.test(kind) ? drawn.map((x) => 1 + x) : drawn;
      return { name, dtype: "F32" as const, shape, data };
    },
  );
  const [embedding, head] = tensors.map(({ data }) => data) as [Float32Array, Float32Array];
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
  await writeModelFiles(directory, all, tensors, {
    model_type: family,
    ...(family === "llama" && { rope_scaling: longContext }),
  });
  for (const file of tokenizerFiles) await copyFile(path.join(source, file), path.join(directory, file));
  return tokenizer;
}
