// What stops a run that has gone astray, and what does not: a trajectory is named, nothing has changed, and no alarm is false.
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import t, { type Test } from "tap";
import {
  createAdapters,
  loadModel,
  Trainer,
  trainRun,
  WORLD_CHECKPOINT,
  type Adapters,
  type Model,
  type RunEvent,
  type RunSetup,
  type StepOptions,
  type TrainerOptions,
  type Trajectory,
} from "rolegrad";
import { adapterBits, bits, checkpoints, momentBits, modulesOf, onPolicy, randomAdapters } from "./helpers/engine.js";
import { trajectoriesOf } from "./helpers/properties.js";
import { refusals } from "./helpers/refused.js";
import { writeToyModel } from "./helpers/toy.js";
import { temporary, world, worldRollout, worldSetup } from "./helpers/world.js";

const { model, refused } = await refusals(checkpoints.tied);
const worldModel: Model = await loadModel(WORLD_CHECKPOINT);
t.teardown(() => {
  model.close();
  worldModel.close();
});
const roles = ["reason", "tool"];
const optimizer = { learningRate: 0.01 };
const raw = trajectoriesOf({ lengths: [30, 25, 40, 33, 21, 8], seed: 6 }, model);
const trajectories = await onPolicy(model, randomAdapters(model, { roles }), raw);

function make(options: Partial<TrainerOptions> = {}): Trainer {
  return new Trainer(model, { adapters: randomAdapters(model, { roles }), optimizer, ...options });
}

/** A sampled token of a trajectory with a recorded log-probability of our own. */
function poked(id: string, value: number): { list: Trajectory[]; position: number; role: string } {
  const own = trajectories.find((x) => x.id === id)!;
  const position = own.sampled.findLastIndex((x, i) => i > 5 && x === 1 && own.roles[i - 1] === 1);
  const logprobs = own.logprobs.slice();
  logprobs[position] = value;
  return { list: trajectories.map((x) => (x === own ? { ...x, logprobs } : x)), position, role: "tool" };
}

/** The step is refused with these words, and no bit of adapters, moments or steps has changed; the next one works. */
async function refusedStep(
  t: Test,
  trainer: Trainer,
  list: Trajectory[],
  options: StepOptions,
  code: string,
  ...words: (string | RegExp)[]
): Promise<void> {
  const state = () => [adapterBits(trainer.adapters!), momentBits(trainer), trainer.steps].join();
  const before = state();
  await refused(t, trainer.step(list, options), code, ...words);
  t.equal(state(), before, "nothing has changed");
}

// ---- a step

t.test("a ratio that is not finite ends the step, and names trajectory, question, token, role and value", async (t) => {
  // Of the smaller reward of its group: a ratio without bound counts in full where the advantage is negative.
  const byGroup = trajectories.filter(({ group }) => group === "q1").sort((a, b) => a.reward - b.reward);
  t.ok(byGroup[0]!.reward < byGroup[1]!.reward);
  const { id } = byGroup[0]!;
  const { list, position, role } = poked(id, -1e6);
  const words = [`trajectory ${id} (question q1): probability ratio Infinity at token ${position} (role ${role})`];
  for (const microBatchTokens of [8192, 1]) {
    const trainer = make({ microBatchTokens });
    await refusedStep(t, trainer, list, {}, "ERR_LOSS_NOT_FINITE", ...words);
    await refusedStep(t, trainer, list, { epochs: 2 }, "ERR_LOSS_NOT_FINITE", ...words);
    const same = make();
    await same.step(trajectories);
    await trainer.step(trajectories);
    t.equal(adapterBits(trainer.adapters!), adapterBits(same.adapters!), "and goes on as if nothing had been");
  }
  const error = await make()
    .step(list)
    .catch((caught: unknown) => caught as { offending: unknown });
  t.match(error, { offending: { trajectory: id, question: "q1", position, role, value: Infinity } });
});

t.test("so does a recorded log-probability that is no number, and a model whose own are none", async (t) => {
  for (const value of [NaN, -Infinity]) {
    const { list, position } = poked("q1#0", value);
    const words = `trajectory q1#0 (question q1): recorded log-probability ${value} at token ${position} (role tool)`;
    await refusedStep(t, make(), list, {}, "ERR_LOSS_NOT_FINITE", words);
  }
  const adapters = randomAdapters(model, { roles });
  const module = modulesOf(model)[0]!;
  const { a, b } = adapters.get("tool", module);
  adapters.set("tool", module, { a: a.fill(3e38), b: b.fill(3e38) });
  await refusedStep(
    t,
    make({ adapters }),
    trajectories,
    {},
    "ERR_LOSS_NOT_FINITE",
    /: log-probability NaN at token \d+ \(role \w+\)/,
  );
});

