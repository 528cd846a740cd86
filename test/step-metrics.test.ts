// What a step says of adapters, roles and tools, against slow references: values read before and after, two forward passes, sums by hand.
import t from "tap";
import {
  createAdapters,
  loadModel,
  managedTool,
  Random,
  ToolError,
  Trainer,
  trainRun,
  WORLD_CHECKPOINT,
  type Adapters,
  type Model,
  type Objective,
  type StepMetrics,
  type TrainerOptions,
  type Trajectory,
} from "rolegrad";
import { adapterBits, checkpoints, modulesOf, onPolicy, pack, randomAdapters } from "./helpers/engine.js";
import { trajectoriesOf } from "./helpers/properties.js";
import { temporary, worldRollout, worldSetup } from "./helpers/world.js";

const model = await loadModel(checkpoints.tied);
t.teardown(() => model.close());
const roles = ["reason", "tool"];
const shape = { lengths: [30, 25, 40, 33, 21, 8], seed: 6 };
const trajectories = trajectoriesOf(shape, model);
const optimizer = { learningRate: 0.01, weightDecay: 0.1, maxGradNorm: 0.5 };

function make(options: Partial<TrainerOptions> = {}): Trainer {
  return new Trainer(model, { adapters: randomAdapters(model, { roles }), optimizer, ...options });
}

const values = (adapters: Adapters, name: string): number[] =>
  modulesOf(model).flatMap((module) => {
    const { a, b } = adapters.get(name, module);
    return [...a, ...b];
  });
const norm = (x: readonly number[]): number => Math.sqrt(x.reduce((sum, y) => sum + y * y, 0));
const less = (x: readonly number[], y: readonly number[]): number[] => x.map((value, i) => value - y[i]!);
const near = (x: number, y: number, within = 1e-12): boolean => Math.abs(x - y) <= within * Math.max(1e-6, Math.abs(y));

// ---- adapters

t.test("an adapter's update norm is the distance that its values moved, in f64", async (t) => {
  for (const crossRole of ["flow", "exact"] as const) {
    const trainer = make({ crossRole });
    const { adapters } = trainer;
    for (let step = 0; step < 2; step++) {
      const before = roles.map((role) => values(adapters!, role));
      const metrics = await trainer.step(trajectories);
      roles.forEach((role, i) => {
        const own = metrics.adapters[role]!;
        const after = values(adapters!, role);
        t.ok(own.updateNorm > 0 && near(own.updateNorm, norm(less(after, before[i]!))), `${role}: ${own.updateNorm}`);
        t.ok(near(own.norm, norm(after)), `${role}: ${own.norm}`);
        t.equal(own.gradNorm, metrics.gradNorms[role]);
      });
    }
  }
});

t.test(
  "with trackLossRoles each role's gradient norm is logged apart, of shared adapters too, and changes no bit",
  async (t) => {
    const shared = { reason: "shared", tool: "shared" };
    for (const crossRole of ["flow", "stop", "exact"] as const) {
      for (const routes of [undefined, shared]) {
        const own = () => randomAdapters(model, { roles, ...(routes && { routes }) });
        const [plain, tracking] = [false, true].map((trackLossRoles) =>
          make({ adapters: own(), crossRole, trackLossRoles }),
        );
        const leak = await tracking!.leakMatrix(trajectories, { crossRole });
        const metrics = await tracking!.step(trajectories);
        for (const role of roles) {
          const want = norm(Object.values(leak.norms[role]!));
          t.ok(want > 0 && near(metrics.roles[role]!.gradNorm!, want, 1e-6), `${crossRole} ${role}: ${want}`);
        }
        const { roles: _, ...rest } = metrics;
        const { roles: without, ...same } = await plain!.step(trajectories);
        t.strictSame(rest, same);
        t.notOk("gradNorm" in without["reason"]!);
      }
    }
  },
);

