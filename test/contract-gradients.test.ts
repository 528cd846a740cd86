// Gradients and steps through the public API, bit for bit: isolation, sums that do not depend on how a batch is cut, masks, aborts, resumes.
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { loadModel, numericsVersion, Random, Trainer } from "rolegrad";
import type { Model } from "rolegrad";
import { native } from "../lib/binding.js";
import {
  adapterBits,
  bits,
  checkpoints,
  gradients,
  momentBits,
  onPolicy,
  randomAdapters,
  trainingBatch,
} from "./helpers/engine.js";
import { batchShapes, holds, trajectoriesOf } from "./helpers/properties.js";
import { relativeError } from "./helpers/tensors.js";
import { roles } from "./helpers/toy.js";

const tied: Model = await loadModel(checkpoints.tied);
const untied: Model = await loadModel(checkpoints.untied);
t.teardown(() => [tied, untied].forEach((model) => model.close()));

t.test('"stop" leaves the gradient of every other adapter at exactly zero', async (t) => {
  for (const model of [tied, untied]) {
    const adapters = randomAdapters(model, { roles });
    const options = { adapters, optimizer: { learningRate: 0, maxGradNorm: 0 }, crossRole: "stop" as const };
    for (const [own, other] of [roles, roles.slice().reverse()] as [string, string][]) {
      const trainer = new Trainer(model, { ...options, lossRoles: [own] });
      const flow = new Trainer(model, { ...options, crossRole: "flow", lossRoles: [own] });
      await holds(t, batchShapes, 6, async (value) => {
        const batch = trainingBatch(await onPolicy(model, adapters, trajectoriesOf(value, model)));
        trainer.gradients.zero();
        flow.gradients.zero();
        await trainer.accumulate(batch);
        await flow.accumulate(batch);
        return gradients(trainer)[other]!.every((x) => x === 0);
      });
      t.ok(
        gradients(trainer)[own]!.some((x) => x !== 0),
        `${own} has a gradient`,
      );
      t.ok(
        gradients(flow)[other]!.some((x) => x !== 0),
        `with "flow" ${other} has one too`,
      );
    }
  }
});

t.test("the split into micro-batches and the order of trajectories change no bit of a step", async (t) => {
  for (const [model, crossRole] of [
    [tied, "flow"],
    [untied, "stop"],
  ] as const) {
    await holds(t, batchShapes, 8, async (value) => {
      const random = new Random(value.seed, "order");
      const [first, second] = [value.lengths, value.lengths.map((length) => 1 + ((length * 7) % 50))];
      // Rewards of very different size: sums in f64 of like terms would hide their order.
      const trajectories = trajectoriesOf({ lengths: [...first, ...second], seed: value.seed }, model).map((x, i) => ({
        ...x,
        reward: x.reward * 10 ** (((i >> 1) % 3) * 8 - 8),
      }));
      const seen = new Set<string>();
      for (const microBatchTokens of [8192, 100, 1]) {
        const adapters = randomAdapters(model, { roles });
        const objective = { klCoefficient: 0.1, standardize: false };
        const trainer = new Trainer(model, {
          adapters,
          objective,
          optimizer: { learningRate: 0.01 },
          crossRole,
          microBatchTokens,
        });
        const { gradNorms } = await trainer.step(random.shuffle([...trajectories]));
        seen.add([momentBits(trainer), adapterBits(adapters), JSON.stringify(gradNorms)].join(" "));
      }
      return seen.size === 1;
    });
  }
});

