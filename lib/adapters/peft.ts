import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { z } from "zod";
import { writeDurable } from "../durable.js";
import { fail } from "../errors.js";
import { readSafetensors, writeSafetensors } from "../model/safetensors.js";
import type { AdapterInfo, LoraPair } from "./adapters.js";
import { readSettings } from "./json.js";
import { pairSize, patternKey, TARGETS } from "./modules.js";
import { mostTokenId, takeTokens, type SavedTokens, type tokenTensors } from "./tokens.js";

const PREFIX = "base_model.model.";

const tokenId = z.number().int().nonnegative().max(mostTokenId);
const schema = z.looseObject({
  peft_type: z.string(),
  r: z.number().int().positive(),
  lora_alpha: z.number(),
  lora_dropout: z.number().min(0).lt(1).default(0),
  use_rslora: z.boolean().default(false),
  use_dora: z.boolean().default(false),
  lora_bias: z.boolean().default(false),
  bias: z.string().default("none"),
  target_modules: z.union([z.string(), z.array(z.string())]),
  rank_pattern: z.record(z.string(), z.number().int().positive()).nullish(),
  alpha_pattern: z.record(z.string(), z.number()).nullish(),
  modules_to_save: z.array(z.string()).nullish(),
  trainable_token_indices: z.union([z.array(tokenId), z.record(z.string(), z.array(tokenId))]).nullish(),
});

export interface PeftAdapter extends Omit<AdapterInfo, "name"> {
  directory: string;
  pairs: Map<string, LoraPair>;
  /** Rows of trainable_token_indices. */
  tokens: SavedTokens | undefined;
}

/** Reads a PEFT LoRA directory. ERR_ADAPTER_NOT_FOUND, ERR_ADAPTER_INVALID, ERR_ADAPTER_UNSUPPORTED (DoRA, biases ...). */
export async function readPeft(directory: string): Promise<PeftAdapter> {
  const file = path.join(directory, "adapter_config.json");
  const weights = path.join(directory, "adapter_model.safetensors");
  for (const needed of [file, weights]) {
    if (!existsSync(needed))
      fail("ERR_ADAPTER_NOT_FOUND", `Expected a PEFT adapter directory but ${needed} does not exist`);
  }
  const c = readSettings(file, schema);
  const unsupported = (what: string): never =>
    fail("ERR_ADAPTER_UNSUPPORTED", `${file}: ${what} is not supported by this version`);
  if (c.peft_type !== "LORA") unsupported(`peft_type ${c.peft_type}`);
  if (c.use_dora) unsupported("use_dora");
  if (c.lora_bias || c.bias !== "none") unsupported("a LoRA bias");
  if ((c.modules_to_save ?? []).length > 0) unsupported("modules_to_save");
  const named = c.target_modules;
  if (typeof named === "string" && named !== "all-linear") unsupported("a regular expression in target_modules");
  const targets = typeof named === "string" ? [...TARGETS] : named;
  const unknown = targets.find((name) => !(TARGETS as readonly string[]).includes(name));
  if (unknown !== undefined) unsupported(`the target module ${unknown}`);

  const [rankPattern, alphaPattern] = [c.rank_pattern ?? {}, c.alpha_pattern ?? {}];
  for (const key of [...Object.keys(rankPattern), ...Object.keys(alphaPattern)]) {
    try {
      patternKey(key);
    } catch {
      unsupported(`the regular expression ${key} in a pattern`);
    }
  }
  const info = { rank: c.r, alpha: c.lora_alpha, rsLora: c.use_rslora, rankPattern, alphaPattern };

  const halves = new Map<string, Partial<LoraPair>>();
  const tensors = await readSafetensors(weights);
  const tokens = takeTokens(weights, c.trainable_token_indices, tensors);
  for (const [name, { shape, data }] of tensors) {
    const match = /^base_model\.model\.(.+)\.lora_([AB])\.(?:default\.)?weight$/.exec(name);
    const [, module, side] = match ?? [];
    if (module === undefined || side === undefined)
      fail("ERR_ADAPTER_INVALID", `Expected LoRA weights in ${weights} but received ${name}`);
    const { rank } = pairSize(info, module);
    if (shape.length !== 2 || shape[side === "A" ? 0 : 1] !== rank) {
      fail(
        "ERR_ADAPTER_INVALID",
        `Expected rank ${rank} (adapter_config.json) for ${name} in ${weights} but received shape [${shape.join(", ")}]`,
      );
    }
    halves.set(module, { ...halves.get(module), [side === "A" ? "a" : "b"]: data });
  }
  const pairs = new Map<string, LoraPair>();
  for (const [module, { a, b }] of halves) {
    if (a === undefined || b === undefined)
      fail("ERR_ADAPTER_INVALID", `Expected both lora_A and lora_B of ${module} in ${weights}`);
    pairs.set(module, { a, b });
  }
  const ordered = TARGETS.filter((name) => targets.includes(name));
  return { directory, ...info, dropout: c.lora_dropout, experts: 0, targets: ordered, pairs, tokens };
}

/** Writes a directory that peft's `PeftModel.from_pretrained` and {@link readPeft} read. */
export async function writePeft(
  directory: string,
  info: AdapterInfo,
  baseModel: string,
  modules: (LoraPair & { module: string })[],
  tokens?: ReturnType<typeof tokenTensors>,
): Promise<void> {
  await mkdir(directory, { recursive: true });
  const tensors = modules.flatMap(({ module, a, b }) => {
    const { rank } = pairSize(info, module);
    const name = `${PREFIX}${module}`;
    return [
      { name: `${name}.lora_A.weight`, dtype: "F32" as const, shape: [rank, a.length / rank], data: a },
      { name: `${name}.lora_B.weight`, dtype: "F32" as const, shape: [b.length / rank, rank], data: b },
    ];
  });
  await writeSafetensors(
    path.join(directory, "adapter_model.safetensors"),
    [...tensors, ...(tokens?.tensors ?? [])],
    tokens?.metadata,
  );
  const config = {
    peft_type: "LORA",
    task_type: "CAUSAL_LM",
    base_model_name_or_path: baseModel,
    r: info.rank,
    lora_alpha: info.alpha,
    lora_dropout: info.dropout,
    use_rslora: info.rsLora,
    use_dora: false,
    bias: "none",
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    target_modules: [...info.targets].sort(),
    rank_pattern: info.rankPattern,
    alpha_pattern: info.alphaPattern,
    modules_to_save: null,
    ...(tokens && { trainable_token_indices: tokens.setting }),
  };
  await writeDurable(path.join(directory, "adapter_config.json"), `${JSON.stringify(config, null, 2)}\n`);
}
