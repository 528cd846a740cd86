// Arguments as no caller should give them, for every public function that takes numbers, arrays or objects: each is refused
// with a RolegradError of a code, or worked with; never a crash, a hang, a TypeError or a RangeError, and never a trace left.
import { setTimeout as sleep } from "node:timers/promises";
import path from "node:path";
import t from "tap";
import * as rolegrad from "rolegrad";
import { native } from "../lib/binding.js";
import type { Adapters, Model, Trainer, Trajectory } from "rolegrad";
import {
  adapterBits,
  bits,
  checkpoints,
  momentBits,
  pack,
  randomAdapters,
  randomRow,
  randomTrajectory,
} from "./helpers/engine.js";
import { trainingBatch } from "./helpers/engine.js";
import { environment, questions, reward, roles, router, worldTokenizer, writeToyModel } from "./helpers/toy.js";

const { AdamW, createAdapters, loadModel, loraLinear, Random, RolegradError, RoleRouter, Rollout } = rolegrad;

let model: Model;
let toy: Model;
/** Loaded with float32, for full training. */
let wide: Model;
let adapters: Adapters;
/** With dropout, trained tokens and the gradients of each role's loss. */
let many: Adapters;
let mixture: Adapters;
let trainer: Trainer;
let manyTrainer: Trainer;
let mixtureTrainer: Trainer;
let fullTrainer: Trainer;
/** Of the calls that write; its subfolders: an adapter, a mixture, a checkpoint. */
let folder: string;
let trajectories: Trajectory[];
const optimizer = { learningRate: 0.01 };
const row = { inputIds: Int32Array.of(1, 2, 3), cuSeqlens: Int32Array.of(0, 3) };

t.before(async () => {
  model = await loadModel(checkpoints.tied);
  const directory = t.testdir();
  await writeToyModel(directory);
  toy = await loadModel(directory);
  wide = await loadModel(checkpoints.untied, { dtype: "float32" });
  adapters = randomAdapters(model, { roles });
  trainer = new rolegrad.Trainer(model, { adapters, optimizer });
  const base = { roles, rank: 2, alpha: 4 };
  many = createAdapters(toy, { ...base, dropout: 0.1, trainableTokens: ["<search>", 5] });
  mixture = createAdapters(toy, { ...base, routing: "soft" });
  manyTrainer = new rolegrad.Trainer(toy, { adapters: many, optimizer, trackLossRoles: true });
  mixtureTrainer = new rolegrad.Trainer(toy, { adapters: mixture, optimizer });
  fullTrainer = new rolegrad.Trainer(wide, { full: true, optimizer, roles });
  folder = path.join(directory, "written");
  await many.save(path.join(folder, "tool"), "tool");
  await mixture.save(path.join(folder, "mixture"), "mixture");
  await manyTrainer.save(path.join(folder, "checkpoint"));
  const random = new Random(1, "hostile");
  trajectories = [8, 9].map((length, i) => randomTrajectory(random, `q#${i}`, "q", randomRow(random, 60, length, 2)));
});
t.teardown(() => {
  model.close();
  toy.close();
  wide.close();
});

function detached<T extends ArrayBufferView>(array: T): T {
  structuredClone(array.buffer, { transfer: [array.buffer as ArrayBuffer] });
  return array;
}
const resizable = (bytes: number): ArrayBuffer =>
  Reflect.construct(ArrayBuffer, [bytes, { maxByteLength: 2 * bytes }]) as ArrayBuffer;

/** Things that are not numbers, arrays or names, and numbers that are none of the usual. */
const values: unknown[] = [
  undefined,
  null,
  true,
  "",
  "x",
  "__proto__",
  -1,
  -0.5,
  0.5,
  NaN,
  Infinity,
  -Infinity,
  2 ** 31,
  2 ** 53,
  1e308,
  1n,
  Symbol("s"),
  () => 1,
  {},
  [],
  [null],
  [NaN, {}],
  new Map(),
  new Date(NaN),
  Object.create(null),
  { length: -1 },
  { length: 1e9 },
  { toString: 1, valueOf: 1 },
  { constructor: { name: {} } },
  new DataView(new ArrayBuffer(8)),
  new ArrayBuffer(8),
];

