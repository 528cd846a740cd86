// The trainer: what a step does to each adapter, schedules, full training, what is refused and that nothing is half done then.
import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { AdamW, groupAdvantages, loadModel, saveModel, Trainer } from "rolegrad";
import type { Optimizer, TrainerOptions, TrainingBatch, Trajectory } from "rolegrad";
import {
  adapterBits,
  bits,
  checkpoints,
  gradients,
  modulesOf,
  momentBits,
  pack,
  randomAdapters,
  trainingBatch,
} from "./helpers/engine.js";
import { rowsOf, trajectoriesOf } from "./helpers/properties.js";
import { refusals } from "./helpers/refused.js";

const { model, refused } = await refusals(checkpoints.tied);
t.teardown(() => model.close());
const roles = ["reason", "tool"];
const shape = { lengths: [30, 25, 40, 8], seed: 6 };
const trajectories = trajectoriesOf(shape, model);
const batch = trainingBatch(trajectories);
const optimizer: Optimizer = { learningRate: 0.01 };

function make(options: Partial<TrainerOptions> = {}): Trainer {
  return new Trainer(model, { adapters: randomAdapters(model, { roles }), optimizer, ...options });
}

/** The trajectories with some of their fields changed. */
const changed = (change: Partial<Trajectory>, which = 1): Trajectory[] =>
  trajectories.map((trajectory, i) => (i === which ? { ...trajectory, ...change } : trajectory));

// ---- what a step does

t.test("a step is AdamW on each adapter by itself: its own norm, clip and moments", async (t) => {
  const options = { learningRate: 0.01, weightDecay: 0.1, maxGradNorm: 0.002, betas: [0.8, 0.95] as [number, number] };
  const trainer = make({ optimizer: options });
  const { adapters } = trainer;
  const own = Object.fromEntries(roles.map((name) => [name, new AdamW(options)]));
  const values = (name: string) =>
    Object.fromEntries(
      modulesOf(model).flatMap((module) =>
        Object.entries(adapters!.get(name, module)).map(([side, x]) => [`${module}.${side}`, x as Float32Array]),
      ),
    );
  const wanted = Object.fromEntries(roles.map((name) => [name, values(name)]));
  for (let step = 0; step < 3; step++) {
    await trainer.accumulate(batch);
    for (const name of roles) {
      const parts = modulesOf(model).flatMap((module) =>
        Object.entries(trainer.gradients.get(name, module)).map(
          ([side, x]) => [`${module}.${side}`, Float64Array.from(x as Float32Array)] as const,
        ),
      );
      await own[name]!.step(wanted[name]!, Object.fromEntries(parts));
    }
    const norms = await trainer.apply();
    for (const name of roles) {
      t.ok(norms[name]! > 0.002, `${name} is clipped`);
      for (const [key, got] of Object.entries(values(name))) {
        const worst = Math.max(...got.map((x, i) => Math.abs(x - (wanted[name]![key]![i] as number))));
        // Gradients are read as f32 here and are f64 inside.
        if (worst > 2e-6) t.fail(`${name} ${key}: ${worst}`);
      }
    }
  }
  t.equal(trainer.steps, 3);
  t.ok(
    Object.values(gradients(trainer)).every((x) => x.every((y) => y === 0)),
    "buffers are empty after a step",
  );
});

t.test("a role without a token in the batch has a gradient of zero, so that its moments decay", async (t) => {
  const trainer = make();
  await trainer.step(trajectories);
  const moment = (): number[] => trainer.native.state().first.map((x) => Math.hypot(...x));
  const before = moment();
  const reasonOnly = trajectories.map((x) => ({ ...x, roles: x.roles.slice().fill(0) }));
  const { gradNorms, sampledTokens } = await trainer.step(reasonOnly);
  t.equal(gradNorms["tool"], 0);
  t.equal(sampledTokens["tool"], 0);
  t.ok(Math.abs(moment()[1]! / before[1]! - 0.9) < 1e-6, "beta1 of what they were");
  t.strictSame(trainer.native.state().steps, [2, 2]);
});

