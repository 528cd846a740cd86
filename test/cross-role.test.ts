// What the loss of one role gives the adapters of others: "flow", "stop", "exact", the leak matrix and gradients kept by role of the loss, for
// any number of roles and a rank for each adapter.
import t from "tap";
import { createAdapters, loadModel, Random, Trainer } from "rolegrad";
import type { Adapters, CrossRole, Model, Routes, TrainerOptions, Trajectory } from "rolegrad";
import {
  adapterBits,
  bits,
  checkpoints,
  gradients,
  modulesOf,
  momentBits,
  normals,
  onPolicy,
  randomRow,
  randomTrajectory,
  trainingBatch,
} from "./helpers/engine.js";
import { batchShapes, holds, type BatchShape } from "./helpers/properties.js";
import { refusals } from "./helpers/refused.js";

const { model, refused } = await refusals(checkpoints.tied);
const untied: Model = await loadModel(checkpoints.untied);
t.teardown(() => [model, untied].forEach((each) => each.close()));
const modes: CrossRole[] = ["flow", "stop", "exact"];
const optimizer = { learningRate: 0.01 };

/** Roles r0, r1, ... whose adapters have ranks 1, 4, 7, ... */
function rolesOf(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `r${i}`);
}

function adaptersOf(own: Model, count: number, routes?: Routes, seed = 1): Adapters {
  const roles = rolesOf(count);
  const names = routes === undefined ? roles : [...new Set(Object.values(routes).filter((name) => name !== null))];
  const each = (value: (i: number) => number) => Object.fromEntries(names.map((name, i) => [name, value(i)]));
  const adapters = createAdapters(own, {
    roles,
    ...(routes && { routes }),
    rank: each((i) => 1 + 3 * i),
    alpha: each((i) => 2 + i),
    rankPattern: { "layers.1.mlp.up_proj": 2 },
  });
  for (const name of names)
    for (const module of modulesOf(own)) {
      const { a, b } = adapters.get(name, module);
      adapters.set(name, module, { a, b: normals(new Random(seed, `${name}/${module}`), b.length, 0.1) });
    }
  return adapters;
}

function trajectoriesOf({ lengths, seed }: BatchShape, own: Model, count: number): Trajectory[] {
  const random = new Random(seed, "trajectories");
  return lengths.map((length, i) =>
    randomTrajectory(
      random,
      `q${i >> 1}#${i & 1}`,
      `q${i >> 1}`,
      randomRow(random, own.config.vocabSize, length, count),
    ),
  );
}

const make = (adapters: Adapters, options: Partial<TrainerOptions> = {}): Trainer =>
  new Trainer(adapters.model, { adapters, objective: { klCoefficient: 0.05 }, optimizer, ...options });

/** Every gradient of an adapter that a role's loss gave, one after another. */
function part(trainer: Trainer, adapter: string, lossRole: string): Float32Array {
  const pairs = modulesOf(trainer.model).map((module) => trainer.gradients.get(adapter, module, { lossRole }));
  return Float32Array.from(pairs.flatMap(({ a, b }) => [...a, ...b]));
}

const zero = (x: Float32Array): boolean => x.every((y) => y === 0);
const norm = (x: ArrayLike<number>): number => Math.hypot(...Array.from(x));

