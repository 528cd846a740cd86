// node golden-bits.mjs [bf16-multiply]: a short training run through the public API, rollout -> step -> rollout, three steps each with a
// model of f32 weights, one of bf16 weights and a step of full training; with bf16-multiply the run with bf16 weights alone, in that mode.
// Prints { backend, threads, hashes } as JSON. Everything is made from seeds: no file but those that it writes itself, and the world's
// tokenizer. It stands alone: plain node runs it (npm run golden), which cannot import the TypeScript helpers of other tests, and what the
// committed hashes stand for must not change where those helpers do.
import { createHash } from "node:crypto";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { createAdapters, loadModel, loadTokenizer, Random, Rollout, RoleRouter, Trainer } from "rolegrad";
import { native } from "../../dist/binding.js";

const tokenizerFolder = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../assets/world");
const roles = ["reason", "tool"];
const hashes = {};

function record(name, ...arrays) {
  const hash = createHash("sha256");
  for (const x of arrays) hash.update(typeof x === "number" ? Float64Array.of(x) : x);
  hashes[name] = hash.digest("hex");
}

/** bf16 as the upper half of f32, rounded towards zero: these are weights to be stored, not results. */
const narrow = (values) => Uint16Array.from(new Uint32Array(values.buffer), (bits) => bits >>> 16);

