// What is fuzzed: each target makes files of one input and reads them as the package does. Any input either parses, to
// something that holds together, or is refused with a RolegradError of an ERR_ code.
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";

/** A fault of the parser, however it shows: an exception of another kind, or a result that cannot be. */
export class Finding extends Error {}

const holds = (condition, what) => {
  if (!condition) throw new Finding(what);
};
const whole = (x, low, high = Number.MAX_SAFE_INTEGER) => Number.isSafeInteger(x) && x >= low && x <= high;

/** A safetensors file of this header and so many bytes of data. */
export function safetensors(header, data = 0) {
  const text = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = Buffer.alloc(8 + text.length + data);
  bytes.writeBigUInt64LE(BigInt(text.length));
  text.copy(bytes, 8);
  return bytes;
}

const width = { F64: 8, I64: 8, U64: 8, F32: 4, I32: 4, U32: 4, F16: 2, BF16: 2, I16: 2, U16: 2 };

function checkTensors(tensors, size) {
  let total = 0;
  for (const { name, dtype, shape, begin, end } of tensors) {
    holds(typeof name === "string", "a tensor without a name");
    holds(whole(begin, 8) && whole(end, begin, size), `${name}: ${begin}..${end} lies outside a file of ${size} bytes`);
    const elements = shape.reduce((a, b) => a * BigInt(b), 1n);
    holds(elements * BigInt(width[dtype] ?? 1) === BigInt(end - begin), `${name}: ${end - begin} bytes for [${shape}]`);
    total += end - begin;
  }
  holds(total < size, "tensors that overlap");
}

const good = {
  config: {
    model_type: "qwen2",
    vocab_size: 8,
    hidden_size: 4,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    intermediate_size: 4,
    rms_norm_eps: 1e-6,
    rope_theta: 1e4,
    rope_scaling: null,
    tie_word_embeddings: true,
  },
  weights: { "model.norm.weight": { dtype: "F32", shape: [4], data_offsets: [0, 16] } },
  tokenizer: {
    model: { type: "BPE", vocab: { a: 0, b: 1, ab: 2, "<0x41>": 3 }, merges: ["a b"] },
    decoder: { type: "ByteLevel" },
    added_tokens: [{ id: 4, content: "<eos>", special: true, single_word: false, lstrip: false, rstrip: false }],
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
  },
  adapter: {
    peft_type: "LORA",
    r: 1,
    lora_alpha: 2,
    target_modules: ["q_proj"],
    bias: "none",
    use_rslora: false,
    rank_pattern: {},
  },
  pairs: {
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": {
      dtype: "F32",
      shape: [1, 4],
      data_offsets: [0, 16],
    },
    "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": {
      dtype: "BF16",
      shape: [4, 1],
      data_offsets: [16, 24],
    },
  },
};

const json = (value) => Buffer.from(JSON.stringify(value));
const llama3 = {
  rope_type: "llama3",
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 16,
};
const others = [
  { ...good.config, model_type: "qwen3", head_dim: 2, attention_bias: true, use_sliding_window: false },
  { ...good.config, model_type: "llama", rope_scaling: llama3, mlp_bias: true, max_position_embeddings: 64 },
  {
    ...good.config,
    model_type: "llama",
    rope_theta: null,
    rope_scaling: undefined,
    rope_parameters: { ...llama3, rope_theta: 5e5 },
    architectures: ["LlamaForCausalLM"],
  },
  { ...good.config, rope_parameters: { rope_type: "default", rope_theta: 1e6 }, layer_types: ["full_attention"] },
  { ...good.config, use_sliding_window: true, sliding_window: 8, max_window_layers: 1, hidden_act: "swish" },
];