for (const count of [1, 3, 8]) {
  const shape: BatchShape = { lengths: [40, 70, 9, 130], seed: count };

  t.test(`${count} roles: each mode's gradient by its definition`, async (t) => {
    const adapters = adaptersOf(model, count);
    const batch = trainingBatch(await onPolicy(model, adapters, trajectoriesOf(shape, model, count)));
    const run = async (options: Partial<TrainerOptions>) => {
      const trainer = make(adapters, options);
      await trainer.accumulate(batch);
      return gradients(trainer);
    };
    const [flow, stop, exact] = await Promise.all(modes.map((crossRole) => run({ crossRole })));
    const sum = Object.fromEntries(adapters.names.map((name) => [name, new Float64Array(flow![name]!.length)]));
    for (const role of adapters.roles) {
      const own = await run({ lossRoles: [role] });
      for (const name of adapters.names) own[name]!.forEach((x, i) => (sum[name]![i]! += x));
      t.ok(norm(own[role]!) > 0, `${role} has a loss`);
      t.equal(bits(exact![role]!), bits(own[role]!), `exact: ${role} gets the gradient of its own loss, bit for bit`);
      const stopped = await run({ crossRole: "stop", lossRoles: [role] });
      t.equal(bits(stop![role]!), bits(stopped[role]!), `stop: no other loss adds a bit to ${role}`);
      t.ok(
        adapters.names.every((name) => name === role || zero(stopped[name]!)),
        `stop: the loss of ${role} leaves the others at zero`,
      );
      if (count > 1) t.not(bits(stop![role]!), bits(own[role]!), `${role}: stop is not exact`);
    }
    for (const name of adapters.names) {
      const worst = norm(flow![name]!.map((x, i) => x - sum[name]![i]!));
      t.ok(worst < 1e-5 * norm(flow![name]!), `flow: ${name} gets the sum over the roles, off by ${worst}`);
    }
  });

  t.test(`${count} roles: order and split of a batch change no bit of a step in any mode`, async (t) => {
    for (const crossRole of modes) {
      await holds(t, batchShapes, 3, async (value) => {
        const trajectories = trajectoriesOf(value, model, count);
        const random = new Random(value.seed, "order");
        const seen = new Set<string>();
        for (const microBatchTokens of [8192, 1]) {
          const adapters = adaptersOf(model, count);
          const trainer = make(adapters, { crossRole, microBatchTokens });
          await trainer.step(random.shuffle([...trajectories]));
          seen.add(`${adapterBits(adapters)} ${momentBits(trainer)}`);
        }
        return seen.size === 1;
      });
    }
  });

  t.test(`${count} roles: tracking keeps the parts of every adapter's gradient and changes no bit of it`, async (t) => {
    const trajectories = trajectoriesOf(shape, model, count);
    for (const crossRole of modes) {
      const states = [false, true].map(async (trackLossRoles) => {
        const adapters = adaptersOf(model, count);
        const trainer = make(adapters, { crossRole, trackLossRoles, microBatchTokens: 100 });
        for (let step = 0; step < 2; step++) await trainer.step(trajectories);
        return `${adapterBits(adapters)} ${momentBits(trainer)}`;
      });
      t.equal(...((await Promise.all(states)) as [string, string]), crossRole);

      const adapters = adaptersOf(model, count);
      const trainer = make(adapters, { crossRole, trackLossRoles: true });
      const batch = trainingBatch(trajectories);
      for (let i = 0; i < 2; i++) await trainer.accumulate(batch);
      const whole = gradients(trainer);
      for (const name of adapters.names) {
        const sum = new Float64Array(whole[name]!.length);
        let size = 0;
        for (const role of adapters.roles) {
          const own = part(trainer, name, role);
          own.forEach((x, i) => (sum[i]! += x));
          size += norm(own);
          if (crossRole !== "flow" && role !== name)
            t.ok(zero(own), `${crossRole}: the loss of ${role} gives ${name} 0`);
          if (role === name) t.ok(norm(own) > 0);
        }
        t.ok(norm(whole[name]!.map((x, i) => x - sum[i]!)) <= 1e-5 * size, `${crossRole}: the parts add up`);
      }
      trainer.gradients.zero();
      t.ok(
        adapters.roles.every((role) => adapters.names.every((name) => zero(part(trainer, name, role)))),
        "zero() empties the parts too",
      );
    }
  });
}

t.test("the leak matrix is that of the roles' own trainings, and leaves everything as it was", async (t) => {
  for (const own of [model, untied]) {
    const adapters = adaptersOf(own, 3);
    const trajectories = trajectoriesOf({ lengths: [50, 70, 30, 20], seed: 5 }, own, 3);
    const batch = trainingBatch(trajectories);
    const trainer = make(adapters, { crossRole: "stop", trackLossRoles: true, lossRoles: ["r1"] });
    await trainer.step(trajectories);
    await trainer.accumulate(batch);
    const state = () =>
      [
        adapterBits(adapters),
        momentBits(trainer),
        bits(...Object.values(gradients(trainer))),
        bits(...adapters.roles.flatMap((role) => adapters.names.map((name) => part(trainer, name, role)))),
      ].join();
    const before = state();
    for (const crossRole of modes) {
      const leak = await trainer.leakMatrix(batch, { crossRole });
      t.equal(leak.crossRole, crossRole);
      const of: Record<string, Record<string, Float32Array>> = {};
      for (const role of adapters.roles) {
        const alone = make(adapters, { crossRole, lossRoles: [role] });
        const { tokens } = await alone.accumulate(batch);
        t.equal(leak.tokens[role], tokens);
        of[role] = gradients(alone);
      }
      for (const role of adapters.roles)
        for (const name of adapters.names) {
          const [got, cosine] = [leak.norms[role]![name]!, leak.cosines[role]![name]!];
          const [a, b] = [of[role]![name]!, of[name]![name]!];
          if (crossRole !== "flow" && role !== name) {
            t.equal(got, 0, `${crossRole}: the loss of ${role} gives ${name} exactly 0`);
            t.equal(cosine, null);
            continue;
          }
          t.ok(got > 0 && Math.abs(got / norm(a) - 1) < 1e-6, `${crossRole}: |d loss ${role} / d ${name}|`);
          const want = a.reduce((sum, x, i) => sum + x * b[i]!, 0) / norm(a) / norm(b);
          t.ok(Math.abs(cosine - want) < 1e-6, `${crossRole}: its cosine ${cosine}`);
          if (role === name) t.ok(cosine <= 1 && cosine > 1 - 1e-12);
        }
    }
    t.equal(state(), before);
  }
});

