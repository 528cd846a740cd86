// Models, adapters and batches for tests of the engine: small, random, the same on every machine.
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { createAdapters, loadTokenizer, Random } from "rolegrad";
import type { Adapters, Model, PackedInput, Routes, Tokenizer, Trainer, Trajectory } from "rolegrad";
import { writeSafetensors } from "../../lib/model/safetensors.js";
import { root } from "./shared.js";

/** The checkpoints of test/fixtures/engine: "tied" is bf16, "untied" f32 with a head of its own. */
export const checkpoints = { tied: fixture("tied"), untied: fixture("untied") };

function fixture(name: string): string {
  return path.join(root, "test/fixtures/engine", name);
}

/** Standard normal, near enough for weights. */
function normal(random: Random): number {
  let sum = -6;
  for (let i = 0; i < 12; i++) sum += random.next();
  return sum;
}

function normals(random: Random, count: number, deviation: number): Float32Array {
  return Float32Array.from({ length: count }, () => normal(random) * deviation);
}

/** Adapters whose B is random as well, so that they change every result. Rank 3 unless told. */
export function randomAdapters(
  model: Model,
  options: { roles: string[]; routes?: Routes; rank?: number; seed?: number; targets?: string[] },
): Adapters {
  const { rank = 3, seed = 1 } = options;
  const adapters = createAdapters(model, { ...options, rank, alpha: 2 * rank });
  for (const { name, targets } of adapters.list) {
    for (const module of modulesOf(model, targets)) {
      const { a, b } = adapters.get(name, module);
      adapters.set(name, module, { a, b: normals(new Random(seed, `b/${name}/${module}`), b.length, 0.1) });
    }
  }
  return adapters;
}

/** Names of the linears of a model, of all seven kinds or of some. */
export function modulesOf(model: Model, targets?: readonly string[]): string[] {
  const all = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
  const kinds = all.filter((kind) => targets?.includes(kind) ?? true);
  return Array.from({ length: model.config.layers }, (_, layer) =>
    kinds.map((kind) => `model.layers.${layer}.${all.indexOf(kind) < 4 ? "self_attn" : "mlp"}.${kind}`),
  ).flat();
}

/** One sequence of a packed batch. */
export interface Row {
  ids: ArrayLike<number>;
  roles: ArrayLike<number>;
}

export function pack(rows: readonly Row[]): Required<PackedInput> {
  const cuSeqlens = Int32Array.of(0, ...rows.map(() => 0));
  rows.forEach(({ ids }, s) => (cuSeqlens[s + 1] = (cuSeqlens[s] as number) + ids.length));
  return {
    inputIds: Int32Array.from(rows.flatMap(({ ids }) => Array.from(ids))),
    roles: Int8Array.from(rows.flatMap(({ roles }) => Array.from(roles))),
    cuSeqlens,
  };
}

/** A sequence of random ids whose roles, -1 .. roles - 1, change now and then. */
export function randomRow(random: Random, vocabulary: number, length: number, roles: number): Row {
  let role = random.integer(roles + 1) - 1;
  const ids: number[] = [];
  const own: number[] = [];
  for (let t = 0; t < length; t++) {
    if (random.chance(0.25)) role = random.integer(roles + 1) - 1;
    ids.push(random.integer(vocabulary));
    own.push(role);
  }
  return { ids, roles: own };
}

/** A trajectory made up of random tokens; its log-probabilities are near 0, so far off policy. */
export function randomTrajectory(random: Random, id: string, group: string, row: Row): Trajectory {
  const length = row.ids.length;
  return {
    id,
    group,
    question: group,
    ids: Int32Array.from(row.ids),
    roles: Int8Array.from(row.roles, (role) => Math.max(role, 0)),
    sampled: Uint8Array.from({ length }, (_, t) => (t > 1 && random.chance(0.8) ? 1 : 0)),
    logprobs: Float32Array.from({ length }, () => -4 - random.next()),
    temperature: 1,
    topP: 1,
    topK: 0,
    policyVersion: 0,
    rngKey: id,
    response: "",
    reward: random.integer(5),
    answer: null,
    calls: [],
    finish: "stop",
  };
}