t.test("the numbers of a step are those of its trajectories", async (t) => {
  const rewards = [1, 0, 0.5, 0.5];
  const groups = ["a", "a", "b", "b"];
  const own = trajectories.map((x, i) => ({ ...x, reward: rewards[i]!, group: groups[i]! }));
  const metrics = await make().step(own);
  const sampled = own.reduce((n, x) => n + x.sampled.subarray(1).filter((s) => s === 1).length, 0);
  t.match(metrics, { step: 1, reward: 0.5, mixedGroups: 0.5, trajectories: 4, tokens: 103, learningRate: 0.01 });
  t.equal(metrics.sampledTokens["reason"]! + metrics.sampledTokens["tool"]!, sampled);
  t.ok(metrics.maxRatioDeviation > 0 && Number.isFinite(metrics.loss));
  const untaught = own.map((x) => ({ ...x, reward: 3 }));
  const flat = make();
  const before = adapterBits(flat.adapters!);
  t.match(await flat.step(untaught), { loss: 0, mixedGroups: 0, gradNorms: { reason: 0, tool: 0 } });
  t.equal(adapterBits(flat.adapters!), before, "equal rewards teach nothing");
  t.strictSame(groupAdvantages([3]), new Float64Array(1), "nor does a group of one");
});

t.test("only tokens of the roles that are trained enter the loss, and all of them enter N", async (t) => {
  const all = await make().accumulate(batch);
  const parts = await Promise.all(roles.map((role) => make({ lossRoles: [role] }).accumulate(batch)));
  t.equal(parts[0]!.tokens + parts[1]!.tokens, all.tokens);
  t.ok(parts.every(({ tokens, normalizer }) => tokens > 0 && normalizer === all.normalizer));
  const targetRole = (i: number): number => batch.roles[i - 1] as number;
  parts.forEach(({ perTokenLoss }, role) => {
    t.ok(perTokenLoss.every((x, i) => x === 0 || (batch.lossMask[i] === 1 && targetRole(i) === role)));
  });
});

t.test("the N of a whole batch may be given for a part of it", async (t) => {
  const whole = make({ objective: { klCoefficient: 0.1 } });
  const { loss, normalizer } = await whole.accumulate(batch);
  const cut = make({ objective: { klCoefficient: 0.1 } });
  let sum = 0;
  for (const part of [trajectories.slice(0, 1), trajectories.slice(1)]) {
    sum += (await cut.accumulate(trainingBatch(part), { normalizer })).loss;
  }
  t.ok(Math.abs(sum - loss) < 1e-9 * Math.abs(loss));
  t.equal(bits(...Object.values(gradients(cut))), bits(...Object.values(gradients(whole))));
});

t.test("the learning rate rises over warmupSteps and falls to finalRatio at totalSteps", async (t) => {
  const trainer = make({ optimizer: { learningRate: 0.1, warmupSteps: 4, totalSteps: 10, finalRatio: 0.2 } });
  const rates: number[] = [];
  for (let step = 0; step < 12; step++) {
    rates.push(trainer.learningRate);
    await trainer.apply();
  }
  const want = rates.map((_, s) => 0.1 * Math.min(1, (s + 1) / 4) * (1 - 0.8 * Math.min(1, s / 10)));
  t.ok(
    rates.every((rate, s) => Math.abs(rate - want[s]!) < 1e-15),
    rates.join(" "),
  );
  t.ok(Math.abs(rates[11]! - 0.02) < 1e-15);
  const cosine = make({ optimizer: { learningRate: 0.1, totalSteps: 4, finalRatio: 0.2, decay: "cosine" } });
  const falling: number[] = [];
  for (let step = 0; step < 6; step++) {
    falling.push(cosine.learningRate);
    await cosine.apply();
  }
  const fall = [1, 0.2 + 0.4 * (1 + Math.SQRT1_2), 0.6, 0.2 + 0.4 * (1 - Math.SQRT1_2), 0.2, 0.2];
  t.ok(
    falling.every((rate, s) => Math.abs(rate - 0.1 * fall[s]!) < 1e-15),
    falling.join(" "),
  );
});