t.test("a gradient above its limit is not applied, and the trajectory with the largest one is named", async (t) => {
  const usual = await make().step(trajectories);
  // Each trajectory's own gradient, by a trainer for each.
  const alone = new Map<string, number>();
  const n = Object.values(usual.sampledTokens).reduce((a, b) => a + b, 0);
  for (const own of trajectories) {
    const group = trajectories.filter((x) => x.group === own.group);
    const mean = group.reduce((sum, { reward }) => sum + reward / group.length, 0);
    const deviation = Math.sqrt(group.reduce((sum, { reward }) => sum + (reward - mean) ** 2, 0) / (group.length - 1));
    const trainer = make();
    await trainer.accumulate(
      {
        inputIds: own.ids,
        cuSeqlens: Int32Array.of(0, own.ids.length),
        roles: own.roles,
        lossMask: own.sampled,
        advantages: Float64Array.of((own.reward - mean) / (deviation + 1e-6)),
        oldLogprobs: own.logprobs,
      },
      { normalizer: n },
    );
    alone.set(own.id, trainer.gradients.norms()["tool"]!);
  }
  const [id, most] = [...alone].sort((x, y) => y[1] - x[1])[0]!;
  const gradNorm = { tool: 0.9 * usual.gradNorms["tool"]! };
  const words = [/gradient norm of adapter tool/, `trajectory ${id} `, `gradient norm ${most} of adapter tool`];
  await refusedStep(t, make(), trajectories, { limits: { gradNorm } }, "ERR_LOSS_EXPLODED", ...words);
  const enough = { gradNorm: 1.01 * Math.max(...Object.values(usual.gradNorms)), loss: 1e9, kl: 1e9 };
  t.equal((await make({ logKl: true }).step(trajectories, { limits: enough })).loss, usual.loss);
});

t.test("so are a loss and a KL above their limits", async (t) => {
  const { list } = poked("q0#1", -30);
  const { loss } = await make({ objective: { kind: "sft" } }).step(list);
  await refusedStep(
    t,
    make({ objective: { kind: "sft" } }),
    list,
    { limits: { loss: loss / 2 } },
    "ERR_LOSS_EXPLODED",
    /loss of at most/,
  );
  const trainer = make({ logKl: true });
  await refusedStep(
    t,
    trainer,
    list,
    { limits: { kl: 1e-3 } },
    "ERR_LOSS_EXPLODED",
    /KL to the start/,
    /trajectory q\d#\d/,
  );
  for (const limits of [{ loss: -1 }, { kl: "1" }, { gradNorm: { tool: NaN } }] as never[])
    await refused(t, make().step(trajectories, { limits }), "ERR_INVALID_ARGUMENT", "limits.");
});

t.test("a step that claims to be on policy is refused where one ratio is not exactly 1", async (t) => {
  const onPolicy = true;
  t.equal((await make().step(trajectories, { onPolicy })).firstRatioMax, 0);
  t.equal((await make().step(trajectories, { onPolicy, epochs: 2 })).firstRatioMax, 0, "later updates are off policy");
  const own = trajectories.find(({ id }) => id === "q1#0")!;
  const at = own.sampled.indexOf(1);
  const next = new Float32Array(new Int32Array(new Float32Array([own.logprobs[at]!]).buffer.slice(0)).buffer);
  new Int32Array(next.buffer)[0]!++; // the next f32
  const list = trajectories.map((x) => (x === own ? { ...x, logprobs: x.logprobs.with(at, next[0]!) } : x));
  await refusedStep(
    t,
    make(),
    list,
    { onPolicy },
    "ERR_STALE_POLICY",
    "trajectory q1#0 (question q1, policy version 0)",
  );
  const dropout = createAdapters(model, { roles, rank: 3, alpha: 6, seed: 1, dropout: 0.3 });
  t.ok(
    (await make({ adapters: dropout }).step(trajectories, { onPolicy })).firstRatioMax > 0,
    "masks are no other policy",
  );
  const importance = { cap: 4 };
  await make({ objective: { importance } }).step(list, { onPolicy });
});

// ---- a run