/** Arrays of the right kind and of others, on buffers of every kind, of wrong lengths and values. */
function arrays(good: Int32Array | Int8Array | Uint8Array | Float32Array | Float64Array): unknown[] {
  const Kind = good.constructor as new (x?: unknown) => typeof good;
  const { length, BYTES_PER_ELEMENT: width } = good;
  const shared = new Kind(new SharedArrayBuffer(length * width));
  const moving = new Kind(resizable(length * width));
  const filled = (x: number) => new Kind(length).fill(x);
  return [
    shared,
    moving,
    detached(new Kind(length)),
    new Kind(0),
    new Kind(length + 1),
    new Kind(Math.max(0, length - 1)),
    ...[NaN, Infinity, -1, -(2 ** 31), 2 ** 31 - 1, 127, 1e30].map(filled),
    new BigInt64Array(length),
    new Float64Array(length).fill(NaN),
    new Int16Array(length),
    Array.from(good),
  ];
}

interface Case {
  /** Begins with the function, the class or one's own name for them. */
  name: string;
  /** Every field in turn is replaced by every hostile value. */
  good: Record<string, unknown>;
  // The fields are of any kind: that is the point.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  call: (fields: any) => unknown;
  /** Fields whose bad values are nobody's business: they are passed on as they are. */
  free?: string[];
}

const batch = () => trainingBatch(trajectories);
const linear = {
  x: new Float32Array(6).fill(1),
  w: new Float32Array(12).fill(0.5),
  bias: new Float32Array(4),
  roles: Int32Array.of(0, -1),
  adapters: [{ a: new Float32Array(3), b: new Float32Array(4), scale: 1 }],
  cuSeqlens: Int32Array.of(0, 2),
  device: "cpu",
  dy: new Float32Array(8),
};
const sampling = { temperature: 1, topP: 1, topK: 0, maxNewTokens: 4 };

