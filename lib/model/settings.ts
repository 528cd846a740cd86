// The settings of a config.json by what they are to this engine. Every other one is refused: it may change what the model computes.

/** What the parser reads. */
const READ = [
  ...["model_type", "architectures", "vocab_size", "hidden_size", "intermediate_size", "head_dim"],
  ...["num_hidden_layers", "num_attention_heads", "num_key_value_heads", "rms_norm_eps", "hidden_act"],
  ...["tie_word_embeddings", "max_position_embeddings", "rope_theta", "rope_scaling", "rope_parameters"],
  ...["use_sliding_window", "sliding_window", "max_window_layers", "layer_types"],
  "attention_bias", // of Qwen2 it says nothing: its biases are where they are
];

/** What is read for one family alone. */
const READ_BY_FAMILY: Record<string, readonly string[]> = { llama: ["mlp_bias"] };

/** What changes no logit, whatever its value. */
const INERT = [
  // where the file is from and how it is stored
  ...["_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "torch_dtype", "dtype"],
  ...["transformers.js_config", "is_llama_config", "unsloth_fixed", "unsloth_version", "finetuning_task"],
  ...["tokenizer_class", "model_max_length", "max_sequence_length"],
  // ids of tokens, which the tokenizer's files and generation_config.json say
  ...["bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "decoder_start_token_id"],
  // training
  ...["initializer_range", "attention_dropout", "use_cache", "gradient_checkpointing", "neftune_noise_alpha"],
  // how the same numbers are computed or handed back
  ...["pretraining_tp", "chunk_size_feed_forward", "torchscript", "_attn_implementation", "attn_implementation"],
  ...["_attn_implementation_autoset", "_flash_attn_2_enabled", "use_flash_attention_2", "is_decoder"],
  ...["return_dict", "output_attentions", "output_hidden_states", "tie_last_hidden_states", "tf_legacy_loss"],
  // heads for other tasks
  ...["id2label", "label2id", "num_labels", "problem_type", "task_specific_params", "prefix"],
  // generation, where older versions kept it
  ...["max_length", "min_length", "max_new_tokens", "do_sample", "early_stopping", "num_beams", "num_beam_groups"],
  ...["temperature", "top_k", "top_p", "typical_p", "diversity_penalty", "repetition_penalty", "length_penalty"],
  ...["no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences"],
  ...["output_scores", "return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id"],
  ...["remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens"],
];

/** Settings that change what a model computes, each with the value that changes nothing. */
export const NEUTRAL: Readonly<Record<string, unknown>> = {
  quantization_config: null,
  compression_config: null,
  partial_rotary_factor: 1,
  rope_interleaved: false,
  use_mrope: false,
  is_causal: true,
  num_experts: 0,
  num_local_experts: 0,
  n_routed_experts: 0,
};

const KNOWN = new Set([...READ, ...INERT, ...Object.keys(NEUTRAL)]);

/** Whether a value sets nothing: null, false, an empty list or an empty object. */
function isUnset(value: unknown): boolean {
  if (value === null || value === undefined || value === false) return true;
  return typeof value === "object" && Object.keys(value).length === 0;
}

/** The first setting that is set and whose effect is not known here. */
export function findUnknownSetting(config: Readonly<Record<string, unknown>>, family: string): string | undefined {
  const own = READ_BY_FAMILY[family] ?? [];
  return Object.keys(config).find((name) => !KNOWN.has(name) && !own.includes(name) && !isUnset(config[name]));
}
