// Rollouts in little memory: what a trajectory holds does not depend on the cache, on what is shared in it, nor on who gives up its pages.
import t from "tap";
import { loadModel, Rollout, Trainer } from "rolegrad";
import type { Adapters, Environment, Question, RolloutOptions, Trajectory } from "rolegrad";
import { bits, modulesOf, pack, randomAdapters } from "./helpers/engine.js";
import { refusals } from "./helpers/refused.js";
import { environment, outcome, questions, reward, roles, router, writeToyModel } from "./helpers/toy.js";

const directory = t.testdir();
await writeToyModel(directory);
const model = await loadModel(directory);
const { refused } = await refusals(directory);
t.teardown(() => model.close());
const adapters = randomAdapters(model, { roles });

/** Long prompts of which two begin alike, and answers of a tool that are longer than a page now and then. */
const prompt = ({ id, question }: Question): string => `${id === "q2" ? "" : "Answer shortly. ".repeat(20)}${question}`;
const wordy: Environment = {
  async act(call, options) {
    const { text } = await environment.act(call, options);
    return { text: text.repeat(1 + (call.text.length % 7) * 2) };
  },
};

function make(options: Partial<RolloutOptions> = {}, on: Adapters = adapters): Rollout {
  const sampling = { maxNewTokens: 120, ...options.sampling };
  const parts = { adapters: on, router, environment: wordy, reward, prompt, maxLength: 400, group: 8, seed: 5 };
  return new Rollout(model, { ...parts, ...options, sampling });
}

t.test("a small cache, small chunks and other batches give the same trajectories", async (t) => {
  const plenty = make();
  const want = (await plenty.collect(questions)).map(outcome);
  t.equal(plenty.stats.preemptions, 0);
  t.ok(want.some(({ ids }) => (ids as Int32Array).length > 300));
  for (const [cacheTokens, concurrency, chunk] of [
    [400, 24, 2048],
    [400, 3, 7],
    [700, 24, 30],
    [1500, 12, 64],
  ] as const) {
    const rollout = make({ cacheTokens, concurrency, chunk });
    const got = (await rollout.collect(questions)).map(outcome);
    t.strictSame(got, want, `${cacheTokens} tokens, ${concurrency} together`);
    const { stats } = rollout;
    t.ok(stats.preemptions > 0 && stats.recomputedTokens > 0, `${stats.preemptions} gave up their pages`);
    t.ok(stats.peakCacheTokens <= stats.cacheTokens && stats.cacheTokens === Math.ceil(cacheTokens / 64) * 64);
  }
});

t.test("trajectories that were computed again are exactly on policy", async (t) => {
  const rollout = make({ cacheTokens: 450, concurrency: 24 });
  const trajectories = await rollout.collect(questions);
  t.ok(rollout.stats.preemptions > 0);
  const metrics = await new Trainer(model, { adapters, optimizer: { learningRate: 0 } }).step(trajectories);
  t.ok(metrics.mixedGroups > 0);
  t.equal(metrics.maxRatioDeviation, 0);
});

t.test("the prompt of a group is computed once, however many of its samples run together", async (t) => {
  const [question] = questions;
  const length = model.tokenizer!.encode(prompt(question!)).length;
  t.ok(length > 64 && length % 64 !== 0);
  for (const concurrency of [1, 3, 8]) {
    const rollout = make({ concurrency });
    const trajectories = await rollout.collect([question!]);
    const { stats } = rollout;
    t.equal(stats.sharedTokens, 7 * (length - 1), `${concurrency} together`);
    // What a sample adds, but for its last token, and its prompt's last position.
    const own = trajectories.map(({ ids, sampled }) => ids.length - length - (sampled.at(-1) === 1 ? 1 : 0));
    const most = length + 7 + own.reduce((a, b) => a + b, 0);
    t.ok(stats.computedTokens <= most && stats.computedTokens > most - 8 * 100, `${stats.computedTokens} of ${most}`);
    t.equal(
      stats.sampledTokens,
      trajectories.flatMap(({ sampled }) => [...sampled]).reduce((a, b) => a + b, 0),
    );
    t.equal(stats.recomputedTokens, 0);
  }
  const two = make({ group: 1 });
  await two.collect(questions.slice(0, 2));
  t.ok(two.stats.sharedTokens > 64, "prompts that begin alike share that too");
});

t.test("counts are sums over runs; what a reader does to them changes nothing", async (t) => {
  const rollout = make();
  t.strictSame(rollout.stats, make().stats);
  t.equal(rollout.stats.steps, 0);
  await rollout.collect(questions);
  const once = rollout.stats;
  await rollout.collect(questions);
  const twice = rollout.stats;
  t.equal(twice.sampledTokens, 2 * once.sampledTokens);
  t.equal(twice.cacheTokens, once.cacheTokens);
  twice.steps = -1;
  t.ok(rollout.stats.steps > once.steps);
});

t.test(
  "an old rollout that goes on after training has the log-probabilities of the version it began with",
  async (t) => {
    const own = randomAdapters(model, { roles, seed: 2 });
    const old = randomAdapters(model, { roles, seed: 2 });
    const trainer = new Trainer(model, { adapters: own, optimizer: { learningRate: 0.05 } });
    const batch = await make({}, own).collect(questions);
    const sampledOnly = (x: Trajectory, logprobs: Float32Array) => logprobs.map((p, i) => (x.sampled[i] === 1 ? p : 0));
    for (const options of [{ concurrency: 3 }, { concurrency: 24, cacheTokens: 450 }]) {
      const got: Trajectory[] = [];
      const rollout = make(options, own);
      for await (const trajectory of rollout.run(questions)) {
        got.push(trajectory);
        if (got.length % 3 === 1) await trainer.step(batch);
      }
      let differ = 0;
      for (const x of got) {
        const { logprobs } = await model.forward(pack([x]), { adapters: old });
        t.equal(bits(sampledOnly(x, logprobs)), bits(x.logprobs), x.id);
        const { logprobs: later } = await model.forward(pack([x]), { adapters: own });
        differ += Number(bits(sampledOnly(x, later)) !== bits(x.logprobs));
      }
      t.equal(differ, got.length, "the newest version gives others");
      // The next rollout begins with what is now: make it the old one.
      for (const name of own.names) for (const key of modulesOf(model)) old.set(name, key, own.get(name, key));
    }
  },
);

t.test("a cache that could not hold one trajectory, and options that make no sense, are refused", async (t) => {
  const run = (options: Partial<RolloutOptions>) => make(options).collect(questions);
  await refused(t, run({ cacheTokens: 399 }), "ERR_CACHE_TOO_SMALL", "maxLength 400", "399");
  for (const cacheTokens of [0, -1, 1.5])
    await refused(t, () => make({ cacheTokens }), "ERR_INVALID_ARGUMENT", "cacheTokens");
  for (const chunk of [0, 0.5, 1e9]) await refused(t, () => make({ chunk }), "ERR_INVALID_ARGUMENT", "chunk");
});
