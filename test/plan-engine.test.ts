// What a plan counts of a pass, of adapters and of an optimizer is what the engine takes, to the byte.
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import fc from "fast-check";
import t from "tap";
import { createAdapters, loadModel, Random, Trainer, type CreateAdaptersOptions, type Model } from "rolegrad";
import { native } from "../dist/binding.js";
import { adapterFloats, packedBytes, pageBytes, parameterShapes } from "../lib/plan/model.js";
import { padded } from "../lib/plan/arena.js";
import { trainingArena, type PassAdapters } from "../lib/plan/passes.js";
import { BF16_PANEL } from "../lib/plan/plan.js";
import { checkpoints, trainingBatch } from "./helpers/engine.js";
import { batchShapes, holds, trajectoriesOf } from "./helpers/properties.js";
import { modelShapes, writeRandomModel } from "./helpers/random-model.js";

const roles = ["reason", "tool"];
const models = {
  tied: await loadModel(checkpoints.tied),
  untied: await loadModel(checkpoints.untied),
  qwen3: await loadModel(checkpoints.qwen3),
  llama3: await loadModel(checkpoints.llama3),
};
t.teardown(() => Object.values(models).forEach((model) => model.close()));

/** The most that the trainer's arena held in a batch, and what the plan counts for it. */
async function measured(
  model: Model,
  trainer: Trainer,
  shape: { lengths: number[]; seed: number },
  adapters: PassAdapters,
  { checkpointing, full }: { checkpointing: boolean; full: boolean },
): Promise<[number, number]> {
  const batch = trainingBatch(trajectoriesOf(shape, model));
  const rows = batch.inputIds.length;
  const first = new Set(batch.cuSeqlens);
  const targets = batch.lossMask.filter((on, i) => on === 1 && !first.has(i)).length;
  await trainer.accumulate(batch);
  if (targets === 0) return [0, 0];
  const planned = trainingArena(model.config, { rows, targets, adapters, checkpointing, full });
  return [trainer.native.memory().arenaPeakBytes, planned];
}

const ways: [string, Partial<CreateAdaptersOptions>, Omit<PassAdapters, "rank">][] = [
  ["hard routing", {}, { experts: 0, dropout: false }],
  ["dropout", { dropout: 0.3 }, { experts: 0, dropout: true }],
  ["soft routing", { routing: "soft" }, { experts: 2, dropout: false }],
  ["soft routing with dropout", { routing: "soft", dropout: 0.3 }, { experts: 2, dropout: true }],
];

for (const [family, model] of Object.entries(models))
  t.test(`${family}: a micro-batch takes the bytes that the plan counts`, async (t) => {
    for (const [name, made, pass] of ways)
      for (const checkpointing of [false, true]) {
        const rank = 5;
        await holds(t, batchShapes, 3, async (shape) => {
          const adapters = createAdapters(model, { roles, rank, alpha: 6, ...made });
          const trainer = new Trainer(model, {
            adapters,
            optimizer: { learningRate: 0.1 },
            gradientCheckpointing: checkpointing,
          });
          const own = { ...pass, rank: rank * Math.max(1, pass.experts) };
          const [found, planned] = await measured(model, trainer, shape, own, { checkpointing, full: false });
          if (found !== planned) t.comment(`${name}, checkpointing ${checkpointing}: ${found} and not ${planned}`);
          return found === planned;
        });
      }
  });

t.test("full training takes the bytes that the plan counts", async (t) => {
  for (const from of [checkpoints.tied, checkpoints.qwen3])
    for (const checkpointing of [false, true])
      await holds(t, batchShapes, 2, async (shape) => {
        const model = await loadModel(from, { dtype: "float32" });
        try {
          const trainer = new Trainer(model, {
            full: true,
            optimizer: { learningRate: 0.1 },
            gradientCheckpointing: checkpointing,
          });
          const none = { rank: 0, experts: 0, dropout: false };
          const [found, planned] = await measured(model, trainer, shape, none, { checkpointing, full: true });
          return found === planned;
        } finally {
          model.close();
        }
      });
});

/** Bytes that `make` asks the backend for. */
async function taken<T>(make: () => T | Promise<T>): Promise<[T, number]> {
  const before = native.memoryUse().bytes;
  const made = await make();
  return [made, native.memoryUse().bytes - before];
}

