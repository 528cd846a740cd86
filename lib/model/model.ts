import path from "node:path";
import type { Adapters } from "../adapters/adapters.js";
import { native, type NativeModel } from "../binding.js";
import {
  abortable,
  checkAdapters,
  checkArray,
  checkChoice,
  checkObject,
  checkPositive,
  checkSignal,
  describe,
} from "../arguments.js";
import { fail } from "../errors.js";
import { readCheckpoint } from "./checkpoint.js";
import { parseModelConfig, type ModelConfig } from "./config.js";
import { addTokens, type AddedTokens } from "./added-tokens.js";
import { readRecommendedSampling, type RecommendedSampling } from "./generation.js";
import { resolveDevice, type Device } from "./device.js";
import { usedTensors } from "./tensors.js";
import { readTokenizerFiles } from "./tokenizer-files.js";
import { PRECISIONS, type Precision } from "./precision.js";
import { Tokenizer } from "./tokenizer.js";

export interface LoadModelOptions {
  /**
   * "cpu" (default); "cuda": the first NVIDIA GPU, by the package @rolegrad/cuda-linux-x64 (else ERR_CUDA_UNAVAILABLE, which says what was
   * found and what is needed); or "cpu-reference": the plain loops that everything else is tested against (slow).
   */
  device?: Device;
  /** "auto" (default): weights as they are stored. "float32": bf16 widened; full training needs it. */
  dtype?: "auto" | "float32";
  /**
   * "exact" (default): every product in f32, the same bits on every CPU. "bf16-multiply", about twice as fast where products take the time:
   * the products with the model's weights, their input gradients and the head's round both operands to bf16 and sum in f32; all else is as
   * before. Weights then are bf16 in memory, also those that are stored as f32. It needs AVX512-BF16 (else ERR_CPU_UNSUPPORTED; device
   * "cpu-reference" computes it anywhere), and excludes dtype "float32" and so full training. Its results are its own: docs/numerics.md.
   */
  precision?: Precision;
  /**
   * Tags that the checkpoint does not know, e.g. `["<search>", "</search>"]`: each becomes an atomic token. One that the tokenizer has keeps
   * its id and its row. New ones get the ids after the tokenizer's highest, in the embedding's unused rows where there are any (Qwen2.5 has
   * 271), else in rows that are added to the loaded model; their rows are the mean of the rows of all known tokens. An empty list only makes
   * the embedding as large as the tokenizer. Train them with `trainableTokens` of createAdapters, or in full training.
   */
  addTokens?: readonly string[];
  signal?: AbortSignal;
}

/** A packed batch: B sequences one after another, without padding. */
export interface PackedInput {
  /** Token ids [total]. */
  inputIds: Int32Array;
  /** Where each sequence begins, and the total at the end [B + 1]. */
  cuSeqlens: Int32Array;
  /** Role of each input position [total], an index into the adapters' `roles`; -1 (default): no adapter. Without adapters they change nothing. */
  roles?: Int8Array;
}

export interface ForwardOptions {
  adapters?: Adapters;
  /** Logits are divided by it before the log-softmax. @default 1 */
  temperature?: number;
  /** Also return logits [total, V]. @default false */
  logits?: boolean;
  signal?: AbortSignal;
}

export interface ForwardResult {
  /** By target [total]: entry t is log p(ids[t] | before); 0 at a sequence's first token. */
  logprobs: Float32Array;
  /** By input position [total, V]: row p predicts token p + 1. */
  logits?: Float32Array;
}

/** The routes where there are no adapters: any role runs the backbone alone. @internal */
export const NO_ADAPTERS = new Int32Array(128).fill(-1);

