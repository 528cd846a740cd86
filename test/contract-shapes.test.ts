// What contract.test.ts and contract-gradients.test.ts say of two checkpoints, in models of random shape: hidden sizes, heads, head_dim and
// vocabularies that are multiples of nothing, f32 and bf16 weights, 1 to 8 roles of ranks 1 to 17, sequences of 1 to 700 positions.
import path from "node:path";
import fc from "fast-check";
import t from "tap";
import { loadModel, Random, Rollout, Trainer } from "rolegrad";
import type { Adapters, Model, Trajectory } from "rolegrad";
import {
  adapterBits,
  bits,
  gradients,
  modulesOf,
  momentBits,
  onPolicy,
  pack,
  randomAdapters,
  randomRow,
  randomTrajectory,
  trainingBatch,
  type Row,
} from "./helpers/engine.js";
import { holds } from "./helpers/properties.js";
import { modelShapes, ranksOf, rolesOf, writeRandomModel, type ModelShape } from "./helpers/random-model.js";
import { environment, outcome, questions, reward, roles, router, writeToyModel } from "./helpers/toy.js";

interface Case {
  shape: ModelShape;
  lengths: number[];
  seed: number;
}

const length = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 40 }) },
  { weight: 3, arbitrary: fc.integer({ min: 41, max: 200 }) },
  // More than one split of 512 keys.
  { weight: 1, arbitrary: fc.integer({ min: 513, max: 700 }) },
);
const cases: fc.Arbitrary<Case> = fc.record({
  shape: modelShapes,
  lengths: fc.array(length, { minLength: 1, maxLength: 4 }),
  seed: fc.nat(),
});

const folder = t.testdir();
let written = 0;

/** Runs a check on the model of a case and random adapters, one for each of its roles. */
async function inModel(
  { shape }: Case,
  check: (model: Model, adapters: Adapters, directory: string) => Promise<boolean>,
): Promise<boolean> {
  const directory = await writeRandomModel(path.join(folder, String(written++)), shape);
  const model = await loadModel(directory);
  try {
    return await check(model, adaptersOf(model, shape), directory);
  } finally {
    model.close();
  }
}

function adaptersOf(model: Model, shape: ModelShape): Adapters {
  return randomAdapters(model, { roles: rolesOf(shape), rank: ranksOf(shape) });
}

/** Sequences of roles -1 .. R - 1. */
function rows({ shape, lengths, seed }: Case): Row[] {
  const random = new Random(seed, "rows");
  return lengths.map((length) => randomRow(random, shape.vocabulary, length, shape.ranks.length));
}

function trajectories(value: Case): Trajectory[] {
  const random = new Random(value.seed, "trajectories");
  return rows(value).map((row, i) => randomTrajectory(random, `q${i >> 1}#${i & 1}`, `q${i >> 1}`, row));
}

t.test("a sequence gets the same bits alone, in any order and in any batch", async (t) => {
  await holds(t, cases, 40, (value) =>
    inModel(value, async (model, adapters) => {
      const list = rows(value);
      const alone: Float32Array[] = [];
      for (const row of list) alone.push((await model.forward(pack([row]), { adapters, temperature: 0.8 })).logprobs);
      for (const order of [list.map((_, i) => i), new Random(value.seed, "order").shuffle(list.map((_, i) => i))]) {
        const { logprobs } = await model.forward(pack(order.map((i) => list[i]!)), { adapters, temperature: 0.8 });
        if (bits(logprobs) !== bits(...order.map((i) => alone[i]!))) return false;
      }
      return true;
    }),
  );
});

t.test("a later token, of whatever role, changes nothing before it", async (t) => {
  await holds(t, cases, 15, (value) =>
    inModel(value, async (model, adapters) => {
      const [row] = rows(value) as [Row];
      const length = 1 + (value.seed % row.ids.length);
      const whole = await model.forward(pack([row]), { adapters, logits: true });
      const cut = { ids: Array.from(row.ids).slice(0, length), roles: Array.from(row.roles).slice(0, length) };
      const part = await model.forward(pack([cut]), { adapters, logits: true });
      return bits(part.logits!) === bits(whole.logits!.subarray(0, length * value.shape.vocabulary));
    }),
  );
});

