import { z } from "zod";
import { fail } from "../errors.js";

/** What the engine needs to know of a config.json, under the names of this package. */
export interface ModelConfig {
  /** "qwen2" */
  readonly modelType: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly intermediateSize: number;
  readonly rmsNormEps: number;
  readonly ropeTheta: number;
  /** The head is the embedding. */
  readonly tied: boolean;
  /** q, k and v have biases. */
  readonly attentionBias: boolean;
  readonly maxPositions: number;
}

// Bounds far above any model in use: an absurd number is an error of the file, not an allocation.
const positive = z
  .number()
  .int()
  .positive()
  .max(2 ** 24);
const small = z
  .number()
  .int()
  .positive()
  .max(2 ** 12);
const rope = z.looseObject({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  rope_theta: z.number().positive().optional(),
});

// Both spellings: rope_theta and rope_scaling before transformers 5, rope_parameters since.
const schema = z.looseObject({
  model_type: z.string(),
  vocab_size: positive,
  hidden_size: positive,
  num_hidden_layers: small,
  num_attention_heads: small,
  num_key_value_heads: small.optional(),
  head_dim: small.nullish(),
  intermediate_size: positive,
  rms_norm_eps: z.number().positive(),
  hidden_act: z.string().default("silu"),
  tie_word_embeddings: z.boolean().default(false),
  max_position_embeddings: positive.default(32768),
  rope_theta: z.number().positive().optional(),
  rope_scaling: rope.nullish(),
  rope_parameters: rope.nullish(),
  use_sliding_window: z.boolean().nullish(),
  layer_types: z.array(z.string()).nullish(),
  quantization_config: z.unknown().optional(),
});

/**
 * Reads a parsed config.json. What this engine would run wrongly it refuses by name: ERR_MODEL_UNSUPPORTED for another architecture, a rope
 * type, sliding windows, quantisation; ERR_MODEL_CONFIG for missing or misshapen fields.
 */
export function parseModelConfig(json: unknown, file: string): ModelConfig {
  const parsed = schema.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    fail("ERR_MODEL_CONFIG", `${file}: ${issue?.path.join(".") ?? "config"}: ${issue?.message ?? "invalid"}`);
  }
  const c = parsed.data;
  const unsupported = (what: string): never =>
    fail(
      "ERR_MODEL_UNSUPPORTED",
      `${file}: ${what} is not supported. This version runs Qwen2 and Qwen2.5 (model_type "qwen2")`,
    );
  if (c.model_type !== "qwen2") unsupported(`model_type ${JSON.stringify(c.model_type)}`);
  if (c.hidden_act !== "silu") unsupported(`hidden_act ${JSON.stringify(c.hidden_act)}`);
  if (c.use_sliding_window === true || c.layer_types?.some((type) => type !== "full_attention"))
    unsupported("a sliding window");
  if (c.quantization_config !== undefined && c.quantization_config !== null) unsupported("quantization_config");
  const parameters = c.rope_parameters ?? c.rope_scaling;
  const ropeType = parameters?.rope_type ?? parameters?.type ?? "default";
  if (ropeType !== "default") unsupported(`rope type ${JSON.stringify(ropeType)}`);
  const ropeTheta = c.rope_parameters?.rope_theta ?? c.rope_theta ?? 10000;
  const headDim = c.head_dim ?? c.hidden_size / c.num_attention_heads;
  const kvHeads = c.num_key_value_heads ?? c.num_attention_heads;
  if (!Number.isInteger(headDim) || headDim % 2 !== 0 || c.num_attention_heads % kvHeads !== 0) {
    fail(
      "ERR_MODEL_CONFIG",
      `${file}: Expected an even head_dim and num_attention_heads to be a multiple of num_key_value_heads`,
    );
  }
  return {
    modelType: c.model_type,
    vocabSize: c.vocab_size,
    hiddenSize: c.hidden_size,
    layers: c.num_hidden_layers,
    heads: c.num_attention_heads,
    kvHeads,
    headDim,
    intermediateSize: c.intermediate_size,
    rmsNormEps: c.rms_norm_eps,
    ropeTheta,
    tied: c.tie_word_embeddings,
    attentionBias: true,
    maxPositions: c.max_position_embeddings,
  };
}
