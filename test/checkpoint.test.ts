// Loading a checkpoint: what is refused, by which code and which words.
import { cpSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { loadModel, type Model } from "rolegrad";
import { parseModelConfig } from "../lib/model/config.js";
import { changeHeader, copyCheckpoint, safetensorsBytes, splitSafetensors, type Header } from "./helpers/checkpoint.js";
import { checkpoints } from "./helpers/engine.js";
import { published } from "./helpers/published-configs.js";
import { refusals } from "./helpers/refused.js";
import { needsShared, shared } from "./helpers/shared.js";

const { model, refused } = await refusals(checkpoints.tied);
t.teardown(() => model.close());

// ---- the directory

t.test("a directory that is no checkpoint is refused by what is missing", async (t) => {
  const directory = t.testdir({ empty: {}, "a-file": "text" });
  const at = (...parts: string[]) => path.join(directory, ...parts);
  await refused(t, loadModel(at("nothing")), "ERR_MODEL_NOT_FOUND", at("nothing"), "does not exist");
  await refused(t, loadModel(at("a-file")), "ERR_MODEL_NOT_FOUND", at("a-file"), "is a file");
  await refused(t, loadModel(at("empty")), "ERR_MODEL_NOT_FOUND", at("empty", "config.json"));
  await refused(t, loadModel(undefined as never), "ERR_INVALID_ARGUMENT", "undefined");
  const config = readFileSync(path.join(checkpoints.tied, "config.json"));
  writeFileSync(at("empty", "config.json"), config);
  await refused(t, loadModel(at("empty")), "ERR_MODEL_NOT_FOUND", at("empty"), "model.safetensors");
  mkdirSync(at("empty", "model.safetensors"));
  await refused(t, loadModel(at("empty")), "ERR_SAFETENSORS", at("empty", "model.safetensors"));
});

t.test("a hub id is looked up in the local cache, else the error says how to download it", async (t) => {
  const kept = { ...process.env };
  t.teardown(() => {
    for (const name of ["HF_HUB_CACHE", "HF_HOME"]) {
      if (kept[name] === undefined) delete process.env[name];
      else process.env[name] = kept[name];
    }
  });
  const directory = t.testdir();
  process.env["HF_HUB_CACHE"] = path.join(directory, "hub");
  const id = "someone/tiny-model";
  await refused(t, loadModel(id), "ERR_MODEL_NOT_FOUND", id, path.join(directory, "hub"), `hf download ${id}`);
  const repository = path.join(directory, "hub", "models--someone--tiny-model");
  copyCheckpoint(path.join(repository, "snapshots", "0123abc"));
  const load = async (): Promise<string> => {
    const found = await loadModel(id);
    found.close();
    return path.relative(directory, found.directory);
  };
  const snapshots = "hub/models--someone--tiny-model/snapshots";
  t.equal(await load(), `${snapshots}/0123abc`, "the only snapshot");
  copyCheckpoint(path.join(repository, "snapshots", "fff"));
  mkdirSync(path.join(repository, "refs"));
  writeFileSync(path.join(repository, "refs", "main"), "fff\n");
  t.equal(await load(), `${snapshots}/fff`, "the one that refs/main names");
  delete process.env["HF_HUB_CACHE"];
  process.env["HF_HOME"] = directory;
  t.equal(await load(), `${snapshots}/fff`, "HF_HOME");
});

t.test("an index of shards must name files of its own folder that are there", async (t) => {
  const directory = copyCheckpoint(t.testdir());
  const { header, data } = splitSafetensors(path.join(directory, "model.safetensors"));
  const shard = (names: string[]): Buffer => {
    const parts = names.map((name) => data.subarray(...header[name]!.data_offsets));
    let at = 0;
    const own: Header = {};
    names.forEach((name, i) => (own[name] = { ...header[name]!, data_offsets: [at, (at += parts[i]!.length)] }));
    return safetensorsBytes(own, Buffer.concat(parts));
  };
  const names = Object.keys(header).sort();
  const halves = [names.slice(0, 9), names.slice(9)];
  const files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
  const map = Object.fromEntries(halves.flatMap((half, i) => half.map((name) => [name, files[i]])));
  const index = (json: unknown): void =>
    writeFileSync(path.join(directory, "model.safetensors.index.json"), JSON.stringify(json));
  rmSync(path.join(directory, "model.safetensors"));

  index({ weight_map: map });
  writeFileSync(path.join(directory, files[0]!), shard(halves[0]!));
  await refused(t, loadModel(directory), "ERR_MODEL_NOT_FOUND", files[1]!);
  writeFileSync(path.join(directory, files[1]!), shard(halves[1]!));
  const whole = await loadModel(directory);
  const input = { inputIds: Int32Array.of(5, 100, 0, 7), cuSeqlens: Int32Array.of(0, 1, 4) };
  t.strictSame(await whole.forward(input, { logits: true }), await model.forward(input, { logits: true }));
  whole.close();
  writeFileSync(path.join(directory, files[1]!), shard(halves[1]!.slice(1)));
  await refused(t, loadModel(directory), "ERR_MODEL_TENSOR", directory, halves[1]![0]!);
  for (const json of [
    {},
    { weight_map: {} },
    { weight_map: { a: "../a.safetensors" } },
    { weight_map: { a: 1 } },
    null,
  ]) {
    index(json);
    await refused(t, loadModel(directory), "ERR_MODEL_CONFIG", "model.safetensors.index.json");
  }
});

// ---- config.json

const llama3 = {
  rope_type: "llama3",
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 32,
};

/** Settings of other models: each changes what a model computes, or what its tensors are. */
const foreign: Record<string, unknown> = {
  auto_map: { AutoModelForCausalLM: "modeling_own.OwnForCausalLM" },
  attn_logit_softcapping: 50,
  final_logit_softcapping: 30,
  logit_scale: 0.0625,
  attention_multiplier: 0.0078125,
  embedding_multiplier: 12,
  residual_multiplier: 0.22,
  logits_scaling: 8,
  no_rope_layers: [1, 0],
  clip_qkv: 8,
  use_qk_norm: true,
  parallel_residual: true,
  use_dynamic_ntk: true,
  use_logn_attn: true,
  dual_chunk_attention_config: { chunk_size: 262144, local_size: 8192, original_max_position_embeddings: 262144 },
  moe_intermediate_size: 768,
  num_experts_per_tok: 8,
  decoder_sparse_step: 1,
  is_encoder_decoder: true,
  add_cross_attention: true,
  per_layer_config: { 0: { num_attention_heads: 2 } },
  quantization: { group_size: 64, bits: 4 },
  constructor: 1,
};

t.test("an architecture that would run wrongly is refused by name", async (t) => {
  const cases: [string, Record<string, unknown>][] = [
    ["mistral", { model_type: "mistral" }],
    ["qwen3_moe", { model_type: "qwen3_moe" }],
    ["constructor", { model_type: "constructor" }],
    ["Qwen2ForSequenceClassification", { architectures: ["Qwen2ForSequenceClassification"] }],
    ["gelu", { hidden_act: "gelu" }],
    ["sliding window", { use_sliding_window: true, sliding_window: 4096, max_window_layers: 1, layer_types: null }],
    ["sliding_attention", { layer_types: ["full_attention", "sliding_attention"] }],
    ["linear_attention", { layer_types: ["full_attention", "linear_attention"] }],
    ["sliding window", { model_type: "llama", architectures: null, sliding_window: 4096, layer_types: null }],
    ["num_experts 8", { num_experts: 8 }],
    ["num_local_experts 8", { num_local_experts: 8 }],
    ["partial_rotary_factor 0.5", { partial_rotary_factor: 0.5 }],
    ["partial_rotary_factor 0.5", { rope_parameters: { rope_type: "default", partial_rotary_factor: 0.5 } }],
    ["rope_interleaved", { rope_interleaved: true }],
    ["use_mrope", { use_mrope: true }],
    ["is_causal", { is_causal: false }],
    ...["yarn", "linear", "dynamic", "longrope", "mrope", "constructor"].flatMap((type) => [
      [type, { rope_parameters: { rope_type: type, rope_theta: 1e6, factor: 4 } }] as [string, Record<string, unknown>],
      [type, { rope_scaling: { type, factor: 2 }, rope_parameters: undefined }] as [string, Record<string, unknown>],
    ]),
    ["rope_parameters.factor", { rope_parameters: { factor: 4 } }],
    ["rope_parameters.mrope_section", { rope_parameters: { rope_type: "default", mrope_section: [16, 24, 24] } }],
    ["rope_parameters.full_attention", { rope_parameters: { full_attention: { rope_type: "default" } } }],
    ["rope_scaling.beta_fast", { rope_scaling: { ...llama3, beta_fast: 32 } }],
    ["quantization_config", { quantization_config: { quant_method: "awq", bits: 4 } }],
    ["compression_config", { compression_config: { format: "pack-quantized" } }],
    ...Object.entries(foreign).map(([name, value]) => [name, { [name]: value }] as [string, Record<string, unknown>]),
    ["mlp_bias", { mlp_bias: true }], // Llama's, not Qwen2's
    ["x".repeat(50), { ["x".repeat(50)]: "y".repeat(1e4) }],
  ];
  const directory = t.testdir();
  for (const [word, config] of cases) {
    copyCheckpoint(directory, config);
    await refused(t, loadModel(directory), "ERR_MODEL_UNSUPPORTED", path.join(directory, "config.json"), word, "Qwen2");
  }
});

t.test("settings that change nothing are no reason to refuse", async (t) => {
  const directory = t.testdir();
  const want = (await loadConfig(copyCheckpoint(directory))).config;
  const cases: Record<string, unknown>[] = [
    { hidden_act: "swish" }, // silu's other name
    { use_sliding_window: false, sliding_window: 131072, max_window_layers: 0 },
    { use_sliding_window: true, sliding_window: 4096, max_window_layers: 2, layer_types: null },
    { use_sliding_window: true, sliding_window: null, layer_types: null },
    { layer_types: ["full_attention", "full_attention"] },
    { attention_dropout: 0.1, pretraining_tp: 2, use_cache: false, initializer_range: 1 },
    { use_mrope: false, num_experts: 0, partial_rotary_factor: 1, quantization_config: null, rope_scaling: {} },
    { architectures: ["Qwen2ForCausalLM"] },
    { architectures: [] },
    { attention_bias: false }, // Qwen2's are there whatever it says
    // Whatever is null, false or empty sets nothing, known or not.
    ...Object.keys(foreign).flatMap((name) => [null, false, [], {}].map((value) => ({ [name]: value }))),
    { mlp_bias: false },
    { _name_or_path: "a/b", bos_token_id: 1, eos_token_id: [2, 3], pad_token_id: null, max_length: 4096, top_p: 0.9 },
    { output_attentions: true, return_dict: false, id2label: { 0: "a" }, chunk_size_feed_forward: 2 },
  ];
  for (const config of cases) {
    t.strictSame((await loadConfig(copyCheckpoint(directory, config))).config, want, JSON.stringify(config));
  }
});

t.test("what publishers write into config.json is known", (t) => {
  for (const [name, config] of Object.entries(published)) {
    const { modelType, layers } = parseModelConfig(config, name);
    t.equal(modelType, config["model_type"], name);
    t.equal(layers, config["num_hidden_layers"], name);
  }
  const longQwen = { ...published["Qwen2.5-7B-Instruct"], dual_chunk_attention_config: { chunk_size: 262144 } };
  t.throws(() => parseModelConfig(longQwen, "Qwen2.5-7B-Instruct-1M"), { code: "ERR_MODEL_UNSUPPORTED" });
  t.end();
});

for (const fixture of ["qwen2-tiny", "qwen3-tiny", "llama3-tiny", "llama3-tiny-sharded"]) {
  t.test(`every setting and tensor of ${fixture} is known`, needsShared(`fixtures/${fixture}`), async (t) => {
    t.ok((await loadConfig(shared(`fixtures/${fixture}`) as string)).config.layers > 1);
  });
}

async function loadConfig(directory: string): Promise<Model> {
  const model = await loadModel(directory);
  model.close();
  return model;
}

t.test("a rope scaling that is none is refused by field", async (t) => {
  const directory = t.testdir();
  const cases: [string, Record<string, unknown>][] = [
    ["rope_parameters.factor", { rope_parameters: { rope_type: "llama3" } }],
    ["rope_scaling.factor", { rope_scaling: { ...llama3, factor: 0 } }],
    ["rope_scaling.low_freq_factor", { rope_scaling: { ...llama3, low_freq_factor: "one" } }],
    ["rope_scaling.high_freq_factor", { rope_scaling: { ...llama3, high_freq_factor: 1 } }],
    ["rope_scaling.original_max", { rope_scaling: { ...llama3, original_max_position_embeddings: -1 } }],
  ];
  for (const [word, config] of cases) {
    copyCheckpoint(directory, config);
    await refused(t, loadModel(directory), "ERR_MODEL_CONFIG", path.join(directory, "config.json"), word);
  }
  copyCheckpoint(directory, { rope_scaling: { ...llama3, original_max_position_embeddings: undefined } });
  const { config } = await loadConfig(directory);
  t.equal(config.ropeScaling?.originalMaxPositions, config.maxPositions, "the original context is the context");
});

t.test("a config.json that is none is refused by file and field", async (t) => {
  const directory = copyCheckpoint(t.testdir());
  const file = path.join(directory, "config.json");
  for (const text of ["", "{", "null", "[]", '"text"', '{"model_type": "qwen2"']) {
    writeFileSync(file, text);
    await refused(t, loadModel(directory), "ERR_MODEL_CONFIG", file);
  }
  const cases: [string, unknown][] = [
    ["model_type", undefined],
    ["model_type", 7],
    ["vocab_size", undefined],
    ["vocab_size", 0],
    ["vocab_size", 10.5],
    ["vocab_size", "101"],
    ["vocab_size", 1e15],
    ["hidden_size", -32],
    ["hidden_size", 2 ** 31],
    ["num_hidden_layers", 1e9],
    ["num_attention_heads", 0],
    ["head_dim", 2147483646],
    ["head_dim", 7],
    ["num_key_value_heads", 3],
    ["intermediate_size", null],
    ["rms_norm_eps", 0],
    ["rope_theta", "ten"],
    ["rope_parameters", { rope_type: "default", rope_theta: -1 }],
    ["tie_word_embeddings", "yes"],
  ];
  for (const [field, value] of cases) {
    copyCheckpoint(directory, { [field]: value });
    await refused(t, loadModel(directory), "ERR_MODEL_CONFIG", file, field);
  }
});

t.test("weights that do not fit config.json are refused by the tensor's name", async (t) => {
  const directory = t.testdir();
  const cases: [string, Record<string, unknown>][] = [
    ["model.embed_tokens.weight", { vocab_size: 102 }],
    ["model.layers.0.mlp.gate_proj.weight", { intermediate_size: 45 }],
    ["model.layers.2.input_layernorm.weight", { num_hidden_layers: 3 }],
    ["model.layers.0.self_attn.q_proj", { num_attention_heads: 8, head_dim: 8 }],
    ["lm_head.weight", { tie_word_embeddings: false }],
  ];
  for (const [name, config] of cases) {
    copyCheckpoint(directory, config);
    await refused(t, loadModel(directory), "ERR_MODEL_TENSOR", directory, name);
  }
});

// ---- tensors that config.json does not tell of

t.test("a tensor that the model would not read is refused by file, name and setting", async (t) => {
  const asLlama = { model_type: "llama", architectures: ["LlamaForCausalLM"] };
  const cases: [keyof typeof checkpoints, Record<string, unknown>, RegExp, string][] = [
    ["tied", asLlama, /self_attn\.[qkv]_proj\.bias/, 'model_type is "llama"'],
    ["untied", asLlama, /self_attn\.[qkv]_proj\.bias/, "attention_bias"],
    ["qwen3", { ...asLlama, attention_bias: true }, /self_attn\.[qk]_norm\.weight/, '"qwen3"'],
    ["qwen3", { attention_bias: false }, /self_attn\.[qkvo]_proj\.bias/, "attention_bias"],
    ["llama3", { mlp_bias: false }, /mlp\.(gate|up|down)_proj\.bias/, "mlp_bias is not true"],
    ["llama3", { mlp_bias: null }, /mlp\.(gate|up|down)_proj\.bias/, "mlp_bias is not true"],
    ["tied", { num_hidden_layers: 1 }, /model\.layers\.1\./, "num_hidden_layers is 1"],
  ];
  const directory = t.testdir();
  const weights = path.join(directory, "model.safetensors");
  const file = path.join(directory, "config.json");
  for (const [from, config, name, setting] of cases) {
    copyCheckpoint(directory, config, from);
    await refused(t, loadModel(directory), "ERR_MODEL_TENSOR", weights, file, name, setting);
  }
  for (const name of [
    "position_ids",
    "v_head.summary.weight",
    "embed_tokens.weight",
    "model.norm.bias",
    "model.layers.0.input_layernorm.bias",
    "model.layers.0.self_attn.o_proj.bias",
    "model.layers.0.mlp.experts.0.up_proj.weight",
    "model.layers.0.pre_feedforward_layernorm.weight",
    "model.layers.00.input_layernorm.weight",
    "model.layers.-1.input_layernorm.weight",
    "lm_head.bias",
    "constructor",
  ]) {
    copyCheckpoint(directory);
    addTensor(directory, name, new Float32Array(1));
    await refused(t, loadModel(directory), "ERR_MODEL_TENSOR", weights, name);
  }
});

t.test("tables of rope's frequencies are left aside, of whatever type", async (t) => {
  const directory = copyCheckpoint(t.testdir());
  addTensor(directory, "model.layers.0.self_attn.rotary_emb.inv_freq", new Float32Array(4).fill(7));
  addTensor(directory, "model.rotary_emb.inv_freq", new Float64Array(4).fill(7), "F64");
  const loaded = await loadModel(directory);
  const input = { inputIds: Int32Array.of(5, 100, 0, 7), cuSeqlens: Int32Array.of(0, 4) };
  t.strictSame(await loaded.forward(input), await model.forward(input));
  loaded.close();
});

t.test("a tied head of its own must be the embedding, bit by bit", async (t) => {
  const directory = t.testdir();
  const { header, data } = splitSafetensors(path.join(checkpoints.tied, "model.safetensors"));
  const { dtype, data_offsets: offsets } = header["model.embed_tokens.weight"]!;
  const head = Uint8Array.from(data.subarray(...offsets));
  const write = (bytes: Uint8Array, type: string, shape: number[]): Promise<Model> => {
    copyCheckpoint(directory);
    addTensor(directory, "lm_head.weight", bytes, type, shape);
    return loadModel(directory);
  };
  const loaded = await write(head, dtype, [101, 32]);
  t.equal(loaded.config.tied, true);
  const input = { inputIds: Int32Array.of(5, 100, 0, 7), cuSeqlens: Int32Array.of(0, 4) };
  t.strictSame(await loaded.forward(input), await model.forward(input));
  loaded.close();
  const words = ["lm_head.weight", "tie_word_embeddings", path.join(directory, "config.json")];
  await refused(t, write(head, dtype, [32, 101]), "ERR_MODEL_TENSOR", ...words);
  for (const at of [0, head.length - 1]) {
    const other = Uint8Array.from(head);
    other[at]! ^= 1;
    await refused(t, write(other, dtype, [101, 32]), "ERR_MODEL_TENSOR", ...words);
  }
});

t.test("a tensor that two shards hold is refused, naming both", async (t) => {
  const directory = copyCheckpoint(t.testdir());
  const files = ["a.safetensors", "b.safetensors"].map((name) => path.join(directory, name));
  for (const file of files) cpSync(path.join(checkpoints.tied, "model.safetensors"), file);
  rmSync(path.join(directory, "model.safetensors"));
  const index = { weight_map: { "model.norm.weight": "a.safetensors", "model.embed_tokens.weight": "b.safetensors" } };
  writeFileSync(path.join(directory, "model.safetensors.index.json"), JSON.stringify(index));
  await refused(t, loadModel(directory), "ERR_MODEL_TENSOR", "once", ...files);
});

/** Puts one more tensor at the end of a checkpoint's model.safetensors. */
function addTensor(
  directory: string,
  name: string,
  values: Uint8Array | Float32Array | Float64Array,
  dtype = "F32",
  shape: number[] = [values.length],
): void {
  const file = path.join(directory, "model.safetensors");
  const { header, data } = splitSafetensors(file);
  const entry = { dtype, shape, data_offsets: [data.length, data.length + values.byteLength] };
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  rmSync(file);
  writeFileSync(file, safetensorsBytes({ ...header, [name]: entry }, Buffer.concat([data, bytes])));
}

// ---- model.safetensors

t.test("a file that was cut is refused, wherever it was cut", async (t) => {
  const directory = copyCheckpoint(t.testdir());
  const file = path.join(directory, "model.safetensors");
  const size = readFileSync(file).length;
  for (const length of [size - 1, size - 1000, 2000, 100, 8, 7, 0]) {
    truncateSync(file, length);
    await refused(t, loadModel(directory), "ERR_SAFETENSORS", file);
  }
  copyCheckpoint(directory);
  writeFileSync(file, Buffer.concat([readFileSync(file), Buffer.alloc(3)]));
  await refused(t, loadModel(directory), "ERR_SAFETENSORS", file, String(size + 3));
});

t.test("a hostile header is refused, naming file and tensor", async (t) => {
  const tensor = "model.layers.1.mlp.down_proj.weight";
  const norm = "model.norm.weight";
  const entry = (change: (entry: Header[string], data: Buffer) => object) => (header: Header, data: Buffer) => ({
    ...header,
    [tensor]: { ...header[tensor], ...change(header[tensor]!, data) },
  });
  const offsets = (from: number, to: number) =>
    entry(({ data_offsets: [a, b] }) => ({ data_offsets: [a + from, b + to] }));
  const cases: [string, string | RegExp, (header: Header, data: Buffer) => unknown][] = [
    ["a length beyond the file", /at most/, (header, data) => safetensorsBytes(header, data, 1n << 40n)],
    ["the largest length", /18446744073709551615/, (header, data) => safetensorsBytes(header, data, (1n << 64n) - 1n)],
    ["a length into the data", /JSON/, (header, data) => safetensorsBytes(header, data, 8000n)],
    ["no JSON", /JSON/, () => "x".repeat(64)],
    ["a list", /object/, () => []],
    ["null", /object/, () => "null"],
    ["a tensor that is null", tensor, (header) => ({ ...header, [tensor]: null })],
    ["a tensor that is text", tensor, (header) => ({ ...header, [tensor]: "text" })],
    ["no offsets", tensor, entry(() => ({ data_offsets: undefined }))],
    ["one offset", tensor, entry(() => ({ data_offsets: [0] }))],
    ["offsets that are fractions", tensor, entry(() => ({ data_offsets: [0.5, 1.5] }))],
    ["negative offsets", tensor, entry(() => ({ data_offsets: [-8, 0] }))],
    ["offsets beyond 2^53", tensor, entry(() => ({ data_offsets: [0, 2 ** 60] }))],
    ["an end before the begin", tensor, entry(({ data_offsets: [a, b] }) => ({ data_offsets: [b, a] }))],
    ["an end beyond the file", tensor, offsets(0, 1 << 20)],
    ["both beyond the file", tensor, offsets(1 << 20, 1 << 20)],
    ["an overlap", /overlap/, offsets(-64, -64)],
    ["a hole", /hole/, offsets(64, 64)],
    [
      "all the same bytes",
      /overlap/,
      (header) => mapValues(header, (e) => ({ ...e, data_offsets: [0, e.data_offsets[1] - e.data_offsets[0]] })),
    ],
    ["a shape of another size", tensor, entry(({ shape: [n, k] }) => ({ shape: [n! + 1, k] }))],
    ["a shape whose product overflows", tensor, entry(() => ({ shape: [2 ** 32, 2 ** 32, 2 ** 32] }))],
    ["a negative shape", tensor, entry(({ shape: [n, k] }) => ({ shape: [-n!, -k!] }))],
    ["a shape that is text", tensor, entry(() => ({ shape: "32x44" }))],
    ["too many dimensions", tensor, entry(({ shape }) => ({ shape: [...shape, ...Array<number>(40).fill(1)] }))],
    ["an unknown dtype", /F4_E2M1/, entry(() => ({ dtype: "F4_E2M1" }))],
    ["a dtype that every object has", /constructor/, entry(() => ({ dtype: "constructor" }))],
    ["no dtype", tensor, entry(() => ({ dtype: undefined }))],
    [
      "an empty tensor past the end",
      norm,
      (header, data) => ({
        ...header,
        [norm]: { dtype: "BF16", shape: [0], data_offsets: [data.length + 8, data.length + 8] },
      }),
    ],
  ];
  const directory = t.testdir();
  const file = path.join(directory, "model.safetensors");
  for (const [what, word, change] of cases) {
    copyCheckpoint(directory);
    changeHeader(directory, change);
    await t.test(what, (t) => refused(t, loadModel(directory), "ERR_SAFETENSORS", file, word));
  }
  copyCheckpoint(directory);
  changeHeader(directory, (header) => ({ ...header, __metadata__: { format: "pt", __proto__: "x", n: 1 } }));
  const loaded = await loadModel(directory);
  t.pass("metadata are free");
  loaded.close();
});

function mapValues(header: Header, change: (entry: Header[string]) => Header[string]): Header {
  return Object.fromEntries(Object.entries(header).map(([name, entry]) => [name, change(entry)]));
}

t.test("weights of another type are refused by tensor and type", async (t) => {
  const directory = t.testdir();
  for (const [from, name] of [
    ["tied", "model.layers.0.mlp.up_proj.weight"],
    ["tied", "model.norm.weight"],
    ["untied", "lm_head.weight"],
  ] as const) {
    copyCheckpoint(directory, {}, from);
    const dtype = from === "tied" ? "F16" : "I32";
    changeHeader(directory, (header) => ({ ...header, [name]: { ...header[name], dtype } }));
    await refused(t, loadModel(directory), "ERR_DTYPE", path.join(directory, "model.safetensors"), name, dtype);
  }
});
