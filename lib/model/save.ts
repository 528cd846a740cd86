import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { checkInstance, checkObject, checkPath, describe } from "../arguments.js";
import { fail } from "../errors.js";
import type { Trainer } from "../trainer/trainer.js";
import { toBf16, writeSafetensors, type TensorData } from "./safetensors.js";

const FILES = [
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
];

/**
 * Writes the model of a full training as a Hugging Face directory: model.safetensors, config.json and the tokenizer's files of the checkpoint
 * that it came from. `dtype`: how the f32 masters are stored. @default "float32"
 */
export async function saveModel(
  trainer: Trainer,
  directory: string,
  options: { dtype?: "float32" | "bfloat16" } = {},
): Promise<void> {
  checkInstance(trainer, ["parameters", "parameter"], "a trainer", "trainer");
  checkPath(directory, "directory");
  checkObject(options, "options");
  const { dtype = "float32" } = options;
  if (dtype !== "float32" && dtype !== "bfloat16")
    fail("ERR_INVALID_ARGUMENT", `Expected dtype "float32" or "bfloat16" but received ${describe(dtype)}`);
  await writeModel(trainer, (name) => trainer.parameter(name), directory, dtype);
}

/** {@link saveModel} of the values that `read` gives. @internal */
export async function writeModel(
  trainer: Trainer,
  read: (name: string) => Float32Array,
  directory: string,
  dtype: "float32" | "bfloat16",
): Promise<void> {
  await mkdir(directory, { recursive: true });
  const tensors = trainer.parameters().map(({ name, shape }): TensorData => {
    const data = read(name);
    return dtype === "bfloat16"
      ? { name, dtype: "BF16", shape, data: toBf16(data) }
      : { name, dtype: "F32", shape, data };
  });
  const from = trainer.model.directory;
  const config = JSON.parse(await readFile(path.join(from, "config.json"), "utf8")) as Record<string, unknown>;
  for (const key of ["dtype", "torch_dtype"]) if (key in config) config[key] = dtype;
  config["vocab_size"] = trainer.model.config.vocabSize;
  await writeFile(path.join(directory, "config.json"), `${JSON.stringify(config, null, 2)}\n`);
  if (path.resolve(from) !== path.resolve(directory)) {
    for (const file of FILES) {
      await copyFile(path.join(from, file), path.join(directory, file)).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "ENOENT") throw error;
      });
    }
  }
  if (trainer.model.addsTokens) {
    await writeFile(path.join(directory, "tokenizer.json"), `${JSON.stringify(trainer.model.tokenizer?.json)}\n`);
  }
  await writeSafetensors(path.join(directory, "model.safetensors"), tensors);
}
