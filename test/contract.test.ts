// What holds everywhere, bit for bit, through the public API: a row is a row, roles are isolated, on policy is exactly on policy, on any
// instruction set and any number of threads. Gradients have contract-gradients.test.ts.
import path from "node:path";
import t from "tap";
import { loadModel, Random, Rollout, Trainer } from "rolegrad";
import type { Adapters, Model, RolloutOptions, Trajectory } from "rolegrad";
import { runProgram } from "./helpers/command.js";
import {
  bits,
  checkpoints,
  modulesOf,
  pack,
  randomAdapters,
  randomRow,
  trainingBatch,
  type Row,
} from "./helpers/engine.js";
import { batchShapes, holds, rowsOf } from "./helpers/properties.js";
import { root } from "./helpers/shared.js";
import { sameAlone } from "./helpers/steps.js";
import { environment, outcome, questions, reward, roles, router, writeToyModel } from "./helpers/toy.js";

const models: Record<string, Model> = {};
for (const [name, directory] of Object.entries(checkpoints)) models[name] = await loadModel(directory);
const tied = models["tied"] as Model;
const untied = models["untied"] as Model;
const toyDirectory = t.testdir();
await writeToyModel(toyDirectory);
const toy = await loadModel(toyDirectory);
t.teardown(() => [...Object.values(models), toy].forEach((model) => model.close()));

// ---- a row is a row

for (const [name, model] of Object.entries(models)) {
  t.test(`${name}: a sequence gets the same bits alone and in any batch`, async (t) => {
    const adapters = randomAdapters(model, { roles });
    await holds(t, batchShapes, 25, (value) => sameAlone(model, adapters, rowsOf(value, model)));
  });
}

t.test("a later token changes nothing before it", async (t) => {
  const adapters = randomAdapters(tied, { roles });
  await holds(t, batchShapes, 10, async (value) => {
    const [row] = rowsOf(value, tied) as [Row];
    const whole = await tied.forward(pack([row]), { adapters });
    const length = 1 + (value.seed % row.ids.length);
    const start = { ids: Array.from(row.ids).slice(0, length), roles: Array.from(row.roles).slice(0, length) };
    const part = await tied.forward(pack([start]), { adapters });
    return bits(part.logprobs) === bits(whole.logprobs.subarray(0, length));
  });
});

t.test("bf16 weights widened to f32 give the same bits", async (t) => {
  const wide = await loadModel(checkpoints.tied, { dtype: "float32" });
  const input = pack(rowsOf({ lengths: [70, 3], seed: 5 }, tied));
  const [a, b] = await Promise.all(
    [tied, wide].map((model) => model.forward(input, { adapters: randomAdapters(model, { roles }), logits: true })),
  );
  t.equal(bits(a!.logprobs, a!.logits!), bits(b!.logprobs, b!.logits!));
  wide.close();
});

// ---- isolation

t.test("the numbers of an adapter change nothing for tokens of other roles", async (t) => {
  const adapters = randomAdapters(tied, { roles });
  const row = randomRow(new Random(3, "isolation"), tied.config.vocabSize, 90, 1);
  const before = await tied.forward(pack([row]), { adapters });
  const { a, b } = adapters.get("tool", "model.layers.0.mlp.up_proj");
  adapters.set("tool", "model.layers.0.mlp.up_proj", { a: a.fill(3e38), b: b.fill(3e38) });
  const after = await tied.forward(pack([row]), { adapters });
  t.equal(bits(after.logprobs), bits(before.logprobs));
  const mixed = { ...row, roles: Array.from(row.roles, (role, i) => (i === 89 ? 1 : role)) };
  const last = await tied.forward(pack([mixed]), { adapters, logits: true });
  t.equal(bits(last.logprobs), bits(before.logprobs), "also in a batch that holds such a token");
  t.notOk(last.logits!.subarray(89 * 101).every(Number.isFinite), "which does see them");
});

t.test("adapters with B = 0, with null routes and off are the backbone, bit for bit", async (t) => {
  for (const model of [tied, untied]) {
    const zero = randomAdapters(model, { roles });
    for (const [name, module] of zero.names.flatMap((name) =>
      modulesOf(model).map((module) => [name, module] as const),
    )) {
      const { a, b } = zero.get(name, module);
      zero.set(name, module, { a, b: b.fill(0) });
    }
    const random = randomAdapters(model, { roles });
    await holds(t, batchShapes, 8, async (value) => {
      const input = pack(rowsOf(value, model));
      const off = await model.forward({ inputIds: input.inputIds, cuSeqlens: input.cuSeqlens }, { logits: true });
      const unrouted = { ...input, roles: input.roles.slice().fill(-1) };
      const others = await Promise.all([
        model.forward(input, { adapters: zero, logits: true }),
        model.forward(input, { adapters: random.withRoutes({ reason: null, tool: null }), logits: true }),
        model.forward(unrouted, { adapters: random, logits: true }),
        model.forward(input, { logits: true }),
      ]);
      return others.every((x) => bits(x.logprobs, x.logits!) === bits(off.logprobs, off.logits!));
    });
  }
});