const lines = (folder: string): RunEvent[] => {
  const file = path.join(folder, "events.jsonl");
  if (!existsSync(file)) return [];
  return readFileSync(file, "utf8")
    .trimEnd()
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as RunEvent);
};
const weights = (folder: string) =>
  bits(...roles.map((name) => readFileSync(path.join(folder, "adapters", name, "adapter_model.safetensors"))));

/** The error that ends a run. */
async function failedRun(t: Test, setup: RunSetup, hooks = {}): Promise<{ code: string; message: string }> {
  try {
    await trainRun(setup, hooks);
  } catch (error) {
    return error as { code: string; message: string };
  }
  t.fail("the run should have failed");
  return { code: "", message: "" };
}

t.test(
  "a run whose gradient explodes stops with the trajectory in a file, and goes on once its guards allow it",
  async (t) => {
    const straight = temporary();
    await trainRun(worldSetup(worldModel, straight));
    const folder = temporary();
    const error = await failedRun(t, worldSetup(worldModel, folder, { guards: { limits: { gradNorm: 1e-9 } } }));
    t.equal(error.code, "ERR_LOSS_EXPLODED", error.message);
    const [event] = lines(folder);
    const { step } = event!; // the first with something to learn
    t.match(event, { event: "stopped", code: "ERR_LOSS_EXPLODED", file: `trajectories/offending-00000${step}.json` });
    t.match(error.message, path.join(folder, event!.file!));
    t.match(error.message, /raise guards.*give the same command again/);
    t.match(error.message, `checkpoints/step-00000${step - 1}`);
    const written = JSON.parse(readFileSync(path.join(folder, event!.file!), "utf8")) as {
      offending: { trajectory: string };
      trajectory: Trajectory;
    };
    t.equal(written.offending.trajectory, event!.trajectory);
    t.equal(written.trajectory.id, event!.trajectory);
    t.match(error.message, `trajectory ${event!.trajectory}`);

    const { status } = await trainRun(worldSetup(worldModel, folder));
    t.equal(status, "finished");
    t.equal(weights(folder), weights(straight), "to the same bits as a run that never stopped");
    t.same(lines(folder), [], "what was recorded of steps that were taken again is gone");
    t.notOk(existsSync(path.join(folder, event!.file!)));
  },
);

t.test("a step that is stopped behind its first update leaves no checkpoint, and is not said to", async (t) => {
  const change = {
    ...{ steps: 6, epochs: 2, checkpoint: { every: 1 }, guards: { limits: { loss: 1e-5 } } },
    trainer: { optimizer: { learningRate: 3e-3 }, objective: { aggregation: "seq-mean-token-mean" as const } },
  };
  for (const every of [1, 0]) {
    const folder = temporary();
    const taken: number[] = [];
    const setup = worldSetup(worldModel, folder, { ...change, checkpoint: { every } });
    const error = await failedRun(t, setup, { onStep: ({ step }: { step: number }) => void taken.push(step) });
    t.equal(error.code, "ERR_LOSS_EXPLODED", error.message);
    t.match(error.message, `Part of step ${taken.length + 1} had been taken`);
    for (const [checkpoint] of error.message.matchAll(/\S*checkpoints\/step-\d+/g)) t.ok(existsSync(checkpoint));
    t.notOk(existsSync(path.join(folder, `checkpoints/step-00000${taken.length + 1}`)));
  }
});

t.test("a number far above its median stops a run, once there are steps to take the median of", async (t) => {
  const guards = { explosion: { factor: 1e-6, gradNorm: 1e-9, loss: 1e9, kl: 1e9 } };
  const taken: number[] = [];
  const setup = worldSetup(worldModel, temporary(), { guards, steps: 12 });
  const error = await failedRun(t, setup, { onStep: ({ step }: { step: number }) => void taken.push(step) });
  t.equal(error.code, "ERR_LOSS_EXPLODED");
  t.ok(taken.length >= 5, `after ${taken.length} steps`);
});

t.test("reward 0 is explained once, with one answer, and again only after it was earned", async (t) => {
  const rollout = { ...worldRollout(), reward: () => 0 };
  const folder = temporary();
  const told: [RunEvent, Trajectory | undefined][] = [];
  const onEvent = (event: RunEvent, trajectory: Trajectory | undefined) => void told.push([event, trajectory]);
  const guards = { zeroReward: { steps: 2 } };
  await trainRun(worldSetup(worldModel, folder, { rollout, guards, steps: 3 }), { onEvent });
  await trainRun(worldSetup(worldModel, folder, { rollout, guards, steps: 4 }), { onEvent });
  t.equal(told.length, 1);
  const [[event, example] = []] = told;
  t.match(event, { step: 2, event: "zero-reward", steps: 2, message: /The reward is 0 for 2 steps/ });
  t.ok(event!.findings!.length > 0);
  t.equal(event!.trajectory, example!.id);
  t.same(lines(folder), [event]);
});