t.test("the leak of trajectories does not depend on their order and split", async (t) => {
  const adapters = adaptersOf(model, 3);
  const trajectories = trajectoriesOf({ lengths: [50, 70, 30, 20], seed: 6 }, model, 3);
  const [one, two] = await Promise.all([
    make(adapters).leakMatrix(trajectories),
    make(adapters, { microBatchTokens: 1 }).leakMatrix(trajectories.slice().reverse()),
  ]);
  t.strictSame(two, one);
  t.ok(one.norms["r2"]!["r0"]! > 0);
  const flat = trajectories.map((x) => ({ ...x, reward: 1 }));
  const nothing = await make(adapters, { objective: {} }).leakMatrix(flat);
  t.strictSame(nothing.tokens, { r0: 0, r1: 0, r2: 0 }, "equal rewards teach nothing");
  t.strictSame([nothing.norms["r1"]!["r0"], nothing.cosines["r1"]!["r1"]], [0, null]);
});

t.test("roles that share an adapter give it the sum of their losses; a role without one gives nothing", async (t) => {
  const routes = { r0: "both", r1: "own", r2: "both", r3: null };
  const adapters = adaptersOf(model, 4, routes);
  const batch = trainingBatch(trajectoriesOf({ lengths: [60, 90, 30, 20], seed: 7 }, model, 4));
  const run = async (options: Partial<TrainerOptions>) => {
    const trainer = make(adapters, options);
    await trainer.accumulate(batch);
    return gradients(trainer);
  };
  const exact = await run({ crossRole: "exact" });
  const [shared, own, lost] = [
    await run({ lossRoles: ["r0", "r2"] }),
    await run({ lossRoles: ["r1"] }),
    await run({ lossRoles: ["r3"] }),
  ];
  t.equal(bits(exact["both"]!), bits(shared["both"]!));
  t.equal(bits(exact["own"]!), bits(own["own"]!));
  t.ok(norm(lost["both"]!) > 0, "under flow the loss of the backbone's role reaches adapters");
  for (const crossRole of ["stop", "exact"] as const) {
    const none = await run({ crossRole, lossRoles: ["r3"] });
    t.ok(zero(none["both"]!) && zero(none["own"]!), crossRole);
  }
  const one = await run({ crossRole: "exact", lossRoles: ["r1"] });
  t.ok(zero(one["both"]!), "a loss of some roles is exact for those");
  t.equal(bits(one["own"]!), bits(own["own"]!));

  const single = Object.fromEntries(rolesOf(3).map((role) => [role, "one"]));
  const alone = adaptersOf(model, 3, single);
  const rows = trainingBatch(trajectoriesOf({ lengths: [60, 90], seed: 8 }, model, 3));
  const [flow, same] = await Promise.all(
    (["flow", "exact"] as const).map(async (crossRole) => {
      const trainer = make(alone, { crossRole });
      await trainer.accumulate(rows);
      return bits(...Object.values(gradients(trainer)));
    }),
  );
  t.equal(same, flow, "with one adapter for all roles, exact is flow bit for bit");

  for (const crossRole of ["stop", "exact"] as const) {
    const trainer = make(adapters, { crossRole, trackLossRoles: true });
    await trainer.accumulate(batch);
    const whole = gradients(trainer)["both"]!;
    const parts = [part(trainer, "both", "r0"), part(trainer, "both", "r2")] as const;
    t.ok(
      norm(whole.map((x, i) => x - parts[0][i]! - parts[1][i]!)) < 1e-5 * norm(whole),
      `${crossRole}: the parts add up`,
    );
    t.ok(norm(parts[0]) > 0 && norm(parts[1]) > 0);
    t.ok(zero(part(trainer, "both", "r1")) && zero(part(trainer, "own", "r3")));
  }
});

