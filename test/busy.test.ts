// A step owns what it trains: nothing else reads or writes it meanwhile.
import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import { createAdapters, loadModel, Random, Rollout, Trainer } from "rolegrad";
import { pack, randomRow, randomTrajectory, trainingBatch } from "./helpers/engine.js";
import { environment, questions, reward, roles, router, writeToyModel } from "./helpers/toy.js";

const optimizer = { learningRate: 0.01 };
const directory = t.testdir();
await writeToyModel(directory);
const toy = await loadModel(directory);
t.teardown(() => toy.close());

t.test("whatever reads or writes while a step runs is ERR_BUSY", async (t) => {
  const own = createAdapters(toy, { roles, rank: 3, alpha: 6, trainableTokens: [5] });
  const random = new Random(2, "busy");
  const long = [300, 300].map((length, i) => randomTrajectory(random, `q#${i}`, "q", randomRow(random, 60, length, 2)));
  const busyTrainer = new Trainer(toy, { adapters: own, optimizer });
  const second = new Trainer(toy, { adapters: own, optimizer });
  const module = "model.layers.0.mlp.up_proj";
  const value = own.get("tool", module);
  const token = own.getToken(5);
  const calls: [string, () => unknown][] = [
    ["trainer.step", () => busyTrainer.step(long)],
    ["trainer.accumulate", () => busyTrainer.accumulate(trainingBatch(long))],
    ["trainer.apply", () => busyTrainer.apply()],
    ["trainer.leakMatrix", () => busyTrainer.leakMatrix(long)],
    ["trainer.save", () => busyTrainer.save(t.testdir())],
    ["trainer.gradients.get", () => busyTrainer.gradients.get("tool", module)],
    ["trainer.gradients.token", () => busyTrainer.gradients.token(5)],
    ["trainer.gradients.router", () => busyTrainer.gradients.router(0, "mlp")],
    ["trainer.gradients.norms", () => busyTrainer.gradients.norms()],
    ["trainer.gradients.zero", () => busyTrainer.gradients.zero()],
    ["trainer.parameter", () => busyTrainer.parameter("model.norm.weight")],
    ["another trainer's step", () => second.step(long)],
    ["another trainer's apply", () => second.apply()],
    ["adapters.get", () => own.get("tool", module)],
    ["adapters.set", () => own.set("tool", module, value)],
    ["adapters.getToken", () => own.getToken(5)],
    ["adapters.setToken", () => own.setToken(5, token)],
    ["adapters.getRouter", () => own.getRouter(0, "mlp")],
    ["adapters.setRouter", () => own.setRouter(0, "mlp", new Float32Array(1))],
    ["adapters.norm", () => own.norm("tool")],
    ["adapters.save", () => own.save(t.testdir(), "tool")],
    ["adapters under other routes", () => own.withRoutes({ tool: null }).get("reason", module)],
    ["model.forward", () => toy.forward(pack(long), { adapters: own })],
    ["a rollout", () => new Rollout(toy, { adapters: own, router, environment, reward, group: 1 }).collect(questions)],
  ];
  const members = (object: object) =>
    Object.getOwnPropertyNames(Object.getPrototypeOf(object)).filter(
      (name) => typeof (object as never)[name] === "function",
    );
  const known = {
    trainer: ["constructor", "parameters"],
    adapters: [
      "constructor",
      "roleIndex",
      "indexOf",
      "tokenIndex",
      "checkIdle",
      "lease",
      "parameterCount",
      "withRoutes",
    ],
  };
  for (const [noun, object] of [
    ["trainer", busyTrainer],
    ["adapters", own],
  ] as const) {
    for (const name of members(object)) {
      const listed = calls.some(([what]) => what === `${noun}.${name}`) || known[noun].includes(name);
      t.ok(listed, `${noun}.${name} is in this test, or reads nothing that a step changes`);
    }
  }
  const running = busyTrainer.step(long);
  for (const [what, call] of calls) {
    await t.rejects(async () => call(), { name: "RolegradError", code: "ERR_BUSY" }, what);
  }
  t.equal((await running).step, 1);
  await sleep(0);
  for (const [what, call] of calls) {
    if (/parameter|outer$/.test(what)) continue; // of full training, and of soft routing
    await t.resolves(async () => call(), `${what} afterwards`);
  }
});