const cases = (): Case[] => [
  {
    name: "loadModel",
    good: { directory: checkpoints.tied, device: "cpu", dtype: "auto", signal: undefined },
    call: async ({ directory, ...options }) => {
      const loaded = await loadModel(directory, options);
      loaded.close();
    },
  },
  {
    name: "loadModel's addTokens",
    good: { addTokens: ["<call>"], options: {} },
    call: async ({ addTokens, options }) => {
      const loaded = await loadModel(toy.directory, isOptions(options) ? { ...options, addTokens } : options);
      loaded.close();
    },
  },
  {
    name: "model.forward",
    good: { ...row, roles: Int8Array.of(0, 1, -1), adapters, temperature: 1, logits: false, signal: undefined },
    call: ({ inputIds, cuSeqlens, roles: own, ...options }) =>
      model.forward({ inputIds, cuSeqlens, roles: own }, options),
    free: ["logits"],
  },
  {
    name: "createAdapters",
    good: {
      roles,
      routes: { reason: "a", tool: null },
      rank: 2,
      alpha: 4,
      rsLora: false,
      targets: ["q_proj"],
      seed: 1,
      dropout: 0.1,
      rankPattern: { q_proj: 3 },
      alphaPattern: { q_proj: 3 },
      trainableTokens: [1],
      tokenInit: "model",
      routing: "hard",
      experts: undefined,
    },
    call: (options) => createAdapters(model, options),
    free: ["rsLora"],
  },
  {
    name: "createAdapters, soft",
    good: { model: toy, roles, routing: "soft", experts: 2, rank: 2, alpha: 4, targets: ["q_proj"] },
    call: ({ model: on, ...options }) => createAdapters(on, options),
  },
  {
    name: "createAdapters' patterns, by key",
    good: { key: "q_proj", rank: 2, alpha: 2, options: { roles, rank: 2, alpha: 2 } },
    call: ({ key, rank, alpha, options }) => {
      const patterns = { rankPattern: { [key]: rank }, alphaPattern: { [String(key)]: alpha } };
      createAdapters(model, isOptions(options) ? { ...options, ...patterns } : options);
    },
    free: ["key"],
  },
  {
    name: "adapters.set",
    good: { adapter: "tool", module: "model.layers.0.mlp.up_proj", ...pair() },
    call: ({ adapter, module, a, b }) => {
      const own = randomAdapters(model, { roles });
      own.set(adapter, module, { a, b });
    },
  },
  {
    name: "adapters.get, norm, parameterCount, roleIndex, withRoutes",
    good: { adapter: "tool", module: "model.layers.0.mlp.up_proj", routes: { tool: null } },
    call: ({ adapter, module, routes }) => {
      adapters.get(adapter, module);
      adapters.norm(adapter);
      adapters.parameterCount(adapter);
      adapters.roleIndex(adapter);
      adapters.withRoutes(routes);
    },
  },
  {
    name: "adapters.getToken, setToken",
    good: { token: "<search>", row: many.getToken(5), embedding: many.getToken(5).embedding },
    call: ({ token, row: own, embedding }) => {
      many.getToken(token);
      many.setToken(token, own);
      many.setToken(token, { embedding });
    },
  },
  {
    name: "adapters.getRouter, setRouter",
    good: { layer: 0, block: "mlp", weight: mixture.getRouter(0, "mlp") },
    call: ({ layer, block, weight }) => {
      mixture.getRouter(layer, block);
      mixture.setRouter(layer, block, weight);
    },
  },
  {
    name: "adapters.save",
    good: { directory: "saved", adapter: "tool" },
    call: ({ directory, adapter }) => many.save(inFolder(directory), adapter),
  },
  {
    name: "Adapters.load",
    good: { directories: { tool: path.join(folder, "tool"), reason: null }, directory: path.join(folder, "mixture") },
    call: async ({ directories, directory }) => {
      await rolegrad.Adapters.load(toy, directories);
      await rolegrad.Adapters.load(toy, { tool: directory });
    },
  },
  {
    name: "Trainer.save",
    good: { directory: "checkpoint" },
    call: async ({ directory }) => {
      await manyTrainer.save(inFolder(directory));
    },
  },
  {
    name: "Trainer.resume",
    good: { directory: path.join(folder, "checkpoint"), model: toy, options: { optimizer }, optimizer },
    call: async ({ directory, model: on, options, optimizer: own }) => {
      await rolegrad.Trainer.resume(directory, on, options);
      await rolegrad.Trainer.resume(directory, on, { optimizer: own });
    },
  },
  {
    name: "saveModel",
    good: { trainer: fullTrainer, directory: "model", options: {}, dtype: "float32" },
    call: async ({ trainer: own, directory, options, dtype }) => {
      await rolegrad.saveModel(own, inFolder(directory), options);
      await rolegrad.saveModel(own, inFolder(directory), { dtype });
    },
  },
  {
    name: "new Trainer in full",
    good: { model: wide, full: true, optimizer, roles, lossRoles: ["tool"], reference: undefined, adapters: undefined },
    call: ({ model: on, ...options }) => new rolegrad.Trainer(on, options),
  },
  {
    name: "new Trainer",
    good: {
      adapters,
      objective: { kind: "policy", clipLow: 0.2 },
      optimizer,
      crossRole: "flow",
      lossRoles: "all",
      microBatchTokens: 100,
      reference: undefined,
      trackLossRoles: true,
      seed: 1,
      roles: undefined,
    },
    call: (options) => new rolegrad.Trainer(model, options),
  },
  {
    name: "trainer calls' options",
    good: { options: {} },
    call: async ({ options }) => {
      new rolegrad.Trainer(model, isOptions(options) ? { ...options, adapters, optimizer } : options);
      await trainer.accumulate(batch(), options);
      await trainer.leakMatrix(trajectories, options);
      await new rolegrad.Trainer(model, { adapters: randomAdapters(model, { roles }), optimizer }).step(
        trajectories,
        options,
      );
    },
  },
  {
    name: "the objective of a trainer",
    good: { kind: "policy", clipLow: 0.2, clipHigh: 0.2, klCoefficient: 0, aggregation: "token-mean", normLength: 3 },
    call: (objective) => new rolegrad.Trainer(model, { adapters, optimizer, objective }),
    free: ["normLength"],
  },
  {
    name: "the optimizer of a trainer",
    good: {
      learningRate: 1,
      betas: [0.9, 0.99],
      epsilon: 1e-8,
      weightDecay: 0,
      maxGradNorm: 1,
      warmupSteps: 1,
      totalSteps: 9,
    },
    call: (own) => new rolegrad.Trainer(model, { adapters, optimizer: own }),
  },
  {
    name: "trainer.accumulate",
    good: { ...batch(), refLogprobs: new Float32Array(17), normalizer: 3, temperature: 1, signal: undefined },
    call: ({ normalizer, temperature, signal, ...own }) => trainer.accumulate(own, { normalizer, temperature, signal }),
  },
  {
    name: "trainer.accumulate with dropout",
    good: { ...batch(), keys: ["a", "b"], lossWeights: new Float32Array(17).fill(1) },
    call: (own) => manyTrainer.accumulate(own),
  },
  {
    name: "trainer.accumulate's batch",
    good: { batch: batch() },
    call: async ({ batch: own }) => {
      await trainer.accumulate(own);
      await manyTrainer.accumulate(own);
    },
  },
  {
    name: "trainer.leakMatrix",
    good: {
      batch: trajectories,
      crossRole: "stop",
      normalizer: 3,
      temperature: 1,
      allowTruncated: false,
      signal: undefined,
    },
    call: ({ batch: own, ...options }) => trainer.leakMatrix(own, options),
    free: ["allowTruncated"],
  },
  {
    name: "trainer.leakMatrix of a batch",
    good: { ...batch() },
    call: (own) => trainer.leakMatrix(own),
  },
  {
    name: "trainer.gradients",
    good: {
      adapter: "tool",
      module: "model.layers.0.mlp.up_proj",
      lossRole: "reason",
      token: 5,
      layer: 0,
      block: "mlp",
    },
    call: ({ adapter, module, lossRole, token, layer, block }) => {
      manyTrainer.gradients.get(adapter, module, { lossRole });
      manyTrainer.gradients.token(token);
      mixtureTrainer.gradients.router(layer, block);
    },
  },
  {
    name: "trainer.parameter, gradients of full training",
    good: { name: "model.norm.weight" },
    call: ({ name }) => {
      fullTrainer.parameter(name);
      fullTrainer.gradients.get(name);
    },
  },
  {
    name: "trainer.step",
    good: { list: trajectories, signal: undefined, allowTruncated: false },
    call: ({ list, ...options }) =>
      new rolegrad.Trainer(model, { adapters: randomAdapters(model, { roles }), optimizer }).step(list, options),
    free: ["allowTruncated"],
  },
  {
    name: "a trajectory of a step",
    good: { ...(trajectories[0] as Trajectory) },
    call: (trajectory) =>
      new rolegrad.Trainer(model, { adapters: randomAdapters(model, { roles }), optimizer }).step([trajectory]),
    free: ["question", "response", "answer", "calls", "finish", "rngKey", "policyVersion"],
  },
  {
    name: "trainer.apply, gradients.get",
    good: { learningRate: 0.1, adapter: "tool", module: "model.layers.0.mlp.up_proj" },
    call: async ({ learningRate, adapter, module }) => {
      const own = new rolegrad.Trainer(model, { adapters: randomAdapters(model, { roles }), optimizer });
      own.gradients.get(adapter, module);
      await own.apply({ learningRate });
    },
  },
  {
    name: "AdamW",
    good: { w: new Float32Array(3), g: new Float64Array(3).fill(1), learningRate: 1 },
    call: ({ w, g, learningRate }) => new AdamW({ learningRate }).step({ w }, { w: g }),
  },
  { name: "loraLinear.forward", good: linear, call: (input) => loraLinear.forward(input), free: ["dy"] },
  { name: "loraLinear.backward", good: linear, call: (input) => loraLinear.backward(input) },
  {
    name: "new RoleRouter",
    good: { roles, base: "reason", spans: [{ role: "tool", open: "<a>", close: "</a>" }] },
    call: (options) => new RoleRouter(options),
  },
  {
    name: "router.annotate",
    good: { tokens: [Uint8Array.of(60), Uint8Array.of(61)], sampled: Uint8Array.of(1, 0) },
    call: ({ tokens, sampled }) => router.annotate(tokens, sampled),
  },
  {
    name: "Rollout",
    good: {
      router,
      environment,
      reward,
      sampling,
      group: 1,
      concurrency: 2,
      seed: 1,
      actionBudget: 1,
      maxLength: 60,
      stopIds: [1],
      toolTimeout: 1000,
      cacheTokens: 1000,
      chunk: 16,
      adapters: many,
      addBos: true,
      onToolError: "observe",
      tokenizer: undefined,
      output: { open: "<information>", close: "</information>" },
      answer: { open: "<answer>", close: "</answer>" },
    },
    call: async (options) => {
      const rollout = new Rollout(toy, options);
      await rollout.collect(questions.slice(0, 1));
      if (!(rollout.stats.steps > 0)) throw new TypeError("no stats");
    },
    free: ["environment", "reward", "toolTimeout", "addBos"],
  },
  {
    name: "rollout.run, collect",
    good: {
      questions: questions.slice(0, 1),
      question: questions[0],
      options: {},
      purpose: "eval",
      variant: "dart",
      step: 1,
      signal: undefined,
    },
    call: async ({ questions: list, question, options, ...run }) => {
      const rollout = new Rollout(toy, { router, environment, reward, group: 1, maxLength: 60 });
      await rollout.collect(list, options);
      await rollout.collect([question], run);
      for await (const trajectory of rollout.run(list, run)) if (trajectory.id === "") throw new TypeError("no id");
      for await (const trajectory of rollout.run([question], options))
        if (trajectory.id === "") throw new TypeError("no id");
    },
  },
  {
    name: "groupAdvantages",
    good: { rewards: [1, 0], options: {} },
    call: ({ rewards, options }) => rolegrad.groupAdvantages(rewards, options),
  },
  {
    name: "parseTrajectory, segments",
    good: { ...(JSON.parse(rolegrad.serializeTrajectory(trajectories[0] as Trajectory)) as Record<string, unknown>) },
    call: (fields) => {
      let line: string;
      try {
        line = JSON.stringify(fields);
      } catch {
        return; // no JSON, so no line
      }
      rolegrad.segments(rolegrad.parseTrajectory(line));
    },
    free: ["policyVersion", "response", "answer", "calls", "question"],
  },
  { name: "parseTrajectory's line", good: { line: "{}" }, call: ({ line }) => rolegrad.parseTrajectory(line) },
  {
    name: "signTest",
    good: { negative: 3, positive: 1 },
    call: ({ negative, positive }) => rolegrad.signTest(negative, positive),
  },
  {
    name: "wilcoxonTest",
    good: { x: [1, 2, -0.5], options: {}, method: "auto", zeroMethod: "pratt", correction: true },
    call: ({ x, options, ...own }) => {
      rolegrad.wilcoxonTest(x, options);
      rolegrad.wilcoxonTest(x, own);
    },
  },
  {
    name: "fitEffects",
    good: { variants: ["a", "b"], columns: ["c"], x: [[1], [2]], z: [1, 2], options: {}, tolerance: 1e-9 },
    call: ({ z, options, tolerance, ...design }) => {
      rolegrad.fitEffects(design, z, options);
      rolegrad.fitEffects(design, z, { tolerance });
    },
  },
  {
    name: "the sampling of a rollout",
    good: sampling,
    call: (own) =>
      new Rollout(toy, { router, environment, reward, group: 1, maxLength: 60, sampling: own }).collect(
        questions.slice(0, 1),
      ),
  },
  {
    name: "computeInterference",
    good: {
      samples: 50,
      correct: { base: [1], reas: [2], tool: [3], unified: [4], hybridTool: [5], hybridReas: [6] },
      ids: ["q"],
      clusters: [1],
      smoothing: "haldane",
      posterior: true,
      wilcoxon: {},
    },
    call: ({ smoothing, posterior, wilcoxon, ...table }) =>
      rolegrad.computeInterference(table, { smoothing, posterior, wilcoxon }),
  },
  {
    name: "computeInterferenceSync",
    good: { rows: ["base", "reas"].map((variant) => ({ variant, id: "q", correct: 1, samples: 2 })) },
    call: (table) => rolegrad.computeInterferenceSync(table),
  },
  {
    name: "loadTokenizer",
    good: { directory: worldTokenizer, addTokens: ["<call>"] },
    call: ({ directory, ...options }) => rolegrad.loadTokenizer(directory, options),
  },
  {
    name: "the tokenizer",
    good: { text: "Where is it?", ids: [1, 2, 3], token: "<eos>", messages: [{ role: "user", content: "x" }] },
    call: ({ text, ids, token, messages }) => {
      toy.tokenizer?.encode(text);
      toy.tokenizer?.encodePrompt(text);
      toy.tokenizer?.decode(ids);
      toy.tokenizer?.tokenId(token);
      try {
        toy.tokenizer?.applyChatTemplate(messages);
      } catch (error) {
        if ((error as { code?: string }).code !== "ERR_TOKENIZER_NO_TEMPLATE") throw error;
      }
    },
  },
];