/** Trajectories with the log-probabilities that the adapters give them: on policy. */
export async function onPolicy(model: Model, adapters: Adapters, trajectories: Trajectory[]): Promise<Trajectory[]> {
  const { logprobs } = await model.forward(pack(trajectories), { adapters });
  let at = 0;
  return trajectories.map((trajectory) => {
    const own = logprobs.slice(at, (at += trajectory.ids.length));
    return { ...trajectory, logprobs: own.map((x, t) => (trajectory.sampled[t] === 1 ? x : 0)) };
  });
}

/** The bytes of arrays of any kind: two results are the same bit for bit where these are equal. */
export function bits(...arrays: ArrayBufferView[]): string {
  return arrays.map((x) => Buffer.from(x.buffer, x.byteOffset, x.byteLength).toString("base64")).join(" ");
}

/** Every A and B of every adapter. */
export function adapterBits(adapters: Adapters): string {
  return adapters.list
    .flatMap(({ name, targets }) =>
      modulesOf(adapters.model, targets).map((module) => {
        const { a, b } = adapters.get(name, module);
        return bits(a, b);
      }),
    )
    .join(" ");
}

/** Every gradient in the trainer's buffers, by adapter. */
export function gradients(trainer: Trainer): Record<string, Float32Array> {
  const { adapters } = trainer;
  const list = adapters?.list ?? [];
  return Object.fromEntries(
    list.map(({ name, targets }) => {
      const parts = modulesOf(trainer.model, targets).flatMap((module) => {
        const { a, b } = trainer.gradients.get(name, module);
        return [...a, ...b];
      });
      return [name, Float32Array.from(parts)];
    }),
  );
}

/** Moments and step counts. */
export function momentBits(trainer: Trainer): string {
  const { steps, first, second } = trainer.native.state();
  return [steps.join(), bits(...first), bits(...second)].join(" ");
}

const tokenizerFiles = ["tokenizer.json", "tokenizer_config.json"];

/**
 * Writes a random model of two layers for a tokenizer of which `tokens` are likely: logits are N(0, 1) or so, plus these. Its vocabulary is
 * larger than the tokenizer's, as Qwen's is. Returns the tokenizer.
 */
export async function writeToyModel(
  directory: string,
  options: { tokenizer: string; tokens: Record<string, number>; seed?: number },
): Promise<Tokenizer> {
  const tokenizer = await loadTokenizer(options.tokenizer);
  const [hidden, heads, kvHeads, headDim, intermediate, layers] = [24, 3, 1, 8, 28, 2];
  const vocabulary = tokenizer.vocabularySize + 3;
  const random = new Random(options.seed ?? 1, "toy model");
  const tensors: Parameters<typeof writeSafetensors>[1] = [];
  const add = (name: string, shape: number[], deviation: number): Float32Array => {
    const data = normals(random, shape.reduce((a, b) => a * b, 1), deviation);
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
  for (const [token, bias] of Object.entries(options.tokens)) {
    const id = tokenizer.tokenId(token);
    if (id === undefined) throw new Error(`${options.tokenizer} has no token ${token}`);
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
      if (/[qkv]_proj/.test(name)) add(`${prefix}.${name}.bias`, [rows], 0.1);
    }
  }
  await mkdir(directory, { recursive: true });
  await writeSafetensors(path.join(directory, "model.safetensors"), tensors);
  const config = {
    model_type: "qwen2",
    vocab_size: vocabulary,
    hidden_size: hidden,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    intermediate_size: intermediate,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    tie_word_embeddings: false,
    max_position_embeddings: 1024,
  };
  await writeFile(path.join(directory, "config.json"), JSON.stringify(config));
  for (const file of tokenizerFiles) await copyFile(path.join(options.tokenizer, file), path.join(directory, file));
  return tokenizer;
}
