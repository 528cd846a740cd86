// Memory: close() gives it back at once, whoever still holds on, and nothing is left behind by doing it again and again.
import { readFileSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import t from "tap";
import { createAdapters, loadModel, Rollout, Trainer } from "rolegrad";
import { bits } from "./helpers/engine.js";
import { longTrajectories, writeLargeModel } from "./helpers/large.js";
import { environment, questions, reward, roles, router, writeToyModel } from "./helpers/toy.js";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

/** MiB resident, garbage of JavaScript apart. */
function resident(): number {
  collect();
  return process.memoryUsage.rss() / 2 ** 20;
}

const optimizer = { learningRate: 1e-3 };
const closed = { name: "RolegradError", code: "ERR_MODEL_CLOSED" };

t.test("load, train, roll out and close, 50 times: memory stays flat", async (t) => {
  const directory = t.testdir();
  await writeToyModel(directory);
  const seen: number[] = [];
  const results = new Set<string>();
  for (let i = 0; i < 50; i++) {
    const model = await loadModel(directory, { dtype: "float32" });
    const adapters = createAdapters(model, { roles, rank: 16, alpha: 16 });
    const rollout = new Rollout(model, {
      adapters,
      router,
      environment,
      reward,
      group: 4,
      sampling: { maxNewTokens: 24 },
    });
    const trajectories = await rollout.collect(questions);
    const trainer = new Trainer(model, { adapters, optimizer });
    const { loss } = await trainer.step(trajectories);
    // Full training too: its gradients and moments are the largest that there are. Without KL it needs no reference.
    const full = new Trainer(model, { full: true, optimizer });
    await full.step(trajectories);
    results.add(`${loss} ${bits(full.parameter("model.norm.weight"))}`);
    model.close();
    seen.push(resident());
  }
  t.equal(results.size, 1, "every round gives the same bits");
  const warm = Math.max(...seen.slice(5, 15));
  const end = Math.max(...seen.slice(-10));
  t.comment(`MiB resident: ${[0, 4, 9, 14, 19, 29, 39, 49].map((i) => seen[i]?.toFixed(1)).join(", ")}`);
  t.ok(end - warm < 6, `from round 15 to 50 it grows by ${(end - warm).toFixed(1)} MiB, less than 6`);
});

t.test("close() gives the memory back though adapters, trainers and rollouts are still held", async (t) => {
  const directory = await writeLargeModel(t.testdir(), { layers: 4 });
  const trajectories = longTrajectories([60, 80]);
  // What stays when everything has been used once: threads, code, pools.
  const round = async () => {
    const model = await loadModel(directory);
    const adapters = createAdapters(model, { roles, rank: 64, alpha: 16 });
    const trainer = new Trainer(model, { adapters, optimizer });
    await trainer.step(trajectories);
    return { model, adapters, trainer };
  };
  (await round()).model.close();
  const before = resident();
  const { model, adapters, trainer } = await round();
  const during = resident();
  model.close();
  const after = resident();
  t.comment(`MiB resident: ${before.toFixed(1)} before, ${during.toFixed(1)} open, ${after.toFixed(1)} closed`);
  t.ok(during - before > 60, "an open model, its adapters and its trainer take memory");
  t.ok(after - before < 8, "a closed one takes none");
  const module = "model.layers.0.mlp.up_proj";
  t.throws(() => adapters.get("tool", module), closed);
  t.throws(() => adapters.norm("tool"), closed);
  t.throws(() => trainer.gradients.get("tool", module), closed);
  t.throws(() => trainer.gradients.norms(), closed);
  t.throws(() => trainer.gradients.zero(), closed);
  await t.rejects(trainer.step(trajectories), closed);
  await t.rejects(trainer.save(t.testdir()), closed);
  await t.rejects(adapters.save(t.testdir(), "tool"), closed);
  model.close();
});

t.test("threads do not add up", { skip: process.platform !== "linux" && "needs /proc" }, async (t) => {
  const threads = () => Number(/^Threads:\s*(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1]);
  const before = threads();
  const directory = t.testdir();
  await writeToyModel(directory);
  for (let i = 0; i < 5; i++) (await loadModel(directory)).close();
  t.equal(threads(), before);
});