const isOptions = (x: unknown): boolean =>
  x === undefined || (typeof x === "object" && x !== null && !Array.isArray(x));

/** What names a place is put below the test's own folder. */
const inFolder = <T>(x: T): T => (typeof x === "string" && x !== "" ? (path.join(folder, x) as T) : x);

function pair() {
  return adapters.get("tool", "model.layers.0.mlp.up_proj");
}

/** They take nothing. */
const getters = ["name", "info", "names", "groups", "steps", "learningRate", "stats", "parameters"];

type Numbers = Int32Array | Int8Array | Uint8Array | Float32Array | Float64Array;
const isNumbers = (x: unknown): x is Numbers => ArrayBuffer.isView(x) && !(x instanceof DataView) && "fill" in x;

t.test("whatever is given, a call works or is refused with a code", async (t) => {
  const state = () => `${adapterBits(adapters)} ${momentBits(trainer)}`;
  const before = state();
  const forward = async () =>
    bits((await model.forward({ ...row, roles: Int8Array.of(0, 1, 0) }, { adapters })).logprobs);
  const want = await forward();
  for (const { name, good, call, free = [] } of cases()) {
    await (async () => call(good))().catch((error: unknown) => {
      if (!(error instanceof RolegradError)) t.fail(`${name} with good arguments`, { error });
    });
    let refused = 0;
    let worked = 0;
    for (const field of Object.keys(good)) {
      if (free.includes(field)) continue;
      const own = good[field];
      const wrong = new Map<string, unknown>();
      for (const value of [...values, ...(isNumbers(own) ? arrays(own) : [])]) {
        let error: unknown;
        try {
          await call({ ...good, [field]: value });
          worked++;
          continue;
        } catch (caught) {
          error = caught;
        }
        refused++;
        if (error instanceof RolegradError && /^ERR_[A-Z_]+$/.test(error.code)) continue;
        wrong.set(
          String((error as Error)?.stack)
            .split("\n")
            .slice(0, 4)
            .join(" "),
          value,
        );
      }
      for (const [stack, value] of wrong) t.fail(`${name}: ${field}: ${stack}`, { value });
    }
    t.ok(refused > 0, `${name}: ${refused} refused, ${worked} worked`);
  }
  trainer.gradients.zero();
  t.equal(state(), before, "adapters and moments are what they were");
  t.equal(await forward(), want, "and the model as well");
});