t.test("weights, adapters and optimizers of models of any shape take what the plan counts", async (t) => {
  const { kernels } = native.cpuInfo();
  const panel = { avx512: 32, avx2: 16, neon: 8 }[kernels]!;
  /** Blocks end with 256 bytes of slack, and what measures a step is 1 MiB. */
  const close = (found: number, planned: number, slack: number): boolean => {
    if (found >= planned && found <= planned + slack) return true;
    t.comment(`${found} and not ${planned}`);
    return false;
  };
  await holds(
    t,
    fc.tuple(modelShapes, fc.integer({ min: 1, max: 20 }), fc.boolean()),
    16,
    async ([shape, rank, soft]) => {
      const folder = mkdtempSync(path.join(tmpdir(), "rolegrad-plan-"));
      t.teardown(() => import("node:fs").then(({ rmSync }) => rmSync(folder, { recursive: true, force: true })));
      await writeRandomModel(folder, shape);
      const [model, weights] = await taken(() => loadModel(folder));
      const c = model.config;
      try {
        const width = shape.bf16 ? 2 : 4;
        const vectors = c.layers * 2 + 1;
        const biases = c.layers * (c.heads + 2 * c.kvHeads) * c.headDim * 4; // not the backend's
        const planned = packedBytes(c, { width, panel }) - biases;
        const slack = 256 * (c.layers * 4 + 2) + vectors * (256 + 64);
        if (!close(weights, planned, slack)) return false;
        // That mode holds pairs of inputs: an odd number of them is filled up, which no published model has and the plan leaves out.
        const even = [c.hiddenSize, c.intermediateSize, c.heads * c.headDim].every((inputs) => inputs % 2 === 0);
        if (even && native.cpuInfo().precisions.includes("bf16-multiply")) {
          const [rounded, packed] = await taken(() => loadModel(folder, { precision: "bf16-multiply" }));
          rounded.close();
          if (!close(packed, packedBytes(c, { width: 2, panel: BF16_PANEL }) - biases, slack)) return false;
        }
        const experts = soft ? 2 : 0;
        const routing = soft ? { routing: "soft" as const } : {};
        const [adapters, bytes] = await taken(() => createAdapters(model, { roles, rank, alpha: 6, ...routing }));
        const count = soft ? 1 : 2;
        const floats = adapterFloats(c, { rank: rank * Math.max(1, experts), experts });
        if (bytes !== count * (4 * (floats.parameters + floats.transposes) + 2 * 256)) return false;
        const [, optimizer] = await taken(() => new Trainer(model, { adapters, optimizer: { learningRate: 1 } }));
        return close(optimizer, count * 16 * floats.parameters, 3 * 256 * count + 2 ** 20 + 4096);
      } finally {
        model.close();
      }
    },
  );
});

t.test("full training's masters, moments and sums take what the plan counts", async (t) => {
  for (const from of [checkpoints.tied, checkpoints.untied]) {
    const model = await loadModel(from, { dtype: "float32" });
    const c = model.config;
    const [, bytes] = await taken(() => new Trainer(model, { full: true, optimizer: { learningRate: 1 } }));
    const floats = parameterShapes(c).reduce((sum, [rows, columns]) => sum + rows * padded(columns), 0);
    const tied = c.tied ? 8 * (c.vocabSize + Math.min(256, c.vocabSize)) * padded(c.hiddenSize) : 0;
    const planned = 20 * floats + tied;
    t.ok(bytes >= planned && bytes <= planned + 2 ** 20 + 8192, `${bytes} for ${planned}`);
    model.close();
  }
});

t.test("a page of the cache has the bytes that the plan counts", async (t) => {
  const { untied: model } = models;
  const adapters = createAdapters(model, { roles, rank: 2, alpha: 4 });
  const trainer = new Trainer(model, { adapters, optimizer: { learningRate: 0.1 } });
  await trainer.accumulate(
    trainingBatch(trajectoriesOf({ lengths: [130, 64, 30], seed: new Random(1, "x").integer(9) }, model)),
  );
  // 3 + 1 + 1 pages, and a quarter more as room to grow.
  t.equal(trainer.native.memory().kvBytes, 6 * model.config.layers * pageBytes(model.config) + 256);
});
