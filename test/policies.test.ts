// Policies of several writers (hybrids, an agent a role), the placebo of routing, and one adapter kept: what is sampled has the log-probabilities of
// who wrote it, and training starts from exactly there.
import path from "node:path";
import t from "tap";
import { loadModel, parseTrajectory, ReplayEnvironment, Rollout, serializeTrajectory, Trainer } from "rolegrad";
import type { Adapters, Model, RolloutOptions, Trajectory, Writer } from "rolegrad";
import { checkpoints, randomAdapters } from "./helpers/engine.js";
import { outcome, questions, roles, shortRollouts, writeToyModel } from "./helpers/toy.js";

const directory = t.testdir();
const folders = ["a", "b"].map((name) => path.join(directory, name));
for (const [i, folder] of folders.entries()) await writeToyModel(folder, { seed: i + 1 });
const [first, second] = (await Promise.all(folders.map((folder) => loadModel(folder)))) as [Model, Model];
t.teardown(() => [first, second].forEach((model) => model.close()));

const collect = (model: Model, options: Partial<RolloutOptions>) =>
  new Rollout(model, { ...shortRollouts, group: 6, ...options }).collect(questions);

/** log p of every token under a writer that has read everything, by `routing` where there is one. */
async function logprobs({ model, adapters }: Writer, { ids, roles, routing }: Trajectory): Promise<Float32Array> {
  const cuSeqlens = Int32Array.of(0, ids.length);
  const input = { inputIds: ids, cuSeqlens, ...(adapters && { roles: routing ?? roles }) };
  return (await model.forward(input, adapters && { adapters })).logprobs;
}

/** Sampled tokens of a role, and how many have the log-probability that `writer` gives. */
async function agreement(writer: Writer, trajectories: Trajectory[], role: number): Promise<[number, number]> {
  let all = 0;
  let equal = 0;
  for (const x of trajectories) {
    const want = await logprobs(writer, x);
    x.ids.forEach((_, i) => {
      if (x.sampled[i] !== 1 || x.roles[i - 1] !== role) return;
      all++;
      if (want[i] === x.logprobs[i]) equal++;
    });
  }
  return [all, equal];
}

const sampledBy = (trajectories: Trajectory[], role: number): number =>
  trajectories.reduce((n, x) => n + x.sampled.filter((on, i) => on === 1 && x.roles[i - 1] === role).length, 0);

const routed = randomAdapters(first, { roles });
const shared = randomAdapters(second, { roles, routes: { reason: "shared", tool: "shared" } });

for (const [name, own, tool] of [
  ["of two models", { model: first }, { model: second }],
  ["of two models with adapters", { model: first, adapters: routed }, { model: second, adapters: shared }],
  ["of one model with and without an adapter", { model: second }, { model: second, adapters: shared }],
] satisfies [string, Writer, Writer][]) {
  t.test(`a hybrid ${name}: each role's text is its writer's, who has read the whole history`, async (t) => {
    const { model, ...rest } = own;
    const trajectories = await collect(model, { ...rest, writers: { tool } });
    for (const [role, writer] of [own, tool].entries()) {
      const [all, equal] = await agreement(writer, trajectories, role);
      t.ok(all > 40, `${all} tokens of role ${role}`);
      t.equal(equal, all);
      const [, others] = await agreement([tool, own][role]!, trajectories, role);
      t.ok(others < all / 10, "the other's are others");
    }
    const alone = await collect(model, { ...rest, writers: { tool }, concurrency: 1, cacheTokens: 130, chunk: 7 });
    t.strictSame(trajectories.map(outcome), alone.map(outcome), "in any batch and memory");
  });
}