t.test("over several updates it is the mean of theirs, and at a rate of 0 it is 0", async (t) => {
  const once = make();
  const first = await once.step(trajectories);
  const second = await once.step(trajectories);
  const twice = await make().step(trajectories, { epochs: 2 });
  for (const role of roles) {
    const mean = (first.adapters[role]!.updateNorm + second.adapters[role]!.updateNorm) / 2;
    t.ok(near(twice.adapters[role]!.updateNorm, mean));
    t.equal(twice.adapters[role]!.norm, second.adapters[role]!.norm);
  }
  const { adapters } = await make({ optimizer: { learningRate: 0 } }).step(trajectories);
  t.ok(adapters["reason"]!.gradNorm > 0 && adapters["reason"]!.updateNorm === 0);
});

t.test("rows of trained tokens and the parameters of full training are measured too", async (t) => {
  const tokens = createAdapters(model, { roles, rank: 3, alpha: 6, seed: 1, trainableTokens: [5, 9] });
  const rows = (): number[] => [5, 9].flatMap((token) => [...tokens.getToken(token).embedding]);
  const before = rows();
  const { adapters } = await make({ adapters: tokens }).step(trajectories);
  t.ok(near(adapters["tokens"]!.updateNorm, norm(less(rows(), before))));
  t.same(Object.keys(adapters), ["reason", "tool", "tokens"]);

  for (const directory of [checkpoints.tied, checkpoints.untied]) {
    const own = await loadModel(directory, { dtype: "float32" });
    const trainer = new Trainer(own, { full: true, roles, optimizer });
    const all = (): number[] => trainer.parameters().flatMap(({ name }) => [...trainer.parameter(name)]);
    const old = all();
    const list = trajectoriesOf(shape, own);
    await trainer.accumulate(batchOf(list));
    const norms = trainer.gradients.norms();
    t.ok(norms["full"]! > 0, "norms() knows full training");
    trainer.gradients.zero();
    const metrics = await trainer.step(list);
    t.ok(near(metrics.adapters["full"]!.updateNorm, norm(less(all(), old))), `${metrics.adapters["full"]!.updateNorm}`);
    t.ok(near(metrics.adapters["full"]!.norm, norm(all())));
    t.same(Object.keys(metrics.roles), roles);
    own.close();
  }
});

function batchOf(list: readonly Trajectory[]) {
  return {
    ...pack(list),
    lossMask: Uint8Array.from(list.flatMap(({ sampled }) => [...sampled])),
    advantages: Float64Array.from(list, ({ reward }) => reward - 1.7),
    oldLogprobs: Float32Array.from(list.flatMap(({ logprobs }) => [...logprobs])),
  };
}

// ---- KL to the start

/** Mean k3 by role, from a forward pass with the adapters and one without. */
async function klOf(adapters: Adapters, list: readonly Trajectory[]): Promise<Record<string, number>> {
  const packed = pack(list);
  const { logprobs: own } = await model.forward(packed, { adapters });
  const { logprobs: ref } = await model.forward(packed);
  const sums: Record<string, number[]> = { all: [], reason: [], tool: [] };
  let at = 0;
  for (const { ids, sampled, roles: of } of list) {
    for (let i = 1; i < ids.length; i++) {
      if (sampled[i] === 0) continue;
      const d = ref[at + i]! - own[at + i]!;
      const k3 = Math.exp(d) - d - 1;
      sums["all"]!.push(k3);
      sums[roles[of[i - 1]!]!]!.push(k3);
    }
    at += ids.length;
  }
  const mean = (x: number[]): number => x.reduce((a, b) => a + b, 0) / x.length;
  return Object.fromEntries(Object.entries(sums).map(([name, list]) => [name, mean(list)]));
}

t.test("the KL to the start is that of two forward passes, by role, where the objective has none too", async (t) => {
  const adapters = randomAdapters(model, { roles });
  const sampled = await onPolicy(model, adapters, trajectories);
  const wanted = await klOf(adapters, sampled);
  for (const klCoefficient of [0, 0.1]) {
    const trainer = make({ adapters: randomAdapters(model, { roles }), objective: { klCoefficient }, logKl: true });
    const { klToStart, roles: by, kl } = await trainer.step(sampled);
    t.ok(near(klToStart!, wanted["all"]!, 1e-9), `${klToStart} ${wanted["all"]}`);
    for (const role of roles) t.ok(near(by[role]!.kl!, wanted[role]!, 1e-9), `${role}: ${by[role]!.kl}`);
    t.equal(kl > 0, klCoefficient > 0);
  }
  const { klToStart, roles: by } = await make().step(sampled);
  t.equal(klToStart, undefined, "it is not paid for where nobody asks");
  t.notOk("kl" in by["tool"]!);
});

