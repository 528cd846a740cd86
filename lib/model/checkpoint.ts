import { existsSync, readFileSync, readdirSync, statSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fail } from "../errors.js";
import { readSafetensorsHeader, type TensorPlace } from "./safetensors.js";
import { isInertTensor } from "./tensors.js";

/** The files of a checkpoint directory, their headers read and checked. */
export interface Checkpoint {
  directory: string;
  config: unknown;
  configFile: string;
  files: string[];
  tensors: (TensorPlace & { file: number })[];
}

/**
 * The directory of a checkpoint: a path as it is, or a hub id ("Qwen/Qwen2.5-0.5B") in the local Hugging Face cache
 * (HF_HUB_CACHE, HF_HOME/hub, ~/.cache/huggingface/hub). Nothing is downloaded: ERR_MODEL_NOT_FOUND says how to.
 */
export function findCheckpoint(model: string): string {
  if (existsSync(model)) {
    if (!statSync(model).isDirectory()) {
      fail(
        "ERR_MODEL_NOT_FOUND",
        `Expected a checkpoint directory but ${model} is a file: give the folder that holds config.json`,
      );
    }
    return path.resolve(model);
  }
  if (!/^[\w.-]+\/[\w.-]+$/.test(model))
    fail("ERR_MODEL_NOT_FOUND", `Expected a checkpoint directory but ${model} does not exist`);
  const env = process.env;
  const hub =
    env["HF_HUB_CACHE"] ?? path.join(env["HF_HOME"] ?? path.join(os.homedir(), ".cache", "huggingface"), "hub");
  const repository = path.join(hub, `models--${model.replace("/", "--")}`);
  const snapshots = path.join(repository, "snapshots");
  const reference = path.join(repository, "refs", "main");
  const candidates = existsSync(reference) ? [readFileSync(reference, "utf8").trim()] : [];
  if (existsSync(snapshots)) candidates.push(...readdirSync(snapshots));
  for (const name of candidates) {
    const directory = path.join(snapshots, name);
    if (existsSync(path.join(directory, "config.json"))) return directory;
  }
  return fail(
    "ERR_MODEL_NOT_FOUND",
    `Expected ${model} to be a directory or in the Hugging Face cache (${hub}) but it is neither. ` +
      `Download it first, for example with: hf download ${model}`,
  );
}

/** The JSON of a file; `code` where it cannot be read. @internal */
export function readJson(file: string, code: string): unknown {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    return fail(code, `Expected ${file} but it cannot be read: is this a checkpoint directory?`, cause);
  }
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    return fail("ERR_MODEL_CONFIG", `Expected JSON in ${file}: ${(cause as Error).message}`, cause);
  }
}

/** Reads config.json and the headers of model.safetensors, or of the shards that model.safetensors.index.json names. */
export function readCheckpoint(model: string): Checkpoint {
  const directory = findCheckpoint(model);
  const configFile = path.join(directory, "config.json");
  const config = readJson(configFile, "ERR_MODEL_NOT_FOUND");
  const single = path.join(directory, "model.safetensors");
  const index = `${single}.index.json`;
  let files = [single];
  if (!existsSync(single)) {
    if (!existsSync(index)) {
      fail(
        "ERR_MODEL_NOT_FOUND",
        `Expected model.safetensors in ${directory} but there is none: download the weights too`,
      );
    }
    const map = (readJson(index, "ERR_MODEL_NOT_FOUND") as { weight_map?: Record<string, unknown> } | null)?.weight_map;
    const names = [...new Set(Object.values(map ?? {}))];
    if (names.length === 0 || names.some((name) => typeof name !== "string" || name !== path.basename(name))) {
      fail("ERR_MODEL_CONFIG", `Expected weight_map in ${index} to name files of its own folder`);
    }
    files = names.map((name) => path.join(directory, name as string));
    for (const file of files) {
      if (!existsSync(file))
        fail("ERR_MODEL_NOT_FOUND", `Expected the shard ${file} that ${index} names but it is missing`);
    }
  }
  const tensors = files.flatMap((file, i) =>
    readSafetensorsHeader(file).tensors.map((tensor) => ({ ...tensor, file: i })),
  );
  for (const tensor of tensors) {
    if (isInertTensor(tensor.name)) continue;
    if (tensor.dtype !== "F32" && tensor.dtype !== "BF16" && /^(model|lm_head)\./.test(tensor.name)) {
      fail(
        "ERR_DTYPE",
        `Expected F32 or BF16 weights but ${tensor.name} in ${files[tensor.file]} is ${tensor.dtype}: convert the checkpoint`,
      );
    }
  }
  return { directory, config, configFile, files, tensors };
}
