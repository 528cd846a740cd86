import { z } from "zod";
import { fail } from "../errors.js";
import { findUnknownSetting, NEUTRAL } from "./settings.js";

/** Families by config.json's `model_type`. */
export const FAMILIES = { qwen2: "Qwen2", qwen3: "Qwen3", llama: "Llama" } as const;

/** Rope type "llama3": long wavelengths are divided by `factor`, short ones stay, those between go over smoothly. */
export interface RopeScaling {
  readonly factor: number;
  /** Wavelengths above originalMaxPositions / lowFrequencyFactor are long. */
  readonly lowFrequencyFactor: number;
  /** Wavelengths below originalMaxPositions / highFrequencyFactor are short. */
  readonly highFrequencyFactor: number;
  readonly originalMaxPositions: number;
}

/** What the engine needs to know of a config.json, under the names of this package. */
export interface ModelConfig {
  /** The family: "qwen2" (Qwen2, Qwen2.5), "qwen3" or "llama". */
  readonly modelType: keyof typeof FAMILIES;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly intermediateSize: number;
  readonly rmsNormEps: number;
  readonly ropeTheta: number;
  /** Of rope type "llama3"; null: the frequencies as they are. */
  readonly ropeScaling: RopeScaling | null;
  /** The head is the embedding. */
  readonly tied: boolean;
  /** q, k and v have biases. */
  readonly attentionBias: boolean;
  /** The attention's output has a bias. */
  readonly outputBias: boolean;
  /** gate, up and down have biases. */
  readonly mlpBias: boolean;
  /** Each head of q and k is normed before rope (Qwen3). */
  readonly queryKeyNorm: boolean;
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
  rope_type: z.string().nullish(),
  type: z.string().nullish(),
  rope_theta: z.number().positive().nullish(),
});
const llama3 = z.object({
  factor: z.number().positive(),
  low_freq_factor: z.number().positive(),
  high_freq_factor: z.number().positive(),
  original_max_position_embeddings: positive,
});

// Both spellings: rope_theta and rope_scaling before transformers 5, rope_parameters since.
const schema = z.looseObject({
  model_type: z.string(),
  architectures: z.array(z.string()).nullish(),
  vocab_size: positive,
  hidden_size: positive,
  num_hidden_layers: small,
  num_attention_heads: small,
  num_key_value_heads: small.nullish(),
  head_dim: small.nullish(),
  intermediate_size: positive,
  rms_norm_eps: z.number().positive(),
  hidden_act: z.string().default("silu"),
  tie_word_embeddings: z.boolean().default(false),
  max_position_embeddings: positive.default(32768),
  rope_theta: z.number().positive().nullish(),
  rope_scaling: rope.nullish(),
  rope_parameters: rope.nullish(),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  use_sliding_window: z.boolean().nullish(),
  sliding_window: z.number().nullish(),
  max_window_layers: z.number().nullish(),
  layer_types: z.array(z.string()).nullish(),
});
type Config = z.infer<typeof schema>;

