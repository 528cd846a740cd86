// gradientCheckpointing through the public surface: other memory, the same bits. Every mode and the memory itself: test/native.
import t from "tap";
import { createAdapters, loadModel, Random, Trainer } from "rolegrad";
import type { Adapters, CreateAdaptersOptions, TrainerOptions } from "rolegrad";
import { adapterBits, bits, checkpoints, modulesOf, momentBits, normals, trainingBatch } from "./helpers/engine.js";
import { batchShapes, holds, trajectoriesOf } from "./helpers/properties.js";

const [tied, untied] = await Promise.all([loadModel(checkpoints.tied), loadModel(checkpoints.untied)]);
t.teardown(() => [tied, untied].forEach((model) => model.close()));
const roles = ["reason", "tool"];

/** Adapters with random B, so that every gradient is there. */
function adaptersOf(model: typeof tied, options: Partial<CreateAdaptersOptions>): Adapters {
  const made = createAdapters(model, { roles, rank: 3, alpha: 6, seed: 4, ...options });
  for (const name of made.names)
    for (const module of modulesOf(model, options.targets)) {
      const { a, b } = made.get(name, module);
      made.set(name, module, { a, b: normals(new Random(1, `${name}/${module}`), b.length, 0.1) });
    }
  return made;
}

const ways: [string, typeof tied, Partial<CreateAdaptersOptions>, Partial<TrainerOptions>][] = [
  ["flow", tied, {}, {}],
  ["stop, kept by role", untied, {}, { crossRole: "stop", trackLossRoles: true }],
  ["exact, with dropout and trained tokens", tied, { dropout: 0.3, trainableTokens: [3, 17] }, { crossRole: "exact" }],
  ["soft routing", untied, { routing: "soft" }, {}],
];

t.test("steps, metrics and leak matrices are those without it, bit for bit", async (t) => {
  for (const [name, model, made, options] of ways) {
    await holds(t, batchShapes, 4, async (value) => {
      const trajectories = trajectoriesOf(value, model);
      const seen = new Set<string>();
      for (const gradientCheckpointing of [false, true]) {
        const adapters = adaptersOf(model, made);
        const trainer = new Trainer(model, {
          adapters,
          objective: { klCoefficient: 0.1 },
          optimizer: { learningRate: 0.01 },
          gradientCheckpointing,
          ...options,
        });
        const leak = await trainer.leakMatrix(trajectories);
        const metrics = [await trainer.step(trajectories), await trainer.step(trajectories)];
        const { loss, logprobs } = await trainer.accumulate(trainingBatch(trajectories));
        const rest = JSON.stringify([leak, metrics, loss, trainer.gradients.norms()]);
        seen.add([adapterBits(adapters), momentBits(trainer), bits(logprobs), rest].join(" "));
      }
      return seen.size === 1;
    });
    t.pass(name);
  }
});

t.test("full training is that without it, bit for bit", async (t) => {
  const trajectories = trajectoriesOf({ lengths: [30, 40, 1, 70], seed: 3 }, tied);
  const seen = new Set<string>();
  for (const gradientCheckpointing of [false, true]) {
    const model = await loadModel(checkpoints.tied, { dtype: "float32" });
    const trainer = new Trainer(model, { full: true, optimizer: { learningRate: 0.01 }, gradientCheckpointing });
    await trainer.step(trajectories);
    await trainer.step(trajectories);
    const values = trainer.parameters().map(({ name }) => trainer.parameter(name));
    seen.add(
      `${bits(...values)} ${momentBits(trainer)} ${bits((await model.forward(trainingBatch(trajectories))).logprobs)}`,
    );
    model.close();
  }
  t.equal(seen.size, 1);
});