t.test("every public function and class is in the table", (t) => {
  // But for what works on texts, files and whole runs.
  const elsewhere =
    "RolegradError RankDeficientError SearchEnvironment World RunDirectory Random annotate demonstration demonstrationStream evaluate " +
    "exactMatch exactMatchReward exampleOf explainReward inspectDirectory loadRun loadTrainedAdapters " +
    "numberedPassages packDemonstrations pickExample planVariant readPassages readQuestions readRunConfig resolveRunConfig " +
    "runJsonSchema serializeTrajectory summary trainBase trainRun wilson words writeExamples writeReport";
  const table = cases()
    .map(({ name, call }) => `${name} ${String(call)}`)
    .join(" ");
  for (const [name, value] of Object.entries(rolegrad)) {
    if (typeof value === "function" && !elsewhere.split(" ").includes(name)) t.ok(table.includes(name), name);
  }
  const noun = (object: object) => Object.getOwnPropertyNames(Object.getPrototypeOf(object));
  const internal = ["constructor", "checkIdle", "checkOpen", "lease", "indexOf", "tokenIndex", "close"];
  for (const name of [
    noun(model),
    noun(adapters),
    noun(trainer),
    noun(new Rollout(toy, { router, environment, reward })),
  ].flat()) {
    if (!internal.includes(name)) t.ok(table.includes(name) || getters.includes(name), name);
  }
  t.end();
});

