// Checkpoints of random weights in a temporary folder, written as a stream: the largest has half a billion parameters.
import { rmSync } from "node:fs";
import { mkdtemp, open, rm, statfs, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { Random } from "../random.js";

/** A Qwen2 model with the head tied to the embedding. */
export interface Size {
  hidden: number;
  layers: number;
  heads: number;
  kvHeads: number;
  intermediate: number;
  vocabulary: number;
  /** As the checkpoint stores it. */
  dtype: "F32" | "BF16";
}

export const sizes = {
  tiny: { hidden: 192, layers: 4, heads: 6, kvHeads: 2, intermediate: 512, vocabulary: 4096, dtype: "F32" },
  small: { hidden: 512, layers: 8, heads: 8, kvHeads: 2, intermediate: 1408, vocabulary: 8192, dtype: "F32" },
  "qwen2.5-0.5b": {
    hidden: 896,
    layers: 24,
    heads: 14,
    kvHeads: 2,
    intermediate: 4864,
    vocabulary: 151936,
    dtype: "BF16",
  },
} as const satisfies Record<string, Size>;
export type SizeName = keyof typeof sizes;
export const sizeNames = Object.keys(sizes) as SizeName[];

interface TensorSpec {
  name: string;
  shape: number[];
  /** Norms are 1; everything else is uniform with a standard deviation of 0.02, as new models are initialised. */
  ones: boolean;
}

function tensorsOf(s: Size): TensorSpec[] {
  const kv = (s.kvHeads * s.hidden) / s.heads;
  const random = (name: string, ...shape: number[]): TensorSpec => ({ name, shape, ones: false });
  const norm = (name: string): TensorSpec => ({ name, shape: [s.hidden], ones: true });
  const layers = Array.from({ length: s.layers }, (_, i) => {
    const at = `model.layers.${i}`;
    return [
      norm(`${at}.input_layernorm.weight`),
      random(`${at}.self_attn.q_proj.weight`, s.hidden, s.hidden),
      random(`${at}.self_attn.q_proj.bias`, s.hidden),
      random(`${at}.self_attn.k_proj.weight`, kv, s.hidden),
      random(`${at}.self_attn.k_proj.bias`, kv),
      random(`${at}.self_attn.v_proj.weight`, kv, s.hidden),
      random(`${at}.self_attn.v_proj.bias`, kv),
      random(`${at}.self_attn.o_proj.weight`, s.hidden, s.hidden),
      norm(`${at}.post_attention_layernorm.weight`),
      random(`${at}.mlp.gate_proj.weight`, s.intermediate, s.hidden),
      random(`${at}.mlp.up_proj.weight`, s.intermediate, s.hidden),
      random(`${at}.mlp.down_proj.weight`, s.hidden, s.intermediate),
    ];
  });
  return [random("model.embed_tokens.weight", s.vocabulary, s.hidden), ...layers.flat(), norm("model.norm.weight")];
}

function configOf(s: Size): object {
  return {
    architectures: ["Qwen2ForCausalLM"],
    model_type: "qwen2",
    hidden_size: s.hidden,
    num_hidden_layers: s.layers,
    num_attention_heads: s.heads,
    num_key_value_heads: s.kvHeads,
    intermediate_size: s.intermediate,
    vocab_size: s.vocabulary,
    hidden_act: "silu",
    rms_norm_eps: 1e-6,
    rope_theta: 1_000_000,
    max_position_embeddings: 4096,
    tie_word_embeddings: true,
    torch_dtype: s.dtype === "F32" ? "float32" : "bfloat16",
  };
}

/** Values of one tensor, 4 MiB at a time; `bytes` is reused. Philox in JavaScript would take a minute for half a billion. */
function* blocks(spec: TensorSpec, count: number, dtype: Size["dtype"]): Generator<Uint8Array> {
  const size = 2 ** 20;
  const values = new Float32Array(Math.min(size, count));
  const bits = new Uint32Array(values.buffer);
  const half = new Uint16Array(dtype === "BF16" ? values.length : 0);
  let state = new Random(0, `bench/${spec.name}`).integer(2 ** 32 - 1) + 1;
  const scale = (0.02 * Math.sqrt(12)) / 2 ** 32;
  for (let left = count; left > 0; left -= size) {
    const n = Math.min(size, left);
    for (let i = 0; i < n; i++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      values[i] = spec.ones ? 1 : state * scale;
    }
    if (dtype === "F32") {
      yield new Uint8Array(values.buffer, 0, 4 * n);
    } else {
      for (let i = 0; i < n; i++) half[i] = (bits[i] as number) >>> 16;
      yield new Uint8Array(half.buffer, 0, 2 * n);
    }
  }
}

/** Writes config.json and model.safetensors. */
async function writeRandomCheckpoint(directory: string, size: Size, signal?: AbortSignal): Promise<void> {
  await writeFile(path.join(directory, "config.json"), JSON.stringify(configOf(size), null, 2));
  const width = size.dtype === "F32" ? 4 : 2;
  const header: Record<string, object> = {};
  let offset = 0;
  const tensors = tensorsOf(size).map((spec) => ({ spec, count: spec.shape.reduce((a, b) => a * b) }));
  for (const { spec, count } of tensors) {
    header[spec.name] = { dtype: size.dtype, shape: spec.shape, data_offsets: [offset, offset + count * width] };
    offset += count * width;
  }
  const text = JSON.stringify(header);
  const padded = Buffer.from(text + " ".repeat((8 - (text.length % 8)) % 8));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(padded.length));
  const file = await open(path.join(directory, "model.safetensors"), "w");
  try {
    await file.write(prefix);
    await file.write(padded);
    for (const { spec, count } of tensors) {
      for (const block of blocks(spec, count, size.dtype)) {
        signal?.throwIfAborted();
        await file.write(block);
      }
    }
  } finally {
    await file.close();
  }
}

/** Parameters, embedding included. */
export function parameterCount(size: Size): number {
  return tensorsOf(size).reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b), 0);
}

/** The checkpoints of one run: written when first asked for, removed at its end, however it ends. */
export class Checkpoints {
  readonly #written = new Map<SizeName, string>();
  readonly #remove = (): void => {
    for (const directory of this.#written.values()) rmSync(directory, { recursive: true, force: true });
  };

  constructor() {
    process.once("exit", this.#remove);
  }

  /** Its folder; a string that says why not where the disk has no room for it. */
  async get(name: SizeName, signal: AbortSignal): Promise<{ directory: string } | { skipped: string }> {
    const found = this.#written.get(name);
    if (found !== undefined) return { directory: found };
    const size = sizes[name];
    const bytes = parameterCount(size) * (size.dtype === "F32" ? 4 : 2);
    const { bavail, bsize } = await statfs(os.tmpdir());
    if (bavail * bsize < 1.1 * bytes)
      return { skipped: `Expected ${Math.ceil(bytes / 1e6)} MB free in ${os.tmpdir()} (TMPDIR names another place)` };
    const directory = await mkdtemp(path.join(os.tmpdir(), `rolegrad-bench-${name}-`));
    this.#written.set(name, directory);
    await writeRandomCheckpoint(directory, size, signal);
    return { directory };
  }

  async remove(): Promise<void> {
    for (const directory of this.#written.values()) await rm(directory, { recursive: true, force: true });
    this.#written.clear();
    process.off("exit", this.#remove);
  }
}
