// node engine-hashes.mjs TOY_MODEL: runs the engine through and prints { backend, threads, hashes } as JSON. Two processes that differ in
// instruction set or threads must print the same hashes.
import { createHash } from "node:crypto";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { createAdapters, groupAdvantages, loadModel, loraLinear, Random, Rollout, RoleRouter, Trainer } from "rolegrad";
import { native } from "../../dist/binding.js";

const hashes = {};
function record(name, ...arrays) {
  const hash = createHash("sha256");
  for (const x of arrays) hash.update(typeof x === "number" ? Float64Array.of(x) : x);
  hashes[name] = hash.digest("hex");
}

const roles = ["reason", "tool"];
const modules = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"].concat([
  "mlp.gate_proj",
  "mlp.up_proj",
  "mlp.down_proj",
]);
const modulesOf = (model) =>
  [...Array(model.config.layers).keys()].flatMap((l) => modules.map((m) => `model.layers.${l}.${m}`));

function makeAdapters(model) {
  const adapters = createAdapters(model, { roles, rank: 3, alpha: 6 });
  const random = new Random(1, "b");
  for (const role of roles)
    for (const module of modulesOf(model)) {
      const { a, b } = adapters.get(role, module);
      adapters.set(role, module, { a, b: b.map(() => random.next() - 0.5) });
    }
  return adapters;
}

const everything = (adapters) =>
  roles.flatMap((role) => modulesOf(adapters.model).flatMap((m) => Object.values(adapters.get(role, m))));

function sequences(model, lengths) {
  const random = new Random(2, "ids");
  const total = lengths.reduce((a, b) => a + b, 0);
  return {
    inputIds: Int32Array.from({ length: total }, () => random.integer(model.config.vocabSize)),
    roles: Int8Array.from({ length: total }, (_, i) => ((i >> 3) % 3) - 1),
    cuSeqlens: Int32Array.from(lengths.reduce((cuts, n) => [...cuts, cuts.at(-1) + n], [0])),
    lossMask: Uint8Array.from({ length: total }, (_, i) => (i % 5 === 0 ? 0 : 1)),
    advantages: groupAdvantages(lengths),
    oldLogprobs: Float32Array.from({ length: total }, (_, i) => -4.5 - (i % 7) / 10),
  };
}

const fixtures = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../fixtures/engine");
let backend;
for (const name of ["tied", "untied", "qwen3", "llama3"]) {
  const model = await loadModel(path.join(fixtures, name), { dtype: "float32" });
  ({ backend } = model.info);
  const adapters = makeAdapters(model);
  const batch = sequences(model, [40, 1, 133, 17]);
  const { logprobs, logits } = await model.forward(batch, { adapters, logits: true, temperature: 0.9 });
  record(`${name} forward`, logprobs, logits);
  for (const crossRole of ["flow", "stop", "exact"]) {
    const objective = { klCoefficient: 0.1 };
    const trainer = new Trainer(model, {
      adapters,
      objective,
      optimizer: { learningRate: 0.01, weightDecay: 0.1 },
      crossRole,
    });
    for (let step = 0; step < 2; step++) {
      const { loss, kl } = await trainer.accumulate(batch);
      const parts = roles.flatMap((role) =>
        modulesOf(model).flatMap((m) => Object.values(trainer.gradients.get(role, m))),
      );
      record(`${name} ${crossRole} gradients ${step}`, loss, kl, ...parts, ...Object.values(trainer.gradients.norms()));
      await trainer.apply();
    }
    record(`${name} ${crossRole} adapters`, ...everything(adapters));
  }
  const full = new Trainer(model, { full: true, objective: { kind: "sft" }, optimizer: { learningRate: 0.01 } });
  for (let step = 0; step < 2; step++) {
    await full.accumulate(batch);
    await full.apply();
  }
  record(`${name} full`, ...full.parameters().map((p) => full.parameter(p.name)));
  record(`${name} after`, (await model.forward(batch, { adapters })).logprobs);
  model.close();
}

const toy = await loadModel(process.argv[2]);
const rollout = new Rollout(toy, {
  adapters: makeAdapters(toy),
  router: new RoleRouter({ roles, base: "reason", spans: [{ role: "tool", open: "<search>", close: "</search>" }] }),
  environment: { act: async ({ text }) => ({ text: `found ${text.length}` }) },
  reward: ({ response }) => response.length % 7,
  sampling: { temperature: 0.9, maxNewTokens: 60, topP: 0.95 },
  group: 6,
});
const trajectories = await rollout.collect([
  { id: "a", question: "Who owns the bank?", answers: [] },
  { id: "b", question: "Where?", answers: [] },
]);
record("rollout", ...trajectories.flatMap(({ ids, roles, logprobs }) => [ids, roles, logprobs]));
toy.close();

const random = new Random(3, "linear");
const values = (n) => Float32Array.from({ length: n }, () => random.next() - 0.5);
const [t, k, n] = [53, 77, 45];
const input = {
  x: values(t * k),
  w: values(n * k),
  bias: values(n),
  roles: Int32Array.from({ length: t }, (_, i) => (i % 4) - 1),
  adapters: [2, 5, 1].map((r) => ({ a: values(r * k), b: values(n * r), scale: 2 })),
  cuSeqlens: Int32Array.of(0, 20, 53),
};
record("linear forward", await loraLinear.forward(input));
const back = await loraLinear.backward({ ...input, dy: values(t * n) });
record("linear backward", back.dx, ...back.adapters.flatMap(({ a, b }) => [a, b]));

console.log(JSON.stringify({ backend, threads: native.cpuInfo().threads, hashes }));