// ---- full training

t.test("full training learns a batch by heart, and is saved as a checkpoint of the same bits", async (t) => {
  const directory = t.testdir();
  const own = await loadModel(checkpoints.untied, { dtype: "float32" });
  const trainer = new Trainer(own, {
    full: true,
    objective: { kind: "sft" },
    optimizer: { learningRate: 0.01, weightDecay: 0.01 },
  });
  const input = pack(rowsOf({ lengths: [20, 15], seed: 3 }, own));
  const lossMask = new Uint8Array(35).fill(1);
  const losses: number[] = [];
  for (let step = 0; step < 60; step++) {
    losses.push((await trainer.accumulate({ ...input, lossMask })).loss);
    await trainer.apply();
  }
  t.ok(losses[0]! > 4 && losses.at(-1)! < 0.5, `${losses[0]} to ${losses.at(-1)}`);
  const bare = { inputIds: input.inputIds, cuSeqlens: input.cuSeqlens };
  const want = await own.forward(bare, { logits: true });
  await saveModel(trainer, path.join(directory, "f32"));
  const saved = await loadModel(path.join(directory, "f32"));
  t.strictSame(await saved.forward(bare, { logits: true }), want);
  t.strictSame(saved.config, own.config);
  saved.close();
  await saveModel(trainer, path.join(directory, "bf16"), { dtype: "bfloat16" });
  const rounded = await loadModel(path.join(directory, "bf16"));
  const { logits } = await rounded.forward(bare, { logits: true });
  const worst = Math.max(...logits!.map((x, i) => Math.abs(x - (want.logits![i] as number))));
  t.ok(worst > 0 && worst < 0.5, `bf16 is off by ${worst}`);
  rounded.close();
  own.close();
});

t.test("full training takes trajectories, and a model as its reference", async (t) => {
  const own = await loadModel(checkpoints.tied, { dtype: "float32" });
  const objective = { klCoefficient: 0.1 };
  const alone = new Trainer(own, { full: true, objective, optimizer });
  await refused(t, alone.step(trajectories), "ERR_REFERENCE", "refLogprobs");
  const trainer = new Trainer(own, { full: true, objective, optimizer, reference: model });
  const first = await trainer.step(trajectories);
  t.equal(first.kl, 0, "the model is its own reference at first");
  t.ok(first.gradNorms["full"]! > 0);
  t.ok((await trainer.step(trajectories)).kl > 0, "and has moved then");
  own.close();
});

t.test("weights of a bf16 model are not trained", async (t) => {
  const full = () => new Trainer(model, { full: true, optimizer });
  await refused(t, full, "ERR_DTYPE", 'dtype "float32"');
});

// ---- what is refused