/** A decoder with its weights loaded. Made by {@link loadModel}; call `close()` when done. */
export class Model {
  readonly config: ModelConfig;
  /** The checkpoint's tokenizer; undefined where the directory has none. */
  readonly tokenizer: Tokenizer | undefined;
  /**
   * How generation_config.json says to sample; undefined where the directory has none. Nothing follows it by itself: rollouts sample at
   * temperature 1 without truncation, on policy. To sample as published: `new Rollout(model, { sampling: model.recommendedSampling, ... })`.
   */
  readonly recommendedSampling: RecommendedSampling | undefined;
  /** The directory that it was loaded from (it has neither the tokens nor the rows of `addTokens`). */
  readonly directory: string;
  /** What it was loaded with; part of every result. Adapters may be trained in one and run in the other. */
  readonly precision: Precision;
  /** @internal */
  readonly native: NativeModel;
  /** It has tokens or rows that its directory does not have. @internal */
  readonly addsTokens: boolean;
  #open = true;
  #users = 0;

  /** @internal */
  constructor(
    handle: NativeModel,
    parts: Pick<Model, "config" | "tokenizer" | "recommendedSampling" | "directory" | "precision" | "addsTokens">,
  ) {
    this.native = handle;
    this.config = parts.config;
    this.tokenizer = parts.tokenizer;
    this.recommendedSampling = parts.recommendedSampling;
    this.directory = parts.directory;
    this.precision = parts.precision;
    this.addsTokens = parts.addsTokens;
  }

  /** The last part of the directory's path. */
  get name(): string {
    return path.basename(this.directory);
  }

  /** Which backend runs it ("cpu-avx512", "cpu-avx2", "cpu-avx512-bf16", ...) and the bytes that its weights take. */
  get info(): { backend: string; weightBytes: number } {
    const { backend, weightBytes } = this.native.info();
    return { backend, weightBytes };
  }

  /**
   * Runs whole sequences and returns log-probabilities (and logits). Each position runs the adapter of its role.
   * Errors: ERR_EMPTY_BATCH, ERR_SHAPE, ERR_TOKEN_RANGE, ERR_ROLE_RANGE, ERR_MODEL_CLOSED, ERR_OUT_OF_MEMORY.
   *
   * @example
   * const { logprobs } = await model.forward({ inputIds: Int32Array.of(1, 2, 3), cuSeqlens: Int32Array.of(0, 3) });
   */
  async forward(input: PackedInput, options: ForwardOptions = {}): Promise<ForwardResult> {
    checkObject(options, "options");
    const { adapters, temperature = 1, logits = false, signal } = options;
    this.checkOpen();
    checkPositive(temperature, "temperature");
    checkObject(input, "input");
    checkArray(input.inputIds, Int32Array, "inputIds");
    checkArray(input.cuSeqlens, Int32Array, "cuSeqlens");
    if (input.roles !== undefined) checkArray(input.roles, Int8Array, "roles");
    checkSignal(signal);
    if (adapters !== undefined) checkAdapters(adapters, "adapters");
    adapters?.checkIdle("write");
    const table = adapters?.adapterOfRole ?? NO_ADAPTERS;
    return abortable(
      this.native.forward(
        input.inputIds,
        input.cuSeqlens,
        input.roles ?? null,
        adapters?.native ?? null,
        table,
        temperature,
        logits,
        null,
      ),
      signal,
    );
  }

  /** ERR_MODEL_CLOSED once {@link close} has been called. @internal */
  checkOpen(): void {
    if (!this.#open) fail("ERR_MODEL_CLOSED", `Expected an open model but ${this.name} was closed`);
  }

  /** Keeps the model's memory, closed or not, until the returned function is called. @internal */
  lease(): () => void {
    this.checkOpen();
    this.#users++;
    return () => {
      this.#users--;
      this.#release();
    };
  }

  /**
   * Gives all memory back: the weights, and with them the adapters, trainers and caches that live on this model. At once, or when the work
   * that runs has ended (a step to its end; a rollout rejects). Closing twice is fine; what uses a closed model throws ERR_MODEL_CLOSED.
   */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#release();
  }