// ---- rollouts: on policy is exactly on policy

function rollout(adapters: Adapters, options: Partial<RolloutOptions> = {}): Rollout {
  const sampling = { maxNewTokens: 70, ...options.sampling };
  return new Rollout(toy, { adapters, router, environment, reward, group: 6, seed: 3, ...options, sampling });
}

t.test("a rollout's log-probabilities are the trainer's and model.forward's, bit for bit", async (t) => {
  const adapters = randomAdapters(toy, { roles });
  for (const temperature of [1, 0.7]) {
    const trajectories = await rollout(adapters, { sampling: { temperature } }).collect(questions);
    t.ok(
      trajectories.some(({ calls }) => calls.length > 1),
      "some make several calls",
    );
    t.ok(
      trajectories.some(({ ids }) => ids.length > 64),
      "some are longer than a page",
    );
    t.ok(
      trajectories.some(({ roles }) => roles.includes(0) && roles.includes(1)),
      "roles are mixed",
    );
    const { logprobs } = await toy.forward(pack(trajectories), { adapters, temperature });
    const sampled = trajectories.flatMap((x) => Array.from(x.sampled));
    const recorded = Float32Array.from(trajectories.flatMap((x) => Array.from(x.logprobs)));
    t.equal(bits(logprobs.map((x, i) => (sampled[i] === 1 ? x : 0))), bits(recorded), `forward, ${temperature}`);
    const trainer = new Trainer(toy, { adapters, optimizer: { learningRate: 0 }, microBatchTokens: 300 });
    const metrics = await trainer.step(trajectories);
    t.ok(metrics.mixedGroups > 0);
    t.equal(metrics.maxRatioDeviation, 0, `every ratio of the step is exactly 1, ${temperature}`);
    t.equal(metrics.clipHigh + metrics.clipLow, 0);
  }
});

t.test("so they are beyond 512 keys, with a prompt that is filled in pieces between the others' steps", async (t) => {
  const adapters = randomAdapters(toy, { roles });
  const prompt = ({ id, question }: { id: string; question: string }) => question.repeat(id === "q0" ? 1 : 60);
  const trajectories = await rollout(adapters, { prompt, group: 3 }).collect(questions);
  t.ok(trajectories.some(({ ids }) => ids.length > 640) && trajectories.some(({ ids }) => ids.length < 120));
  const { logprobs } = await toy.forward(pack(trajectories), { adapters });
  const recorded = Float32Array.from(trajectories.flatMap((x) => Array.from(x.logprobs)));
  t.equal(bits(logprobs.map((x, i) => (recorded[i] === 0 ? 0 : x))), bits(recorded));
});

t.test("trajectories do not depend on how many are decoded together, nor on the order of the questions", async (t) => {
  const adapters = randomAdapters(toy, { roles });
  const want = (await rollout(adapters).collect(questions)).map(outcome);
  for (const concurrency of [1, 3, 7]) {
    t.strictSame((await rollout(adapters, { concurrency }).collect(questions)).map(outcome), want, `${concurrency}`);
  }
  const turned = await rollout(adapters, { concurrency: 5 }).collect([...questions].reverse());
  const byId = new Map(turned.map((x) => [x.id, outcome(x)]));
  t.strictSame(
    want.map((x) => byId.get(x["id"] as string)),
    want,
    "reversed",
  );
  const [alone] = await rollout(adapters, { group: 1 }).collect(questions.slice(2));
  t.strictSame(outcome(alone!), want[12], "one question, one sample");
});

t.test("a rollout keeps the adapters with which it began", async (t) => {
  const adapters = randomAdapters(toy, { roles });
  const want = (await rollout(adapters).collect(questions)).map(outcome);
  const trainer = new Trainer(toy, { adapters, optimizer: { learningRate: 0.1 } });
  const batch = await rollout(adapters, { seed: 4 }).collect(questions);
  const got: Trajectory[] = [];
  for await (const trajectory of rollout(adapters, { concurrency: 2 }).run(questions)) {
    got.push(trajectory);
    if (got.length === 2) await trainer.step(batch);
  }
  const byId = new Map(got.map((x) => [x.id, outcome(x)]));
  t.strictSame(
    want.map((x) => byId.get(x["id"] as string)),
    want,
  );
  const next = (await rollout(adapters).collect(questions)).map(outcome);
  t.not(JSON.stringify(next), JSON.stringify(want), "the next one has the new ones");
});