t.test("it can end the run instead, and the same command goes on", async (t) => {
  const rollout = { ...worldRollout(), reward: () => 0.5 };
  const guards = { zeroReward: { steps: 2, action: "stop" as const } };
  const folder = temporary();
  const setup = worldSetup(worldModel, folder, { rollout, guards, steps: 5 });
  const steps: number[] = [];
  const hooks = { onStep: ({ step }: { step: number }) => void steps.push(step) };
  const error = await failedRun(t, setup, hooks);
  t.equal(error.code, "ERR_REWARD_ZERO");
  t.match(error.message, /All answers to each question earn the same for 2 steps.*step-000002/);
  t.equal((await failedRun(t, setup, hooks)).code, "ERR_REWARD_ZERO");
  t.same(steps, [1, 2, 3, 4]);
  t.same(
    lines(folder).map(({ event }) => event),
    ["equal-rewards", "stopped", "equal-rewards", "stopped"],
  );
});

t.test("adapters that change between an answer and its step are found out", async (t) => {
  let adapters: Adapters | undefined;
  const hooks = {
    onStart: (start: { adapters?: Adapters }) => void (adapters = start.adapters),
    onProgress: ({ phase, step }: { phase: string; step: number }) => {
      if (phase !== "update" || step !== 2) return;
      const module = "model.layers.0.self_attn.q_proj";
      const { a, b } = adapters!.get("reason", module);
      adapters!.set("reason", module, { a, b: b.map((x) => x + 0.01) });
    },
  };
  const folder = temporary();
  const setup = worldSetup(worldModel, folder);
  const error = await failedRun(t, setup, hooks);
  t.equal(error.code, "ERR_STALE_POLICY", error.message);
  t.match(error.message, /adapters of step 1 sampled but a probability ratio of trajectory \S+ .*guards.stalePolicy/);
  const warned: RunEvent[] = [];
  const guards = { stalePolicy: "warn" as const };
  const own = { ...hooks, onEvent: (event: RunEvent) => void warned.push(event) };
  await trainRun(worldSetup(worldModel, temporary(), { guards }), own);
  t.match(warned, [{ step: 2, event: "stale-policy" }]);
});

t.test("a learning rate that is too small to change a bit is found out", async (t) => {
  const trainer = { optimizer: { learningRate: 1e-60 } };
  const error = await failedRun(t, worldSetup(worldModel, temporary(), { trainer }));
  t.equal(error.code, "ERR_ADAPTERS_UNCHANGED", error.message);
  t.match(
    error.message,
    /adapter (reason|tool) to change, as \d+ tokens of its roles were taught in step \d .*1e-60 is too small/,
  );
  const off = worldSetup(worldModel, temporary(), { trainer, guards: { unchanged: "off" } });
  t.equal((await trainRun(off)).status, "finished");
});

