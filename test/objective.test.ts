// The policy objective's options, each against its equation written out slowly from forward passes.
import t, { type Test } from "tap";
import { groupAdvantages, loadModel, penalizedReward, Random, Trainer } from "rolegrad";
import type { Objective, StepOptions, TrainerOptions, TrainingBatch, Trajectory } from "rolegrad";
import { adapterBits, bits, checkpoints, gradients, pack, randomAdapters, trainingBatch } from "./helpers/engine.js";
import { trajectoriesOf } from "./helpers/properties.js";
import { refusals } from "./helpers/refused.js";

const { model, refused } = await refusals(checkpoints.untied);
t.teardown(() => model.close());
const roles = ["reason", "tool"];
const trajectories = trajectoriesOf({ lengths: [30, 25, 40, 8], seed: 6 }, model);
const random = new Random(3, "objective");
/** Near enough to on policy that all branches are taken. */
const near = (values: Float32Array, by: number): Float32Array => values.map((x) => x + by * (2 * random.next() - 1));
const { logprobs } = await model.forward(pack(trajectories), { adapters: randomAdapters(model, { roles }) });
const { logprobs: refLogprobs } = await model.forward(pack(trajectories));
const batch = { ...trainingBatch(trajectories), oldLogprobs: near(logprobs, 0.6), refLogprobs };
const behaviourLogprobs = near(batch.oldLogprobs, 0.8);

function make(objective: Objective = {}, options: Partial<TrainerOptions> = {}): Trainer {
  const adapters = randomAdapters(model, { roles });
  return new Trainer(model, { adapters, optimizer: { learningRate: 0.01 }, objective, ...options });
}

/** The loss of a batch as its definition has it, from log-probabilities: one number after another. */
function slowLoss(
  own: TrainingBatch,
  logprob: ArrayLike<number>,
  objective: Objective,
  entropies?: ArrayLike<number>,
): number {
  const { clipLow = 0.2, clipHigh = clipLow, dualClip, klCoefficient = 0, klEstimator = "k3" } = objective;
  const { ratio = "token", importance, aggregation = "token-mean" } = objective;
  const { cuSeqlens, lossMask, oldLogprobs = [], advantages = [] } = own;
  const sequences = Array.from({ length: cuSeqlens.length - 1 }, (_, s) =>
    Array.from({ length: cuSeqlens[s + 1]! - cuSeqlens[s]! - 1 }, (_, i) => cuSeqlens[s]! + 1 + i).filter(
      (i) => lossMask[i] === 1,
    ),
  );
  const losses = sequences.map((targets, s) => {
    const logRatios = targets.map((i) => logprob[i]! - oldLogprobs[i]!);
    const mean = logRatios.reduce((sum, x) => sum + x, 0) / targets.length;
    return targets.map((i, j) => {
      const a = advantages[advantages.length === sequences.length ? s : i]!;
      const rho = Math.exp(ratio === "sequence" ? mean : logRatios[j]!);
      let loss = -Math.min(rho * a, Math.min(Math.max(rho, 1 - clipLow), 1 + clipHigh) * a);
      if (dualClip !== undefined && a < 0) loss = Math.min(loss, -dualClip * a);
      if (importance !== undefined) {
        const w = Math.exp(oldLogprobs[i]! - own.behaviourLogprobs![i]!);
        if (importance.mode === "mask") loss *= w > importance.cap || w < 1 / importance.cap ? 0 : w;
        else loss *= Math.min(w, importance.cap);
      }
      const d = own.refLogprobs![i]! - logprob[i]!;
      const kl = { k1: -d, k2: (d * d) / 2, k3: Math.exp(d) - d - 1 }[klEstimator];
      const bonus = (objective.entropyCoefficient ?? 0) * (entropies?.[i] ?? 0);
      return loss - bonus + (objective.klPlacement === "reward" ? 0 : klCoefficient * kl);
    });
  });
  const sum = (list: number[]): number => list.reduce((total, x) => total + x, 0);
  if (aggregation === "token-mean") return sum(losses.map(sum)) / losses.flat().length;
  const divisor = (list: number[]): number =>
    aggregation === "seq-mean-token-mean" ? list.length : objective.normLength!;
  return sum(losses.map((list) => sum(list) / divisor(list))) / losses.length;
}