t.test("typed arrays on shared, resizable and detached buffers are refused by name", async (t) => {
  const check = async (name: string, good: Numbers, call: (bad: never) => unknown): Promise<void> => {
    for (const [i, what] of ["shared", "resizable", "detached"].entries()) {
      await t.rejects(async () => call(arrays(good)[i] as never), {
        name: "RolegradError",
        code: "ERR_INVALID_ARGUMENT",
        message: new RegExp(`${name} but received one on a ${what} buffer`),
      });
    }
  };
  const own = { ...batch(), refLogprobs: new Float32Array(17) };
  await check("inputIds", row.inputIds, (inputIds) => model.forward({ ...row, inputIds }));
  await check("cuSeqlens", row.cuSeqlens, (cuSeqlens) => model.forward({ ...row, cuSeqlens }));
  await check("roles", new Int8Array(3), (bad) => model.forward({ ...row, roles: bad }));
  for (const name of Object.keys(own) as (keyof typeof own)[]) {
    await check(name, own[name], (bad) => trainer.accumulate({ ...own, [name]: bad }));
  }
  const { a, b } = pair();
  await check("a", a, (bad) => adapters.set("tool", "model.layers.0.mlp.up_proj", { a: bad, b }));
  await check("b", b, (bad) => adapters.set("tool", "model.layers.0.mlp.up_proj", { a, b: bad }));
  for (const name of ["x", "w", "bias", "roles", "cuSeqlens", "dy"] as const) {
    await check(name, linear[name], (bad) => loraLinear.backward({ ...linear, [name]: bad }));
  }
  await check("parameters.w", new Float32Array(2), (w) => new AdamW(optimizer).step({ w }, { w: new Float64Array(2) }));
  await check("gradients.w", new Float64Array(2), (g) =>
    new AdamW(optimizer).step({ w: new Float32Array(2) }, { w: g }),
  );
  await check("tokenBytes", Uint8Array.of(1), (bad) => router.annotate([bad], [1]));
});

