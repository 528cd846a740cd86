// What holds for every family of models (Qwen2, Qwen3, Llama): rollouts are exactly on policy, all parameters train, what is saved is what
// transformers and peft load.
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { createAdapters, loadModel, Random, Rollout, saveModel, Trainer } from "rolegrad";
import type { Model, TrainingBatch } from "rolegrad";
import { copyCheckpoint } from "./helpers/checkpoint.js";
import { rolegrad, runProgram } from "./helpers/command.js";
import { bits, checkpoints, pack, randomAdapters } from "./helpers/engine.js";
import { rowsOf } from "./helpers/properties.js";
import { needsShared, root, shared } from "./helpers/shared.js";
import { relativeError } from "./helpers/tensors.js";
import { environment, families, outcome, questions, reward, roles, router, writeToyModel } from "./helpers/toy.js";

type Name = keyof typeof checkpoints;
const names = Object.keys(checkpoints) as Name[];

// ---- rollouts

for (const family of families) {
  t.test(`${family}: a rollout's log-probabilities are the trainer's and model.forward's, bit for bit`, async (t) => {
    const directory = t.testdir();
    await writeToyModel(directory, { family });
    const model = await loadModel(directory);
    t.teardown(() => model.close());
    t.equal(model.config.modelType, family);
    const adapters = randomAdapters(model, { roles });
    const make = (concurrency: number) =>
      new Rollout(model, {
        adapters,
        router,
        environment,
        reward,
        group: 6,
        seed: 3,
        concurrency,
        sampling: { maxNewTokens: 70, temperature: 0.8 },
      });
    const trajectories = await make(64).collect(questions);
    t.ok(trajectories.some(({ calls, ids }) => calls.length > 0 && ids.length > 64));
    t.strictSame(
      (await make(2).collect(questions)).map(outcome),
      trajectories.map(outcome),
      "however many are decoded together",
    );
    const { logprobs } = await model.forward(pack(trajectories), { adapters, temperature: 0.8 });
    const sampled = trajectories.flatMap((x) => Array.from(x.sampled));
    const recorded = Float32Array.from(trajectories.flatMap((x) => Array.from(x.logprobs)));
    t.equal(bits(logprobs.map((x, i) => (sampled[i] === 1 ? x : 0))), bits(recorded));
    const trainer = new Trainer(model, { adapters, optimizer: { learningRate: 0.01 }, microBatchTokens: 300 });
    const metrics = await trainer.step(trajectories);
    t.ok(metrics.mixedGroups > 0);
    t.equal(metrics.maxRatioDeviation, 0, "every ratio of the step is exactly 1");
    t.ok(Object.values(metrics.gradNorms).every((norm) => norm > 0));
  });
}

t.test(
  "a prompt begins with BOS where the tokenizer puts one before every text, unless told otherwise",
  needsShared("fixtures/llama3-tiny", "fixtures/qwen3-tiny"),
  async (t) => {
    for (const [name, bos] of [
      ["llama3-tiny", "<|begin_of_text|>"],
      ["qwen3-tiny", undefined],
    ] as const) {
      const directory = t.testdir();
      const tokenizer = shared(`fixtures/${name}`) as string;
      const { bosTokenId } = await writeToyModel(directory, { tokenizer, tokens: {} });
      const model = await loadModel(directory);
      const first = async (prompt: string, addBos?: boolean) => {
        const options = { router, environment, reward, group: 1, sampling: { maxNewTokens: 1 }, prompt: () => prompt };
        const rollout = new Rollout(model, addBos === undefined ? options : { ...options, addBos });
        const [trajectory] = await rollout.collect(questions.slice(0, 1));
        return [...trajectory!.ids.slice(0, 2)];
      };
      const [x, y] = model.tokenizer!.encode("x y");
      if (bos === undefined) {
        t.strictSame(await first("x y"), [x, y], name);
      } else {
        t.strictSame(await first("x y"), [bosTokenId, x], name);
        t.strictSame(await first(`${bos}x y`), [bosTokenId, x], "not twice");
        t.strictSame(await first("x y", false), [x, y], "addBos: false");
      }
      model.close();
    }
  },
);

// ---- what a directory says of itself

