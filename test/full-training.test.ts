// Full training beyond one step: roles of the loss, a separate reference, and checkpoints from which a run goes on bit for bit.
import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { createAdapters, loadModel, Random, Trainer } from "rolegrad";
import type { Model, TrainerOptions } from "rolegrad";
import { adapterBits, bits, checkpoints, modulesOf, momentBits, normals, trainingBatch } from "./helpers/engine.js";
import { batchShapes, holds, trajectoriesOf } from "./helpers/properties.js";
import { refusals } from "./helpers/refused.js";
import { roles } from "./helpers/toy.js";

const { model, refused } = await refusals(checkpoints.tied);
t.teardown(() => model.close());
const optimizer = { learningRate: 0.01, weightDecay: 0.01, warmupSteps: 3, totalSteps: 6 };

const load = (name: "tied" | "untied"): Promise<Model> => loadModel(checkpoints[name], { dtype: "float32" });
const values = (trainer: Trainer): string => bits(...trainer.parameters().map(({ name }) => trainer.parameter(name)));
const state = (trainer: Trainer): string => `${values(trainer)} ${momentBits(trainer)} ${trainer.steps}`;
const gradientOf = (trainer: Trainer): Float32Array[] =>
  trainer.parameters().map(({ name }) => trainer.gradients.get(name));

t.test("the roles of the loss: the parts of the unified gradient, by every parameter", async (t) => {
  for (const name of ["tied", "untied"] as const) {
    const own = await load(name);
    const make = (lossRoles: string[] | "all") => new Trainer(own, { full: true, optimizer, roles, lossRoles });
    const trainers = [make("all"), make(["reason"]), make(["tool"])] as const;
    t.strictSame(trainers[0].roles, roles);
    await holds(t, batchShapes, 5, async (value) => {
      const batch = trainingBatch(trajectoriesOf(value, own));
      for (const trainer of trainers) trainer.gradients.zero();
      const results = await Promise.all(trainers.map((trainer) => trainer.accumulate(batch)));
      if (results[1]!.tokens + results[2]!.tokens !== results[0]!.tokens) return false;
      if (results.some(({ normalizer }) => normalizer !== results[0]!.normalizer)) return false;
      const [all, a, b] = trainers.map(gradientOf);
      return all!.every((own, i) => {
        const [x, y] = [a![i]!, b![i]!];
        const worst = Math.hypot(...own.map((g, j) => g - x[j]! - y[j]!));
        return worst <= 1e-5 * (Math.hypot(...x) + Math.hypot(...y));
      });
    });
    const { sampledTokens } = await make(["tool"]).step(trajectoriesOf({ lengths: [30, 40], seed: 1 }, own));
    t.ok(sampledTokens["reason"]! > 0 && sampledTokens["tool"]! > 0, "tokens are counted by role");
    own.close();
  }
});

t.test("another trainer of the model goes on from what the model runs on", async (t) => {
  const own = await load("untied");
  const batch = trainingBatch(trajectoriesOf({ lengths: [30, 20], seed: 4 }, own));
  const make = () => new Trainer(own, { full: true, optimizer: { learningRate: 0.01 } });
  const first = make();
  const start = values(first);
  await first.accumulate(batch);
  await first.apply();
  const moved = values(first);
  t.not(moved, start);
  const forward = async () => bits((await own.forward(batch)).logprobs);
  const before = await forward();
  const second = make();
  t.equal(values(second), moved);
  await second.accumulate(batch);
  await second.apply({ learningRate: 0 });
  t.equal(await forward(), before, "a rate of 0 moves nothing");
  own.close();
});

t.test("stopped after any step, a full training goes on as if it never had", async (t) => {
  const directory = t.testdir();
  for (const name of ["tied", "untied"] as const) {
    const options: Omit<TrainerOptions, "adapters"> = { full: true, optimizer, roles, lossRoles: ["tool"] };
    const first = await load(name);
    const batch = (step: number) => trajectoriesOf({ lengths: [40, 5, 30, 25], seed: step }, first);
    const straight = new Trainer(first, options);
    const [states, metrics]: [string[], unknown[]] = [[state(straight)], []];
    for (let step = 0; step < 4; step++) {
      await straight.save(path.join(directory, `${name}-${step}`));
      metrics.push(await straight.step(batch(step)));
      states.push(state(straight));
    }
    for (let stop = 0; stop < 4; stop++) {
      const own = await load(name);
      const resumed = await Trainer.resume(path.join(directory, `${name}-${stop}`), own, options);
      t.equal(state(resumed), states[stop]);
      t.strictSame(resumed.roles, roles);
      const input = { inputIds: Int32Array.of(3, 4, 5), cuSeqlens: Int32Array.of(0, 3) };
      for (let step = stop; step < 4; step++) t.strictSame(await resumed.step(batch(step)), metrics[step]);
      t.equal(state(resumed), states[4], `${name}, stopped after ${stop}`);
      t.strictSame((await own.forward(input)).logprobs, (await first.forward(input)).logprobs, "the model follows");
      own.close();
    }
    first.close();
  }
});