const tokenPrefix = "base_model.model.model.embed_tokens.token_adapter.";
const tokenRows = {
  __metadata__: { format: "pt", tokens: JSON.stringify({ a: 0, "<eos>": 4 }) },
  ...good.pairs,
  [`${tokenPrefix}trainable_tokens_delta`]: { dtype: "F32", shape: [2, 4], data_offsets: [24, 56] },
};
const adapters = [
  {
    ...good.adapter,
    rank_pattern: { "layers.0.self_attn.q_proj": 1 },
    alpha_pattern: { q_proj: 3 },
    lora_dropout: 0.1,
  },
  { ...good.adapter, target_modules: "all-linear", trainable_token_indices: null, use_rslora: true },
];
const mixture = { version: 1, experts: 2, rank: 1, alpha: 2, rsLora: false, dropout: 0, targets: ["q_proj"] };

const bytePieces = {
  model: {
    type: "BPE",
    byte_fallback: true,
    unk_token: "a",
    fuse_unk: true,
    vocab: good.tokenizer.model.vocab,
    merges: [["a", "b"]],
  },
  normalizer: { type: "Sequence", normalizers: [{ type: "Prepend", prepend: "_" }, { type: "NFC" }] },
  pre_tokenizer: {
    type: "Sequence",
    pretokenizers: [{ type: "Split", pattern: { Regex: "\\s+" }, behavior: "Isolated", invert: false }],
  },
  post_processor: {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<eos>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [],
    special_tokens: { "<eos>": { id: "<eos>", ids: [4], tokens: ["<eos>"] } },
  },
  decoder: {
    type: "Sequence",
    decoders: [{ type: "Replace", pattern: { String: "_" }, content: " " }, { type: "ByteFallback" }, { type: "Fuse" }],
  },
  added_tokens: good.tokenizer.added_tokens,
};
const tokenizers = [
  bytePieces,
  {
    model: {
      type: "Unigram",
      unk_id: 0,
      vocab: [
        ["a", -1.5],
        ["b", -2],
        ["ab", -1],
      ],
    },
    decoder: { type: "Metaspace", replacement: "_" },
  },
  {
    model: {
      type: "WordPiece",
      unk_token: "a",
      max_input_chars_per_word: 9,
      continuing_subword_prefix: "##",
      vocab: { a: 0, "##b": 1 },
    },
    normalizer: { type: "BertNormalizer", lowercase: true },
    pre_tokenizer: { type: "BertPreTokenizer" },
    decoder: { type: "WordPiece", prefix: "##", cleanup: true },
  },
];

