// Adapters: what new ones hold, reading and writing pairs, routes, PEFT directories, and what is refused.
import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { Adapters, createAdapters, loadModel, Trainer } from "rolegrad";

import { safetensorsBytes, splitSafetensors, type Header } from "./helpers/checkpoint.js";
import { adapterBits, bits, checkpoints, modulesOf, pack, randomAdapters } from "./helpers/engine.js";
import { rowsOf, trajectoriesOf } from "./helpers/properties.js";
import { refusals } from "./helpers/refused.js";

const { model, refused } = await refusals(checkpoints.tied);
t.teardown(() => model.close());
const roles = ["reason", "tool"];
const up = "model.layers.1.mlp.up_proj";
const input = pack(rowsOf({ lengths: [20, 33], seed: 1 }, model));

t.test("new adapters have A uniform in +-1 / sqrt(d_in) and B zero, by seed", async (t) => {
  const adapters = createAdapters(model, { roles, rank: { reason: 2, tool: 5 }, alpha: 8, seed: 3 });
  t.strictSame(adapters.names, roles);
  t.strictSame(
    adapters.list.map(({ rank, alpha, rsLora, targets }) => [rank, alpha, rsLora, targets.length]),
    [
      [2, 8, false, 7],
      [5, 8, false, 7],
    ],
  );
  let squares = 0;
  let count = 0;
  for (const { name, rank } of adapters.list) {
    for (const module of modulesOf(model)) {
      const { a, b } = adapters.get(name, module);
      const columns = /down/.test(module) ? 44 : 32;
      t.equal(a.length, rank * columns, `${name} ${module}: A [r, d_in]`);
      const bound = 1 / Math.sqrt(columns);
      t.ok(a.every((x) => Math.abs(x) <= bound));
      t.ok(b.length > 0 && b.every((x) => x === 0));
      for (const x of a) squares += (x / bound) ** 2;
      count += a.length;
    }
  }
  // A third, within five standard errors: 5 sqrt((1/5 - 1/9) / count).
  t.ok(
    Math.abs(squares / count - 1 / 3) < 5 * Math.sqrt(4 / 45 / count),
    `mean square ${squares / count} of the bound's`,
  );
  const make = (seed: number) => adapterBits(createAdapters(model, { roles, rank: 2, alpha: 8, seed }));
  t.equal(make(3), make(3));
  t.not(make(3), make(4));
});

t.test("the scale is alpha / r, or alpha / sqrt(r) with rsLora", async (t) => {
  const at = async (options: { alpha: number; rsLora: boolean }): Promise<string> => {
    const adapters = createAdapters(model, { roles, rank: 4, ...options });
    const { a, b } = randomAdapters(model, { roles, rank: 4 }).get("tool", up);
    adapters.set("tool", up, { a, b });
    return bits((await model.forward(input, { adapters })).logprobs);
  };
  const plain = await at({ alpha: 8, rsLora: false });
  t.equal(await at({ alpha: 4, rsLora: true }), plain, "8 / 4 = 4 / sqrt(4)");
  t.not(await at({ alpha: 8, rsLora: true }), plain);
});