t.test("the gradient of one role's loss is refused where it is not kept", async (t) => {
  const adapters = adaptersOf(model, 3, { r0: "both", r1: "own", r2: "both" });
  const batch = trainingBatch(trajectoriesOf({ lengths: [30, 40], seed: 9 }, model, 3));
  const [module] = modulesOf(model) as [string];
  for (const crossRole of modes) {
    const trainer = make(adapters, { crossRole });
    await trainer.accumulate(batch);
    const get = (adapter: string, lossRole: string) => () => trainer.gradients.get(adapter, module, { lossRole });
    await refused(t, get("both", "r0"), "ERR_NOT_KEPT", "trackLossRoles", crossRole);
    await refused(t, get("own", "think"), "ERR_NO_ROLE", "think");
    if (crossRole === "exact") {
      t.strictSame(
        get("own", "r1")(),
        trainer.gradients.get("own", module),
        "exact keeps it for an adapter of one role",
      );
      t.ok(zero(get("own", "r0")().a));
    } else {
      await refused(t, get("own", "r1"), "ERR_NOT_KEPT", "trackLossRoles");
    }
  }
  const own = await loadModel(checkpoints.tied, { dtype: "float32" });
  const full = new Trainer(own, { full: true, optimizer, roles: rolesOf(3) });
  const part = () => full.gradients.get("model.norm.weight", "", { lossRole: "r0" });
  await refused(t, part, "ERR_NOT_KEPT", "full training");
  await refused(t, full.leakMatrix(batch), "ERR_INVALID_ARGUMENT", "adapters");
  own.close();
});

t.test("numbers beyond f32 in an adapter change no bit of another's gradient", async (t) => {
  // Sequence 1 alone runs adapter r1, and nothing of it is trained: whatever comes out there stays there.
  const rows = trajectoriesOf({ lengths: [40, 30, 50], seed: 10 }, model, 1).map((x, i) =>
    i === 1 ? { ...x, roles: x.roles.map(() => 1), sampled: x.sampled.map(() => 0) } : x,
  );
  const batch = trainingBatch(rows);
  for (const crossRole of modes) {
    const seen = [1, 1e38].map(async (size) => {
      const adapters = adaptersOf(model, 2);
      for (const module of modulesOf(model)) {
        const { a, b } = adapters.get("r1", module);
        adapters.set("r1", module, { a: a.map((x) => x * size), b: b.map((x) => x * size) });
      }
      const trainer = make(adapters, { crossRole });
      await trainer.accumulate(batch);
      const { logprobs } = await model.forward(batch, { adapters });
      return { own: gradients(trainer), finite: logprobs.every(Number.isFinite) };
    });
    const [plain, wild] = await Promise.all(seen);
    t.ok(plain!.finite && !wild!.finite, "the other adapter's tokens are not finite");
    t.ok(norm(plain!.own["r0"]!) > 0);
    t.equal(bits(wild!.own["r0"]!), bits(plain!.own["r0"]!), crossRole);
  }
});

t.test("one forward pass and the memory of one backward pass serve all roles", async (t) => {
  const batch = trainingBatch(trajectoriesOf({ lengths: [120, 120, 120], seed: 11 }, model, 8));
  const used: number[] = [];
  for (const crossRole of modes) {
    const trainer = make(adaptersOf(model, 8), { crossRole });
    for (let i = 0; i < 3; i++) await trainer.accumulate(batch); // the second pass brings the first one's blocks together
    used.push(trainer.native.memory().arenaBytes);
  }
  t.ok(used[2]! < 1.1 * used[0]!, `flow ${used[0]}, stop ${used[1]}, exact ${used[2]} bytes`);
});

t.test("what accumulate() left is neither lost nor mixed into a step or a checkpoint", async (t) => {
  const trajectories = trajectoriesOf({ lengths: [30, 40], seed: 12 }, model, 2);
  const trainer = make(adaptersOf(model, 2));
  const directory = t.testdir();
  await trainer.accumulate(trainingBatch(trajectories));
  const before = bits(...Object.values(gradients(trainer)));
  await refused(t, trainer.step(trajectories), "ERR_GRADIENTS_PENDING", "step()", "gradients.zero()");
  await refused(t, trainer.save(directory), "ERR_GRADIENTS_PENDING", "save()");
  t.equal(bits(...Object.values(gradients(trainer))), before);
  trainer.gradients.zero();
  t.equal((await trainer.step(trajectories)).step, 1);
  await trainer.accumulate(trainingBatch(trajectories));
  await trainer.apply();
  t.equal((await trainer.step(trajectories)).step, 3);
  await trainer.save(directory);
  await refused(t, trainer.accumulate({ ...trainingBatch(trajectories), roles: new Int8Array(3) }), "ERR_SHAPE");
  t.equal((await trainer.step(trajectories)).step, 4, "a batch that was refused left nothing");
});
