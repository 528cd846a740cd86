// What trains together: token rows, dropout, mixtures and ranks by module under every gradient mode.
import t from "tap";
import { createAdapters, loadModel, Random, Trainer } from "rolegrad";
import type { Adapters, CreateAdaptersOptions, CrossRole, Model, Routes, TrainerOptions } from "rolegrad";
import { bits, checkpoints, modulesOf, normals, trainingBatch } from "./helpers/engine.js";
import { trajectoriesOf } from "./helpers/properties.js";
import { refusals } from "./helpers/refused.js";
import { nearPlainLoops, sameInAnySplit, slopeAlong } from "./helpers/steps.js";
import { relativeError } from "./helpers/tensors.js";

const { model: tied, refused } = await refusals(checkpoints.tied);
const untied: Model = await loadModel(checkpoints.untied);
t.teardown(() => [tied, untied].forEach((model) => model.close()));
const roles = ["reason", "tool"];
const shape = { lengths: [30, 25, 40, 8], seed: 6 };
const tokens = [3, 17, 40, 58];
const patterns = { rankPattern: { up_proj: 2, "layers.1.self_attn.q_proj": 5 }, alphaPattern: { k_proj: 3 } };

/** Adapters with random B (and routers), so that every gradient is there. */
function adaptersOf(model: Model, options: Partial<CreateAdaptersOptions> = {}): Adapters {
  const made = createAdapters(model, { roles, rank: 3, alpha: 6, ...options });
  for (const name of made.names)
    for (const module of modulesOf(model, options.targets)) {
      const { a, b } = made.get(name, module);
      made.set(name, module, { a, b: normals(new Random(1, `${name}/${module}`), b.length, 0.1) });
    }
  return made;
}

const make = (adapters: Adapters, options: Partial<TrainerOptions> = {}): Trainer =>
  new Trainer(adapters.model, {
    adapters,
    optimizer: { learningRate: 0.01 },
    objective: { kind: "sft" },
    ...options,
  });

function pairs(trainer: Trainer, name: string, lossRole?: string): Float32Array {
  const { model, adapters } = trainer;
  const modules = modulesOf(model, adapters!.list[0]!.targets);
  const all = modules.map((module) => trainer.gradients.get(name, module, lossRole === undefined ? {} : { lossRole }));
  return Float32Array.from(all.flatMap(({ a, b }) => [...a, ...b]));
}
const routers = (trainer: Trainer): Float32Array =>
  Float32Array.from(
    Array.from({ length: trainer.model.config.layers }, (_, layer) =>
      (["attention", "mlp"] as const).flatMap((block) => [...trainer.gradients.router(layer, block)]),
    ).flat(),
  );
const rows = (trainer: Trainer): Float32Array =>
  Float32Array.from(
    trainer.adapters!.trainableTokens.flatMap((id) => {
      const { embedding, head } = trainer.gradients.token(id);
      return [...embedding, ...(head ?? [])];
    }),
  );
const sum = (a: Float32Array, b: Float32Array): Float32Array => a.map((x, i) => x + b[i]!);

t.test("under exact, trained rows get the whole loss's gradient, as under flow", async (t) => {
  const routed: (Routes | undefined)[] = [
    undefined,
    { reason: "reason", tool: null },
    { reason: "both", tool: "both" },
  ];
  for (const model of [tied, untied])
    for (const routes of routed) {
      const found: Float32Array[] = [];
      for (const crossRole of ["flow", "exact"] as const) {
        const trainer = make(adaptersOf(model, { trainableTokens: tokens, dropout: 0.2, ...(routes && { routes }) }), {
          crossRole,
        });
        await trainer.accumulate(trainingBatch(trajectoriesOf(shape, model)));
        found.push(rows(trainer));
      }
      const error = relativeError(found[1]!, found[0]!);
      t.ok(error < 1e-5, `${model.config.tied} ${JSON.stringify(routes)}: ${error}`);
    }
});

t.test("under exact, the order of trajectories and micro-batches change no bit of trained rows", async (t) => {
  for (const model of [tied, untied]) {
    await sameInAnySplit(
      t,
      model,
      (microBatchTokens) =>
        make(adaptersOf(model, { trainableTokens: tokens, dropout: 0.2, ...patterns }), {
          crossRole: "exact",
          microBatchTokens,
          objective: { klCoefficient: 0.1 },
        }),
      ({ adapters }) => {
        const own = tokens.flatMap((id) => Object.values(adapters!.getToken(id)) as Float32Array[]);
        const all = modulesOf(model).flatMap((m) => Object.values(adapters!.get("tool", m)) as Float32Array[]);
        return bits(...own, ...all);
      },
    );
  }
});

t.test(
  "an exact gradient under dropout is flow's of the role's loss alone: every pass draws the same masks",
  async (t) => {
    const batch = trainingBatch(trajectoriesOf(shape, tied));
    const options = { dropout: 0.3, trainableTokens: tokens, ...patterns };
    const exact = make(adaptersOf(tied, options), { crossRole: "exact" });
    const { normalizer } = await exact.accumulate(batch);
    for (const role of roles) {
      const alone = make(adaptersOf(tied, options), { lossRoles: [role] });
      await alone.accumulate(batch, { normalizer });
      const error = relativeError(pairs(exact, role), pairs(alone, role));
      t.ok(error < 1e-5, `${role}: ${error}`);
      t.ok(pairs(alone, role).some((x) => x !== 0));
    }
  },
);