/** By target, from all logits: -sum p log p. */
function slowEntropies(logits: Float32Array, temperature = 1): Float64Array {
  const vocabulary = model.config.vocabSize;
  return Float64Array.from({ length: logits.length / vocabulary }, (_, i) => {
    if (i === 0) return NaN;
    const z = Array.from(logits.subarray((i - 1) * vocabulary, i * vocabulary), (x) => x / temperature);
    const top = Math.max(...z);
    const sum = z.reduce((total, x) => total + Math.exp(x - top), 0);
    return -z.reduce((total, x) => total + (Math.exp(x - top) / sum) * (x - top - Math.log(sum)), 0);
  });
}

const tokenAdvantages = Float64Array.from(batch.inputIds, () => 4 * random.next() - 2);
const cases: [string, Objective, Partial<TrainingBatch>?][] = [
  ["the clipped surrogate", {}],
  ["asymmetric clip", { clipLow: 0.1, clipHigh: 0.4 }],
  ["dual clip", { dualClip: 1.4 }],
  ["advantages by token", { dualClip: 1.4 }, { advantages: tokenAdvantages }],
  ["mean of sequences' means", { aggregation: "seq-mean-token-mean" }],
  ["mean of sequences' sums", { aggregation: "seq-mean-token-sum-norm", normLength: 17 }],
  ["sequence ratios", { ratio: "sequence", clipLow: 0.02, clipHigh: 0.03, aggregation: "seq-mean-token-mean" }],
  [
    "sequence ratios, advantages by token",
    { ratio: "sequence", clipLow: 1, clipHigh: 9 },
    { advantages: tokenAdvantages },
  ],
  ["sequence ratios, dual clip", { ratio: "sequence", clipLow: 0.01, dualClip: 1.02 }],
  ["k1", { klCoefficient: 0.3, klEstimator: "k1" }],
  ["k2", { klCoefficient: 0.3, klEstimator: "k2" }],
  ["k3", { klCoefficient: 0.3 }],
  ["a KL that is in the reward", { klCoefficient: 0.3, klPlacement: "reward" }],
  ["an entropy bonus", { entropyCoefficient: 0.5 }],
  ["truncated weights", { importance: { cap: 1.3 } }, { behaviourLogprobs }],
  ["masked weights", { importance: { cap: 1.5, mode: "mask" } }, { behaviourLogprobs }],
  [
    "all of them",
    { ratio: "sequence", dualClip: 1.5, importance: { cap: 1.5, mode: "mask" }, klCoefficient: 0.1, klEstimator: "k2" },
    { behaviourLogprobs, advantages: tokenAdvantages },
  ],
];

for (const [name, objective, change] of cases) {
  t.test(`${name}: loss and gradient are those of its definition`, async (t) => {
    const own = { ...batch, ...change };
    const trainer = make(objective);
    const result = await trainer.accumulate(own);
    const { logits } = await model.forward(pack(trajectories), { adapters: trainer.adapters!, logits: true });
    const want = slowLoss(own, logprobs, objective, slowEntropies(logits!));
    t.ok(Math.abs(result.loss - want) < 2e-6 * (1 + Math.abs(want)), `${result.loss}, ${want}`);
    // The derivative along the gradient, from two losses at shifted adapters.
    const adapters = trainer.adapters!;
    const names = ["reason", "tool"];
    const modules = Array.from({ length: model.config.layers }, (_, layer) => `model.layers.${layer}.mlp.up_proj`);
    const lossAt = async (shift: number): Promise<number> => {
      const shifted = randomAdapters(model, { roles });
      for (const adapter of names)
        for (const module of modules) {
          const { b } = adapters.get(adapter, module);
          const { b: g } = trainer.gradients.get(adapter, module);
          shifted.set(adapter, module, { a: adapters.get(adapter, module).a, b: b.map((x, i) => x + shift * g[i]!) });
        }
      const moved = await model.forward(pack(trajectories), { adapters: shifted, logits: true });
      return slowLoss(own, moved.logprobs, objective, slowEntropies(moved.logits!));
    };
    let squares = 0;
    for (const adapter of names)
      for (const module of modules) for (const g of trainer.gradients.get(adapter, module).b) squares += g * g;
    t.ok(squares > 0);
    const h = 1e-3 / Math.sqrt(squares);
    const slope = ((await lossAt(h)) - (await lossAt(-h))) / (2 * h);
    t.ok(Math.abs(slope / squares - 1) < 0.02, `slope ${slope}, gradient ${squares}`);
  });
}