t.test("new adapters are at the start: 0", async (t) => {
  const adapters = createAdapters(model, { roles, rank: 3, alpha: 6, seed: 1 });
  const sampled = await onPolicy(model, adapters, trajectories);
  t.match(await make({ adapters, logKl: true }).step(sampled), {
    klToStart: 0,
    roles: { reason: { kl: 0 }, tool: { kl: 0 } },
  });
});

t.test("measuring it changes no bit of the training, wherever the KL counts", async (t) => {
  const objectives: Objective[] = [
    {},
    { klCoefficient: 0.1 },
    { klCoefficient: 0.1, klPlacement: "reward" },
    { klCoefficient: 0.1, importance: { cap: 2 } },
  ];
  for (const objective of objectives) {
    const states = await Promise.all(
      [false, true].map(async (logKl) => {
        const adapters = randomAdapters(model, { roles });
        const own = { adapters, objective, logKl, microBatchTokens: 50 };
        const { klToStart: _kl, roles: _roles, ...metrics } = await make(own).step(trajectories, { epochs: 2 });
        return [adapterBits(adapters), JSON.stringify(metrics)];
      }),
    );
    t.same(states[1], states[0], JSON.stringify(objective));
  }
});

t.test("full training measures it to its reference, and must have one", async (t) => {
  const own = await loadModel(checkpoints.tied, { dtype: "float32" });
  t.teardown(() => own.close());
  t.throws(() => new Trainer(own, { full: true, optimizer, logKl: true }), { code: "ERR_REFERENCE" });
  const trainer = new Trainer(own, { full: true, roles, reference: model, optimizer, logKl: true });
  const { logprobs } = await own.forward(pack(trajectories));
  let at = 0;
  const sampled = trajectories.map((x) => ({ ...x, logprobs: logprobs.slice(at, (at += x.ids.length)) }));
  const first = await trainer.step(sampled);
  t.ok(first.klToStart! < 1e-9, `${first.klToStart}`);
});

// ---- roles

t.test("loss, clipping and tokens by role add up to those of the step", async (t) => {
  const objectives: Objective[] = [
    { clipLow: 0.1, clipHigh: 0.3 },
    { ratio: "sequence", aggregation: "seq-mean-token-mean", clipLow: 0.01 },
    { klCoefficient: 0.05, dualClip: 3 },
    { kind: "sft" },
  ];
  const random = new Random(4, "off policy");
  const adapters = randomAdapters(model, { roles });
  const near1 = (await onPolicy(model, adapters, trajectories)).map((x) => ({
    ...x,
    logprobs: x.logprobs.map((y, i) => (x.sampled[i] === 1 ? y + (random.next() - 0.5) : 0)),
  }));
  for (const objective of objectives) {
    const metrics = await make({ adapters: randomAdapters(model, { roles }), objective }).step(near1);
    const sum = (value: (role: StepMetrics["roles"][string]) => number) =>
      roles.reduce((total, role) => total + value(metrics.roles[role]!), 0);
    const what = JSON.stringify(objective);
    t.ok(
      near(
        sum(({ loss }) => loss),
        metrics.loss,
        1e-5,
      ),
      `${what}: ${metrics.loss}`,
    );
    t.ok(
      near(
        sum(({ lossShare }) => lossShare!),
        1,
      ),
      what,
    );
    for (const role of roles) t.equal(metrics.roles[role]!.tokens, metrics.sampledTokens[role]);
    if (objective.kind === "sft") {
      t.equal(metrics.roles["tool"]!.taught, metrics.sampledTokens["tool"], "all is taught");
      continue;
    }
    if (objective.aggregation !== undefined) continue;
    const tokens = sum(({ tokens: own }) => own);
    const high = sum(({ clipHigh, tokens: own }) => clipHigh! * own) / tokens;
    const low = sum(({ clipLow, tokens: own }) => clipLow! * own) / tokens;
    t.ok(metrics.clipHigh > 0 && metrics.clipLow > 0, "something is clipped");
    t.ok(near(high, metrics.clipHigh) && near(low, metrics.clipLow), `${what}: ${high} ${metrics.clipHigh}`);
  }
});

