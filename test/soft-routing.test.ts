// Soft routing (MixLoRA): a mixture of experts gated by trained routers.
import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import {
  Adapters,
  createAdapters,
  inspectDirectory,
  loadModel,
  type Model,
  Random,
  Rollout,
  Trainer,
  type TrainerOptions,
  trainRun,
  WORLD_CHECKPOINT,
} from "rolegrad";
import { bits, checkpoints, modulesOf, normals, onPolicy, pack, trainingBatch } from "./helpers/engine.js";
import { trajectoriesOf } from "./helpers/properties.js";
import { refusals } from "./helpers/refused.js";
import { nearPlainLoops, sameInAnySplit, slopeAlong } from "./helpers/steps.js";
import { relativeError } from "./helpers/tensors.js";
import { questions, roles, shortRollouts, writeToyModel } from "./helpers/toy.js";
import { temporary, worldSetup } from "./helpers/world.js";

const { model: tied, refused } = await refusals(checkpoints.tied);
const untied: Model = await loadModel(checkpoints.untied);
t.teardown(() => [tied, untied].forEach((model) => model.close()));
const shape = { lengths: [30, 25, 40, 8], seed: 6 };
const blocks = ["attention", "mlp"] as const;

/** A mixture whose B and routers are random and large enough to matter. */
function mixture(model: Model, { experts = 3, rank = 2, dropout = 0, seed = 1 } = {}): Adapters {
  const made = createAdapters(model, { roles, routing: "soft", experts, rank, alpha: 2 * rank, dropout, seed });
  for (const module of modulesOf(model)) {
    const { a, b } = made.get("mixture", module);
    made.set("mixture", module, { a, b: normals(new Random(seed, `b/${module}`), b.length, 0.1) });
  }
  for (let layer = 0; layer < model.config.layers; layer++)
    for (const block of blocks) {
      const size = made.getRouter(layer, block).length;
      made.setRouter(layer, block, normals(new Random(seed, `router/${layer}/${block}`), size, 0.3));
    }
  return made;
}

/** Every pair and every router. */
function parts(adapters: Adapters): Float32Array[] {
  const { model } = adapters;
  const pairs = modulesOf(model).flatMap((module) => Object.values(adapters.get("mixture", module)) as Float32Array[]);
  const layers = Array.from({ length: model.config.layers }, (_, layer) => layer);
  return [...pairs, ...layers.flatMap((layer) => blocks.map((block) => adapters.getRouter(layer, block)))];
}
const partBits = (adapters: Adapters): string => bits(...parts(adapters));

function gradientsOf(trainer: Trainer): Float32Array[] {
  const { model, gradients } = trainer;
  const pairs = modulesOf(model).flatMap((m) => Object.values(gradients.get("mixture", m)) as Float32Array[]);
  const layers = Array.from({ length: model.config.layers }, (_, layer) => layer);
  return [...pairs, ...layers.flatMap((layer) => blocks.map((block) => gradients.router(layer, block)))];
}

const make = (adapters: Adapters, options: Partial<TrainerOptions> = {}): Trainer =>
  new Trainer(adapters.model, { adapters, optimizer: { learningRate: 0.01 }, ...options });

t.test("a new mixture changes no bit of the model", async (t) => {
  for (const model of [tied, untied]) {
    const input = pack(trajectoriesOf(shape, model));
    const adapters = createAdapters(model, { roles, routing: "soft", rank: 2, alpha: 4 });
    t.match(adapters.list, [{ name: "mixture", experts: 2, rank: 2 }], "an expert a role");
    t.same(adapters.routes, { reason: "mixture", tool: "mixture" });
    t.equal(bits((await model.forward(input, { adapters })).logprobs), bits((await model.forward(input)).logprobs));
    const changed = await model.forward(input, { adapters: mixture(model) });
    t.not(bits(changed.logprobs), bits((await model.forward(input)).logprobs), "one that is not new does");
    const off = mixture(model).withRoutes({ reason: null, tool: null });
    t.equal(
      bits((await model.forward(input, { adapters: off })).logprobs),
      bits((await model.forward(input)).logprobs),
    );
  }
});

t.test(
  "a mixture of one expert, whose gate is 1, is one shared LoRA bit for bit, in scores, gradients and steps",
  async (t) => {
    for (const model of [tied, untied]) {
      const soft = mixture(model, { experts: 1, rank: 3 });
      const routes = { reason: "shared", tool: "shared" };
      const hard = createAdapters(model, { roles, routes, rank: 3, alpha: 6 });
      for (const module of modulesOf(model)) hard.set("shared", module, soft.get("mixture", module));
      const trajectories = trajectoriesOf(shape, model);
      const input = pack(trajectories);
      const forward = async (adapters: Adapters) => bits((await model.forward(input, { adapters })).logprobs);
      t.equal(await forward(soft), await forward(hard));
      const [a, b] = [
        make(soft, { optimizer: { learningRate: 0.01, maxGradNorm: 0 } }),
        make(hard, { optimizer: { learningRate: 0.01, maxGradNorm: 0 } }),
      ];
      const [x, y] = [await a.step(trajectories), await b.step(trajectories)];
      t.equal(x.loss, y.loss);
      t.equal(x.gradNorms["mixture"], y.gradNorms["shared"], "the router's gradient is exactly zero");
      for (const module of modulesOf(model)) t.same(soft.get("mixture", module), hard.get("shared", module), module);
    }
  },
);