t.test("counts are shares of N, and weights their mean", async (t) => {
  const count = (test: (i: number, a: number) => boolean): number => {
    let n = 0;
    for (let s = 0; s < trajectories.length; s++)
      for (let i = batch.cuSeqlens[s]! + 1; i < batch.cuSeqlens[s + 1]!; i++)
        if (batch.lossMask[i] === 1 && test(i, batch.advantages[s]!)) n++;
    return n;
  };
  const rho = (i: number): number => Math.exp(logprobs[i]! - batch.oldLogprobs[i]!);
  const w = (i: number): number => Math.exp(batch.oldLogprobs[i]! - behaviourLogprobs[i]!);
  const dual = await make({ dualClip: 1.4 }).accumulate(batch);
  t.ok(dual.dualClip > 0);
  t.ok(Math.abs(dual.dualClip * dual.normalizer - count((i, a) => a < 0 && rho(i) > 1.4)) < 1e-9);
  const own = await make({ importance: { cap: 1.3 } }).accumulate({ ...batch, behaviourLogprobs });
  t.ok(Math.abs(own.importanceBounded * own.normalizer - count((i) => w(i) > 1.3)) < 1e-9);
  t.ok(own.importance > 0.5 && own.importance < 1.3);
});

t.test("micro-batches change no bit of a gradient, whatever the options", async (t) => {
  for (const objective of [
    { ratio: "sequence", dualClip: 1.5, klCoefficient: 0.1, klEstimator: "k2" },
    { importance: { cap: 2 }, klCoefficient: 0.1, klPlacement: "reward", advantageEstimator: "rloo" },
  ] as Objective[]) {
    const results = [];
    for (const microBatchTokens of [8192, 45, 1]) {
      const trainer = make(objective, { microBatchTokens });
      await trainer.step(trajectories, { epochs: 2 });
      results.push(adapterBits(trainer.adapters!));
    }
    t.equal(new Set(results).size, 1);
  }
});

// ---- entropy

t.test("entropies are those of the distributions that tokens are drawn from, and are logged by role", async (t) => {
  for (const temperature of [1, 0.7]) {
    const trainer = make();
    const { entropies } = await trainer.accumulate(batch, { temperature });
    const { logits } = await model.forward(pack(trajectories), { adapters: trainer.adapters!, logits: true });
    const want = slowEntropies(logits!, temperature);
    let tokens = 0;
    entropies.forEach((entropy, i) => {
      if (batch.lossMask[i] === 1 && !batch.cuSeqlens.includes(i)) tokens++;
      else return void (Number.isNaN(entropy) || t.fail(`an entropy of target ${i}, which is not trained`));
      if (!(Math.abs(entropy - want[i]!) < 1e-4)) t.fail(`${i}: ${entropy}, ${want[i]}`);
    });
    t.ok(tokens > 40);
    if (temperature !== 1) continue;
    const { entropy } = await make().step(differing);
    for (const [index, role] of roles.entries()) {
      const own = [...entropies].filter((x, i) => !Number.isNaN(x) && batch.roles[i - 1] === index);
      const mean = own.reduce((sum, x) => sum + x, 0) / own.length;
      t.ok(Math.abs(entropy![role]! - mean) < 1e-6, `${role}: ${mean}`);
    }
  }
});