t.test("a sequence's ratio clips all of its tokens, of whatever role", async (t) => {
  const adapters = randomAdapters(model, { roles });
  const sampled = await onPolicy(model, adapters, trajectories.slice(0, 2));
  const [good, bad] = [1, 0];
  const moved = sampled.map((x, i) => ({ ...x, reward: i === 0 ? good : bad, logprobs: x.logprobs.map((y) => y - 1) }));
  const objective: Objective = { ratio: "sequence" };
  const { roles: by } = await make({ adapters, objective }).step(moved);
  const counts = roles.map((_, r) =>
    moved.map(({ sampled: s, roles: of }) => s.filter((x, i) => i > 0 && x === 1 && of[i - 1] === r).length),
  );
  roles.forEach((role, r) => {
    const [first = 0, second = 0] = counts[r]!;
    t.ok(near(by[role]!.clipHigh!, first / (first + second)), role);
    t.equal(by[role]!.clipLow, 0);
  });
});

t.test("what is said of roles does not depend on micro-batches or the order of trajectories", async (t) => {
  const seen = new Set<string>();
  for (const microBatchTokens of [8192, 60, 1]) {
    const trainer = make({ microBatchTokens, logKl: true });
    const list = new Random(microBatchTokens, "order").shuffle([...trajectories]);
    const { roles: by, adapters, klToStart } = await trainer.step(list);
    seen.add(JSON.stringify({ by, adapters, klToStart }));
  }
  t.equal(seen.size, 1);
});

t.test("only tokens of trained roles with an advantage are taught", async (t) => {
  const equal = trajectories.map((x) => ({ ...x, reward: x.group === "q0" ? x.reward : 1 }));
  const { roles: by, sampledTokens } = await make({ lossRoles: ["tool"] }).step(equal);
  t.equal(by["reason"]!.taught, 0);
  t.ok(by["tool"]!.taught > 0 && by["tool"]!.taught < sampledTokens["tool"]!);
});

// ---- tools

t.test("a run says of each step what its tools did, not of all steps together", async (t) => {
  const world: Model = await loadModel(WORLD_CHECKPOINT);
  t.teardown(() => world.close());
  const rollout = worldRollout();
  const asked = new Set<string>();
  const flaky = managedTool(
    {
      act: async (call, options) => {
        // Each call once.
        const key = `${call.trajectory.id} ${call.trajectory.calls.length}`;
        if (!asked.has(key) && asked.add(key)) throw new ToolError("ERR_SERVER", "busy", { retryable: true });
        return rollout.environment.act(call, options);
      },
    },
    { retries: 3, concurrency: 1, backoff: { firstMs: 1, jitter: 0 }, cache: {} },
  );
  const setup = worldSetup(world, temporary(), { rollout: { ...rollout, environment: flaky }, steps: 3 });
  const { metrics } = await trainRun(setup);
  const stats = flaky.stats();
  const total = (value: "calls" | "retries" | "cacheHits"): number =>
    metrics.reduce((sum, { tools }) => sum + tools!["tool"]![value], 0);
  t.ok(metrics.every(({ tools, searches, trajectories: n }) => near(tools!["tool"]!.calls, searches * n)));
  t.equal(total("calls"), stats.calls);
  t.equal(total("retries"), stats.retries);
  t.equal(total("cacheHits"), stats.hits + stats.shared);
  t.ok(stats.retries > 0 && metrics.every(({ tools }) => tools!["tool"]!.errors === 0));

  const broken = { act: () => Promise.reject(new Error("down")) };
  const down = await trainRun(
    worldSetup(world, temporary(), { rollout: { ...rollout, environment: broken }, steps: 1 }),
  );
  const { calls, errors, timeouts, seconds } = down.metrics[0]!.tools!["tool"]!;
  t.ok(calls > 0 && errors === calls && timeouts === 0 && seconds >= 0);
});