t.test("routers of zeros weigh all experts alike: one LoRA of all their ranks at the same alpha", async (t) => {
  const [experts, rank] = [3, 2];
  const soft = mixture(tied, { experts, rank });
  for (let layer = 0; layer < tied.config.layers; layer++)
    for (const block of blocks) soft.setRouter(layer, block, new Float32Array(experts * tied.config.hiddenSize));
  const routes = { reason: "shared", tool: "shared" };
  const wide = createAdapters(tied, { roles, routes, rank: experts * rank, alpha: 2 * rank });
  for (const module of modulesOf(tied)) wide.set("shared", module, soft.get("mixture", module));
  const input = pack(trajectoriesOf(shape, tied));
  const logits = async (adapters: Adapters) => (await tied.forward(input, { adapters, logits: true })).logits!;
  const error = relativeError(await logits(soft), await logits(wide));
  t.ok(error < 1e-5, `${error}`);
});

t.test("gradients of experts and routers are those of central differences and of the plain loops", async (t) => {
  for (const [directory, dropout] of [
    [checkpoints.tied, 0],
    [checkpoints.untied, 0.2],
  ] as const) {
    await nearPlainLoops(t, directory, async (model, device) => {
      const adapters = mixture(model, { dropout });
      const trainer = make(adapters, { objective: { kind: "sft" } });
      const batch = trainingBatch(trajectoriesOf(shape, model));
      await trainer.accumulate(batch);
      const all = gradientsOf(trainer);
      if (device === "cpu") return all;
      const loss = async () => (await trainer.accumulate(batch)).loss;
      const check = async (
        what: string,
        start: Float32Array,
        gradient: () => Float32Array,
        set: (x: Float32Array) => void,
      ) => {
        trainer.gradients.zero();
        await loss();
        const { slope, norm } = await slopeAlong(loss, 2e-2, [start], [gradient()], (x) => set(x));
        t.ok(norm > 0 && Math.abs(slope - norm) < 0.02 * norm, `${what}: ${slope} is near ${norm}`);
      };
      for (let layer = 0; layer < model.config.layers; layer++)
        for (const block of blocks)
          await check(
            `${block} of ${layer}`,
            adapters.getRouter(layer, block),
            () => trainer.gradients.router(layer, block),
            (x) => adapters.setRouter(layer, block, x),
          );
      for (const module of [
        "model.layers.0.self_attn.v_proj",
        "model.layers.0.self_attn.o_proj",
        "model.layers.1.mlp.down_proj",
      ]) {
        const pair = adapters.get("mixture", module);
        await check(
          module,
          pair.b,
          () => trainer.gradients.get("mixture", module).b,
          (b) => adapters.set("mixture", module, { ...pair, b }),
        );
      }
      return all;
    });
  }
});

t.test("batch order and micro-batches change no bit of a softly routed step", async (t) => {
  for (const model of [tied, untied]) {
    await sameInAnySplit(
      t,
      model,
      (microBatchTokens) => make(mixture(model), { microBatchTokens, objective: { klCoefficient: 0.1 } }),
      (trainer) => partBits(trainer.adapters!),
    );
  }
});

t.test(
  "a rollout of a mixture is on policy exactly, before and after a step, whatever it shares a batch with",
  async (t) => {
    const directory = path.join(t.testdir(), "toy");
    await writeToyModel(directory);
    const model = await loadModel(directory);
    t.teardown(() => model.close());
    const adapters = mixture(model);
    const trainer = make(adapters);
    const collect = async (concurrency: number) => {
      const rollout = new Rollout(model, { ...shortRollouts, adapters, concurrency });
      const found = [];
      for await (const trajectory of rollout.run(questions)) found.push(trajectory);
      return found.sort((a, b) => (a.id < b.id ? -1 : 1));
    };
    for (const when of ["before", "after"]) {
      const [together, alone] = [await collect(12), await collect(1)];
      t.equal(
        bits(...together.map((x) => x.logprobs)),
        bits(...alone.map((x) => x.logprobs)),
        `${when}: alone and together`,
      );
      t.equal((await trainer.step(together)).maxRatioDeviation, 0, `${when}: the first ratio is 1`);
    }
  },
);

