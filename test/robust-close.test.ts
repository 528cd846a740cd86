// Ends in the midst of work: close(), process.exit(), an exception, a worker's end. None may crash, hang or spoil another's
// work. Programs of their own, as a user's would be.
import path from "node:path";
import { pathToFileURL } from "node:url";
import t from "tap";
import { createAdapters, loadModel, Rollout, Trainer } from "rolegrad";
import { pack, randomAdapters } from "./helpers/engine.js";
import { longTrajectories, writeLargeModel } from "./helpers/large.js";
import { runProgram } from "./helpers/command.js";
import { root } from "./helpers/shared.js";
import { environment, questions, reward, roles, router, writeToyModel } from "./helpers/toy.js";

const optimizer = { learningRate: 1e-3 };
const closed = { name: "RolegradError", code: "ERR_MODEL_CLOSED" };
let directory: string;
t.before(async () => void (directory = await writeLargeModel(t.testdir(), { layers: 3 })));

/** Module code that begins a step of about a second; the model's folder is in process.argv. */
const begin = `
  import { once } from "node:events";
  import { setTimeout as sleep } from "node:timers/promises";
  import { Worker, isMainThread, parentPort, workerData } from "node:worker_threads";
  import { createHash } from "node:crypto";
  import { readFileSync } from "node:fs";
  import * as rolegrad from ${JSON.stringify(pathToFileURL(path.join(root, "dist/index.js")).href)};
  const { createAdapters, loadModel, Trainer } = rolegrad;
  const trajectories = [0, 1, 2, 3].map((i) => {
    const length = 300;
    return {
      id: "q#" + i, group: "q", question: "q", reward: i, temperature: 1, topP: 1, topK: 0,
      ids: Int32Array.from({ length }, (_, t) => (t * 31 + i * 7) % 2000),
      roles: Int8Array.from({ length }, (_, t) => (t >> 4) % 2),
      sampled: Uint8Array.from({ length }, (_, t) => (t > 10 ? 1 : 0)),
      logprobs: new Float32Array(length).fill(-7),
      calls: [], answer: null, response: "", rngKey: "", policyVersion: 0, finish: "stop",
    };
  });
  const open = async (seed = 0) => {
    const model = await loadModel(process.env.MODEL);
    const adapters = createAdapters(model, { roles: ["reason", "tool"], rank: 8, alpha: 16, seed });
    return { model, adapters, trainer: new Trainer(model, { adapters, optimizer: { learningRate: 0.001 } }) };
  };
`;

async function program(code: string, env: NodeJS.ProcessEnv = {}): ReturnType<typeof runProgram> {
  return runProgram(process.execPath, ["--input-type=module", "-e", begin + code], {
    env: { NODE_OPTIONS: undefined, MODEL: directory, ...env },
  });
}

/** Source of a worker, given as a data: URL module with the same beginning. */
function worker(code: string): string {
  const url = `data:text/javascript,${encodeURIComponent(begin + code)}`;
  return `new Worker(new URL(${JSON.stringify(url)}), { execArgv: [], env: process.env })`;
}

t.test("process.exit() in the midst of a step ends with its own code", async (t) => {
  for (const [i, delay] of [0, 1, 20, 100, 250, 400].entries()) {
    const { status, stderr } = await program(`
      const { trainer } = await open();
      void trainer.step(trajectories).then(() => console.error("done"), (error) => console.error(error));
      await sleep(${delay});
      process.exit(${10 + i});
    `);
    t.equal(status, 10 + i, `after ${delay} ms`);
    t.match(stderr, /^(done\n)?$/);
  }
});

t.test("an exception in the midst of a step ends the process as any other does", async (t) => {
  const { status, stderr } = await program(`
    const { trainer } = await open();
    void trainer.step(trajectories);
    await sleep(50);
    throw new Error("a mistake elsewhere");
  `);
  t.equal(status, 1);
  t.match(stderr, /a mistake elsewhere/);
});

t.test("a program that awaits nothing ends when the step has", async (t) => {
  const { status, stdout } = await program(`
    const { model, trainer } = await open();
    trainer.step(trajectories).then(({ step }) => console.log("step", step));
    model.close();
  `);
  t.equal(status, 0);
  t.equal(stdout, "step 1\n");
});

t.test("a worker that is terminated in the midst of a step leaves the others alone", async (t) => {
  const { status, stdout, stderr } = await program(`
    const { model, trainer, adapters } = await open();
    const hash = () => createHash("sha1").update(adapters.get("tool", "model.layers.0.mlp.up_proj").b).digest("hex");
    for (const delay of [0, 5, 50, 150]) {
      const other = ${worker(`
        const { trainer } = await open();
        parentPort.postMessage("begun");
        for (;;) await trainer.step(trajectories);
      `)};
      await once(other, "message");
      await sleep(delay);
      const start = performance.now();
      const code = await other.terminate();
      console.log("terminated", code, performance.now() - start < 5000);
    }
    const last = ${worker(`
      const { trainer } = await open();
      void trainer.step(trajectories);
      setTimeout(() => process.exit(3), 30);
    `)};
    console.log("exit", (await once(last, "exit"))[0]);
    console.log("step", (await trainer.step(trajectories)).step);
    model.close();
  `);
  t.equal(stderr, "");
  t.equal(status, 0);
  t.equal(stdout, `${"terminated 1 true\n".repeat(4)}exit 3\nstep 1\n`);
});