t.test("patterns give modules a rank and an alpha of their own, by peft's rule", async (t) => {
  const options = {
    roles,
    rank: { reason: 4, tool: 3 },
    alpha: { reason: 8, tool: 3 },
    rankPattern: { "layers.1.mlp.up_proj": 7, "(q|v)_proj": 2, q_proj: 5, proj: 9 },
    alphaPattern: { ".*layers.0.*": 6, o_proj: 1 },
  };
  const adapters = createAdapters(model, { ...options, seed: 1 });
  const want: [string, number, number][] = [
    ["model.layers.0.self_attn.q_proj", 2, 6], // the first key that matches counts
    ["model.layers.1.self_attn.v_proj", 2, 8],
    ["model.layers.0.mlp.up_proj", 4, 6],
    ["model.layers.1.mlp.up_proj", 7, 8],
    ["model.layers.1.self_attn.o_proj", 4, 1],
    ["model.layers.1.mlp.gate_proj", 4, 8], // "proj" is no name after a dot
  ];
  for (const [module, rank] of want) {
    const columns = /o_proj|self_attn|up|gate/.test(module) ? 32 : 44;
    t.equal(adapters.get("reason", module).a.length, rank * columns, module);
  }
  const count = modulesOf(model).reduce((sum, module) => {
    const { a, b } = adapters.get("tool", module);
    return sum + a.length + b.length;
  }, 0);
  t.equal(adapters.parameterCount("tool"), count);

  // The same as pairs of one rank, padded with zeros, with the scale in B: every module's own scale is a power of two here.
  const scaled = { roles, rankPattern: { q_proj: 2, up_proj: 8 }, alphaPattern: { q_proj: 1, down_proj: 16 } };
  const mixed = createAdapters(model, { ...scaled, rank: 4, alpha: 8 });
  const padded = createAdapters(model, { roles, rank: 8, alpha: 8 });
  const scaleOf = (module: string) =>
    /q_proj/.test(module) ? 0.5 : /down/.test(module) ? 4 : /up/.test(module) ? 1 : 2;
  const random = randomAdapters(model, { roles, rank: 8 });
  for (const name of roles)
    for (const module of modulesOf(model)) {
      const own = random.get(name, module);
      const rank = /q_proj/.test(module) ? 2 : /up/.test(module) ? 8 : 4;
      const columns = own.a.length / 8;
      const a = own.a.slice(0, rank * columns);
      const b = own.b.filter((_, i) => i % 8 < rank);
      mixed.set(name, module, { a, b });
      padded.set(name, module, {
        a: own.a.map((x, i) => (i < rank * columns ? x : 0)),
        b: own.b.map((x, i) => (i % 8 < rank ? x * scaleOf(module) : 0)),
      });
    }
  const run = async (own: Adapters) => bits((await model.forward(input, { adapters: own })).logprobs);
  t.equal(await run(mixed), await run(padded));

  const directory = t.testdir();
  await adapters.save(directory, "reason");
  t.match(JSON.parse(readFileSync(path.join(directory, "adapter_config.json"), "utf8")), {
    r: 4,
    lora_alpha: 8,
    rank_pattern: options.rankPattern,
    alpha_pattern: options.alphaPattern,
  });
  const loaded = await Adapters.load(model, { reason: directory });
  t.strictSame(loaded.list, [adapters.list[0]]);
  const bitsOf = (own: Adapters) => bits(...modulesOf(model).flatMap((m) => Object.values(own.get("reason", m))));
  t.equal(bitsOf(loaded), bitsOf(adapters));
});

t.test("get gives a copy, and set takes one", async (t) => {
  const adapters = randomAdapters(model, { roles });
  const pair = adapters.get("tool", up);
  const want = bits(pair.a, pair.b);
  pair.a.fill(7);
  t.equal(bits(...Object.values(adapters.get("tool", up))), want);
  adapters.set("tool", up, pair);
  pair.a.fill(8);
  t.ok(adapters.get("tool", up).a.every((x) => x === 7));
});

t.test("the norm and the number of parameters are those of all pairs", async (t) => {
  const adapters = randomAdapters(model, { roles, rank: 3, targets: ["q_proj", "down_proj"] });
  const pairs = modulesOf(model, ["q_proj", "down_proj"]).map((module) => adapters.get("tool", module));
  const values = pairs.flatMap(({ a, b }) => [...a, ...b]);
  t.ok(Math.abs(adapters.norm("tool") / Math.hypot(...values) - 1) < 1e-12);
  t.equal(adapters.parameterCount("tool"), values.length);
});