t.test("a bonus makes every token teach, and full training has it too", async (t) => {
  const flat = trajectories.map((x) => ({ ...x, reward: 1 }));
  const before = await make().step(flat);
  t.strictSame([before.entropy, before.loss], [undefined, 0], "nothing teaches, nothing is computed");
  const own = await make({ entropyCoefficient: 0.1 }).step(flat);
  t.ok(own.loss < 0 && own.gradNorms["reason"]! > 0 && own.gradNorms["tool"]! > 0);
  const whole = await loadModel(checkpoints.untied, { dtype: "float32" });
  const optimizer = { learningRate: 0.003 };
  const trainer = new Trainer(whole, { full: true, roles, objective: { entropyCoefficient: 1 }, optimizer });
  const entropies: number[] = [];
  for (let step = 0; step < 4; step++) {
    const { entropy } = await trainer.step(flat);
    entropies.push(entropy!["reason"]! + entropy!["tool"]!);
  }
  t.ok(
    entropies.every((x, i) => i === 0 || x > entropies[i - 1]!),
    `it rises: ${entropies.join(" ")}`,
  );
  whole.close();
});

// ---- advantages

t.test("leave-one-out advantages are the reward less the mean of the others", async (t) => {
  const rewards = [1, 0, 0.25, 3, -1];
  const want = rewards.map((r, i) => r - rewards.filter((_, j) => j !== i).reduce((sum, x) => sum + x, 0) / 4);
  const got = groupAdvantages(rewards, { estimator: "rloo" });
  t.ok(want.every((x, i) => Math.abs(x - got[i]!) < 1e-12));
  t.strictSame(groupAdvantages([0.1, 0.1, 0.1], { estimator: "rloo" }), new Float64Array(3));
  t.strictSame(groupAdvantages([5], { estimator: "rloo" }), new Float64Array(1));
  t.throws(() => groupAdvantages([1], { estimator: "gae" as "rloo" }), { code: "ERR_INVALID_ARGUMENT" });
});

/** The gradient that step() would take, from accumulate() with advantages made by hand. */
async function sameStep(
  t: Test,
  objective: Objective,
  list: Trajectory[],
  advantages: Float64Array,
  options: StepOptions = {},
): Promise<void> {
  const stepped = make(objective);
  await stepped.step(list, options);
  const slow = make(objective);
  await slow.accumulate({ ...trainingBatch(list), advantages });
  await slow.apply();
  t.equal(adapterBits(stepped.adapters!), adapterBits(slow.adapters!));
}

const differing = trajectories.map((x, i) => ({ ...x, reward: i }));
const grouped = trajectories.map((x, i) => ({
  ...x,
  id: `t${i}`,
  group: i < 2 ? "a" : "b",
  reward: [1, 0, 0.5, 0.5][i]!,
}));

t.test("a step takes the estimator's advantages, and one's own by sequence or token", async (t) => {
  await sameStep(t, { advantageEstimator: "rloo" }, grouped, Float64Array.of(1, -1, 0, 0));
  await sameStep(t, { standardize: false }, grouped, Float64Array.of(0.5, -0.5, 0, 0));
  const seen: string[][] = [];
  const own = (group: readonly Trajectory[]): number[] => {
    seen.push(group.map(({ id }) => id));
    return group.map(({ reward }) => 2 * reward + 1);
  };
  await sameStep(t, {}, grouped, Float64Array.of(3, 1, 2, 2), { advantages: own });
  t.strictSame(seen, [["t0", "t1"], ["t2", "t3"]]); // prettier-ignore
  const byToken = (group: readonly Trajectory[]): Float64Array[] =>
    group.map(({ ids, sampled, reward }) =>
      Float64Array.from(ids, (id, i) => (sampled[i] === 1 ? id / 50 - reward : NaN)),
    );
  const flat = Float64Array.from(byToken(grouped).flatMap((x) => [...x]), (a) => (Number.isNaN(a) ? 0 : a)); // prettier-ignore
  await sameStep(t, {}, grouped, flat, { advantages: byToken });
});

t.test("groups of equal rewards leave the batch where they are filtered, and count in N where not", async (t) => {
  const before = make({ filterGroups: true });
  const metrics = await before.step(grouped);
  t.match(metrics, { filteredGroups: 1, mixedGroups: 0.5, trajectories: 4 });
  const alone = make();
  const { loss } = await alone.step(grouped.slice(0, 2));
  t.equal(metrics.loss, loss, "as if they had not been there");
  t.equal(adapterBits(before.adapters!), adapterBits(alone.adapters!));
  const kept = await make().step(grouped);
  t.equal(kept.filteredGroups, undefined);
  t.ok(Math.abs(kept.loss) < Math.abs(loss));
  const none = make({ filterGroups: true, klCoefficient: 0.1 });
  const flat = grouped.map((x) => ({ ...x, reward: 1 }));
  t.match(await none.step(flat), { filteredGroups: 2, loss: 0, kl: 0, gradNorms: { reason: 0, tool: 0 } });
});

