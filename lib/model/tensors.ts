import { open } from "node:fs/promises";
import { fail } from "../errors.js";
import type { Checkpoint } from "./checkpoint.js";
import type { ModelConfig } from "./config.js";

type Tensor = Checkpoint["tensors"][number];

const EMBEDDING = "model.embed_tokens.weight";
const HEAD = "lm_head.weight";

/** Tables that old checkpoints hold and every engine computes by itself from config.json. @internal */
export function isInertTensor(name: string): boolean {
  return /^model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq$/.test(name);
}

/** Whether a model of this config reads the tensor. */
function isUsed(name: string, c: ModelConfig): boolean {
  if (name === HEAD) return !c.tied;
  if (name === EMBEDDING || name === "model.norm.weight") return true;
  const [, layer, module, kind] = /^model\.layers\.(0|[1-9]\d*)\.(.+)\.(weight|bias)$/.exec(name) ?? [];
  if (layer === undefined || Number(layer) >= c.layers) return false;
  switch (module) {
    case "input_layernorm":
    case "post_attention_layernorm":
      return kind === "weight";
    case "self_attn.q_norm":
    case "self_attn.k_norm":
      return kind === "weight" && c.queryKeyNorm;
    case "self_attn.q_proj":
    case "self_attn.k_proj":
    case "self_attn.v_proj":
      return kind === "weight" || c.attentionBias;
    case "self_attn.o_proj":
      return kind === "weight" || c.outputBias;
    case "mlp.gate_proj":
    case "mlp.up_proj":
    case "mlp.down_proj":
      return kind === "weight" || c.mlpBias;
    default:
      return false;
  }
}

/** What of config.json would make the tensor one that is used. */
function explain(name: string, c: ModelConfig): string {
  const layer = /^model\.layers\.(\d+)\./.exec(name)?.[1];
  if (layer !== undefined && Number(layer) >= c.layers) return `num_hidden_layers is ${c.layers}`;
  if (/\.self_attn\.[qk]_norm\.weight$/.test(name)) return `model_type is "${c.modelType}", and "qwen3" has it`;
  if (/\.self_attn\.[qkv]_proj\.bias$/.test(name))
    return `model_type is "${c.modelType}" without attention_bias, and "qwen2" or attention_bias has it`;
  if (/\.self_attn\.o_proj\.bias$/.test(name))
    return c.modelType === "qwen2" ? 'model_type "qwen2" has no such bias' : "attention_bias is not true";
  if (/\.mlp\.(gate|up|down)_proj\.bias$/.test(name))
    return c.modelType === "llama" ? "mlp_bias is not true" : `model_type "${c.modelType}" has no such bias`;
  return `no setting of model_type "${c.modelType}" here has it`;
}

/**
 * The tensors that a model of this config reads. One that it would not read means that config.json does not describe these weights, and the
 * model would be run wrongly: ERR_MODEL_TENSOR names the file, the tensor and the setting that it belongs to. So does a tensor that is there
 * twice. Two kinds are left aside:
 *
 * - `rotary_emb.inv_freq`, of the model or of a layer: rope's frequencies are computed from config.json.
 * - `lm_head.weight` where `tie_word_embeddings` is true, if it holds the embedding's very bytes. Where it differs, versions of transformers
 *   differ too (4 drops it, 5 does not tie), so it is refused.
 *
 * @internal
 */
export async function usedTensors(checkpoint: Checkpoint, config: ModelConfig): Promise<Tensor[]> {
  const { files, tensors } = checkpoint;
  const used = new Map<string, Tensor>();
  let ownHead: Tensor | undefined;
  for (const tensor of tensors) {
    const { name, file } = tensor;
    if (isInertTensor(name)) continue;
    const before = name === HEAD ? (ownHead ?? used.get(name)) : used.get(name);
    if (before !== undefined)
      fail("ERR_MODEL_TENSOR", `Expected ${name} once but it is in ${files[before.file]} and in ${files[file]}`);
    if (isUsed(name, config)) used.set(name, tensor);
    else if (name === HEAD) ownHead = tensor;
    else {
      fail(
        "ERR_MODEL_TENSOR",
        `Expected every tensor of ${files[file]} to be used but ${name} is not: ${explain(name, config)}. ` +
          `Does ${checkpoint.configFile} belong to these weights?`,
      );
    }
  }
  const embedding = used.get(EMBEDDING);
  if (ownHead !== undefined && embedding !== undefined && !(await areEqual(files, ownHead, embedding))) {
    fail(
      "ERR_MODEL_TENSOR",
      `Expected ${HEAD} in ${files[ownHead.file]} to equal ${EMBEDDING}, as tie_word_embeddings is true, but it differs. ` +
        `If the model has a head of its own, set tie_word_embeddings to false in ${checkpoint.configFile}`,
    );
  }
  return [...used.values()];
}

/** Whether two tensors are of the same type, shape and bytes. */
async function areEqual(files: readonly string[], a: Tensor, b: Tensor): Promise<boolean> {
  if (a.dtype !== b.dtype || a.shape.join() !== b.shape.join()) return false;
  const block = 2 ** 22;
  const [x, y] = [Buffer.alloc(block), Buffer.alloc(block)];
  const left = await open(files[a.file] as string, "r");
  try {
    const right = await open(files[b.file] as string, "r");
    try {
      const length = a.end - a.begin;
      for (let at = 0; at < length; at += block) {
        const n = Math.min(block, length - at);
        const read = await Promise.all([left.read(x, 0, n, a.begin + at), right.read(y, 0, n, b.begin + at)]);
        if (read.some(({ bytesRead }) => bytesRead !== n) || x.compare(y, 0, n, 0, n) !== 0) return false;
      }
      return true;
    } finally {
      await right.close();
    }
  } finally {
    await left.close();
  }
}