t.test(
  "full training waits for the rollouts on its model, with adapters or without: whole weights have no versions",
  async (t) => {
    const wide = await loadModel(toyDirectory, { dtype: "float32" });
    const make = (model: Model, adapters?: Adapters, concurrency = 64): Rollout => {
      const options = { router, environment, reward, group: 6, seed: 3, concurrency, sampling: { maxNewTokens: 70 } };
      return new Rollout(model, { ...options, ...(adapters && { adapters }) });
    };
    const trainer = new Trainer(wide, { full: true, roles, optimizer: { learningRate: 0.01 } });
    const saved = t.testdir();
    await trainer.save(saved);
    const values = (): string => bits(...trainer.parameters().map(({ name }) => trainer.parameter(name)));
    const gradients = (): string => bits(...trainer.parameters().map(({ name }) => trainer.gradients.get(name)));
    const busy = { name: "RolegradError", code: "ERR_BUSY", message: /rollout/ };
    const batch = await make(wide).collect(questions);
    const start = values();
    for (const adapters of [undefined, randomAdapters(wide, { roles })]) {
      const want = (await make(wide, adapters).collect(questions)).map(outcome);
      await trainer.accumulate(trainingBatch(batch));
      const accumulated = gradients();
      const got: Trajectory[] = [];
      for await (const trajectory of make(wide, adapters, 2).run(questions)) {
        got.push(trajectory);
        // Between two trajectories, and when all but the last are there.
        if (got.length !== 3 && got.length !== 18) continue;
        await t.rejects(trainer.step(batch), busy, "step");
        await t.rejects(trainer.apply(), busy, "apply");
        await t.rejects(Trainer.resume(saved, wide, { full: true, roles, optimizer: { learningRate: 0.01 } }), busy);
        t.equal(values(), start, "no parameter has changed");
        t.equal(gradients(), accumulated, "nor a gradient");
        t.equal(trainer.steps, 0);
      }
      trainer.gradients.zero();
      const byId = new Map(got.map((x) => [x.id, outcome(x)]));
      t.strictSame(
        want.map((x) => byId.get(x["id"] as string)),
        want,
        "the rollout is the undisturbed one",
      );
    }
    for await (const _ of make(wide).run(questions)) break; // one that is left early has ended as well

    for (const version of [0, 1, 2]) {
      const rollout = make(wide);
      t.equal(rollout.policyVersion, version);
      const own = await rollout.collect(questions);
      t.ok(own.every(({ policyVersion }) => policyVersion === version));
      const { logprobs } = await wide.forward(pack(own));
      const recorded = Float32Array.from(own.flatMap((x) => Array.from(x.logprobs)));
      t.equal(bits(logprobs.map((x, i) => (recorded[i] === 0 ? 0 : x))), bits(recorded), `version ${version}`);
      const step = trainer.step(own);
      await t.rejects(
        make(wide).collect(questions),
        { code: "ERR_BUSY", message: /full training/ },
        "nor the other way",
      );
      const metrics = await step;
      t.equal(metrics.step, version + 1);
      t.equal(metrics.maxRatioDeviation, 0);
      t.not(values(), start);
    }
    await trainer.save(saved);
    const fresh = await loadModel(toyDirectory, { dtype: "float32" });
    await Trainer.resume(saved, fresh, { full: true, roles, optimizer: { learningRate: 0.01 } });
    t.equal(make(fresh).policyVersion, 3, "as many as the checkpoint's");
    t.equal(make(fresh, randomAdapters(fresh, { roles })).policyVersion, 0, "adapters count for themselves");
    [wide, fresh].forEach((model) => model.close());
  },
);

// ---- any instruction set, any number of threads

interface Child {
  backend: string;
  threads: number;
  hashes: Record<string, string>;
}

async function child(env: NodeJS.ProcessEnv): Promise<Child> {
  const script = path.join(root, "test/helpers/engine-hashes.mjs");
  const { status, stdout, stderr } = await runProgram(process.execPath, [script, toyDirectory], {
    env: { NODE_OPTIONS: undefined, ROLEGRAD_ISA: undefined, ROLEGRAD_THREADS: undefined, ...env },
  });
  if (status !== 0) throw new Error(`the child ended with ${status}: ${stderr}`);
  return JSON.parse(stdout) as Child;
}

t.test("one thread and several give the same bits", async (t) => {
  const one = await child({ ROLEGRAD_THREADS: "1" });
  const four = await child({ ROLEGRAD_THREADS: "4" });
  t.equal(one.threads, 1);
  t.equal(four.threads, 4);
  t.ok(Object.keys(one.hashes).length > 5);
  t.strictSame(four.hashes, one.hashes);
});

const isa = tied.info.backend;
const avx512 = isa === "cpu-avx512" ? {} : { skip: `this CPU runs ${isa}: AVX2 cannot be compared with AVX-512 here` };
t.test("AVX2 and AVX-512 give the same bits", avx512, async (t) => {
  const [narrow, wide] = await Promise.all([child({ ROLEGRAD_ISA: "avx2" }), child({ ROLEGRAD_ISA: "avx512" })]);
  t.equal(narrow.backend, "cpu-avx2");
  t.equal(wide.backend, "cpu-avx512");
  t.strictSame(narrow.hashes, wide.hashes);
});