t.test("a KL in the reward is taken off before advantages are made", async (t) => {
  for (const klEstimator of ["k1", "k2", "k3"] as const) {
    const objective: Objective = { klCoefficient: 0.05, klPlacement: "reward", klEstimator };
    const rewards = [];
    for (const x of grouped) {
      const { logprobs: reference } = await model.forward(pack([x]));
      let sum = 0;
      x.sampled.forEach((sampled, i) => {
        if (sampled === 0 || i === 0) return;
        const d = reference[i]! - x.logprobs[i]!;
        sum += klEstimator === "k1" ? -d : klEstimator === "k2" ? d ** 2 / 2 : Math.exp(d) - 1 - d;
      });
      rewards.push(x.reward - 0.05 * sum);
      const { sampled, logprobs: own } = x;
      const options = { sampled, logprobs: own, refLogprobs: reference, coefficient: 0.05, estimator: klEstimator };
      t.ok(Math.abs(penalizedReward(x.reward, options) - rewards.at(-1)!) < 1e-9);
    }
    const advantages = [...groupAdvantages(rewards.slice(0, 2)), ...groupAdvantages(rewards.slice(2))];
    await sameStep(t, objective, grouped, Float64Array.from(advantages));
    const { kl } = await make(objective).step(grouped);
    t.ok(kl !== 0, "and is logged");
  }
});

// ---- policies sampled elsewhere, several updates

t.test("a KL in the reward is that of the policy before the step, not of what another engine recorded", async (t) => {
  const objective: Objective = { klCoefficient: 0.5, klPlacement: "reward", klEstimator: "k1", importance: { cap: 2 } };
  const trainer = make(objective);
  const { logprobs: old, cuSeqlens } = await (async () => {
    const input = pack(grouped);
    return { ...(await model.forward(input, { adapters: trainer.adapters! })), cuSeqlens: input.cuSeqlens };
  })();
  const { logprobs: reference } = await model.forward(pack(grouped));
  const rewards = grouped.map((x, s) => {
    const part = (all: Float32Array) => all.subarray(cuSeqlens[s], cuSeqlens[s + 1]);
    const options = { sampled: x.sampled, logprobs: part(old), refLogprobs: part(reference), coefficient: 0.5 };
    return penalizedReward(x.reward, options);
  });
  const elsewhere = (x: Trajectory): Trajectory => ({ ...x, logprobs: x.logprobs.map((own) => own * 1.1) });
  await trainer.step(grouped.map(elsewhere));
  const slow = make({ importance: { cap: 2 } });
  const advantages = Float64Array.from([...groupAdvantages(rewards.slice(0, 2)), ...groupAdvantages(rewards.slice(2))]);
  const own = trainingBatch(grouped.map(elsewhere));
  await slow.accumulate({ ...own, advantages, oldLogprobs: old, behaviourLogprobs: own.oldLogprobs });
  await slow.apply();
  t.equal(adapterBits(trainer.adapters!), adapterBits(slow.adapters!));
});

t.test("with importance weights a step computes the old log-probabilities itself", async (t) => {
  const trainer = make({ importance: { cap: 2 } });
  const metrics = await trainer.step(grouped.map((x) => ({ ...x, precision: "bf16-multiply" as const })));
  t.equal(metrics.maxRatioDeviation, 0, "exactly on policy");
  t.ok(metrics.importance! > 0 && metrics.importanceBounded! > 0, "far from the policy that sampled");
  const slow = make({ importance: { cap: 2 } });
  const own = trainingBatch(grouped);
  const { logprobs: old } = await model.forward(pack(grouped), { adapters: slow.adapters! });
  const advantages = Float64Array.from([...groupAdvantages([1, 0]), 0, 0]);
  await slow.accumulate({ ...own, advantages, oldLogprobs: old, behaviourLogprobs: own.oldLogprobs });
  await slow.apply();
  t.equal(adapterBits(trainer.adapters!), adapterBits(slow.adapters!));
});