t.test("a hybrid with one cache: of one model it is routing; of two, each position is its writer's", async (t) => {
  const kept = routed.withRoutes({ reason: "reason", tool: null });
  const other = routed.withRoutes({ reason: null, tool: "tool" });
  const want = await collect(first, { adapters: routed });
  const got = await collect(first, {
    adapters: kept,
    writers: { tool: { model: first, adapters: other } },
    kv: "shared",
  });
  t.strictSame(got.map(outcome), want.map(outcome));

  const two = await collect(first, { writers: { tool: { model: second } }, kv: "shared" });
  const again = await collect(first, {
    writers: { tool: { model: second } },
    kv: "shared",
    concurrency: 2,
    cacheTokens: 150,
    chunk: 5,
  });
  t.strictSame(two.map(outcome), again.map(outcome), "in any batch and memory");
  const [all, equal] = await agreement({ model: second }, two, 1);
  t.ok(all > 40 && equal < all / 10, "the tool's model reads the other's keys, not its own");
  const before = (x: Trajectory): number => x.roles.indexOf(1);
  for (const x of two.filter((own) => before(own) > 0)) {
    const alone = await logprobs({ model: first }, x);
    t.strictSame(
      x.logprobs.slice(0, before(x) + 1).filter((_, i) => x.sampled[i]),
      alone.slice(0, before(x) + 1).filter((_, i) => x.sampled[i]),
      "up to the first call the first model is alone",
    );
  }
});

t.test("two agents: each model trains on its own role's text and begins exactly on policy", async (t) => {
  const [a, b] = (await Promise.all(folders.map((folder) => loadModel(folder, { dtype: "float32" })))) as [
    Model,
    Model,
  ];
  t.teardown(() => [a, b].forEach((model) => model.close()));
  const options = { full: true as const, roles, optimizer: { learningRate: 1e-3 } };
  const trainers = [
    new Trainer(a, { ...options, lossRoles: ["reason"] }),
    new Trainer(b, { ...options, lossRoles: ["tool"] }),
  ] as const;
  const rollout = new Rollout(a, { ...shortRollouts, group: 6, writers: { tool: { model: b } } });
  for (let step = 0; step < 2; step++) {
    const trajectories = await rollout.collect(questions, { step });
    t.ok(sampledBy(trajectories, 0) > 40 && sampledBy(trajectories, 1) > 40);
    for (const trainer of trainers) {
      const { maxRatioDeviation, gradNorms } = await trainer.step(trajectories);
      t.equal(maxRatioDeviation, 0);
      t.ok(gradNorms["full"]! > 0);
    }
  }
  const running = rollout.run(questions);
  await running.next();
  for (const trainer of trainers)
    await t.rejects(trainer.step(await collect(a, {})), { code: "ERR_BUSY" }, "both models are held by a rollout");
  await running.return();
});

t.test("the placebo: routes are shuffled by span, training follows them, and adapters get as many spans", async (t) => {
  const trajectories = await collect(first, { adapters: routed, shuffleRoutes: true, group: 24 });
  const [all, equal] = await agreement({ model: first, adapters: routed }, trajectories, 1);
  t.ok(all > 40);
  t.equal(equal, all);
  const moved = trajectories.filter(({ roles, routing }) => roles.some((role, i) => routing![i] !== role));
  t.ok(moved.length > trajectories.length / 4 && moved.length < trajectories.length);
  for (const x of trajectories) {
    const prompt = x.sampled.indexOf(1);
    t.ok(x.routing!.subarray(0, prompt).every((role) => role === 0));
    const starts = Array.from(x.roles.keys()).filter(
      (i) => i >= prompt && (i === prompt || x.roles[i] !== x.roles[i - 1]),
    );
    for (let k = 0; k + 1 < starts.length; k += 2)
      t.equal(x.routing![starts[k]!]! + x.routing![starts[k + 1]!]!, 1, "of a pair of spans one is the tool's");
    t.strictSame(parseTrajectory(serializeTrajectory(x)), x);
  }
  const trainer = (adapters: Adapters) =>
    new Trainer(first, { adapters, objective: { klCoefficient: 0.01 }, optimizer: { learningRate: 1e-3 } });
  const { maxRatioDeviation } = await trainer(routed).step(trajectories);
  t.equal(maxRatioDeviation, 0);
  const fresh = randomAdapters(first, { roles });
  const plain = trajectories.map(({ routing: _, ...rest }) => rest);
  t.ok((await trainer(fresh).step(plain)).maxRatioDeviation > 0, "by the roles' own routes it is another policy");
  t.throws(() => parseTrajectory(serializeTrajectory({ ...trajectories[0]!, routing: new Int8Array(1) })), {
    code: "ERR_TRAJECTORY",
  });
  await t.rejects(trainer(fresh).step([{ ...trajectories[0]!, routing: new Int8Array(1) }]), { code: "ERR_SHAPE" });
});