/** A random model of odd sizes for the world's tokenizer. Column 0 of the embedding is 3 for all tokens: that of the head is a bias. */
async function writeModel(directory, dtype) {
  const tokenizer = await loadTokenizer(tokenizerFolder);
  const [hidden, heads, kvHeads, headDim, intermediate, layers] = [23, 6, 2, 6, 37, 2];
  const vocabulary = tokenizer.vocabularySize + 5;
  const random = new Random(1, "golden model");
  const header = {};
  const parts = [];
  let at = 0;
  const add = (name, shape, size, about = 0) => {
    const count = shape.reduce((a, b) => a * b, 1);
    const values = Float32Array.from({ length: count }, () => about + (2 * random.next() - 1) * size);
    parts.push({ values });
    header[name] = { dtype, shape, data_offsets: [at, (at += count * (dtype === "BF16" ? 2 : 4))] };
    return values;
  };
  const embedding = add("model.embed_tokens.weight", [vocabulary, hidden], 0.8);
  const head = add("lm_head.weight", [vocabulary, hidden], 0.5);
  for (let id = 0; id < vocabulary; id++) {
    embedding[id * hidden] = 3;
    head[id * hidden] = 0;
  }
  for (const [token, bias] of [
    ["<search>", 4.3],
    ["</search>", 5.2],
    ["<eos>", 3],
    ["<answer>", 3.5],
    ["</answer>", 4],
  ])
    head[tokenizer.tokenId(token) * hidden] = bias / 3;
  add("model.norm.weight", [hidden], 0.3, 1);
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}`;
    add(`${prefix}.input_layernorm.weight`, [hidden], 0.3, 1);
    add(`${prefix}.post_attention_layernorm.weight`, [hidden], 0.3, 1);
    for (const [name, rows, columns] of [
      ["self_attn.q_proj", heads * headDim, hidden],
      ["self_attn.k_proj", kvHeads * headDim, hidden],
      ["self_attn.v_proj", kvHeads * headDim, hidden],
      ["self_attn.o_proj", hidden, heads * headDim],
      ["mlp.gate_proj", intermediate, hidden],
      ["mlp.up_proj", intermediate, hidden],
      ["mlp.down_proj", hidden, intermediate],
    ]) {
      add(`${prefix}.${name}.weight`, [rows, columns], 0.25);
      if (/[qkv]_proj/.test(name)) add(`${prefix}.${name}.bias`, [rows], 0.2);
    }
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const data = parts.map(({ values }) => Buffer.from((dtype === "BF16" ? narrow(values) : values).buffer));
  writeFileSync(path.join(directory, "model.safetensors"), Buffer.concat([length, text, ...data]));
  const config = {
    model_type: "qwen2",
    vocab_size: vocabulary,
    hidden_size: hidden,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: headDim,
    intermediate_size: intermediate,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    tie_word_embeddings: false,
    max_position_embeddings: 1024,
  };
  writeFileSync(path.join(directory, "config.json"), JSON.stringify(config));
  for (const file of ["tokenizer.json", "tokenizer_config.json"])
    cpSync(path.join(tokenizerFolder, file), path.join(directory, file));
}

const kinds = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"].concat(
  ["gate_proj", "up_proj", "down_proj"].map((name) => `mlp.${name}`),
);
const modulesOf = (model) =>
  [...Array(model.config.layers).keys()].flatMap((l) => kinds.map((kind) => `model.layers.${l}.${kind}`));

function makeAdapters(model) {
  const adapters = createAdapters(model, { roles, rank: { reason: 3, tool: 8 }, alpha: 10, seed: 1 });
  for (const role of roles)
    for (const module of modulesOf(model)) {
      const random = new Random(1, `b/${role}/${module}`);
      const { a, b } = adapters.get(role, module);
      adapters.set(role, module, { a, b: b.map(() => (random.next() - 0.5) / 4) });
    }
  return adapters;
}

const everything = (adapters) =>
  roles.flatMap((role) => modulesOf(adapters.model).flatMap((module) => Object.values(adapters.get(role, module))));

async function rollOut(model, adapters, seed) {
  const router = new RoleRouter({
    roles,
    base: "reason",
    spans: [{ role: "tool", open: "<search>", close: "</search>" }],
  });
  const rollout = new Rollout(model, {
    finalAnswer: false,
    adapters,
    router,
    environment: { act: async ({ text }) => ({ text: `found ${text.length} of ${text.slice(0, 3)}` }) },
    reward: ({ response }) => response.length % 7,
    sampling: { temperature: 0.9, maxNewTokens: 60 },
    group: 4,
    seed,
  });
  return rollout.collect([
    { id: "a", question: "Who owns the bank?", answers: [] },
    { id: "b", question: "Where?", answers: [] },
    { id: "c", question: "Which river flows through the town of the founder? ".repeat(14), answers: [] },
  ]);
}

const recorded = (trajectories) =>
  trajectories.flatMap(({ ids, roles, sampled, logprobs }) => [ids, roles, sampled, logprobs]);

async function trainFully() {
  const model = await loadModel(folder, { dtype: "float32" });
  const full = new Trainer(model, { full: true, objective: { kind: "sft" }, optimizer: { learningRate: 0.01 } });
  const random = new Random(2, "full");
  const inputIds = Int32Array.from({ length: 150 }, () => random.integer(model.config.vocabSize));
  const batch = { inputIds, cuSeqlens: Int32Array.of(0, 90, 91, 150), lossMask: new Uint8Array(150).fill(1) };
  for (let step = 0; step < 2; step++) {
    record(`full loss ${step}`, (await full.accumulate(batch)).loss);
    await full.apply();
  }
  record("full parameters", ...full.parameters().map(({ name }) => full.parameter(name)));
  model.close();
}

const precision = process.argv[2] ?? "exact";
const runs = [
  ["F32", "flow"],
  ["BF16", "stop"],
];
let backend;
const folder = mkdtempSync(path.join(tmpdir(), "rolegrad-golden-"));
try {
  for (const [dtype, crossRole] of precision === "exact" ? runs : runs.slice(1)) {
    await writeModel(folder, dtype);
    const model = await loadModel(folder, { precision });
    ({ backend } = model.info);
    const adapters = makeAdapters(model);
    const trainer = new Trainer(model, {
      adapters,
      objective: { klCoefficient: 0.05 },
      optimizer: { learningRate: 0.02, weightDecay: 0.01, warmupSteps: 2, totalSteps: 5 },
      crossRole,
      microBatchTokens: 700,
    });
    for (let step = 0; step < 3; step++) {
      const trajectories = await rollOut(model, adapters, step);
      record(`${dtype} rollout ${step}`, ...recorded(trajectories));
      const { loss, kl, gradNorms, maxRatioDeviation } = await trainer.step(trajectories);
      if (maxRatioDeviation !== 0) throw new Error("the first ratios of an on-policy step are not exactly 1");
      record(`${dtype} step ${step}`, loss, kl, ...Object.values(gradNorms), ...everything(adapters));
    }
    const { first, second } = trainer.native.state();
    // Sorted: where a moment lies in the buffers is nobody's business.
    record(`${dtype} moments`, ...[...first, ...second].map((values) => values.filter((x) => x !== 0).sort()));
    const last = await rollOut(model, adapters, 3);
    record(`${dtype} rollout 3`, ...recorded(last));
    const input = {
      inputIds: Int32Array.from(last.flatMap(({ ids }) => [...ids])),
      roles: Int8Array.from(last.flatMap(({ roles }) => [...roles])),
      cuSeqlens: Int32Array.from(last.reduce((cuts, { ids }) => [...cuts, cuts.at(-1) + ids.length], [0])),
    };
    const { logprobs, logits } = await model.forward(input, { adapters, logits: true, temperature: 1.1 });
    record(`${dtype} forward`, logprobs, logits);
    model.close();
  }
  if (precision === "exact") await trainFully();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
console.log(JSON.stringify({ backend, threads: native.cpuInfo().threads, hashes }));