t.test("routes say which adapter runs a role, over the same weights", async (t) => {
  const adapters = randomAdapters(model, { roles });
  const run = async (a: Adapters, own = input) => bits((await model.forward(own, { adapters: a })).logprobs);
  const swapped = { ...input, roles: input.roles.map((role) => (role < 0 ? role : 1 - role)) };
  const crossed = adapters.withRoutes({ reason: "tool", tool: "reason" });
  t.equal(await run(crossed, swapped), await run(adapters), "two swaps cancel");
  t.not(await run(crossed), await run(adapters));
  const half = adapters.withRoutes({ tool: null });
  t.strictSame(half.routes, { reason: "reason", tool: null });
  const without = { ...input, roles: input.roles.map((role) => (role === 1 ? -1 : role)) };
  t.equal(await run(half), await run(adapters, without), "a null route is no adapter");
  const { a, b } = adapters.get("reason", up);
  half.set("reason", up, { a, b: b.fill(0) });
  t.ok(
    adapters.get("reason", up).b.every((x) => x === 0),
    "the weights are shared",
  );

  const shared = randomAdapters(model, { roles, routes: { reason: "both", tool: "both" } });
  t.strictSame(shared.names, ["both"]);
  t.equal(await run(shared, swapped), await run(shared), "one LoRA for two roles");
});

t.test("saved as a PEFT directory and loaded again they are the same, bit for bit", async (t) => {
  const directory = t.testdir();
  const at = (name: string) => path.join(directory, name);
  for (const options of [{ rank: 3 }, { rank: 4, targets: ["v_proj", "o_proj", "gate_proj"] }]) {
    const adapters = randomAdapters(model, { roles, ...options });
    for (const name of roles) await adapters.save(at(name), name);
    const config = JSON.parse(readFileSync(path.join(at("tool"), "adapter_config.json"), "utf8")) as Record<
      string,
      unknown
    >;
    t.match(config, {
      peft_type: "LORA",
      r: options.rank,
      lora_alpha: 2 * options.rank,
      use_rslora: false,
      bias: "none",
    });
    const { header } = splitSafetensors(path.join(at("tool"), "adapter_model.safetensors"));
    t.match(header["base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight"], {
      dtype: "F32",
      shape: [16, options.rank],
    });
    const loaded = await Adapters.load(model, { reason: at("reason"), tool: at("tool") });
    t.equal(adapterBits(loaded), adapterBits(adapters));
    t.strictSame(loaded.list, adapters.list);
    const shared = await Adapters.load(model, { reason: at("tool"), tool: at("tool"), idle: null });
    t.strictSame(shared.routes, { reason: "reason", tool: "reason", idle: null }, "one directory is one adapter");
    t.equal(bits(...Object.values(shared.get("reason", "model.layers.0.self_attn.v_proj"))).length > 0, true);
  }
});