t.test("tracking and the leak matrix change no bit beside token rows and dropout", async (t) => {
  for (const crossRole of ["flow", "stop", "exact"] as CrossRole[]) {
    const batch = trainingBatch(trajectoriesOf(shape, untied));
    const seen = new Set<string>();
    for (const trackLossRoles of [false, true]) {
      const adapters = adaptersOf(untied, { dropout: 0.3, trainableTokens: tokens, ...patterns });
      const trainer = make(adapters, { crossRole, trackLossRoles });
      if (trackLossRoles) await trainer.leakMatrix(batch, { crossRole });
      await trainer.accumulate(batch);
      if (trackLossRoles) {
        await trainer.leakMatrix(batch);
        if (crossRole === "flow") {
          const parts = roles.map((role) => pairs(trainer, "reason", role));
          t.ok(relativeError(sum(parts[0]!, parts[1]!), pairs(trainer, "reason")) < 1e-5, "parts add up");
        }
      }
      seen.add(bits(rows(trainer), ...roles.map((role) => pairs(trainer, role))));
    }
    t.equal(seen.size, 1, crossRole);
  }
});

t.test("a mixture under every mode: parts by role of the loss, and their norms in the leak matrix", async (t) => {
  const batch = trainingBatch(trajectoriesOf(shape, tied));
  const soft = { routing: "soft", experts: 3, dropout: 0.2 } as const;
  const whole = make(adaptersOf(tied, soft), { trackLossRoles: true });
  const { normalizer } = await whole.accumulate(batch);
  const parts = roles.map((role) => pairs(whole, "mixture", role));
  t.ok(relativeError(sum(parts[0]!, parts[1]!), pairs(whole, "mixture")) < 1e-5, "parts add up");
  const leak = await whole.leakMatrix(batch);
  for (const [i, role] of roles.entries()) {
    const alone = make(adaptersOf(tied, soft), { lossRoles: [role] });
    await alone.accumulate(batch, { normalizer });
    t.ok(relativeError(parts[i]!, pairs(alone, "mixture")) < 1e-5, role);
    const norm = alone.gradients.norms()["mixture"]!;
    t.ok(Math.abs(leak.norms[role]!["mixture"]! / norm - 1) < 1e-4, `${role}: ${norm} with routers`);
  }
  const exact = make(adaptersOf(tied, soft), { crossRole: "exact" });
  await exact.accumulate(batch);
  t.equal(bits(pairs(exact, "mixture"), routers(exact)), bits(pairs(whole, "mixture"), routers(whole)));
});

t.test(
  "gates, dropout and ranks by module: gradients are those of the plain loops, whatever carries pairs",
  async (t) => {
    const cases: Partial<CreateAdaptersOptions>[] = [
      { dropout: 0.3, ...patterns },
      { dropout: 0.3, targets: ["k_proj", "up_proj"], trainableTokens: tokens, ...patterns },
      { routing: "soft", experts: 3, targets: ["q_proj", "v_proj", "up_proj"] },
      { routing: "soft", experts: 2, targets: ["k_proj", "down_proj"], dropout: 0.2 },
      { routing: "soft", experts: 2, targets: ["o_proj"] },
    ];
    for (const options of cases) {
      const what = `${JSON.stringify(options)}: `;
      const work = async (model: Model, device: string) => {
        const adapters = adaptersOf(model, options);
        const trainer = make(adapters);
        const batch = trainingBatch(trajectoriesOf(shape, model));
        await trainer.accumulate(batch);
        const own = [...adapters.names.map((name) => pairs(trainer, name))];
        if (options.routing === "soft") own.push(routers(trainer));
        if (options.trainableTokens !== undefined) own.push(rows(trainer));
        own.forEach((part) => t.ok(part.some((x) => x !== 0)));
        if (device === "cpu-reference" && options.routing === "soft") {
          const layer = 1;
          const block = options.targets!.some((name) => /up|down/.test(name)) ? "mlp" : "attention";
          const { slope, norm } = await slopeAlong(
            async () => (await make(adapters).accumulate(batch)).loss,
            0.05,
            [adapters.getRouter(layer, block)],
            [trainer.gradients.router(layer, block)],
            (x) => adapters.setRouter(layer, block, x),
          );
          t.ok(Math.abs(slope / norm - 1) < 0.01, `${what}${slope} is near ${norm}`);
        }
        return own;
      };
      await nearPlainLoops(t, checkpoints.untied, work, what);
    }
  },
);

t.test("patterns of ranks are refused for a mixture", async (t) => {
  for (const pattern of [{ rankPattern: { q_proj: 2 } }, { alphaPattern: { q_proj: 2 } }])
    await refused(
      t,
      () => createAdapters(tied, { roles, routing: "soft", rank: 2, alpha: 4, ...pattern }),
      "ERR_UNSUPPORTED",
      "rankPattern",
    );
});

t.test("an abort leaves the sums of trained rows as they were", async (t) => {
  const batch = trainingBatch(trajectoriesOf(shape, untied));
  const trainer = make(adaptersOf(untied, { trainableTokens: tokens }));
  await trainer.accumulate(batch);
  const before = bits(rows(trainer), pairs(trainer, "tool"));
  const long = trainingBatch(trajectoriesOf({ lengths: Array.from({ length: 60 }, () => 120), seed: 2 }, untied));
  let aborted = 0;
  for (const wait of [0, 2, 5, 10, 20, 40]) {
    const stop = new AbortController();
    const work = trainer.accumulate(long, { signal: stop.signal });
    setTimeout(() => stop.abort(), wait);
    try {
      await work;
      break; // too late: it is in
    } catch {
      aborted++;
      t.equal(bits(rows(trainer), pairs(trainer, "tool")), before, `after ${wait} ms`);
    }
  }
  t.ok(aborted > 0);
});