t.test(
  "no alarm is false: rates of 0, warm-up, roles that are kept, options of the objective, dropout, experts",
  async (t) => {
    const rate = { optimizer: { learningRate: 3e-3 } };
    const cases: [string, Partial<RunSetup>][] = [
      ["a rate of 0", { trainer: { optimizer: { learningRate: 0 } } }],
      ["a rate that has fallen to 0", { trainer: { optimizer: { learningRate: 3e-3, totalSteps: 1 } } }],
      ["warm-up", { trainer: { optimizer: { learningRate: 3e-3, warmupSteps: 100 } } }],
      [
        "a role that is kept",
        {
          adapters: { rank: 4, alpha: 8, routes: { reason: null, tool: "tool" } },
          trainer: { ...rate, lossRoles: ["tool"] },
        },
      ],
      [
        "one adapter trained on one role",
        {
          adapters: { rank: 4, alpha: 8, routes: { reason: "s", tool: "s" } },
          trainer: { ...rate, lossRoles: ["tool"] },
        },
      ],
      ["an adapter whose role is not trained", { trainer: { ...rate, lossRoles: ["tool"], crossRole: "exact" } }],
      ["exact", { trainer: { ...rate, crossRole: "exact" } }],
      ["stop", { trainer: { ...rate, crossRole: "stop" } }],
      [
        "groups that leave nothing",
        { trainer: { ...rate, objective: { filterGroups: true } }, rollout: { ...worldRollout(), reward: () => 0 } },
      ],
      ["several updates", { trainer: rate, epochs: 2, minibatches: 2 }],
      [
        "a KL alone",
        {
          trainer: { ...rate, objective: { klCoefficient: 0.01 }, logKl: true },
          rollout: { ...worldRollout(), reward: () => 1 },
        },
      ],
      ["a KL in the reward", { trainer: { ...rate, objective: { klCoefficient: 0.01, klPlacement: "reward" } } }],
      ["importance", { trainer: { ...rate, objective: { importance: { cap: 2 } } } }],
      ["a ratio a sequence", { trainer: { ...rate, objective: { ratio: "sequence" } } }],
      ["dropout", { adapters: { rank: 4, alpha: 8, dropout: 0.2 }, trainer: rate }],
      ["experts", { adapters: { rank: 4, alpha: 8, routing: "soft" }, trainer: rate }],
      [
        "sampling that is cut",
        { trainer: rate, rollout: { ...worldRollout(), sampling: { temperature: 0.7, maxNewTokens: 30 } } },
      ],
    ];
    for (const [name, change] of cases) {
      const events: RunEvent[] = [];
      const setup = worldSetup(worldModel, temporary(), change);
      const { status } = await trainRun(setup, { onEvent: (event) => void events.push(event) });
      t.equal(status, "finished", name);
      t.same(events, [], name);
    }
    const demonstrations = (await trainRun(worldSetup(worldModel, temporary(), { steps: 1 }))).trajectories;
    const sft = worldSetup(worldModel, temporary(), {
      demonstrations,
      trainer: { ...rate, objective: { kind: "sft" } },
    });
    t.equal((await trainRun(sft)).status, "finished");
    t.same(lines(sft.directory), []);
  },
);

t.test("a server that would go on sampling with the weights of before is refused", async (t) => {
  const sampler = { name: "vllm", open: () => Promise.reject(new Error("asked")), close: () => Promise.resolve() };
  for (const change of [{ full: true }, { agents: { tool: worldModel } }]) {
    const folder = path.join(temporary(), "run");
    const setup = worldSetup(worldModel, folder, { ...change, rollout: { ...worldRollout(), sampler } });
    await refused(t, trainRun(setup), "ERR_INVALID_ARGUMENT", "rollout.sampler");
    t.notOk(existsSync(folder), "nothing is left of it");
  }
});

t.test("guards that make no sense are refused", async (t) => {
  for (const guards of [
    { zeroReward: { steps: -1 } },
    { unchanged: "never" },
    { explosion: { factor: "2" } },
  ] as never[])
    await refused(t, trainRun(worldSetup(worldModel, temporary(), { guards })), "ERR_INVALID_ARGUMENT", "guards.");
  t.ok(world.pages.length > 0);
});

t.test(
  "two agents that begin as different models: each has its own start, and writes from the first evaluation on",
  async (t) => {
    const folders = ["a", "b"].map((name) => path.join(temporary(), name));
    for (const [i, folder] of folders.entries()) await writeToyModel(folder, { seed: i + 1 });
    const [a, b] = (await Promise.all(folders.map((folder) => loadModel(folder)))) as [Model, Model];
    t.teardown(() => [a, b].forEach((own) => own.close()));
    for (const objective of [{}, { importance: { cap: 2 } }]) {
      const result = await trainRun(
        worldSetup(a, temporary(), {
          agents: { tool: b },
          trainer: { optimizer: { learningRate: 1e-3 }, objective, logKl: true },
          rollout: { ...worldRollout(), reward: ({ response }) => response.length % 3 },
          guards: { limits: { kl: 0.5 } },
          evaluation: { questions: world.questions("dev", 2, 0) },
        }),
      );
      t.same(
        result.evaluations.map(({ policy }) => policy),
        ["agents", "agents"],
      );
      const [first, second] = result.metrics;
      t.ok(Object.values(first!.roles).every(({ tokens }) => tokens > 0));
      t.equal(first!.klToStart, 0, "what has not changed is its own start");
      t.ok(second!.klToStart! > 0 && second!.klToStart! < 0.5, `${second!.klToStart}`);
    }
  },
);