t.test("process.exit() while workers are in the midst of steps ends with its own code", async (t) => {
  for (const delay of [0, 40, 120]) {
    const { status, stderr } = await program(`
      const make = () => ${worker(`
        const { trainer } = await open();
        parentPort.postMessage("begun");
        for (;;) await trainer.step(trajectories);
      `)};
      await Promise.all([make(), make()].map((each) => once(each, "message")));
      await sleep(${delay});
      process.exit(5);
    `);
    t.equal(stderr, "");
    t.equal(status, 5);
  }
});

t.test("two models in two workers share one executor, and give the bits that each gives alone", async (t) => {
  const task = (seed: number) =>
    worker(`
      const { model, adapters, trainer } = await open(${seed});
      const losses = [];
      for (let i = 0; i < 3; i++) losses.push((await trainer.step(trajectories)).loss);
      const pair = adapters.get("reason", "model.layers.2.self_attn.q_proj");
      const hash = createHash("sha1").update(pair.a).update(pair.b).digest("hex");
      const status = process.platform === "linux" ? readFileSync("/proc/self/status", "utf8") : "Threads: 0";
      const threads = Number(/^Threads:\\s*(\\d+)/m.exec(status)[1]);
      parentPort.postMessage({ text: JSON.stringify([losses, hash]), threads });
    `);
  const { status, stdout, stderr } = await program(
    `
      const answer = async (worker) => (await once(worker, "message"))[0];
      const first = await answer(${task(1)});
      const second = await answer(${task(2)});
      const both = await Promise.all([answer(${task(1)}), answer(${task(2)})]);
      console.log(JSON.stringify({
        same: both[0].text === first.text && both[1].text === second.text,
        differ: first.text !== second.text,
        added: Math.max(...both.map(({ threads }) => threads)) - second.threads,
      }));
    `,
    { ROLEGRAD_THREADS: "6" },
  );
  t.equal(status, 0, stderr);
  const { same, differ, added } = JSON.parse(stdout) as { same: boolean; differ: boolean; added: number };
  t.ok(same, "bit for bit");
  t.ok(differ, "the two tasks are not the same one");
  t.ok(added <= 3, `one worker more brings ${added} threads, and not a pool of 6`);
});

t.test("close() while work runs: the step ends well, a rollout rejects, nothing crashes", async (t) => {
  const toy = t.testdir();
  await writeToyModel(toy);
  for (let delay = 0; delay < 12; delay++) {
    const model = await loadModel(toy);
    const adapters = createAdapters(model, { roles, rank: 4, alpha: 8 });
    const rollout = new Rollout(model, { adapters, router, environment, reward, group: 4, seed: delay });
    const running = rollout.collect(questions).then(
      (list) => list.length,
      (error: unknown) => error,
    );
    const forward = model.forward({ inputIds: Int32Array.of(1, 2), cuSeqlens: Int32Array.of(0, 2) });
    await new Promise((resolve) => setTimeout(resolve, delay));
    model.close();
    t.equal((await forward).logprobs.length, 2, "what had begun ends well");
    const outcome = await running;
    if (outcome !== questions.length * 4) t.match(outcome, closed);
  }

  const model = await loadModel(directory);
  const trajectories = longTrajectories([100, 100]);
  const input = pack(trajectories);
  const trainer = new Trainer(model, { adapters: randomAdapters(model, { roles }), optimizer });
  const other = createAdapters(model, { roles, rank: 4, alpha: 8 });
  const running = trainer.step(trajectories);
  const behind = model.forward(input, { adapters: other });
  model.close();
  await t.rejects(model.forward(input), closed);
  await t.rejects(trainer.accumulate({ ...input, lossMask: new Uint8Array(200) }), closed);
  t.throws(() => other.get("tool", "model.layers.0.mlp.up_proj"), closed);
  t.equal((await running).step, 1);
  t.ok((await behind).logprobs.every(Number.isFinite));
});

t.test("a closed reference model is said, not used", async (t) => {
  const model = await loadModel(directory, { dtype: "float32" });
  const reference = await loadModel(directory);
  const trainer = new Trainer(model, { full: true, reference, optimizer, objective: { klCoefficient: 0.1 } });
  const trajectories = longTrajectories([12, 14]);
  const running = trainer.step(trajectories);
  reference.close();
  t.equal((await running).step, 1);
  await t.rejects(trainer.step(trajectories), closed);
  model.close();
});