t.test("a mixture that is saved, loaded and resumed has the same bits", async (t) => {
  const directory = t.testdir();
  const trajectories = await onPolicy(tied, mixture(tied), trajectoriesOf(shape, tied));
  const trainer = make(mixture(tied, { dropout: 0.1 }));
  await trainer.step(trajectories);
  await trainer.save(directory);
  const folder = path.join(directory, "adapters/mixture");
  const loaded = await Adapters.load(tied, { reason: folder, tool: folder });
  t.equal(partBits(withName(loaded)), partBits(trainer.adapters!));
  const { parameters } = (await inspectDirectory(folder)) as { parameters: number };
  t.equal(parameters, trainer.adapters!.parameterCount("mixture"), "rolegrad inspect knows it");
  t.match(loaded.list, [{ experts: 3, rank: 2, alpha: 4, dropout: 0.1 }]);
  await trainer.step(trajectories);
  const resumed = await Trainer.resume(directory, tied, { optimizer: { learningRate: 0.01 } });
  await resumed.step(trajectories);
  t.equal(partBits(resumed.adapters!), partBits(trainer.adapters!));
  t.equal(bits(...resumed.native.state().first), bits(...trainer.native.state().first));
});

/** Adapters.load names the adapter after the first role. */
function withName(loaded: Adapters): Adapters {
  const renamed = createAdapters(loaded.model, { roles, routing: "soft", experts: 3, rank: 2, alpha: 4 });
  for (const module of modulesOf(loaded.model)) renamed.set("mixture", module, loaded.get("reason", module));
  for (let layer = 0; layer < loaded.model.config.layers; layer++)
    for (const block of blocks) renamed.setRouter(layer, block, loaded.getRouter(layer, block));
  return renamed;
}

t.test("what makes no sense in soft routing is refused", async (t) => {
  const made = (options: object) => () => createAdapters(tied, { roles, rank: 2, alpha: 4, ...options });
  await refused(t, made({ experts: 2 }), "ERR_INVALID_ARGUMENT", "soft");
  await refused(t, made({ routing: "medium" }), "ERR_INVALID_ARGUMENT", "medium");
  await refused(t, made({ routing: "soft", experts: 0 }), "ERR_INVALID_ARGUMENT", "experts");
  await refused(t, made({ routing: "soft", routes: { reason: "a", tool: "b" } }), "ERR_INVALID_ARGUMENT", "a, b");
  await refused(t, made({ routing: "soft", trainableTokens: [3] }), "ERR_UNSUPPORTED", "trainableTokens");
  const soft = mixture(tied);
  const size = 3 * tied.config.hiddenSize;
  await refused(t, () => soft.setRouter(0, "mlp", new Float32Array(size).fill(NaN)), "ERR_NOT_FINITE");
  await refused(t, () => soft.setRouter(0, "mlp", new Float32Array(size - 1)), "ERR_SHAPE");
  await refused(t, () => soft.getRouter(0, "head" as "mlp"), "ERR_NO_MODULE", "head");
  const hard = createAdapters(tied, { roles, rank: 2, alpha: 4 });
  await refused(t, () => hard.getRouter(0, "mlp"), "ERR_NO_MODULE");

  const directory = t.testdir();
  const [good, bad, other] = ["good", "bad", "other"].map((name) => path.join(directory, name)) as [
    string,
    string,
    string,
  ];
  await soft.save(good, "mixture");
  await hard.save(other, "tool");
  await refused(t, Adapters.load(tied, { reason: good, tool: other }), "ERR_ADAPTER_UNSUPPORTED", good);
  await refused(t, Adapters.load(untied, { reason: good }), "ERR_SHAPE", good);
  const settings = JSON.parse(readFileSync(path.join(good, "mixture.json"), "utf8")) as object;
  for (const [change, word] of [
    ["{", "JSON"],
    [{ ...settings, experts: 0 }, "experts"],
    [{ ...settings, experts: 2 }, "router"],
    [{ ...settings, rank: 3 }, "lora_A"],
    [{ ...settings, version: 2 }, "version"],
    [{ ...settings, more: 1 }, "more"],
  ] as const) {
    rmSync(bad, { recursive: true, force: true });
    cpSync(good, bad, { recursive: true });
    writeFileSync(path.join(bad, "mixture.json"), typeof change === "string" ? change : JSON.stringify(change));
    await refused(t, Adapters.load(tied, { tool: bad }), "ERR_ADAPTER_INVALID", bad, word);
  }
});

t.test("a run of a mixture, with dropout, that stops and goes on ends with the same bits", async (t) => {
  const model = await loadModel(WORLD_CHECKPOINT);
  t.teardown(() => model.close());
  const adapters = { rank: 2, alpha: 4, routing: "soft" as const, dropout: 0.1 };
  const [straight, stopped] = [temporary(), temporary()];
  await trainRun(worldSetup(model, straight, { adapters, steps: 2 }));
  await trainRun(worldSetup(model, stopped, { adapters, steps: 1 }));
  await trainRun(worldSetup(model, stopped, { adapters, steps: 2 }));
  const [a, b] = [straight, stopped].map((directory) => path.join(directory, "adapters/mixture/mixture.safetensors"));
  t.ok(readFileSync(a!).equals(readFileSync(b!)));
});
