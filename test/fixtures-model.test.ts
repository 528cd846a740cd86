// The reference fixtures (transformers and peft, float64) through the public API, on the fast and on the plain backend.
import { copyFile } from "node:fs/promises";
import path from "node:path";
import t, { type Test } from "tap";
import { Adapters, loadModel, Trainer } from "rolegrad";
import { bits } from "./helpers/engine.js";
import { checkForward, checkRouted, checkSupervised, devices, TOLERANCE, withModel } from "./helpers/reference.js";
import { needsShared, shared } from "./helpers/shared.js";
import { readTensors, relativeError, tensor } from "./helpers/tensors.js";

const checkpoints = ["qwen2-tiny", "qwen3-tiny", "llama3-tiny"];

for (const name of checkpoints) {
  const folder = `fixtures/${name}`;
  const directory = shared(folder) ?? "";
  for (const device of devices) {
    t.test(`${name}, ${device}: logits and log-probabilities of the backbone`, needsShared(folder), (t) =>
      checkForward(t, directory, device),
    );
    t.test(`${name}, ${device}: routed forward, GRPO loss and per-adapter gradients`, needsShared(folder), (t) =>
      checkRouted(t, directory, device),
    );
    t.test(`${name}, ${device}: full-parameter gradients of the supervised loss`, needsShared(folder), (t) =>
      checkSupervised(t, directory, device),
    );
  }

  t.test(`${name}: both spellings of config.json are the same model, bit for bit`, needsShared(folder), async (t) => {
    const copy = t.testdir();
    await copyFile(path.join(directory, "config.v4.json"), path.join(copy, "config.json"));
    await copyFile(path.join(directory, "model.safetensors"), path.join(copy, "model.safetensors"));
    await checkSame(t, directory, copy);
  });
}

t.test("shards are the same model as one file, bit for bit", needsShared("fixtures/llama3-tiny-sharded"), (t) =>
  checkSame(t, shared("fixtures/llama3-tiny") as string, shared("fixtures/llama3-tiny-sharded") as string),
);

/** Two directories are one model: configuration, logits, log-probabilities and every gradient. The second has no tokenizer. */
async function checkSame(t: Test, first: string, second: string): Promise<void> {
  const want = readTensors(path.join(first, "sft.safetensors"));
  const input = { inputIds: tensor<Int32Array>(want, "ids"), cuSeqlens: tensor<Int32Array>(want, "cu_seqlens") };
  const lossMask = tensor<Uint8Array>(want, "loss_mask");
  const run = async (directory: string, tokenizer: boolean) => {
    const model = await loadModel(directory, { dtype: "float32" });
    t.equal(model.tokenizer !== undefined, tokenizer, "weights alone will do");
    const { logits, logprobs } = await model.forward(input, { logits: true });
    const trainer = new Trainer(model, { full: true, objective: { kind: "sft" }, optimizer: { learningRate: 0 } });
    await trainer.accumulate({ ...input, lossMask });
    const gradients = trainer.parameters().map(({ name }) => trainer.gradients.get(name));
    model.close();
    return { config: model.config, bits: bits(logits as Float32Array, logprobs, ...gradients) };
  };
  t.strictSame(await run(second, false), await run(first, true));
}

t.test("adapters saved by peft give peft's logits", needsShared("fixtures/peft", "fixtures/qwen2-tiny"), async (t) => {
  const want = readTensors(shared("fixtures/peft/logits.safetensors") as string);
  await withModel(shared("fixtures/qwen2-tiny") as string, {}, async (model) => {
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