t.test("adapters off, routed to none and with B = 0 are the backbone", async (t) => {
  await holds(t, cases, 15, (value) =>
    inModel(value, async (model, adapters) => {
      const input = pack(rows(value));
      const { inputIds, cuSeqlens } = input;
      const backbone = bits((await model.forward({ inputIds, cuSeqlens }, { logits: true })).logits!);
      const none = adapters.withRoutes(Object.fromEntries(adapters.roles.map((role) => [role, null])));
      if (bits((await model.forward(input, { adapters: none, logits: true })).logits!) !== backbone) return false;
      for (const name of adapters.names)
        for (const module of modulesOf(model)) {
          const { a, b } = adapters.get(name, module);
          adapters.set(name, module, { a, b: b.fill(0) });
        }
      return bits((await model.forward(input, { adapters, logits: true })).logits!) === backbone;
    }),
  );
});

t.test("an adapter's numbers, however large, change no sequence without its role", async (t) => {
  await holds(t, cases, 15, (value) =>
    inModel(value, async (model, adapters) => {
      const last = adapters.roles.length - 1;
      const list = rows(value).map((row) => ({ ...row, roles: Array.from(row.roles, (r) => (r === last ? -1 : r)) }));
      const before = await model.forward(pack(list), { adapters });
      for (const module of modulesOf(model)) {
        const { a, b } = adapters.get(`role${last}`, module);
        adapters.set(`role${last}`, module, { a: a.fill(3e38), b: b.fill(3e38) });
      }
      // Beside a sequence that does run it.
      const own = { ids: [0, 1, 2], roles: [last, last, last] };
      const after = await model.forward(pack([...list, own]), { adapters });
      const size = before.logprobs.length;
      return bits(after.logprobs.subarray(0, size)) === bits(before.logprobs);
    }),
  );
});

t.test(
  "the order of trajectories and the split into micro-batches change no bit of a step, flow, stop and exact",
  async (t) => {
    await holds(t, cases, 15, (value) =>
      inModel(value, async (model) => {
        const random = new Random(value.seed, "order");
        const list = trajectories({ ...value, lengths: [...value.lengths, 9, 23] });
        for (const crossRole of ["flow", "stop", "exact"] as const) {
          const seen = new Set<string>();
          for (const microBatchTokens of [8192, 60, 1]) {
            const adapters = adaptersOf(model, value.shape);
            const trainer = new Trainer(model, {
              adapters,
              objective: { klCoefficient: 0.1 },
              optimizer: { learningRate: 0.01, weightDecay: 0.1 },
              crossRole,
              microBatchTokens,
            });
            await trainer.step(random.shuffle([...list]));
            seen.add(`${momentBits(trainer)} ${adapterBits(adapters)}`);
          }
          if (seen.size !== 1) return false;
        }
        return true;
      }),
    );
  },
);

t.test('with "stop" the loss of a role reaches its own adapter alone', async (t) => {
  await holds(t, cases, 15, (value) =>
    inModel(value, async (model, adapters) => {
      const batch = trainingBatch(await onPolicy(model, adapters, trajectories(value)));
      const own = adapters.roles[value.seed % adapters.roles.length]!;
      const trainer = new Trainer(model, {
        adapters,
        optimizer: { learningRate: 0 },
        crossRole: "stop",
        lossRoles: [own],
      });
      await trainer.accumulate(batch);
      return Object.entries(gradients(trainer)).every(([name, values]) => name === own || values.every((x) => x === 0));
    }),
  );
});

t.test("what was scored before a step gives ratios of exactly 1", async (t) => {
  await holds(t, cases, 15, (value) =>
    inModel(value, async (model, adapters) => {
      const list = await onPolicy(model, adapters, trajectories(value));
      const trainer = new Trainer(model, { adapters, optimizer: { learningRate: 0 }, microBatchTokens: 50 });
      const { maxRatioDeviation, clipHigh, clipLow } = await trainer.step(list);
      return maxRatioDeviation === 0 && clipHigh + clipLow === 0;
    }),
  );
});