t.test("stopped after any step, adapters of different ranks and tracked gradients go on the same", async (t) => {
  const directory = t.testdir();
  const make = () => {
    const made = createAdapters(model, {
      roles,
      rank: { reason: 2, tool: 5 },
      alpha: { reason: 4, tool: 3 },
      rankPattern: { "layers.0.mlp.down_proj": 9, q_proj: 1 },
      alphaPattern: { v_proj: 7 },
      targets: ["q_proj", "v_proj", "up_proj", "down_proj"],
    });
    for (const name of roles)
      for (const module of modulesOf(model, ["q_proj", "v_proj", "up_proj", "down_proj"])) {
        const { a, b } = made.get(name, module);
        made.set(name, module, { a, b: normals(new Random(2, module), b.length, 0.1) });
      }
    return made;
  };
  for (const crossRole of ["flow", "stop", "exact"] as const) {
    const options = { optimizer, crossRole, trackLossRoles: true, objective: { klCoefficient: 0.01 } };
    const batch = (step: number) => trajectoriesOf({ lengths: [40, 5, 30, 25], seed: step }, model);
    const own = (trainer: Trainer) => `${adapterBits(trainer.adapters!)} ${momentBits(trainer)} ${trainer.steps}`;
    const straight = new Trainer(model, { ...options, adapters: make() });
    for (let step = 0; step < 3; step++) {
      await straight.save(path.join(directory, `${crossRole}-${step}`));
      await straight.step(batch(step));
    }
    for (let stop = 0; stop < 3; stop++) {
      const resumed = await Trainer.resume(path.join(directory, `${crossRole}-${stop}`), model, options);
      t.strictSame(resumed.adapters?.list, straight.adapters?.list);
      for (let step = stop; step < 3; step++) await resumed.step(batch(step));
      t.equal(own(resumed), own(straight), `${crossRole}, stopped after ${stop}`);
    }
  }
});

t.test("a reference is another model of the same vocabulary; what it computes may be given as well", async (t) => {
  const own = await load("tied");
  const batch = trainingBatch(trajectoriesOf({ lengths: [40, 25, 60], seed: 3 }, own));
  const objective = { klCoefficient: 0.1 };
  const mover = new Trainer(own, { full: true, optimizer: { learningRate: 0.05 }, objective: {} });
  await mover.accumulate(batch);
  await mover.apply(); // so that the reference is another model
  const options = { full: true as const, optimizer, objective };
  const trainer = new Trainer(own, { ...options, reference: model });
  const computed = await trainer.accumulate(batch);
  t.ok(computed.kl > 0);
  const { logprobs: refLogprobs } = await model.forward({ inputIds: batch.inputIds, cuSeqlens: batch.cuSeqlens });
  const given = new Trainer(own, { ...options });
  const result = await given.accumulate({ ...batch, refLogprobs });
  t.strictSame(result, computed);
  t.equal(bits(...gradientOf(given)), bits(...gradientOf(trainer)));

  // Of adapters too: the backbone with adapters off, or another model.
  const adapters = createAdapters(model, { roles, rank: 2, alpha: 4 });
  const off = await new Trainer(model, { adapters, optimizer, objective }).accumulate(batch);
  const other = await new Trainer(model, { adapters, optimizer, objective, reference: own }).accumulate(batch);
  t.equal(off.kl, 0, "B = 0 is the backbone");
  t.ok(other.kl > 0);

  const foreign = await load("untied");
  await refused(t, () => new Trainer(own, { ...options, reference: foreign }), "ERR_REFERENCE", "101", "67");
  await refused(t, () => new Trainer(own, { ...options, reference: own }), "ERR_REFERENCE", "another model");
  foreign.close();
  await refused(t, () => new Trainer(own, { ...options, reference: foreign }), "ERR_MODEL_CLOSED");
  own.close();
});

t.test("a checkpoint of full training that does not fit is refused by file", async (t) => {
  const directory = t.testdir();
  const [good, bad] = [path.join(directory, "good"), path.join(directory, "bad")];
  const own = await load("tied");
  const options = { optimizer, full: true as const };
  await new Trainer(own, options).save(good);
  const before = values(new Trainer(own, options));
  const config = JSON.parse(readFileSync(path.join(good, "trainer.json"), "utf8")) as object;
  const cases: [string, string, () => void][] = [
    [
      "ERR_CHECKPOINT",
      "full",
      () => writeFileSync(path.join(bad, "trainer.json"), JSON.stringify({ ...config, full: -1 })),
    ],
    ["ERR_SAFETENSORS", "model.safetensors", () => rmSync(path.join(bad, "model"), { recursive: true })],
    ["ERR_SAFETENSORS", "optimizer.safetensors", () => rmSync(path.join(bad, "optimizer.safetensors"))],
    [
      "ERR_CHECKPOINT",
      "model.embed_tokens.weight",
      () => cpSync(path.join(good, "model/model.safetensors"), path.join(bad, "optimizer.safetensors")),
    ],
    [
      "ERR_CHECKPOINT",
      "model.embed_tokens.weight",
      () => cpSync(path.join(checkpoints.untied, "model.safetensors"), path.join(bad, "model/model.safetensors")),
    ],
  ];
  for (const [code, word, spoil] of cases) {
    rmSync(bad, { recursive: true, force: true });
    cpSync(good, bad, { recursive: true });
    spoil();
    await refused(t, () => Trainer.resume(bad, own, options), code, bad, word);
  }
  t.equal(values(new Trainer(own, options)), before);
  const other = await load("untied");
  await refused(t, () => Trainer.resume(good, other, options), "ERR_CHECKPOINT", "model.embed_tokens.weight");
  await refused(t, () => Trainer.resume(good, model, options), "ERR_DTYPE", "float32");
  [own, other].forEach((each) => each.close());
});