/** Targets by name. `files(input)` are written into a folder, then `read(lib, folder, input)` runs; `seeds` are good inputs. */
export const targets = {
  safetensors: {
    shape: "safetensors",
    seeds: [
      safetensors(good.weights, 16),
      safetensors(good.pairs, 24),
      safetensors({ __metadata__: { format: "pt" } }),
    ],
    files: (input) => ({ "x.safetensors": input }),
    async read({ safetensors: { readSafetensorsHeader, readSafetensors } }, folder, input) {
      const file = path.join(folder, "x.safetensors");
      checkTensors(readSafetensorsHeader(file).tensors, input.length);
      for (const [name, { data, shape }] of await readSafetensors(file)) {
        holds(data.length === shape.reduce((a, b) => a * b, 1), `${name}: ${data.length} values for [${shape}]`);
      }
    },
  },
  config: {
    shape: "json",
    seeds: [good.config, ...others].map(json),
    files: (input) => ({ "config.json": input, "model.safetensors": safetensors(good.weights, 16) }),
    async read({ checkpoint: { readCheckpoint }, config: { parseModelConfig } }, folder) {
      const found = readCheckpoint(folder);
      const config = parseModelConfig(found.config, found.configFile);
      holds(["qwen2", "qwen3", "llama"].includes(config.modelType), `the family ${config.modelType}`);
      for (const name of ["vocabSize", "hiddenSize", "intermediateSize", "maxPositions"]) {
        holds(whole(config[name], 1, 2 ** 24), `${name} is ${config[name]}`);
      }
      for (const name of ["layers", "heads", "kvHeads", "headDim"]) {
        holds(whole(config[name], 1, 2 ** 12), `${name} is ${config[name]}`);
      }
      for (const name of ["tied", "attentionBias", "outputBias", "mlpBias", "queryKeyNorm"]) {
        holds(typeof config[name] === "boolean", `${name} is ${config[name]}`);
      }
      holds(config.heads % config.kvHeads === 0 && config.headDim % 2 === 0, "heads that do not divide");
      positive(config, "rmsNormEps");
      positive(config, "ropeTheta");
      if (config.ropeScaling === null) return;
      for (const name of ["factor", "lowFrequencyFactor", "highFrequencyFactor"]) positive(config.ropeScaling, name);
      holds(whole(config.ropeScaling.originalMaxPositions, 1, 2 ** 24), "original positions that are none");
      holds(config.ropeScaling.highFrequencyFactor > config.ropeScaling.lowFrequencyFactor, "a band without width");
    },
  },
  shards: {
    shape: "json",
    seeds: [
      { metadata: { total_size: 16 }, weight_map: { "model.norm.weight": "a.safetensors" } },
      { weight_map: { "model.norm.weight": "a.safetensors", "lm_head.weight": "b.safetensors" } },
    ].map(json),
    files: (input) => ({
      "config.json": json(good.config),
      "model.safetensors.index.json": input,
      "a.safetensors": safetensors(good.weights, 16),
      "b.safetensors": safetensors({ "lm_head.weight": { dtype: "BF16", shape: [2], data_offsets: [0, 4] } }, 4),
    }),
    async read({ checkpoint: { readCheckpoint } }, folder) {
      const { files, tensors } = readCheckpoint(folder);
      for (const file of files) holds(path.dirname(file) === folder, `${file} lies outside its folder`);
      for (const { name, file } of tensors) holds(whole(file, 0, files.length - 1), `${name} lies in no file`);
    },
  },
  generation: {
    shape: "json",
    seeds: [
      { do_sample: true, temperature: 0.7, top_p: 0.8, top_k: 20, eos_token_id: [4, 1], bos_token_id: 0 },
      { eos_token_id: 4, pad_token_id: null },
    ].map(json),
    files: (input) => ({ "tokenizer.json": json(good.tokenizer), "generation_config.json": input }),
    async read(lib, folder) {
      const { temperature, topP, topK } = lib.generation.readRecommendedSampling(folder);
      holds(temperature >= 0 && temperature < Infinity, `temperature ${temperature}`);
      holds(topP > 0 && topP <= 1, `topP ${topP}`);
      holds(whole(topK, 0), `topK ${topK}`);
      await useTokenizer(lib, folder);
    },
  },
  tokenizer: {
    shape: "json",
    seeds: [good.tokenizer, ...tokenizers].map(json),
    files: (input) => ({ "tokenizer.json": input }),
    read: useTokenizer,
  },
  "tokenizer-config": {
    shape: "json",
    seeds: [
      { eos_token: "<eos>", bos_token: { content: "a" }, chat_template: [{ name: "default", template: "x" }] },
    ].map(json),
    files: (input) => ({
      "tokenizer.json": json(good.tokenizer),
      "tokenizer_config.json": input,
      "config.json": input,
    }),
    read: useTokenizer,
  },
  adapter: {
    shape: "json",
    seeds: [good.adapter, ...adapters].map(json),
    files: (input) => ({ "adapter_config.json": input, "adapter_model.safetensors": safetensors(good.pairs, 24) }),
    read: useAdapter,
  },
  "adapter-weights": {
    shape: "safetensors",
    seeds: [safetensors(good.pairs, 24)],
    files: (input) => ({ "adapter_config.json": json(good.adapter), "adapter_model.safetensors": input }),
    read: useAdapter,
  },
  "adapter-tokens": {
    shape: "safetensors",
    seeds: [safetensors(tokenRows, 56)],
    files: (input) => ({
      "adapter_config.json": json({ ...good.adapter, trainable_token_indices: [0, 4] }),
      "adapter_model.safetensors": input,
    }),
    read: useAdapter,
  },
  mixture: {
    shape: "json",
    seeds: [json(mixture)],
    files: (input) => ({ "mixture.json": input, "mixture.safetensors": safetensors(good.pairs, 24) }),
    async read({ mixture: { readMixture } }, folder) {
      const { info } = await readMixture(folder);
      holds(whole(info.experts, 1, 256) && whole(info.rank, 1, 4096), `${info.experts} experts of rank ${info.rank}`);
      holds(Number.isFinite(info.alpha), `alpha ${info.alpha}`);
    },
  },
};