t.test("rollouts record the trainer's log-probabilities, however many sequences are decoded together", async (t) => {
  const settings = fc.record({
    hidden: fc.integer({ min: 5, max: 50 }),
    kvHeads: fc.integer({ min: 1, max: 3 }),
    group: fc.integer({ min: 1, max: 4 }),
    halfHead: fc.integer({ min: 1, max: 9 }),
    intermediate: fc.integer({ min: 1, max: 70 }),
    layers: fc.integer({ min: 1, max: 3 }),
    extraTokens: fc.integer({ min: 0, max: 40 }),
    ranks: fc.tuple(fc.integer({ min: 1, max: 17 }), fc.integer({ min: 1, max: 17 })),
    concurrency: fc.integer({ min: 1, max: 7 }),
    temperature: fc.constantFrom(0.6, 1, 1.3),
    seed: fc.nat({ max: 1000 }),
  });
  let calls = 0;
  let longest = 0;
  await holds(t, settings, 10, async ({ ranks, concurrency, temperature, seed, group, halfHead, ...sizes }) => {
    const directory = path.join(folder, String(written++));
    const shape = { ...sizes, heads: sizes.kvHeads * group, headDim: 2 * halfHead };
    await writeToyModel(directory, { seed, sizes: shape });
    const model = await loadModel(directory);
    try {
      const adapters = randomAdapters(model, { roles, rank: { reason: ranks[0], tool: ranks[1] } });
      const sample = async (together: number) => {
        const rollout = new Rollout(model, {
          adapters,
          router,
          environment,
          reward,
          group: 3,
          seed,
          concurrency: together,
          sampling: { temperature, maxNewTokens: 40 },
          // One prompt of more than 512 tokens.
          prompt: ({ id, question }) => question.repeat(id === "q0" ? 60 : 1),
        });
        return rollout.collect(questions);
      };
      const list = await sample(9);
      calls += list.reduce((sum, x) => sum + x.calls.length, 0);
      longest = Math.max(longest, ...list.map(({ ids }) => ids.length));
      const other = await sample(concurrency);
      if (JSON.stringify(other.map(outcome)) !== JSON.stringify(list.map(outcome))) return false;
      const { logprobs } = await model.forward(pack(list), { adapters, temperature });
      const sampled = list.flatMap((x) => Array.from(x.sampled));
      const recorded = Float32Array.from(list.flatMap((x) => Array.from(x.logprobs)));
      if (bits(logprobs.map((x, i) => (sampled[i] === 1 ? x : 0))) !== bits(recorded)) return false;
      const trainer = new Trainer(model, { adapters, optimizer: { learningRate: 0 }, microBatchTokens: 300 });
      return (await trainer.step(list)).maxRatioDeviation === 0;
    } finally {
      model.close();
    }
  });
  t.ok(calls > 0, "some made calls");
  t.ok(longest > 512, "some are longer than a split of keys");
});

t.test("a run that is stopped after any step, saved and resumed is the run that never stopped", async (t) => {
  const settings = fc.record({
    value: cases,
    stop: fc.integer({ min: 0, max: 3 }),
    crossRole: fc.constantFrom("flow" as const, "stop" as const),
  });
  await holds(t, settings, 10, ({ value, stop, crossRole }) =>
    inModel(value, async (model, adapters, directory) => {
      const options = {
        objective: { klCoefficient: 0.05 },
        optimizer: { learningRate: 0.01, weightDecay: 0.01, warmupSteps: 2, totalSteps: 5 },
        crossRole,
      };
      const batch = (step: number): Trajectory[] => trajectories({ ...value, seed: value.seed + step });
      const straight = new Trainer(model, { adapters, ...options });
      const state = (trainer: Trainer): string => `${momentBits(trainer)} ${adapterBits(trainer.adapters!)}`;
      let resumed: string | undefined;
      for (let step = 0; step <= 3; step++) {
        if (step === stop) {
          await straight.save(path.join(directory, "saved"));
          const other = await loadModel(directory);
          try {
            const half = await Trainer.resume(path.join(directory, "saved"), other, options);
            for (let again = step; again <= 3; again++) await half.step(batch(again));
            resumed = state(half);
          } finally {
            other.close();
          }
        }
        await straight.step(batch(step));
      }
      return resumed === state(straight);
    }),
  );
});