t.test("an adapter directory that is none, or another model's, is refused by file and module", async (t) => {
  const directory = t.testdir();
  const good = path.join(directory, "good");
  await randomAdapters(model, { roles }).save(good, "tool");
  const bad = path.join(directory, "bad");
  const configFile = path.join(bad, "adapter_config.json");
  const weightsFile = path.join(bad, "adapter_model.safetensors");
  const load = () => Adapters.load(model, { tool: bad });
  const fresh = (): void => {
    rmSync(bad, { recursive: true, force: true });
    cpSync(good, bad, { recursive: true });
  };
  await refused(t, load, "ERR_ADAPTER_NOT_FOUND", configFile);
  fresh();
  rmSync(weightsFile);
  await refused(t, load, "ERR_ADAPTER_NOT_FOUND", weightsFile);

  const whole = JSON.parse(readFileSync(path.join(good, "adapter_config.json"), "utf8")) as object;
  const configs: [string, string, string | object][] = [
    ["ERR_ADAPTER_INVALID", "JSON", "{"],
    ["ERR_ADAPTER_INVALID", "adapter_config.json", "null"],
    ["ERR_ADAPTER_INVALID", "r", { r: 0 }],
    ["ERR_ADAPTER_INVALID", "r", { r: 1e9 }],
    ["ERR_ADAPTER_INVALID", "lora_alpha", { lora_alpha: "16" }],
    ["ERR_ADAPTER_INVALID", "rank 4", { r: 4 }],
    ["ERR_ADAPTER_UNSUPPORTED", "IA3", { peft_type: "IA3" }],
    ["ERR_ADAPTER_UNSUPPORTED", "use_dora", { use_dora: true }],
    ["ERR_ADAPTER_UNSUPPORTED", "bias", { bias: "all" }],
    ["ERR_ADAPTER_INVALID", "rank 2", { rank_pattern: { q_proj: 2 } }],
    ["ERR_ADAPTER_INVALID", "rank_pattern.q_proj", { rank_pattern: { q_proj: 0 } }],
    ["ERR_ADAPTER_INVALID", "alpha_pattern.q_proj", { alpha_pattern: { q_proj: "2" } }],
    ["ERR_ADAPTER_UNSUPPORTED", "(?P<x>q)_proj", { alpha_pattern: { "(?P<x>q)_proj": 2 } }],
    ["ERR_ADAPTER_UNSUPPORTED", "modules_to_save", { modules_to_save: ["lm_head"] }],
    ["ERR_ADAPTER_UNSUPPORTED", "regular expression", { target_modules: ".*_proj" }],
    ["ERR_ADAPTER_UNSUPPORTED", "lm_head", { target_modules: ["q_proj", "lm_head"] }],
    ["ERR_ADAPTER_INVALID", "q_proj", { target_modules: ["k_proj"] }],
  ];
  for (const [code, word, change] of configs) {
    fresh();
    writeFileSync(configFile, typeof change === "string" ? change : JSON.stringify({ ...whole, ...change }));
    await refused(t, load, code, bad, word);
  }

  const { header, data } = splitSafetensors(path.join(good, "adapter_model.safetensors"));
  const first = Object.keys(header).find((name) => name.endsWith("q_proj.lora_A.weight"))!;
  const renamed = (name: string, to: string): Header => {
    const { [name]: entry, ...rest } = header;
    return { ...rest, [to]: entry! };
  };
  const nan = Buffer.from(data);
  nan.writeFloatLE(NaN, header[first]!.data_offsets[0]);
  const files: [string, string | RegExp, Buffer][] = [
    ["ERR_SAFETENSORS", weightsFile, safetensorsBytes(header, data.subarray(0, 1000))],
    ["ERR_SAFETENSORS", weightsFile, Buffer.alloc(3)],
    ["ERR_DTYPE", first, safetensorsBytes({ ...header, [first]: { ...header[first]!, dtype: "I32" } }, data)],
    ["ERR_ADAPTER_INVALID", "unknown.weight", safetensorsBytes(renamed(first, "unknown.weight"), data)],
    ["ERR_ADAPTER_INVALID", "lora_B", safetensorsBytes(renamed(first, first.replace("layers.0", "layers.7")), data)],
    ["ERR_NOT_FINITE", /q_proj/, safetensorsBytes(header, nan)],
  ];
  for (const [code, word, bytes] of files) {
    fresh();
    writeFileSync(weightsFile, bytes);
    await refused(t, load, code, word);
  }
  const other = await loadModel(checkpoints.untied);
  await refused(t, Adapters.load(other, { tool: good }), "ERR_SHAPE", good, "model.layers.0.self_attn.q_proj");
  other.close();
});

