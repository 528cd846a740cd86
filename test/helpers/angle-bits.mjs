// node angle-bits.mjs MODEL=PARAMETERS,...: the angles of random rollouts by these parameters, and prints { threads, hashes } as JSON. Two processes that
// differ in instruction set or threads must print the same hashes.
import { createHash } from "node:crypto";
import path from "node:path";
import { createAdapters, gradientAngles, loadModel, Random } from "rolegrad";
import { native } from "../../dist/binding.js";

const roles = ["reason", "tool"];

/** Two queries of seven rollouts: 42 gradients each, more than a tile of the products of any kernel. */
function rollouts(vocabulary) {
  const random = new Random(1, "rollouts");
  return [0, 1].flatMap((q) =>
    Array.from({ length: 7 }, (_, i) => {
      const n = 20 + random.integer(30);
      const list = (next) => Array.from({ length: n }, (_, t) => next(t));
      return {
        id: `q${q}#${i}`,
        group: `q${q}`,
        question: `q${q}`,
        ids: Int32Array.from(list(() => random.integer(vocabulary))),
        roles: Int8Array.from(list((t) => (t % 7 < 4 ? 0 : 1))),
        sampled: Uint8Array.from(list((t) => Number(t > 0 && t % 5 > 0))),
        logprobs: new Float32Array(n),
        temperature: 1,
        topP: 1,
        topK: 0,
        policyVersion: 0,
        rngKey: "",
        response: "",
        finish: "stop",
        reward: random.integer(4),
        calls: [],
      };
    }),
  );
}

function adaptersOf(model) {
  const adapters = createAdapters(model, { roles, rank: 5, alpha: 10 });
  const random = new Random(2, "b");
  for (const role of roles)
    for (let l = 0; l < model.config.layers; l++)
      for (const name of ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"]) {
        const module = `model.layers.${l}.${name}`;
        const { a, b } = adapters.get(role, module);
        adapters.set(role, module, { a, b: b.map(() => random.next() - 0.5) });
      }
  return adapters;
}

const hashes = {};
for (const [directory, kinds] of process.argv.slice(2).map((each) => each.split("="))) {
  const model = await loadModel(directory);
  const list = rollouts(model.config.vocabSize);
  const adapters = adaptersOf(model);
  for (const parameters of kinds.split(",")) {
    const report = await gradientAngles({ model, adapters }, list, { parameters, seed: 3 });
    delete report.memory;
    const hash = createHash("sha256").update(JSON.stringify(report)).digest("hex");
    hashes[`${path.basename(directory)} ${parameters}`] = hash;
  }
  model.close();
}
console.log(JSON.stringify({ threads: native.cpuInfo().threads, hashes }));