t.test("one adapter kept: the other role is the model's own, in the text that the kept one wrote", async (t) => {
  const kept = routed.withRoutes({ reason: null, tool: "tool" });
  const trajectories = await collect(first, { adapters: kept });
  for (const role of [0, 1]) {
    const [all, equal] = await agreement({ model: first, adapters: kept }, trajectories, role);
    t.equal(equal, all);
  }
  const recorded = await collect(first, {});
  const replayed = await collect(first, {
    adapters: routed,
    environment: new ReplayEnvironment(recorded, { match: "order" }),
  });
  const served = new Set(recorded.flatMap(({ calls }) => calls.map(({ result }) => result)));
  t.ok(replayed.some(({ calls }) => calls.length > 0));
  t.ok(
    replayed.every(({ calls }) => calls.every(({ result, error }) => error !== undefined || served.has(result))),
    "fixed retrieval serves what was recorded",
  );
});

t.test("writers that do not fit are refused by name", async (t) => {
  const other = await loadModel(checkpoints.untied);
  t.teardown(() => other.close());
  const make = (options: Partial<RolloutOptions>) => new Rollout(first, { ...shortRollouts, ...options });
  t.throws(() => make({ writers: { plan: { model: second } } }), {
    code: "ERR_NO_ROLE",
    message: /reason, tool.*plan/,
  });
  t.throws(() => make({ writers: { tool: {} as Writer } }), {
    code: "ERR_INVALID_ARGUMENT",
    message: /writers\.tool\.model/,
  });
  t.throws(() => make({ kv: "one" as "shared" }), { code: "ERR_INVALID_ARGUMENT", message: /kv/ });
  t.throws(() => make({ shuffleRoutes: 1 as never }), { code: "ERR_INVALID_ARGUMENT", message: /shuffleRoutes/ });
  const run = (options: Partial<RolloutOptions>) => make(options).collect(questions);
  await t.rejects(run({ writers: { tool: { model: other } } }), { code: "ERR_WRITERS", message: /vocabulary/ });
  await t.rejects(
    run({ writers: { tool: { model: second, adapters: routed } } }),
    { code: /ERR_/ },
    "of another model",
  );
  const closed = await loadModel(folders[1]!);
  closed.close();
  await t.rejects(run({ writers: { tool: { model: closed } } }), { code: "ERR_MODEL_CLOSED" });
  const reference = await loadModel(folders[1]!, { device: "cpu-reference" });
  t.teardown(() => reference.close());
  for (const kv of ["separate", "shared"] as const)
    await t.rejects(run({ writers: { tool: { model: reference } }, kv }), { code: "ERR_WRITERS", message: /device/ });
  const deep = path.join(directory, "deep");
  await writeToyModel(deep, { sizes: { layers: 3 } });
  const three = await loadModel(deep);
  await t.rejects(run({ writers: { tool: { model: three } }, kv: "shared" }), {
    code: "ERR_WRITERS",
    message: /layers/,
  });
  t.equal((await run({ writers: { tool: { model: three } } })).length, 12, "with caches of their own they may differ");
  const running = make({ writers: { tool: { model: three } } }).run(questions);
  await running.next();
  three.close();
  await t.rejects(
    running
      .next()
      .then(() => running.next())
      .then(() => running.next())
      .then(async () => {
        for await (const _ of running);
      }),
    { code: /ERR_MODEL_CLOSED|ERR_CLOSED/ },
  );
  t.equal((await run({})).length, 12, "and the process works on");
});