t.test("options and pairs that do not fit are refused by field", async (t) => {
  const make = (options: object) => () => createAdapters(model, { roles, rank: 2, alpha: 4, ...options });
  await refused(t, make({ roles: [] }), "ERR_INVALID_ARGUMENT", "role");
  await refused(t, make({ roles: undefined }), "ERR_INVALID_ARGUMENT", "role");
  await refused(t, make({ roles: ["a", "a"] }), "ERR_INVALID_ARGUMENT", "distinct");
  await refused(t, make({ roles: Array.from({ length: 128 }, String) }), "ERR_INVALID_ARGUMENT", "127");
  await refused(t, make({ routes: { think: "a" } }), "ERR_NO_ROLE", "think");
  for (const rank of [0, -1, 1.5, NaN, "8", { reason: 2 }, 1e9]) {
    await refused(t, make({ rank }), "ERR_INVALID_ARGUMENT", "rank of adapter");
  }
  for (const alpha of [NaN, Infinity, "16", undefined])
    await refused(t, make({ alpha }), "ERR_INVALID_ARGUMENT", "alpha");
  await refused(t, make({ alpha: { reason: 2 } }), "ERR_INVALID_ARGUMENT", "alpha of adapter tool");
  await refused(t, make({ rank: { reason: 2, tool: 2, critic: 2 } }), "ERR_NO_ADAPTER", "critic");
  await refused(t, make({ rankPattern: { q_proj: 0 } }), "ERR_INVALID_ARGUMENT", 'rankPattern["q_proj"]');
  await refused(t, make({ alphaPattern: { q_proj: NaN } }), "ERR_INVALID_ARGUMENT", 'alphaPattern["q_proj"]');
  await refused(t, make({ rankPattern: { "(": 2 } }), "ERR_INVALID_ARGUMENT", "regular expression", "(");
  await refused(t, make({ targets: ["q_proj", "lm_head"] }), "ERR_NO_MODULE", "lm_head");
  await refused(t, make({ seed: -1 }), "ERR_INVALID_SEED", "-1");

  const adapters = randomAdapters(model, { roles, targets: ["q_proj", "up_proj"] });
  const { a, b } = adapters.get("tool", up);
  const broken = (values: Float32Array, x: number) => values.map((value, i) => (i === 5 ? x : value));
  const set =
    (pair: unknown, adapter = "tool", module = up) =>
    () =>
      adapters.set(adapter, module, pair as never);
  await refused(t, set({ a: broken(a, NaN), b }), "ERR_NOT_FINITE", up);
  await refused(t, set({ a, b: broken(b, -Infinity) }), "ERR_NOT_FINITE", up);
  await refused(t, set({ a: a.subarray(1), b }), "ERR_SHAPE", up, "[3, 32]", "[44, 3]");
  await refused(t, set({ a, b: a }), "ERR_SHAPE", up);
  await refused(t, set({ a: [...a], b }), "ERR_INVALID_ARGUMENT", "Float32Array for a");
  await refused(
    t,
    set({ a, b: new Float32Array(new SharedArrayBuffer(b.byteLength)) }),
    "ERR_INVALID_ARGUMENT",
    "shared",
  );
  await refused(t, set({ a, b }, "think"), "ERR_NO_ADAPTER", "reason, tool", "think");
  for (const module of [
    "up_proj",
    "model.layers.2.mlp.up_proj",
    "model.layers.-1.mlp.up_proj",
    "lm_head",
    "model.layers.0.mlp.up_proj.x",
  ]) {
    await refused(t, set({ a, b }, "tool", module), "ERR_NO_MODULE", module);
  }
  await refused(t, set({ a, b }, "tool", "model.layers.1.self_attn.k_proj"), "ERR_NO_MODULE", "k_proj");
  await refused(t, () => adapters.get("tool", "model.layers.1.self_attn.k_proj"), "ERR_NO_MODULE", "k_proj");
  await refused(t, () => adapters.get("think", up), "ERR_NO_ADAPTER", "think");
  await refused(t, () => adapters.roleIndex("think"), "ERR_NO_ROLE", "think");
  await refused(t, () => adapters.withRoutes({ think: null }), "ERR_NO_ROLE", "think");
  await refused(t, () => adapters.withRoutes({ tool: "think" }), "ERR_NO_ADAPTER", "think");
  t.equal(bits(...Object.values(adapters.get("tool", up))), bits(a, b), "nothing was half written");
});

t.test("reading or writing while a step runs is refused, and fine afterwards", async (t) => {
  const adapters = randomAdapters(model, { roles });
  const trainer = new Trainer(model, { adapters, optimizer: { learningRate: 0.1 } });
  const pair = adapters.get("tool", up);
  const running = trainer.step(trajectoriesOf({ lengths: [50, 60, 70], seed: 1 }, model));
  for (const work of [
    () => adapters.get("tool", up),
    () => adapters.set("tool", up, pair),
    () => adapters.norm("tool"),
    () => adapters.withRoutes({ tool: null }).set("reason", up, pair),
  ]) {
    t.throws(work, { name: "RolegradError", code: "ERR_BUSY" });
  }
  await running;
  adapters.set("tool", up, pair);
  t.equal(bits(...Object.values(adapters.get("tool", up))), bits(pair.a, pair.b));
});
