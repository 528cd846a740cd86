// The reference fixtures (transformers and peft, float64) through the public API, on the fast and on the plain backend.
import { copyFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { Adapters, loadModel } from "rolegrad";
import { checkForward, checkRouted, checkSupervised, devices, TOLERANCE, withModel } from "./helpers/reference.js";
import { needsShared, shared } from "./helpers/shared.js";
import { readTensors, relativeError, tensor } from "./helpers/tensors.js";

const folder = "fixtures/qwen2-tiny";
const directory = shared(folder) ?? "";

for (const device of devices) {
  t.test(`${device}: logits and log-probabilities of the backbone`, needsShared(folder), (t) =>
    checkForward(t, directory, device),
  );
  t.test(`${device}: routed forward, GRPO loss and per-adapter gradients`, needsShared(folder), (t) =>
    checkRouted(t, directory, device),
  );
  t.test(`${device}: full-parameter gradients of the supervised loss`, needsShared(folder), (t) =>
    checkSupervised(t, directory, device),
  );
}

t.test("both spellings of config.json are the same model, bit for bit", needsShared(folder), async (t) => {
  const copy = t.testdir();
  await copyFile(path.join(directory, "config.v4.json"), path.join(copy, "config.json"));
  await copyFile(path.join(directory, "model.safetensors"), path.join(copy, "model.safetensors"));
  const want = readTensors(path.join(directory, "forward.safetensors"));
  const input = { inputIds: tensor<Int32Array>(want, "ids"), cuSeqlens: tensor<Int32Array>(want, "cu_seqlens") };
  const [after, before] = await Promise.all([loadModel(directory), loadModel(copy)]);
  t.strictSame(before.config, after.config);
  const [a, b] = await Promise.all([after, before].map((model) => model.forward(input, { logits: true })));
  t.strictSame(b?.logits, a?.logits);
  t.equal(before.tokenizer, undefined, "weights alone will do");
  after.close();
  before.close();
});

t.test("adapters saved by peft give peft's logits", needsShared("fixtures/peft", folder), async (t) => {
  const want = readTensors(shared("fixtures/peft/logits.safetensors") as string);
  await withModel(directory, {}, async (model) => {
    const inputIds = tensor<Int32Array>(want, "ids");
    const cuSeqlens = tensor<Int32Array>(want, "cu_seqlens");
    const roles = new Int8Array(inputIds.length);
    for (const name of ["reason", "tool", "rslora", "partial", "pattern"]) {
      const adapters = await Adapters.load(model, { role: shared(`fixtures/peft/${name}`) as string });
      const { logits } = await model.forward({ inputIds, cuSeqlens, roles }, { adapters, logits: true });
      t.ok(relativeError(logits as Float32Array, tensor(want, `logits.${name}`)) < TOLERANCE, name);
    }
  });
});