t.test("options that make no sense are refused by field", async (t) => {
  const adapters = randomAdapters(model, { roles });
  const cases: [string, string | RegExp, object][] = [
    ["ERR_INVALID_ARGUMENT", "either adapters or full", { full: true }],
    ["ERR_INVALID_ARGUMENT", "either adapters or full", { adapters: undefined }],
    ["ERR_INVALID_ARGUMENT", "crossRole", { crossRole: "none" }],
    ["ERR_INVALID_ARGUMENT", "exact", { adapters: undefined, full: true, crossRole: "exact" }],
    ["ERR_INVALID_ARGUMENT", "trackLossRoles", { adapters: undefined, full: true, trackLossRoles: true }],
    ["ERR_INVALID_ARGUMENT", "trackLossRoles", { trackLossRoles: 1 }],
    ["ERR_INVALID_ARGUMENT", "boolean gradientCheckpointing but received", { gradientCheckpointing: "yes" }],
    ["ERR_INVALID_ARGUMENT", "gradientCheckpointing", { adapters: undefined, full: true, gradientCheckpointing: null }],
    ["ERR_INVALID_ARGUMENT", "roles", { roles }],
    ["ERR_INVALID_ARGUMENT", "roles", { adapters: undefined, full: true, lossRoles: ["tool"] }],
    ["ERR_INVALID_ARGUMENT", "distinct", { adapters: undefined, full: true, roles: ["a", "a"] }],
    ["ERR_NO_ROLE", "think", { adapters: undefined, full: true, roles, lossRoles: ["think"] }],
    ["ERR_NO_ROLE", "think", { lossRoles: ["think"] }],
    ["ERR_INVALID_ARGUMENT", "microBatchTokens", { microBatchTokens: 0 }],
    ["ERR_INVALID_ARGUMENT", "optimizer.learningRate", { optimizer: undefined }],
    ["ERR_INVALID_ARGUMENT", "optimizer.learningRate", { optimizer: { learningRate: NaN } }],
    ["ERR_INVALID_ARGUMENT", "optimizer.betas", { optimizer: { learningRate: 1, betas: [0.9, 1] } }],
    ["ERR_INVALID_ARGUMENT", "optimizer.weightDecay", { optimizer: { learningRate: 1, weightDecay: -1 } }],
    ["ERR_INVALID_ARGUMENT", "optimizer.totalSteps", { optimizer: { learningRate: 1, totalSteps: 0 } }],
    ["ERR_INVALID_ARGUMENT", "objective.kind", { objective: { kind: "ppo" } }],
    ["ERR_INVALID_ARGUMENT", "objective.aggregation", { objective: { aggregation: "mean" } }],
    ["ERR_INVALID_ARGUMENT", "objective.clipLow", { objective: { clipLow: -0.1 } }],
    ["ERR_INVALID_ARGUMENT", "objective.klCoefficient", { objective: { klCoefficient: NaN } }],
    ["ERR_INVALID_ARGUMENT", "objective.normLength", { objective: { aggregation: "seq-mean-token-sum-norm" } }],
  ];
  for (const [code, word, change] of cases) {
    const options = { adapters, optimizer, ...change } as TrainerOptions;
    await refused(t, () => new Trainer(model, options), code, word);
  }
  const other = await loadModel(checkpoints.tied);
  const foreign = randomAdapters(other, { roles });
  await refused(t, () => new Trainer(model, { adapters: foreign, optimizer }), "ERR_INVALID_ARGUMENT", "another model");
  other.close();
});

