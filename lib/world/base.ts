import { copyFile, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { checkInteger } from "../arguments.js";
import { HARD, PERFECT, type DemonstrationOptions } from "./demonstrations.js";
import { demonstrationStream } from "./stream.js";
import { WORLD_CHECKPOINT } from "./text.js";
import { type BaseTrainingOptions, trainFromNothing } from "./train.js";

export interface TrainBaseOptions extends BaseTrainingOptions {
  /** Tokens to train on. @default 2200000 */
  tokens?: number;
  /** The share of them from perfect demonstrations, which come first: copying is learned before errors are. @default 0.65 */
  perfectShare?: number;
  /** Layers of the model. @default 3 */
  layers?: number;
  /** How long the demonstrators' thoughts are. @default "short" */
  thoughts?: DemonstrationOptions["thoughts"];
}

const FILES = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];

/**
 * Trains the world's base from nothing: supervised, on demonstrations first perfect, then full of errors, of worlds that are never seen again
 * (docs/world.md). It knows the format and copies names; it searches poorly and stops too early. Stored as bf16.
 */
export async function trainBase(options: TrainBaseOptions): Promise<void> {
  const { directory, seed = 1, tokens = 2_200_000, perfectShare = 0.65, layers = 3, thoughts, signal } = options;
  checkInteger(layers, "layers", 1);
  const style = thoughts && { thoughts };
  await trainFromNothing({
    directory,
    writeFiles: async (folder) => {
      for (const file of FILES) await copyFile(path.join(WORLD_CHECKPOINT, file), path.join(folder, file));
      const config = path.join(folder, "config.json");
      const known = JSON.parse(await readFile(config, "utf8")) as object;
      await writeFile(config, `${JSON.stringify({ ...known, num_hidden_layers: layers }, null, 1)}\n`);
    },
    streams: (tokenizer) => ({
      perfect: demonstrationStream({ tokenizer, seed: seed * 2, imperfections: PERFECT, ...style }),
      flawed: demonstrationStream({ tokenizer, seed: seed * 2 + 1, imperfections: HARD, ...style }),
    }),
    seed,
    tokens,
    perfectShare,
    signal,
    onProgress: options.onProgress,
  });
}