t.test("inspect names the family, and rope where it is scaled", async (t) => {
  const said: Record<Name, RegExp> = {
    tied: /Qwen2: 2 layers/,
    untied: /Qwen2: 2 layers/,
    qwen3: /Qwen3: 2 layers/,
    llama3: /Llama: 2 layers[^]*type llama3, factor 8 from 128/,
  };
  for (const name of names) {
    const { status, stdout } = await rolegrad(["inspect", checkpoints[name]]);
    t.equal(status, 0);
    t.match(stdout, said[name]);
  }
});

t.test(
  "generation_config.json says how the publisher samples; what is none is refused by file and field",
  async (t) => {
    const cases: [unknown, unknown][] = [
      [
        { do_sample: true, temperature: 0.6, top_p: 0.95, top_k: 20 },
        { temperature: 0.6, topP: 0.95, topK: 20 },
      ],
      [
        { do_sample: true, eos_token_id: [1, 2] },
        { temperature: 1, topP: 1, topK: 0 },
      ],
      [{ temperature: 0.6 }, { temperature: 0, topP: 1, topK: 0 }],
      [{ do_sample: true, top_p: 2 }, "top_p"],
      [[], "generation_config.json"],
    ];
    const directory = copyCheckpoint(t.testdir());
    const load = async () => {
      const model = await loadModel(directory);
      model.close();
      return model.recommendedSampling;
    };
    t.equal(await load(), undefined, "none where there is no such file");
    for (const [json, want] of cases) {
      const file = path.join(directory, "generation_config.json");
      writeFileSync(file, JSON.stringify(json));
      if (typeof want === "string") await t.rejects(load(), { code: "ERR_MODEL_CONFIG", message: new RegExp(want) });
      else t.strictSame(await load(), want);
    }
  },
);

// ---- full training

/** Sequences of the model's own vocabulary, all of it to be learned. */
function supervised(model: Model, lengths: number[]): TrainingBatch {
  const { inputIds, cuSeqlens } = pack(rowsOf({ lengths, seed: 3 }, model));
  return { inputIds, cuSeqlens, lossMask: new Uint8Array(inputIds.length).fill(1) };
}

function fullTrainer(model: Model): Trainer {
  const optimizer = { learningRate: 0.01, weightDecay: 0.01 };
  return new Trainer(model, { full: true, objective: { kind: "sft" }, optimizer });
}

for (const name of names) {
  t.test(`${name}: full training moves every parameter, and learns`, async (t) => {
    const model = await loadModel(checkpoints[name], { dtype: "float32" });
    t.teardown(() => model.close());
    const trainer = fullTrainer(model);
    const before = trainer.parameters().map(({ name }) => [name, trainer.parameter(name).slice()] as const);
    const kinds = new Set(before.map(([name]) => name.replace(/^.*\.(?=\w+\.\w+$)/, "")));
    t.equal(kinds.has("q_norm.weight") && kinds.has("k_norm.weight"), name === "qwen3");
    t.equal(kinds.has("o_proj.bias"), name === "qwen3");
    t.equal(kinds.has("up_proj.bias"), name === "llama3");
    const batch = supervised(model, [20, 15]);
    const losses: number[] = [];
    for (let step = 0; step < 40; step++) {
      losses.push((await trainer.accumulate(batch)).loss);
      await trainer.apply();
    }
    t.ok(losses.at(-1)! < losses[0]! / 3, `${losses[0]} to ${losses.at(-1)}`);
    for (const [name, values] of before) {
      const now = trainer.parameter(name);
      t.ok(values.filter((x, i) => x !== now[i]).length > values.length / 2, name);
    }
  });

  t.test(`${name}: how a batch is cut changes no bit of any parameter's gradient`, async (t) => {
    const model = await loadModel(checkpoints[name], { dtype: "float32" });
    t.teardown(() => model.close());
    const trainer = fullTrainer(model);
    const lengths = [40, 7, 90, 23];
    const whole = supervised(model, lengths);
    const read = () => bits(...trainer.parameters().map(({ name }) => trainer.gradients.get(name)));
    const { normalizer } = await trainer.accumulate(whole);
    const want = read();
    trainer.gradients.zero();
    const cuts = [...whole.cuSeqlens];
    for (const [i, begin] of cuts.slice(0, -1).entries()) {
      const part = <T extends Int32Array | Uint8Array>(x: T): T => x.slice(begin, cuts[i + 1]) as T;
      const inputIds = part(whole.inputIds);
      const cuSeqlens = Int32Array.of(0, inputIds.length);
      await trainer.accumulate({ inputIds, cuSeqlens, lossMask: part(whole.lossMask) }, { normalizer });
    }
    t.equal(read(), want);
  });
}