  #release(): void {
    if (!this.#open && this.#users === 0) this.native.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }
}

/**
 * Loads a Hugging Face checkpoint directory (config.json, safetensors, tokenizer files), or a hub id from the local cache: Qwen2, Qwen2.5,
 * Qwen3 or Llama, dense and not quantised. Weights are mapped and packed; nothing is downloaded. A setting of config.json whose effect is
 * not known here is refused by name, and so is a tensor that the model would not read, but for `rotary_emb.inv_freq` and a tied
 * `lm_head.weight` that equals the embedding.
 *
 * Errors: ERR_MODEL_NOT_FOUND, ERR_MODEL_CONFIG, ERR_MODEL_UNSUPPORTED, ERR_MODEL_TENSOR, ERR_SAFETENSORS, ERR_DTYPE, ERR_DEVICE, ERR_CPU_UNSUPPORTED, ERR_CUDA_UNAVAILABLE.
 *
 * @example
 * const model = await loadModel("checkpoints/Qwen2.5-0.5B");
 * try {
 *   console.log(model.config.layers);
 * } finally {
 *   model.close();
 * }
 */
export async function loadModel(directory: string, options: LoadModelOptions = {}): Promise<Model> {
  checkObject(options, "options");
  const { device = "cpu", dtype = "auto", precision = "exact", addTokens: texts, signal } = options;
  if (typeof directory !== "string")
    fail("ERR_INVALID_ARGUMENT", `Expected a directory but received ${describe(directory)}`);
  if (dtype !== "auto" && dtype !== "float32") {
    fail("ERR_INVALID_ARGUMENT", `Expected dtype "auto" or "float32" but received ${describe(dtype)}`);
  }
  checkChoice(precision, PRECISIONS, "precision");
  if (precision === "bf16-multiply" && dtype === "float32")
    fail("ERR_INVALID_ARGUMENT", 'Expected dtype "auto" with precision "bf16-multiply" but received "float32"');
  checkSignal(signal);
  const { name: deviceName, library } = resolveDevice(device);
  const checkpoint = readCheckpoint(directory);
  const stored = parseModelConfig(checkpoint.config, checkpoint.configFile);
  const tensors = await usedTensors(checkpoint, stored);
  const recommendedSampling = readRecommendedSampling(checkpoint.directory);
  const found = await readTokenizerFiles(checkpoint.directory).catch((error: unknown) => {
    if ((error as { code?: string }).code === "ERR_TOKENIZER_NOT_FOUND" && texts === undefined) return undefined;
    throw error;
  });
  const plan = found && addTokens(found, texts ?? []);
  const tokenizer = plan && new Tokenizer(plan.files);
  const { config, added } = grow(stored, texts === undefined ? undefined : plan, tokenizer?.vocabularySize);
  const handle = await abortable(
    native.loadModel(config, checkpoint.files, tensors, deviceName, dtype === "float32", added, precision, library),
    signal,
    { counts: true },
  ).catch((error: unknown) => {
    const { code, message } = error as { code?: string; message: string };
    if (code === "ERR_MODEL_TENSOR") fail(code, `${checkpoint.directory}: ${message}`, error);
    throw error;
  });
  if (signal?.aborted === true) handle.close();
  checkSignal(signal);
  const addsTokens = texts !== undefined;
  const parts = { config, tokenizer, recommendedSampling, precision, addsTokens };
  return new Model(handle, { ...parts, directory: checkpoint.directory });
}

/** The vocabulary with added tokens, and which of its rows are new: those of new tokens, and all beyond the checkpoint's. */
function grow(
  config: ModelConfig,
  plan: AddedTokens | undefined,
  needed = 0,
): { config: ModelConfig; added: { fresh: Int32Array; known: number } | null } {
  if (plan === undefined) return { config, added: null };
  const vocabSize = Math.max(config.vocabSize, needed);
  const fresh = new Set(plan.ids);
  for (let id = config.vocabSize; id < vocabSize; id++) fresh.add(id);
  if (fresh.size === 0) return { config, added: null };
  const known = Math.min(config.vocabSize, plan.sizeBefore);
  return { config: { ...config, vocabSize }, added: { fresh: Int32Array.from(fresh), known } };
}
