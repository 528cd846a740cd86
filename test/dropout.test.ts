// LoRA dropout: drawn by position in the trajectory, in training steps alone.
import { readFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { Adapters, createAdapters, loadModel, Trainer, type Model, type TrainerOptions } from "rolegrad";
import {
  adapterBits,
  bits,
  checkpoints,
  gradients,
  modulesOf,
  momentBits,
  onPolicy,
  pack,
  randomAdapters,
  trainingBatch,
} from "./helpers/engine.js";
import { trajectoriesOf } from "./helpers/properties.js";
import { refusals } from "./helpers/refused.js";
import { nearPlainLoops, sameInAnySplit, slopeAlong } from "./helpers/steps.js";

const { model: tied, refused } = await refusals(checkpoints.tied);
const untied: Model = await loadModel(checkpoints.untied);
t.teardown(() => [tied, untied].forEach((model) => model.close()));
const roles = ["reason", "tool"];
const shape = { lengths: [30, 25, 40, 8], seed: 6 };

/** The random adapters of the other tests, with dropout. */
function dropping(model: Model, dropout = 0.3): Adapters {
  const from = randomAdapters(model, { roles });
  const made = createAdapters(model, { roles, rank: 3, alpha: 6, dropout });
  for (const name of made.names) for (const module of modulesOf(model)) made.set(name, module, from.get(name, module));
  return made;
}

const make = (model: Model, dropout?: number, options: Partial<TrainerOptions> = {}): Trainer =>
  new Trainer(model, { adapters: dropping(model, dropout), optimizer: { learningRate: 0.01 }, ...options });

t.test("dropout is in the forward pass of a training step and in no other", async (t) => {
  for (const model of [tied, untied]) {
    const trajectories = trajectoriesOf(shape, model);
    const adapters = dropping(model);
    const scored = await model.forward(pack(trajectories), { adapters });
    const plain = await model.forward(pack(trajectories), { adapters: randomAdapters(model, { roles }) });
    t.equal(bits(scored.logprobs), bits(plain.logprobs), "a score is that of the adapters without dropout");
    const own = await onPolicy(model, adapters, trajectories);
    const trained = await make(model).accumulate(trainingBatch(own));
    t.not(bits(trained.logprobs), bits((await make(model, 0).accumulate(trainingBatch(own))).logprobs));
    t.equal((await make(model, 0).step(own)).maxRatioDeviation, 0, "without dropout the first ratio is exactly 1");
    t.ok((await make(model).step(own)).maxRatioDeviation > 0, "with it, it is not");
  }
});

t.test("batch order and micro-batches change no bit of a step with dropout", async (t) => {
  for (const model of [tied, untied]) {
    await sameInAnySplit(
      t,
      model,
      (microBatchTokens) => make(model, 0.3, { microBatchTokens, objective: { klCoefficient: 0.1 } }),
      (trainer) => `${momentBits(trainer)} ${adapterBits(trainer.adapters!)}`,
    );
  }
});

t.test("masks are those of seed, step and sequence", async (t) => {
  const batch = { ...trainingBatch(trajectoriesOf(shape, tied)), keys: ["a", "b", "c", "d"] };
  const logprobs = async (trainer: Trainer, keys = batch.keys) =>
    bits((await trainer.accumulate({ ...batch, keys })).logprobs);
  const first = await logprobs(make(tied));
  t.equal(await logprobs(make(tied)), first, "the same again");
  t.not(await logprobs(make(tied, 0.3, { seed: 1 })), first, "another seed");
  t.not(await logprobs(make(tied), ["a", "b", "c", "e"]), first, "another sequence");
  const later = make(tied, 0.3, { optimizer: { learningRate: 0 } });
  await later.apply();
  t.not(await logprobs(later), first, "another step");
});

t.test("the gradient with dropout is that of central differences and of the plain loops", async (t) => {
  await nearPlainLoops(t, checkpoints.tied, async (model, device) => {
    const trainer = make(model, 0.3, { objective: { kind: "sft" } });
    const batch = trainingBatch(trajectoriesOf(shape, model));
    await trainer.accumulate(batch);
    const all = Object.values(gradients(trainer));
    if (device === "cpu") return all;
    const adapters = trainer.adapters!;
    const loss = async () => (await trainer.accumulate(batch)).loss;
    for (const module of [
      "model.layers.0.self_attn.k_proj",
      "model.layers.0.mlp.down_proj",
      "model.layers.1.mlp.up_proj",
    ]) {
      trainer.gradients.zero();
      await loss();
      const start = adapters.get("tool", module);
      const gradient = trainer.gradients.get("tool", module);
      const { slope, norm } = await slopeAlong(loss, 1e-2, [start.a, start.b], [gradient.a, gradient.b], (a, b) =>
        adapters.set("tool", module, { a: a, b: b }),
      );
      t.ok(Math.abs(slope - norm) < 0.01 * norm, `${module}: ${slope} is near ${norm}`);
    }
    return all;
  });
});

t.test('with "stop" the gradient of every other adapter stays at exactly zero', async (t) => {
  const trainer = make(tied, 0.3, { crossRole: "stop", lossRoles: ["tool"] });
  await trainer.accumulate(trainingBatch(trajectoriesOf(shape, tied)));
  t.ok(gradients(trainer)["reason"]!.every((x) => x === 0));
  t.ok(gradients(trainer)["tool"]!.some((x) => x !== 0));
});

t.test("dropout is saved as PEFT's lora_dropout, and a resumed trainer draws the same masks", async (t) => {
  const directory = t.testdir();
  const trajectories = trajectoriesOf(shape, tied);
  const trainer = make(tied);
  await trainer.step(trajectories);
  await trainer.save(directory);
  await trainer.step(trajectories);
  const folder = path.join(directory, "adapters/tool");
  t.match(JSON.parse(readFileSync(path.join(folder, "adapter_config.json"), "utf8")), { lora_dropout: 0.3 });
  t.equal((await Adapters.load(tied, { tool: folder })).list[0]!.dropout, 0.3);
  const resumed = await Trainer.resume(directory, tied, { optimizer: { learningRate: 0.01 } });
  await resumed.step(trajectories);
  t.equal(adapterBits(resumed.adapters!), adapterBits(trainer.adapters!));
});

t.test("rates and keys that make no sense are refused", async (t) => {
  for (const dropout of [1, -0.1, NaN, "0.1"]) {
    const options = { roles, rank: 2, alpha: 4, dropout: dropout as number };
    await refused(t, () => createAdapters(tied, options), "ERR_INVALID_ARGUMENT", "dropout");
  }
  const batch = trainingBatch(trajectoriesOf(shape, tied));
  await refused(t, make(tied).accumulate({ ...batch, keys: ["a"] }), "ERR_SHAPE", "keys", "4");
});