t.test("a batch that does not fit is refused by name, and the buffers keep what they had", async (t) => {
  const trainer = make({ objective: { klCoefficient: 0.1 } });
  const before = await trainer.accumulate(batch).then(() => bits(...Object.values(gradients(trainer))));
  const total = batch.inputIds.length;
  const sampled = batch.lossMask.indexOf(1, 5);
  const poke = <T extends Int32Array | Int8Array | Float32Array | Float64Array>(values: T, i: number, x: number): T =>
    values.map((value, j) => (j === i ? x : value)) as T;
  const old = batch.oldLogprobs as Float32Array;
  const cases: [string, string | RegExp, Partial<Record<keyof TrainingBatch, unknown>>][] = [
    ["ERR_NOT_FINITE", "advantages[2] is NaN", { advantages: Float64Array.of(1, 2, NaN, 4) }],
    ["ERR_NOT_FINITE", "advantages[0] is -Infinity", { advantages: Float32Array.of(-Infinity, 2, 3, 4) }],
    ["ERR_NOT_FINITE", `advantages[${sampled}]`, { advantages: poke(new Float64Array(total), sampled, NaN) }],
    ["ERR_NOT_FINITE", `oldLogprobs[${sampled}] is NaN`, { oldLogprobs: poke(old, sampled, NaN) }],
    ["ERR_NOT_FINITE", `refLogprobs[${sampled}]`, { refLogprobs: poke(old, sampled, -Infinity) }],
    ["ERR_NOT_FINITE", `lossWeights[${sampled}]`, { lossWeights: poke(new Float32Array(total), sampled, NaN) }],
    ["ERR_SHAPE", /advantages of length 4 .* or 103 .* received 3/, { advantages: Float64Array.of(1, 2, 3) }],
    ["ERR_SHAPE", "oldLogprobs of length 103", { oldLogprobs: old.subarray(1) }],
    ["ERR_SHAPE", "refLogprobs of length 103", { refLogprobs: old.subarray(1) }],
    ["ERR_SHAPE", "lossMask of length 103", { lossMask: batch.lossMask.subarray(1) }],
    ["ERR_SHAPE", "lossWeights of length 103", { lossWeights: old.subarray(1) }],
    ["ERR_SHAPE", "roles of length 103", { roles: batch.roles.subarray(1) }],
    ["ERR_SHAPE", "cuSeqlens", { cuSeqlens: Int32Array.of(0, 30, 55, 95, 102) }],
    ["ERR_SHAPE", "cuSeqlens", { cuSeqlens: Int32Array.of(0, 55, 30, 95, 103) }],
    ["ERR_EMPTY_BATCH", "empty", { inputIds: new Int32Array(0), cuSeqlens: Int32Array.of(0) }],
    ["ERR_EMPTY_BATCH", "empty", { cuSeqlens: Int32Array.of(0) }],
    ["ERR_TOKEN_RANGE", "inputIds[7] is 101", { inputIds: poke(batch.inputIds, 7, 101) }],
    ["ERR_ROLE_RANGE", "roles[7] is 2", { roles: poke(batch.roles, 7, 2) }],
    ["ERR_INVALID_ARGUMENT", "advantages and oldLogprobs", { advantages: undefined }],
    ["ERR_INVALID_ARGUMENT", "Uint8Array for lossMask", { lossMask: [...batch.lossMask] }],
    ["ERR_INVALID_ARGUMENT", "Float32Array or Float64Array for advantages", { advantages: [1, 2, 3, 4] }],
    ["ERR_INVALID_ARGUMENT", "shared", { advantages: new Float64Array(new SharedArrayBuffer(32)) }],
    ["ERR_INVALID_ARGUMENT", "shared", { lossMask: new Uint8Array(new SharedArrayBuffer(total)) }],
    ["ERR_INVALID_ARGUMENT", "shared", { oldLogprobs: new Float32Array(new SharedArrayBuffer(4 * total)) }],
  ];
  for (const [code, word, change] of cases) {
    await refused(t, trainer.accumulate({ ...batch, ...change } as TrainingBatch), code, word);
  }
  for (const temperature of [0, -1, NaN]) {
    await refused(t, trainer.accumulate(batch, { temperature }), "ERR_INVALID_ARGUMENT", "temperature");
  }
  for (const normalizer of [0, -1, NaN]) {
    await refused(t, trainer.accumulate(batch, { normalizer }), "ERR_INVALID_ARGUMENT", "normalizer");
  }
  await refused(t, () => trainer.apply({ learningRate: NaN }), "ERR_INVALID_ARGUMENT", "learningRate");
  t.equal(bits(...Object.values(gradients(trainer))), before);
});

