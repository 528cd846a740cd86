import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { loadModel } from "../model/model.js";
import { saveModel } from "../model/save.js";
import type { Tokenizer } from "../model/tokenizer.js";
import { Random } from "../random.js";
import { Trainer } from "../trainer/trainer.js";
import { initialise } from "./initialise.js";
import { packDemonstrations, type Demonstration } from "./stream.js";

/** How a base's training stands. */
export interface BaseProgress {
  step: number;
  tokens: number;
  totalTokens: number;
  /** Mean loss of the demonstrator's tokens and (weight 0.1) what it reads, since the last report. */
  loss: number;
}

/** What the trainings of all bases take. */
export interface BaseTrainingOptions {
  /** Where the checkpoint goes. */
  directory: string;
  /** Of the initial weights, the worlds and their order. @default 1 */
  seed?: number;
  signal?: AbortSignal;
  onProgress?: (progress: BaseProgress) => void;
}

export interface SupervisedTraining {
  /** The checkpoint to begin with, and where the trained one goes. */
  from: string;
  directory: string;
  /** Texts that become a token each, where the checkpoint does not have them. */
  addTokens?: readonly string[];
  /** Demonstrations: without errors, and with them. */
  streams: (tokenizer: Tokenizer) => { perfect: Iterator<Demonstration>; flawed: Iterator<Demonstration> };
  /** Of the order of the demonstrations. */
  seed: number;
  /** Tokens to train on, and the share of them from perfect demonstrations, which come first. */
  tokens: number;
  perfectShare: number;
  learningRate: number;
  warmupSteps: number;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: BaseProgress) => void) | undefined;
}

const BATCH = 16;
const SHUFFLED = 1024;

/** Trains every parameter of a checkpoint on demonstrations, 16 a step at a rate that falls to 5 %, and stores it as bf16. */
export async function trainOnDemonstrations(options: SupervisedTraining): Promise<void> {
  const { from, directory, addTokens, seed, tokens, perfectShare, learningRate, warmupSteps, signal, onProgress } =
    options;
  const model = await loadModel(from, { dtype: "float32", ...(addTokens && { addTokens: [...addTokens] }) });
  try {
    const betas: [number, number] = [0.9, 0.98];
    const optimizer = { learningRate, betas, weightDecay: 0.01, maxGradNorm: 1 };
    const trainer = new Trainer(model, { full: true, objective: { kind: "sft" }, optimizer });
    const { perfect, flawed } = options.streams(model.tokenizer as Tokenizer);
    const ordered = { perfect: shuffled(perfect, seed), flawed: shuffled(flawed, seed) };
    let seen = 0;
    let loss = 0;
    let since = 0;
    while (seen < tokens) {
      signal?.throwIfAborted();
      const batch = packDemonstrations(seen < perfectShare * tokens ? ordered.perfect : ordered.flawed, BATCH);
      const part = await trainer.accumulate({
        inputIds: batch.inputIds,
        cuSeqlens: batch.cuSeqlens,
        lossMask: Uint8Array.from(batch.weight, (w) => (w > 0 ? 1 : 0)),
        lossWeights: batch.weight,
      });
      const warm = Math.min(1, (trainer.steps + 1) / warmupSteps);
      await trainer.apply({ learningRate: learningRate * warm * (1 - 0.95 * (seen / tokens)) });
      seen += batch.inputIds.length;
      loss += part.loss;
      since++;
      if (trainer.steps % 20 === 0 || seen >= tokens) {
        onProgress?.({ step: trainer.steps, tokens: seen, totalTokens: tokens, loss: loss / since });
        loss = since = 0;
      }
    }
    await saveModel(trainer, directory, { dtype: "bfloat16" });
  } finally {
    model.close();
  }
}

/** The same from random weights: `writeFiles` puts configuration and tokenizer into a folder that is gone afterwards. */
export async function trainFromNothing({
  writeFiles,
  ...training
}: Omit<SupervisedTraining, "from" | "learningRate" | "warmupSteps"> & {
  writeFiles: (folder: string) => Promise<void>;
}): Promise<void> {
  const from = await mkdtemp(path.join(tmpdir(), "rolegrad-base-"));
  try {
    await writeFiles(from);
    await initialise(from, training.seed);
    await trainOnDemonstrations({ ...training, from, learningRate: 3e-3, warmupSteps: 100 });
  } finally {
    await rm(from, { recursive: true, force: true });
  }
}

/** Demonstrations of many worlds in one batch: a buffer of 1024, shuffled. */
function* shuffled(stream: Iterator<Demonstration>, seed: number): Generator<Demonstration, never> {
  const random = new Random(seed, "world/base/order");
  for (;;) {
    const buffer = Array.from({ length: SHUFFLED }, () => stream.next().value as Demonstration);
    yield* random.shuffle(buffer);
  }
}