t.test("a native object of another class is not taken for one's own", async (t) => {
  const wrong = { name: "RolegradError", code: "ERR_INVALID_ARGUMENT" };
  const { native: handle } = model;
  for (const other of [{}, adapters.native, trainer.native, Object.create(handle)] as never[]) {
    t.throws(() => new native.Trainer(other, null, null, false, false), wrong);
    t.throws(() => new native.Adapters(other, [], null, 0), wrong);
  }
  for (const other of [{}, handle, trainer.native] as never[]) {
    t.throws(() => new native.Trainer(handle, other, null, false, false), wrong);
    t.throws(() => handle.forward(row.inputIds, row.cuSeqlens, null, other, Int32Array.of(), 1, false, null), wrong);
  }
  t.throws(() => native.loadModel({}, null as never, [], "cpu", false, null, "exact"), wrong);
  t.throws(() => new native.Adapters(handle, null as never, null, 0), wrong);
});

t.test("what is given is copied at the call", async (t) => {
  const want = bits((await model.forward(row)).logprobs);
  const inputIds = row.inputIds.slice();
  const running = model.forward({ ...row, inputIds });
  inputIds.fill(9);
  detached(inputIds);
  t.equal(bits((await running).logprobs), want);
});

t.test("whatever reads or writes while a step runs is ERR_BUSY", async (t) => {
  const own = createAdapters(toy, { roles, rank: 3, alpha: 6, trainableTokens: [5] });
  const random = new Random(2, "busy");
  const long = [300, 300].map((length, i) => randomTrajectory(random, `q#${i}`, "q", randomRow(random, 60, length, 2)));
  const busyTrainer = new rolegrad.Trainer(toy, { adapters: own, optimizer });
  const second = new rolegrad.Trainer(toy, { adapters: own, optimizer });
  const module = "model.layers.0.mlp.up_proj";
  const value = own.get("tool", module);
  const token = own.getToken(5);
  const calls: [string, () => unknown][] = [
    ["trainer.step", () => busyTrainer.step(long)],
    ["trainer.accumulate", () => busyTrainer.accumulate(trainingBatch(long))],
    ["trainer.apply", () => busyTrainer.apply()],
    ["trainer.leakMatrix", () => busyTrainer.leakMatrix(long)],
    ["trainer.save", () => busyTrainer.save(t.testdir())],
    ["trainer.gradients.get", () => busyTrainer.gradients.get("tool", module)],
    ["trainer.gradients.token", () => busyTrainer.gradients.token(5)],
    ["trainer.gradients.router", () => busyTrainer.gradients.router(0, "mlp")],
    ["trainer.gradients.norms", () => busyTrainer.gradients.norms()],
    ["trainer.gradients.zero", () => busyTrainer.gradients.zero()],
    ["trainer.parameter", () => busyTrainer.parameter("model.norm.weight")],
    ["another trainer's step", () => second.step(long)],
    ["another trainer's apply", () => second.apply()],
    ["adapters.get", () => own.get("tool", module)],
    ["adapters.set", () => own.set("tool", module, value)],
    ["adapters.getToken", () => own.getToken(5)],
    ["adapters.setToken", () => own.setToken(5, token)],
    ["adapters.getRouter", () => own.getRouter(0, "mlp")],
    ["adapters.setRouter", () => own.setRouter(0, "mlp", new Float32Array(1))],
    ["adapters.norm", () => own.norm("tool")],
    ["adapters.save", () => own.save(t.testdir(), "tool")],
    ["adapters under other routes", () => own.withRoutes({ tool: null }).get("reason", module)],
    ["model.forward", () => toy.forward(pack(long), { adapters: own })],
    ["a rollout", () => new Rollout(toy, { adapters: own, router, environment, reward, group: 1 }).collect(questions)],
  ];
  const members = (object: object) =>
    Object.getOwnPropertyNames(Object.getPrototypeOf(object)).filter(
      (name) => typeof (object as never)[name] === "function",
    );
  const known = {
    trainer: ["constructor", "parameters"],
    adapters: [
      "constructor",
      "roleIndex",
      "indexOf",
      "tokenIndex",
      "checkIdle",
      "lease",
      "parameterCount",
      "withRoutes",
    ],
  };
  for (const [noun, object] of [
    ["trainer", busyTrainer],
    ["adapters", own],
  ] as const) {
    for (const name of members(object)) {
      const listed = calls.some(([what]) => what === `${noun}.${name}`) || known[noun].includes(name);
      t.ok(listed, `${noun}.${name} is in this test, or reads nothing that a step changes`);
    }
  }
  const running = busyTrainer.step(long);
  for (const [what, call] of calls) {
    await t.rejects(async () => call(), { name: "RolegradError", code: "ERR_BUSY" }, what);
  }
  t.equal((await running).step, 1);
  await sleep(0);
  for (const [what, call] of calls) {
    if (/parameter|outer$/.test(what)) continue; // of full training, and of soft routing
    await t.resolves(async () => call(), `${what} afterwards`);
  }
});