function positive(object, name) {
  holds(object[name] > 0 && object[name] < Infinity, `${name} is ${object[name]}`);
}

async function useTokenizer({ tokenizer: { loadTokenizer } }, folder) {
  checkTokenizer(await loadTokenizer(folder));
  // As loadModel does it; "<eos>" is known already, "<new>" is not.
  checkTokenizer(await loadTokenizer(folder, { addTokens: ["<eos>", "<new>"] }));
}

function checkTokenizer(tokenizer) {
  holds(whole(tokenizer.vocabularySize, 0, 2 ** 22), `a vocabulary of ${tokenizer.vocabularySize}`);
  for (const id of tokenizer.eosTokenIds) holds(Number.isInteger(id), `the end token ${id}`);
  refusable(() => {
    for (const id of tokenizer.encode("ab <eos>a")) holds(whole(id, 0, tokenizer.vocabularySize - 1), `the id ${id}`);
  });
  refusable(() => holds(typeof tokenizer.decode([0, 1, 4, 99]) === "string", "no text"));
  refusable(() => {
    const bytes = tokenizer.tokenBytes();
    holds(bytes.length === tokenizer.vocabularySize, `${bytes.length} entries of bytes`);
    for (const each of bytes) holds(each instanceof Uint8Array, "an entry that is no bytes");
  });
}

/** One refusal does not keep the next call from being tried. */
function refusable(work) {
  try {
    work();
  } catch (error) {
    if (!isRefusal(error)) throw error;
  }
}

async function useAdapter({ peft: { readPeft }, modules }, folder) {
  const { pairs, tokens, ...info } = await readPeft(folder);
  holds(info.dropout >= 0 && info.dropout < 1, `dropout ${info.dropout}`);
  for (const [module, { a, b }] of pairs) {
    const { rank, alpha } = modules.pairSize(info, module);
    holds(whole(rank, 1), `rank ${rank}`);
    holds(Number.isFinite(alpha), `alpha ${alpha}`);
    holds(
      a.length % rank === 0 && b.length % rank === 0,
      `${module}: ${a.length} and ${b.length} values of rank ${rank}`,
    );
  }
  if (tokens === undefined) return;
  for (const id of tokens.ids) holds(whole(id, 0, 2 ** 22), `the token ${id}`);
  for (const rows of [tokens.embedding, tokens.head]) {
    holds(rows === undefined || rows.length % Math.max(tokens.ids.length, 1) === 0, "rows of different lengths");
  }
  for (const [text, id] of Object.entries(tokens.texts)) {
    holds(typeof text === "string" && whole(id, 0, 2 ** 22), `the text of token ${id}`);
  }
}

/** A RolegradError with one of the stable codes: what a caller can act on. */
export function isRefusal(error) {
  return error?.name === "RolegradError" && /^ERR_[A-Z][A-Z_]+$/.test(error.code);
}

/** The modules that targets read with, from dist/ or from the instrumented sources. */
export async function importLib(folder) {
  const load = (name) => import(path.join(folder, name));
  return {
    safetensors: await load("model/safetensors.js"),
    config: await load("model/config.js"),
    checkpoint: await load("model/checkpoint.js"),
    tokenizer: await load("model/tokenizer.js"),
    generation: await load("model/generation.js"),
    peft: await load("adapters/peft.js"),
    mixture: await load("adapters/mixture.js"),
    modules: await load("adapters/modules.js"),
  };
}

/** Runs one input; resolves to "parsed" or the code of the refusal, rejects with whatever else there is. */
export async function runInput(target, lib, folder, input) {
  mkdirSync(folder, { recursive: true });
  for (const [name, bytes] of Object.entries(target.files(input))) writeFileSync(path.join(folder, name), bytes);
  try {
    await target.read(lib, folder, input);
    return "parsed";
  } catch (error) {
    if (isRefusal(error)) return error.code;
    throw error;
  }
}