t.test("trajectories that cannot be trained on together are refused by id", async (t) => {
  const trainer = make();
  const before = `${adapterBits(trainer.adapters!)} ${momentBits(trainer)}`;
  const cases: [string, string | RegExp, Trajectory[]][] = [
    ["ERR_EMPTY_BATCH", "none", []],
    ["ERR_TRAJECTORY", /q0#0 twice/, changed({ id: "q0#0" })],
    ["ERR_SHAPE", "q0#1", changed({ roles: new Int8Array(3) })],
    ["ERR_SHAPE", "q0#1", changed({ logprobs: new Float32Array(3) })],
    ["ERR_NOT_FINITE", /reward .*q0#1 .*NaN/, changed({ reward: NaN })],
    [
      "ERR_LOSS_NOT_FINITE",
      /q0#1.* recorded log-probability NaN at token \d+ \(role \w+\)/,
      changed({ logprobs: new Float32Array(25).fill(NaN) }),
    ],
    ["ERR_TRUNCATED_SAMPLING", /q0#1 has topP 0.9/, changed({ topP: 0.9 })],
    ["ERR_TRUNCATED_SAMPLING", /topK 5/, changed({ topK: 5 })],
    ["ERR_PRECISION", /"exact".* q0#1 is of "bf16-multiply"/, changed({ precision: "bf16-multiply" })],
    ["ERR_TRAJECTORY", /precision .*q0#1 .*fp8/, changed({ precision: "fp8" as never })],
    ["ERR_TRAJECTORY", /temperature .*q0#0 and q0#1 have 1 and 0.7/, changed({ temperature: 0.7 })],
    ["ERR_TRUNCATED_SAMPLING", "greedily", trajectories.map((x) => ({ ...x, temperature: 0 }))],
    ["ERR_TOKEN_RANGE", "101", changed({ ids: new Int32Array(25).fill(101) })],
    ["ERR_ROLE_RANGE", "2", changed({ roles: new Int8Array(25).fill(2) })],
  ];
  for (const [code, word, list] of cases) await refused(t, trainer.step(list), code, word);
  t.equal(`${adapterBits(trainer.adapters!)} ${momentBits(trainer)}`, before, "nothing has moved");
  t.equal(trainer.steps, 0);
  t.ok((await trainer.step(changed({ topP: 0.9 }), { allowTruncated: true })).step === 1, "unless that is wanted");
});

t.test("one step at a time: what reads or writes meanwhile is refused", async (t) => {
  const trainer = make();
  const running = trainer.step(trajectories);
  const busy = { name: "RolegradError", code: "ERR_BUSY" };
  await t.rejects(trainer.step(trajectories), busy);
  await t.rejects(trainer.accumulate(batch), busy);
  await t.rejects(trainer.apply(), busy);
  await t.rejects(trainer.save(t.testdir()), busy);
  t.throws(() => trainer.gradients.get("tool", "model.layers.0.mlp.up_proj"), busy);
  t.throws(() => trainer.gradients.norms(), busy);
  t.throws(() => trainer.gradients.zero(), busy);
  await t.rejects(model.forward(batch, { adapters: trainer.adapters! }), busy);
  const second = new Trainer(model, { adapters: trainer.adapters!, optimizer });
  await t.rejects(second.step(trajectories), busy, "nor may another trainer of the same adapters");
  t.equal((await running).step, 1);
  t.equal((await trainer.step(trajectories)).step, 2);
  t.equal((await second.step(trajectories)).step, 1);
});

t.test("a gradient is asked for by adapter and module; by role of the loss it is not kept", async (t) => {
  const trainer = make();
  const module = "model.layers.0.mlp.up_proj";
  await refused(t, () => trainer.gradients.get("think", module), "ERR_NO_ADAPTER", "think");
  await refused(t, () => trainer.gradients.get("tool", "lm_head"), "ERR_NO_MODULE", "lm_head");
  await refused(t, () => trainer.gradients.get("tool"), "ERR_INVALID_ARGUMENT", "module");
  const { gradients } = trainer as unknown as { gradients: { get(...args: unknown[]): unknown } };
  await refused(t, () => gradients.get("tool", module, { lossRole: "reason" }), "ERR_NOT_KEPT", "lossRole");
});

t.test("a checkpoint that is not whole is refused by file", async (t) => {
  const directory = t.testdir();
  const good = path.join(directory, "good");
  const bad = path.join(directory, "bad");
  const trainer = make();
  await trainer.step(trajectories);
  await trainer.save(good);
  const resume = () => Trainer.resume(bad, model, { optimizer });
  const json = JSON.parse(readFileSync(path.join(good, "trainer.json"), "utf8")) as Record<string, unknown>;
  const cases: [string, string, () => void][] = [
    ["ERR_CHECKPOINT", "trainer.json", () => rmSync(path.join(bad, "trainer.json"))],
    ["ERR_CHECKPOINT", "trainer.json", () => writeFileSync(path.join(bad, "trainer.json"), "{")],
    ["ERR_CHECKPOINT", "version", () => rewrite({ version: 2 })],
    ["ERR_CHECKPOINT", "steps", () => rewrite({ steps: -1 })],
    ["ERR_CHECKPOINT", "roles", () => rewrite({ roles: undefined })],
    ["ERR_CHECKPOINT", "other", () => rewrite({ routes: { reason: "reason", tool: "other" } })],
    ["ERR_ADAPTER_NOT_FOUND", "tool", () => rmSync(path.join(bad, "adapters", "tool"), { recursive: true })],
    ["ERR_SAFETENSORS", "optimizer.safetensors", () => rmSync(path.join(bad, "optimizer.safetensors"))],
    ["ERR_SAFETENSORS", "optimizer.safetensors", () => writeFileSync(path.join(bad, "optimizer.safetensors"), "cut")],
    ["ERR_CHECKPOINT", "third", () => rewrite({ adapters: { reason: 1, tool: 1, third: 1 } })],
  ];
  const rewrite = (change: object): void =>
    writeFileSync(path.join(bad, "trainer.json"), JSON.stringify({ ...json, ...change }));
  for (const [code, word, spoil] of cases) {
    rmSync(bad, { recursive: true, force: true });
    cpSync(good, bad, { recursive: true });
    if (word === "third")
      cpSync(path.join(good, "adapters", "tool"), path.join(bad, "adapters", "third"), { recursive: true });
    spoil();
    await refused(t, resume, code, bad, word);
  }
  const full = () => Trainer.resume(good, model, { optimizer, full: true });
  await refused(t, full, "ERR_CHECKPOINT", "full training", good);
});

t.test("a trainer of a closed model says so", async (t) => {
  const own = await loadModel(checkpoints.tied);
  const trainer = new Trainer(own, { adapters: randomAdapters(own, { roles }), optimizer });
  const running = trainer.step(trajectories);
  own.close();
  t.equal((await running).step, 1, "what was running ends well");
  await refused(t, trainer.step(trajectories), "ERR_MODEL_CLOSED");
  await refused(t, trainer.accumulate(batch), "ERR_MODEL_CLOSED");
  await refused(t, trainer.apply(), "ERR_MODEL_CLOSED");
  await refused(t, () => new Trainer(own, { full: true, optimizer }), "ERR_MODEL_CLOSED");
});

t.test("AdamW on arrays says what does not fit", async (t) => {
  const own = new AdamW({ learningRate: 0.1 });
  const w = Float32Array.of(1, 2);
  await t.rejects(own.step({ w }, {}), { name: "RolegradError", code: "ERR_INVALID_ARGUMENT", message: /gradients.w/ });
  await t.rejects(own.step({ w }, { w: new Float64Array(3) }), { name: "RolegradError", code: "ERR_SHAPE" });
  t.throws(() => new AdamW({ learningRate: -1 }), { code: "ERR_INVALID_ARGUMENT", message: /learningRate/ });
  t.equal(own.steps, 0);
  const { norm } = await own.step({ w }, { w: Float64Array.of(3, 4) });
  t.equal(norm, 5);
  t.ok(Math.abs(w[0]! - 0.9) < 1e-6 && Math.abs(w[1]! - 1.9) < 1e-6, "the first step is the learning rate");
});