t.test("the unified gradient is the sum of the roles' gradients", async (t) => {
  for (const model of [tied, untied]) {
    const adapters = randomAdapters(model, { roles });
    const make = (lossRoles: string[] | "all") =>
      new Trainer(model, { adapters, objective: { klCoefficient: 0.05 }, optimizer: { learningRate: 0 }, lossRoles });
    const trainers = [make("all"), make(["reason"]), make(["tool"])] as const;
    await holds(t, batchShapes, 10, async (value) => {
      const batch = trainingBatch(await onPolicy(model, adapters, trajectoriesOf(value, model)));
      for (const trainer of trainers) trainer.gradients.zero();
      const [unified, reason, tool] = await Promise.all(trainers.map((trainer) => trainer.accumulate(batch)));
      if (Math.abs(unified!.loss - reason!.loss - tool!.loss) > 1e-6 * Math.abs(reason!.loss) + 1e-9) return false;
      const [all, a, b] = trainers.map((trainer) => gradients(trainer));
      return adapters.names.every((name) => {
        const sum = a![name]!.map((x, i) => x + (b![name]![i] as number));
        // Both parts may be far larger than their sum: the tolerance is of the parts.
        const scale = Math.hypot(...a![name]!) + Math.hypot(...b![name]!);
        return relativeError(all![name]!, sum) * Math.hypot(...sum) <= 1e-5 * scale;
      });
    });
  }
});

t.test("masked is selected: NaN where the mask is 0 changes no bit", async (t) => {
  const adapters = randomAdapters(tied, { roles });
  const objective = { klCoefficient: 0.1 };
  const trainer = new Trainer(tied, { adapters, objective, optimizer: { learningRate: 0 } });
  const batch = trainingBatch(trajectoriesOf({ lengths: [30, 70, 12], seed: 8 }, tied));
  const total = batch.inputIds.length;
  const refLogprobs = Float32Array.from({ length: total }, (_, i) => -3 - (i % 5) / 10);
  const perToken = Float64Array.from({ length: total }, (_, i) => (i % 3) - 0.8);
  const run = async (extra: object): Promise<string> => {
    trainer.gradients.zero();
    const { loss, kl, perTokenLoss } = await trainer.accumulate({
      ...batch,
      refLogprobs,
      advantages: perToken,
      ...extra,
    });
    return [loss, kl, bits(perTokenLoss, ...Object.values(gradients(trainer)))].join(" ");
  };
  const want = await run({});
  const hide = <T extends Float32Array | Float64Array>(values: T): T =>
    values.map((x, i) => (batch.lossMask[i] === 1 ? x : NaN)) as T;
  t.equal(await run({ oldLogprobs: hide(batch.oldLogprobs as Float32Array) }), want, "oldLogprobs");
  t.equal(await run({ refLogprobs: hide(refLogprobs) }), want, "refLogprobs");
  t.equal(await run({ advantages: hide(perToken) }), want, "advantages of tokens");
  t.notMatch(want, /NaN/);
});

t.test("a step that is aborted leaves adapters, moments and the next step as if it had not begun", async (t) => {
  const make = () => {
    const adapters = randomAdapters(tied, { roles });
    const trainer = new Trainer(tied, { adapters, optimizer: { learningRate: 0.01 }, microBatchTokens: 1 });
    return { adapters, trainer, state: () => `${adapterBits(adapters)} ${momentBits(trainer)} ${trainer.steps}` };
  };
  const lengths = Array.from({ length: 60 }, (_, i) => 20 + (i % 30));
  const batch = (seed: number) => trajectoriesOf({ lengths, seed }, tied);
  const straight = make();
  await straight.trainer.step(batch(1));
  await straight.trainer.step(batch(2));

  const stopped = make();
  await stopped.trainer.step(batch(1));
  const before = stopped.state();
  const reason = new Error("enough");
  await t.rejects(stopped.trainer.step(batch(3), { signal: AbortSignal.abort(reason) }), reason, "before it begins");
  for (const delay of [0, 1, 3]) {
    const controller = new AbortController();
    const step = stopped.trainer.step(batch(3), { signal: controller.signal });
    setTimeout(() => controller.abort(reason), delay);
    await step.then(
      () => t.fail("the step ended before its abort"),
      (error: unknown) => t.equal(error, reason, `after ${delay} ms`),
    );
    t.equal(stopped.state(), before);
    t.ok(
      Object.values(gradients(stopped.trainer)).every((values) => values.every((x) => x === 0)),
      "buffers are empty",
    );
  }
  await stopped.trainer.step(batch(2));
  t.equal(stopped.state(), straight.state());
});