// ---- what transformers and peft make of it

interface Job {
  claim: string;
  model: string;
  adapter: string | null;
  ids: number[];
  ours: Float32Array;
  out: string;
}

/** A model after a step of full training, as f32 and as bf16, and a trained adapter on it: what transformers must make the same logits of. */
async function savedByUs(name: Name, directory: string): Promise<Job[]> {
  const model = await loadModel(checkpoints[name], { dtype: "float32" });
  const random = new Random(5, "ids");
  const inputIds = Int32Array.from({ length: 60 }, () => random.integer(model.config.vocabSize));
  const input = { inputIds, cuSeqlens: Int32Array.of(0, 60), roles: new Int8Array(60) };
  const lossMask = new Uint8Array(60).fill(1);
  const jobs: Job[] = [];
  const add = (claim: string, saved: string, adapter: string | null, ours: Float32Array): void => {
    const out = path.join(directory, `${jobs.length}.bin`);
    jobs.push({ claim: `${name}: ${claim}`, model: saved, adapter, ids: [...inputIds], ours, out });
  };

  const trainer = fullTrainer(model);
  await trainer.accumulate({ ...input, lossMask });
  await trainer.apply();
  const saved = path.join(directory, "model");
  await saveModel(trainer, saved);
  const backbone = (await model.forward(input, { logits: true })).logits as Float32Array;
  add("a model saved as float32", saved, null, backbone);

  const rounded = path.join(directory, "bf16");
  await saveModel(trainer, rounded, { dtype: "bfloat16" });
  const again = await loadModel(rounded);
  add(
    "a model saved as bfloat16",
    rounded,
    null,
    (await again.forward(input, { logits: true })).logits as Float32Array,
  );
  again.close();

  const common = { roles: ["role"], rank: 3, alpha: 5, rsLora: name === "qwen3" };
  const patterns = {
    rankPattern: { q_proj: 2, "layers.1.mlp.down_proj": 6 },
    alphaPattern: { "layers.0.mlp.gate_proj": 4, v_proj: 9 },
  };
  for (const [claim, options] of [
    ["an adapter on it", common],
    ["an adapter on it whose modules have ranks and alphas of their own", { ...common, ...patterns }],
  ] as const) {
    const adapters = createAdapters(model, options);
    const routed = new Trainer(model, { adapters, objective: { kind: "sft" }, optimizer: { learningRate: 0.1 } });
    for (let step = 0; step < 3; step++) {
      await routed.accumulate({ ...input, lossMask });
      await routed.apply();
    }
    const adapter = path.join(directory, `adapter-${jobs.length}`);
    await adapters.save(adapter, "role");
    const trained = (await model.forward(input, { adapters, logits: true })).logits as Float32Array;
    if (relativeError(trained, backbone) < 0.1) throw new Error("the adapter changes little: it would not be missed");
    add(claim, saved, adapter, trained);
  }
  model.close();
  return jobs;
}

t.test("transformers loads the models that are saved, and peft the adapters, to the same logits", async (t) => {
  const directory = t.testdir(Object.fromEntries(names.map((name) => [name, {}])));
  const python = process.env["ROLEGRAD_PYTHON"] ?? "python3";
  const jobs: Job[] = [];
  for (const name of names) jobs.push(...(await savedByUs(name, path.join(directory, name))));
  const file = path.join(directory, "jobs.json");
  writeFileSync(file, JSON.stringify(jobs.map(({ model, adapter, ids, out }) => ({ model, adapter, ids, out }))));
  const script = path.join(root, "test/helpers/transformers_logits.py");
  const { status, stderr } = await runProgram(python, [script, file], { env: { HF_HUB_OFFLINE: "1" } }).catch(() => ({
    status: 3,
    stderr: "not found",
  }));
  if (status === 3) {
    t.pass("not compared", { skip: `${python} has not torch, transformers and peft (see ROLEGRAD_PYTHON): ${stderr}` });
    return;
  }
  t.equal(status, 0, stderr);
  for (const { claim, ours, out } of jobs) {
    const theirs = new Float32Array(Uint8Array.from(readFileSync(out)).buffer);
    const error = relativeError(theirs, ours);
    t.ok(error < 1e-5, `${claim}: ${error.toExponential(1)}`);
  }
});