/**
 * Reads a parsed config.json. What this engine would run wrongly it refuses by name: ERR_MODEL_UNSUPPORTED for another architecture, a rope
 * type, sliding windows in use, experts, quantisation, and for any setting that is not known here, unless it is null, false or empty;
 * ERR_MODEL_CONFIG for missing or misshapen fields. `attention_dropout` is not applied and `pretraining_tp` (how a product was once split)
 * makes no difference.
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
      `${file}: ${what} is not supported. This version runs Qwen2, Qwen2.5, Qwen3 and Llama (model_type "qwen2", "qwen3", "llama")`,
    );
  if (!Object.hasOwn(FAMILIES, c.model_type)) unsupported(`model_type ${JSON.stringify(c.model_type)}`);
  const family = c.model_type as keyof typeof FAMILIES;
  const architecture = `${FAMILIES[family]}ForCausalLM`;
  if (c.architectures?.length && !c.architectures.includes(architecture))
    unsupported(`architecture ${c.architectures.join(", ")}`);
  // Both are names of the same function.
  if (c.hidden_act !== "silu" && c.hidden_act !== "swish") unsupported(`hidden_act ${JSON.stringify(c.hidden_act)}`);
  for (const [name, neutral] of Object.entries(NEUTRAL)) {
    const value = c[name];
    if (value !== undefined && value !== null && value !== neutral)
      unsupported(typeof value === "object" ? name : `${name} ${JSON.stringify(value)}`);
  }
  const unknown = findUnknownSetting(c, family);
  if (unknown !== undefined) {
    unsupported(`${unknown} ${shorten(JSON.stringify(c[unknown]))}, a setting whose effect this engine does not know,`);
  }
  const layerType = c.layer_types?.find((type) => type !== "full_attention");
  if (layerType !== undefined) unsupported(`layer type ${JSON.stringify(layerType)}`);
  if (hasSlidingWindow(c, family)) unsupported("a sliding window");
  const headDim = c.head_dim ?? (family === "qwen3" ? 128 : c.hidden_size / c.num_attention_heads);
  const kvHeads = c.num_key_value_heads ?? c.num_attention_heads;
  if (!small.safeParse(headDim).success || headDim % 2 !== 0 || c.num_attention_heads % kvHeads !== 0) {
    fail(
      "ERR_MODEL_CONFIG",
      `${file}: Expected an even head_dim of at most 4096 and num_attention_heads to be a multiple of num_key_value_heads`,
    );
  }
  return {
    modelType: family,
    vocabSize: c.vocab_size,
    hiddenSize: c.hidden_size,
    layers: c.num_hidden_layers,
    heads: c.num_attention_heads,
    kvHeads,
    headDim,
    intermediateSize: c.intermediate_size,
    rmsNormEps: c.rms_norm_eps,
    ...parseRope(c, file, unsupported),
    tied: c.tie_word_embeddings,
    // Qwen2 has biases on q, k and v whatever its config says; the others' attention_bias speaks of all four linears.
    attentionBias: family === "qwen2" || c.attention_bias === true,
    outputBias: family !== "qwen2" && c.attention_bias === true,
    mlpBias: family === "llama" && c.mlp_bias === true,
    queryKeyNorm: family === "qwen3",
    maxPositions: c.max_position_embeddings,
  };
}

function shorten(text: string): string {
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

/** Whether any layer looks back less far than to the beginning. Qwen's configs name a window that they do not use. */
function hasSlidingWindow(c: Config, family: keyof typeof FAMILIES): boolean {
  if (c.layer_types) return false; // they say it all
  if (family === "llama") return c.use_sliding_window === true || typeof c.sliding_window === "number";
  if (c.use_sliding_window !== true || c.sliding_window === null) return false;
  return (c.max_window_layers ?? 28) < c.num_hidden_layers;
}

/** What each rope type may say beside its name and theta. */
const ROPE_FIELDS: Record<string, string[]> = { default: [], llama3: Object.keys(llama3.shape) };

function parseRope(
  c: Config,
  file: string,
  unsupported: (what: string) => never,
): Pick<ModelConfig, "ropeTheta" | "ropeScaling"> {
  // As transformers has it: where both are there, the older name counts.
  const field = c.rope_scaling && Object.keys(c.rope_scaling).length > 0 ? "rope_scaling" : "rope_parameters";
  const { rope_type, type, rope_theta, partial_rotary_factor, ...rest } = c[field] ?? {};
  const ropeType = rope_type ?? type ?? "default";
  const fields = Object.hasOwn(ROPE_FIELDS, ropeType) ? ROPE_FIELDS[ropeType] : undefined;
  if (fields === undefined) return unsupported(`rope type ${JSON.stringify(ropeType)}`);
  if (partial_rotary_factor !== undefined && partial_rotary_factor !== null && partial_rotary_factor !== 1)
    unsupported(`partial_rotary_factor ${JSON.stringify(partial_rotary_factor)}`);
  for (const [name, value] of Object.entries(rest)) {
    if (value !== null && !fields.includes(name))
      unsupported(`${field}.${name} with rope type ${JSON.stringify(ropeType)}`);
  }
  const ropeTheta = rope_theta ?? c.rope_theta ?? 10000;
  if (ropeType === "default") return { ropeTheta, ropeScaling: null };
  const scaling = llama3.safeParse({ original_max_position_embeddings: c.max_position_embeddings, ...rest });
  if (!scaling.success) {
    const issue = scaling.error.issues[0];
    return fail("ERR_MODEL_CONFIG", `${file}: ${field}.${issue?.path.join(".") ?? ""}: ${issue?.message ?? "invalid"}`);
  }
  const s = scaling.data;
  if (s.high_freq_factor <= s.low_freq_factor) {
    fail("ERR_MODEL_CONFIG", `${file}: Expected ${field}.high_freq_factor to be above low_freq_factor`);
  }
  return {
    ropeTheta,
    ropeScaling: {
      factor: s.factor,
      lowFrequencyFactor: s.low_freq_factor,
      highFrequencyFactor: s.high_freq_factor,
      originalMaxPositions: s.original_max_position_embeddings,
    },
  };
}
