// Memory that runs out, and what a compute thread throws, reach the caller as errors; the engine lives on.
process.env["ROLEGRAD_TEST_HOOKS"] = "1"; // before the addon is loaded, which is when it is first used
import t from "tap";
import { loadModel, Random, Rollout, RolegradError, Trainer } from "rolegrad";
import { native } from "../lib/binding.js";
import {
  adapterBits,
  bits,
  checkpoints,
  momentBits,
  pack,
  randomAdapters,
  randomRow,
  randomTrajectory,
} from "./helpers/engine.js";
import { environment, questions, reward, roles, router, writeToyModel } from "./helpers/toy.js";

const optimizer = { learningRate: 1e-2 };
const kinds = ["allocation", "task"] as const;
const arm = (kind: (typeof kinds)[number], n: number): void => native.armFault?.(kind, n);

/** Fails the n-th allocation or task of `work`, for n = 1, 2, ... until it ends well (or `limit` failures were seen); `after` each failure. */
async function failEverywhere<T>(
  t: Pick<import("tap").Test, "ok" | "equal" | "comment" | "fail">,
  what: string,
  work: () => Promise<T>,
  {
    asked,
    limit = 40,
    after = async () => Promise.resolve(),
  }: { asked?: RegExp; limit?: number; after?: () => Promise<unknown> },
): Promise<void> {
  for (const kind of kinds) {
    let failures = 0;
    // Every one at first, then further and further apart.
    for (let n = 1; failures < limit; n += 1 + (n >> 3)) {
      arm(kind, n);
      let error: unknown;
      await work().catch((caught: unknown) => (error = caught));
      arm(kind, 0);
      if (error === undefined) break;
      failures++;
      if (!(error instanceof RolegradError) || error.code !== "ERR_OUT_OF_MEMORY") t.fail(what, { error });
      else if (asked !== undefined && !asked.test(error.message)) t.fail(`${what}: ${error.message}`);
      await after();
    }
    t.comment(`${what}: ${failures} failures of a${kind === "task" ? " task" : "n allocation"}`);
    if (kind === "task") t.ok(failures > 0, `${what}: a task that throws is told`);
  }
}

t.test("the test hooks are there for tests alone", async (t) => {
  t.ok("armFault" in native);
  t.throws(() => native.armFault?.("other" as never, 1), { code: "ERR_INVALID_ARGUMENT" });
  t.throws(() => native.armFault?.("task", -1), { code: "ERR_INVALID_ARGUMENT" });
});

t.test("loading", async (t) => {
  let loaded = 0;
  await failEverywhere(
    t,
    "loadModel",
    async () => {
      (await loadModel(checkpoints.tied)).close();
      loaded++;
    },
    { asked: /the weights of a model/ },
  );
  t.equal(loaded, kinds.length);
});

t.test("forward passes, steps and rollouts", async (t) => {
  const directory = t.testdir();
  await writeToyModel(directory);
  const model = await loadModel(directory);
  const random = new Random(1, "faults");
  const rows = [30, 20, 40].map((length) => randomRow(random, 100, length, 2));
  const trajectories = rows.map((row, i) => randomTrajectory(random, `q#${i}`, "q", row));
  const input = pack(rows);
  const adapters = randomAdapters(model, { roles });
  const forward = async () => bits((await model.forward(input, { adapters })).logprobs);
  const want = await forward();
  await failEverywhere(t, "forward", forward, {
    asked: /a forward pass of 90 tokens/,
    after: async () => t.equal(await forward(), want),
  });

  const make = () => new Trainer(model, { adapters: randomAdapters(model, { roles }), optimizer });
  const state = (trainer: Trainer) => `${adapterBits(trainer.adapters!)} ${momentBits(trainer)} ${trainer.steps}`;
  const once = make();
  await once.step(trajectories);
  for (const kind of kinds) {
    const trainer = make();
    const before = state(trainer);
    let failures = 0;
    for (let n = 1; ; n += 1 + (n >> 3)) {
      arm(kind, n);
      const ended = await trainer.step(trajectories).then(
        () => "done",
        (error: { code?: string }) => error.code,
      );
      arm(kind, 0);
      if (ended === "done") break;
      failures++;
      t.equal(ended, "ERR_OUT_OF_MEMORY");
      t.equal(state(trainer), before);
      t.strictSame(trainer.gradients.norms(), { reason: 0, tool: 0 });
    }
    t.ok(kind === "allocation" || failures > 5);
    t.equal(state(trainer), state(once), "the step that nothing fails in has the bits of any other");
  }

  const collect = async () => {
    const options = { adapters, router, environment, reward, group: 2, sampling: { maxNewTokens: 12 } };
    return (await new Rollout(model, options).collect(questions)).map(({ ids }) => bits(ids)).join();
  };
  const tokens = await collect();
  await failEverywhere(t, "rollout", collect, { limit: 20, after: async () => t.equal(await collect(), tokens) });
  model.close();
});

t.test("a result or a cache that no memory holds is refused by size", async (t) => {
  const model = await loadModel(checkpoints.tied);
  const refused = { name: "RolegradError", code: "ERR_OUT_OF_MEMORY", message: /\d{12,}/ };
  t.throws(
    () =>
      new native.Generator([{ model: model.native, adapters: null, adapterOfRole: Int32Array.of(-1) }], {
        maxSequences: 1 << 20,
        maxLength: 1 << 24,
        tokenBytes: [],
        router: { base: 0, spans: [] },
      }),
    refused,
  );
  t.equal((await model.forward({ inputIds: Int32Array.of(1), cuSeqlens: Int32Array.of(0, 1) })).logprobs.length, 1);
  model.close();
});