t.test(
  "several epochs and parts are so many updates of one step, against the log-probabilities of before",
  async (t) => {
    const trainer = make();
    const metrics = await trainer.step(grouped, { epochs: 3 });
    t.match(metrics, { step: 1, updates: 3 });
    const slow = make();
    const advantages = Float64Array.from([...groupAdvantages([1, 0]), 0, 0]);
    for (let update = 0; update < 3; update++) {
      await slow.accumulate({ ...trainingBatch(grouped), advantages });
      await slow.apply();
    }
    t.equal(adapterBits(trainer.adapters!), adapterBits(slow.adapters!));
    t.strictSame(trainer.native.state().steps, [3, 3], "Adam counts updates");

    const differ = grouped.map((x, i) => ({ ...x, reward: i }));
    const parts = make();
    t.match(await parts.step(differ, { minibatches: 5 }), { step: 1, updates: 2 }, "at most one a group");
    const byHand = make();
    for (const part of [differ.slice(0, 2), differ.slice(2)]) {
      await byHand.accumulate({
        ...trainingBatch(part),
        advantages: groupAdvantages(part.map(({ reward }) => reward)),
      });
      await byHand.apply();
    }
    t.equal(adapterBits(parts.adapters!), adapterBits(byHand.adapters!));
    t.equal(bits(...Object.values(gradients(parts))), bits(...Object.values(gradients(byHand))), "buffers are empty");
  },
);

t.test("what makes no sense is refused by field", async (t) => {
  const cases: [string, object][] = [
    ["objective.ratio", { ratio: "group" }],
    ["objective.entropyCoefficient", { entropyCoefficient: -1 }],
    ["objective.importance", { kind: "sft", importance: { cap: 2 } }],
    ["objective.klEstimator", { klEstimator: "k4" }],
    ["objective.klPlacement", { klPlacement: "value" }],
    ["objective.advantageEstimator", { advantageEstimator: "gae" }],
    ["objective.filterGroups", { filterGroups: 1 }],
    ["objective.dualClip above 1.2", { dualClip: 1.1 }],
    ["objective.importance.cap above 1", { importance: { cap: 1 } }],
    ["objective.importance.mode", { importance: { cap: 2, mode: "drop" } }],
  ];
  for (const [word, objective] of cases) await refused(t, () => make(objective), "ERR_INVALID_ARGUMENT", word);
  await refused(t, make().accumulate({ ...batch, behaviourLogprobs }), "ERR_INVALID_ARGUMENT", "behaviourLogprobs");
  const corrected = make({ importance: { cap: 2 } });
  await refused(t, corrected.accumulate(batch), "ERR_INVALID_ARGUMENT", "behaviourLogprobs");
  const short = behaviourLogprobs.subarray(1);
  await refused(t, corrected.accumulate({ ...batch, behaviourLogprobs: short }), "ERR_SHAPE", "behaviourLogprobs");
  const bad = behaviourLogprobs.map(() => NaN);
  await refused(t, corrected.accumulate({ ...batch, behaviourLogprobs: bad }), "ERR_NOT_FINITE", "behaviourLogprobs");
  const trainer = make();
  const before = adapterBits(trainer.adapters!);
  const advantages = (value: unknown) => ({ advantages: () => value as number[] });
  await refused(t, trainer.step(grouped, advantages([1])), "ERR_INVALID_ARGUMENT", "2 advantages of group a");
  await refused(t, trainer.step(grouped, advantages([1, NaN])), "ERR_NOT_FINITE", "trajectory t1");
  await refused(t, trainer.step(grouped, advantages([1, [1, 2]])), "ERR_SHAPE", "trajectory t1");
  await refused(t, trainer.step(grouped, { epochs: 0 }), "ERR_INVALID_ARGUMENT", "epochs");
  await refused(t, trainer.step(grouped, { minibatches: 1.5 }), "ERR_INVALID_ARGUMENT", "minibatches");
  t.equal(adapterBits(trainer.adapters!), before);
});