t.test("saved and resumed, in a model of its own, is the run that never stopped", async (t) => {
  const directory = t.testdir();
  for (const routes of [
    { reason: "reason", tool: "tool" },
    { reason: "shared", tool: "shared" },
    { reason: "thinker", tool: null },
  ]) {
    const options = {
      objective: { klCoefficient: 0.01 },
      optimizer: { learningRate: 0.01, weightDecay: 0.01, warmupSteps: 3, totalSteps: 6 },
    };
    const batch = (step: number) => trajectoriesOf({ lengths: [40, 5, 30, 25], seed: step }, tied);
    const straight = new Trainer(tied, { adapters: randomAdapters(tied, { roles, routes }), ...options });
    const metrics: unknown[] = [];
    for (let step = 0; step < 5; step++) metrics.push(await straight.step(batch(step)));

    const half = new Trainer(tied, { adapters: randomAdapters(tied, { roles, routes }), ...options });
    for (let step = 0; step < 2; step++) await half.step(batch(step));
    const folder = path.join(directory, Object.values(routes).join("-"));
    await half.save(folder);
    const model = await loadModel(checkpoints.tied);
    const resumed = await Trainer.resume(folder, model, options);
    t.equal(resumed.steps, 2);
    t.strictSame(resumed.adapters?.routes, routes, "routes, by the adapters' names");
    t.strictSame(resumed.adapters?.names, straight.adapters?.names);
    for (let step = 2; step < 5; step++) t.strictSame(await resumed.step(batch(step)), metrics[step]);
    t.equal(adapterBits(resumed.adapters!), adapterBits(straight.adapters!), JSON.stringify(routes));
    t.equal(momentBits(resumed), momentBits(straight));
    model.close();
  }
});

t.test("what another numerics version saved is continued only where other bits will do", async (t) => {
  const folder = t.testdir();
  const options = { optimizer: { learningRate: 0.01 } };
  const trainer = new Trainer(tied, { adapters: randomAdapters(tied, { roles }), ...options });
  await trainer.step(trajectoriesOf({ lengths: [20, 30], seed: 6 }, tied));
  await trainer.save(folder);
  const file = path.join(folder, "trainer.json");
  const state = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
  t.equal(state["numericsVersion"], numericsVersion);
  writeFileSync(file, JSON.stringify({ ...state, numericsVersion: 7000 }));
  await t.rejects(Trainer.resume(folder, tied, options), {
    code: "ERR_NUMERICS_VERSION",
    message: /trainer\.json of numerics version \d+ but received 7000/,
  });
  const resumed = await Trainer.resume(folder, tied, { ...options, allowOtherNumerics: true });
  t.equal(resumed.steps, 1);
  t.equal(adapterBits(resumed.adapters!), adapterBits(trainer.adapters!));
});

t.test("a second step of the same shape, or of a smaller one, allocates no backend memory", async (t) => {
  const adapters = randomAdapters(tied, { roles });
  const trainer = new Trainer(tied, { adapters, objective: { klCoefficient: 0.1 }, optimizer: { learningRate: 0.01 } });
  const batch = trajectoriesOf({ lengths: [40, 70, 3, 90], seed: 4 }, tied);
  await trainer.step(batch);
  const before = { ...trainer.native.memory(), blocks: native.memoryUse().allocations };
  for (const lengths of [
    [40, 70, 3, 90],
    [5, 90],
    [40, 70, 3, 90],
  ])
    await trainer.step(trajectoriesOf({ lengths, seed: 5 }, tied));
  t.strictSame({ ...trainer.native.memory(), blocks: native.memoryUse().allocations }, before);
  t.ok(before.arenaBytes > 0);
});
