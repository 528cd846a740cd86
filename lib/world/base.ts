import { copyFile, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseModelConfig } from "../model/config.js";
import { loadModel } from "../model/model.js";
import { writeSafetensors, type TensorData } from "../model/safetensors.js";
import { saveModel } from "../model/save.js";
import { loadTokenizer } from "../model/tokenizer.js";
import { Random } from "../random.js";
import { Trainer } from "../trainer/trainer.js";
import { HARD, PERFECT, type Imperfections } from "./demonstrations.js";
import { demonstrationStream, packDemonstrations, type Demonstration } from "./stream.js";
import { WORLD_CHECKPOINT } from "./text.js";

export interface TrainBaseOptions {
  /** Where the checkpoint goes. */
  directory: string;
  /** Of the initial weights, the worlds and their order. @default 1 */
  seed?: number;
  /** Tokens to train on. @default 2200000 */
  tokens?: number;
  /** The share of them from perfect demonstrations, which come first: copying is learned before errors are. @default 0.65 */
  perfectShare?: number;
  signal?: AbortSignal;
  onProgress?: (progress: BaseProgress) => void;
}

export interface BaseProgress {
  step: number;
  tokens: number;
  totalTokens: number;
  /** Mean loss of the demonstrator's tokens and (weight 0.1) what it reads, since the last report. */
  loss: number;
}

const BATCH = 16;
const SHUFFLED = 1024;
const FILES = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];

/**
 * Trains the world's base from nothing: supervised, on demonstrations first perfect, then full of errors, of worlds that are never seen again
 * (docs/world.md). It knows the format and copies names; it searches poorly and stops too early. Stored as bf16.
 */
export async function trainBase(options: TrainBaseOptions): Promise<void> {
  const { directory, seed = 1, tokens: totalTokens = 2_200_000, perfectShare = 0.65, signal, onProgress } = options;
  const tokenizer = await loadTokenizer(WORLD_CHECKPOINT);
  const start = await mkdtemp(path.join(tmpdir(), "rolegrad-base-"));
  try {
    await initialise(start, seed);
    const model = await loadModel(start, { dtype: "float32" });
    try {
      const optimizer = {
        learningRate: LEARNING_RATE,
        betas: [0.9, 0.98] as [number, number],
        weightDecay: 0.01,
        maxGradNorm: 1,
      };
      const trainer = new Trainer(model, { full: true, objective: { kind: "sft" }, optimizer });
      const streamOf = (imperfections: Imperfections, offset: number): Iterator<Demonstration> =>
        shuffled(demonstrationStream({ tokenizer, seed: seed * 2 + offset, imperfections }), seed);
      const perfect = streamOf(PERFECT, 0);
      const flawed = streamOf(HARD, 1);
      let seen = 0;
      let loss = 0;
      let since = 0;
      while (seen < totalTokens) {
        signal?.throwIfAborted();
        const batch = packDemonstrations(seen < perfectShare * totalTokens ? perfect : flawed, BATCH);
        const part = await trainer.accumulate({
          inputIds: batch.inputIds,
          cuSeqlens: batch.cuSeqlens,
          lossMask: Uint8Array.from(batch.weight, (w) => (w > 0 ? 1 : 0)),
          lossWeights: batch.weight,
        });
        const warm = Math.min(1, (trainer.steps + 1) / 100);
        await trainer.apply({ learningRate: LEARNING_RATE * warm * (1 - 0.95 * (seen / totalTokens)) });
        seen += batch.inputIds.length;
        loss += part.loss;
        since++;
        if (trainer.steps % 20 === 0 || seen >= totalTokens) {
          onProgress?.({ step: trainer.steps, tokens: seen, totalTokens, loss: loss / since });
          loss = since = 0;
        }
      }
      await saveModel(trainer, directory, { dtype: "bfloat16" });
    } finally {
      model.close();
    }
  } finally {
    await rm(start, { recursive: true, force: true });
  }
}

const LEARNING_RATE = 3e-3;

/**
 * Initial weights. The embedding's deviation is 0.1 and not the usual 0.02: at 0.02 copying a name from a page was not learned in the tokens
 * spent here. Normal deviates are sums of twelve uniform ones: no function of the C library enters the bits.
 */
async function initialise(directory: string, seed: number): Promise<void> {
  await mkdir(directory, { recursive: true });
  for (const file of FILES) await copyFile(path.join(WORLD_CHECKPOINT, file), path.join(directory, file));
  const file = path.join(directory, "config.json");
  const c = parseModelConfig(JSON.parse(await readFile(file, "utf8")), file);
  const tensors: TensorData[] = [];
  const add = (name: string, shape: number[], value: (() => number) | number): void => {
    const size = shape.reduce((product, n) => product * n, 1);
    const data =
      typeof value === "number" ? new Float32Array(size).fill(value) : Float32Array.from({ length: size }, value);
    tensors.push({ name, dtype: "F32", shape, data });
  };
  const normal = (name: string, shape: number[], deviation: number): void => {
    const random = new Random(seed, `world/base/${name}`);
    add(name, shape, () => {
      let sum = -6;
      for (let i = 0; i < 12; i++) sum += random.next();
      return sum * deviation;
    });
  };
  normal("model.embed_tokens.weight", [c.vocabSize, c.hiddenSize], 0.1);
  add("model.norm.weight", [c.hiddenSize], 1);
  const attention = c.heads * c.headDim;
  const narrow = c.kvHeads * c.headDim;
  for (let l = 0; l < c.layers; l++) {
    const prefix = `model.layers.${l}.`;
    const linear = (name: string, out: number, from: number, factor = 1): void =>
      normal(`${prefix}${name}.weight`, [out, from], (0.6 * factor) / Math.sqrt(from));
    const residual = 1 / Math.sqrt(2 * c.layers);
    add(`${prefix}input_layernorm.weight`, [c.hiddenSize], 1);
    add(`${prefix}post_attention_layernorm.weight`, [c.hiddenSize], 1);
    linear("self_attn.q_proj", attention, c.hiddenSize);
    linear("self_attn.k_proj", narrow, c.hiddenSize);
    linear("self_attn.v_proj", narrow, c.hiddenSize);
    add(`${prefix}self_attn.q_proj.bias`, [attention], 0);
    add(`${prefix}self_attn.k_proj.bias`, [narrow], 0);
    add(`${prefix}self_attn.v_proj.bias`, [narrow], 0);
    linear("self_attn.o_proj", c.hiddenSize, attention, residual);
    linear("mlp.gate_proj", c.intermediateSize, c.hiddenSize);
    linear("mlp.up_proj", c.intermediateSize, c.hiddenSize);
    linear("mlp.down_proj", c.hiddenSize, c.intermediateSize, residual);
  }
  await writeSafetensors(path.join(directory, "model.safetensors"), tensors);
}

/** Demonstrations of many worlds in one batch: a buffer of 1024, shuffled. */
function* shuffled(stream: Iterator<Demonstration>, seed: number): Generator<Demonstration, never> {
  const random = new Random(seed, "world/base/order");
  for (;;) {
    const buffer = Array.from({ length: SHUFFLED }, () => stream.next().value as Demonstration);
    yield* random.shuffle(buffer);
  }
}
