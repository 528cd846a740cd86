// The reference fixtures (transformers and peft, float64) through the public API, on the fast and on the plain backend.
import t from "tap";
import { Adapters, createAdapters, loadModel, Trainer, type Model } from "rolegrad";
import { needsShared, shared } from "./helpers/shared.js";
import { readTensors, relativeError, tensor } from "./helpers/tensors.js";

const folder = "fixtures/qwen2-tiny";
const TOLERANCE = 1e-4;
const directory = shared(folder) ?? "";

async function withModel(device: "cpu" | "cpu-reference", work: (model: Model) => Promise<void>, dtype: "auto" | "float32" = "auto") {
  const model = await loadModel(directory, { device, dtype });
  try {
    await work(model);
  } finally {
    model.close();
  }
}

/** Adapters with the values of routed.safetensors. */
function routedAdapters(model: Model, routed: ReturnType<typeof readTensors>): Adapters {
  const names = Object.keys(routed).filter((name) => name.startsWith("lora."));
  const roles = [...new Set(names.map((name) => name.split(".")[1] as string))].sort();
  const rank = routed[names[0] as string]?.shape[0] as number;
  const scale = tensor<Float64Array>(routed, "scale")[0] as number;
  const adapters = createAdapters(model, { roles, rank, alpha: scale * rank });
  for (const name of names.filter((name) => name.endsWith(".A"))) {
    const [, role] = name.split(".");
    const module = name.slice(`lora.${role}.`.length, -2);
    const b = tensor<Float32Array>(routed, `lora.${role}.${module}.B`);
    adapters.set(role as string, module, { a: tensor<Float32Array>(routed, name), b });
  }
  return adapters;
}

for (const device of ["cpu", "cpu-reference"] as const) {
  t.test(`${device}: logits and log-probabilities of the backbone`, needsShared(folder), async (t) => {
    const want = readTensors(shared(`${folder}/forward.safetensors`) as string);
    await withModel(device, async (model) => {
      const temperatures = tensor<Float64Array>(want, "temperatures");
      for (const [i, temperature] of temperatures.entries()) {
        const input = { inputIds: tensor<Int32Array>(want, "ids"), cuSeqlens: tensor<Int32Array>(want, "cu_seqlens") };
        const got = await model.forward(input, { temperature, logits: true });
        t.ok(relativeError(got.logits as Float32Array, tensor(want, "logits")) < TOLERANCE, "logits");
        const logp = tensor<Float64Array>(want, "logp").subarray(i * input.inputIds.length, (i + 1) * input.inputIds.length);
        t.ok(relativeError(got.logprobs, logp) < TOLERANCE, `log-probabilities at temperature ${temperature}`);
        for (const start of input.cuSeqlens.subarray(0, -1)) t.equal(got.logprobs[start], 0, "0 at a first token");
      }
    });
  });

  t.test(`${device}: routed forward, GRPO loss and per-adapter gradients`, needsShared(folder), async (t) => {
    const want = readTensors(shared(`${folder}/routed.safetensors`) as string);
    const f64 = (name: string) => tensor<Float64Array>(want, name);
    const scalar = (name: string) => f64(name)[0] as number;
    await withModel(device, async (model) => {
      const adapters = routedAdapters(model, want);
      const batch = {
        inputIds: tensor<Int32Array>(want, "ids"),
        cuSeqlens: tensor<Int32Array>(want, "cu_seqlens"),
        roles: Int8Array.from(tensor<Int32Array>(want, "roles")),
        lossMask: tensor<Uint8Array>(want, "loss_mask"),
        advantages: f64("advantages"),
        oldLogprobs: f64("old_logp"),
        refLogprobs: f64("ref_logp"),
      };
      const forward = await model.forward(batch, { adapters, logits: true });
      t.ok(relativeError(forward.logits as Float32Array, f64("logits")) < TOLERANCE, "logits");
      t.ok(relativeError(forward.logprobs, f64("logp")) < TOLERANCE, "log-probabilities");
      const off = await model.forward({ inputIds: batch.inputIds, cuSeqlens: batch.cuSeqlens });
      t.ok(relativeError(off.logprobs, f64("ref_logp")) < TOLERANCE, "adapters off");

      const objective = { clipLow: scalar("eps"), clipHigh: scalar("eps_high"), klCoefficient: scalar("beta") };
      const check = async (key: string, gradient: string, options: { lossRoles?: string[]; crossRole?: "stop" }) => {
        const trainer = new Trainer(model, { adapters, objective, optimizer: { learningRate: 0 }, ...options });
        const result = await trainer.accumulate(batch);
        t.equal(result.normalizer, scalar("n_tokens"), `${key}: N counts every sampled token`);
        t.ok(Math.abs(result.loss - scalar(`loss.${key}`)) < TOLERANCE * Math.abs(scalar(`loss.${key}`)), `${key}: loss`);
        t.ok(Math.abs(result.kl - scalar(`mean_k3.${key}`)) < TOLERANCE * scalar(`mean_k3.${key}`), `${key}: k3`);
        t.ok(Math.abs(result.clipHigh - scalar(`clip_high.${key}`)) < 1e-12, `${key}: clipped from above`);
        t.ok(Math.abs(result.clipLow - scalar(`clip_low.${key}`)) < 1e-12, `${key}: clipped from below`);
        if (key === "unified") t.ok(relativeError(result.perTokenLoss, f64("per_token_loss")) < TOLERANCE, "per-token loss");
        let worst = 0;
        const names = Object.keys(want).filter((name) => name.startsWith(`${gradient}.`) && name.endsWith(".A"));
        for (const name of names) {
          const [role] = name.slice(gradient.length + 1).split(".");
          const module = name.slice(`${gradient}.${role}.`.length, -2);
          const { a, b } = trainer.gradients.get(role as string, module);
          worst = Math.max(worst, relativeError(a, f64(name)), relativeError(b, f64(`${name.slice(0, -1)}B`)));
        }
        t.ok(names.length > 0 && worst < TOLERANCE, `${key}: ${gradient}, worst ${worst.toExponential(1)} of ${names.length} modules`);
      };
      await check("unified", "grad.unified", {});
      for (const role of adapters.roles) await check(`only${role}`, `grad.only${role}`, { lossRoles: [role] });
      await check("unified", "grad_stop.unified", { crossRole: "stop" });
      for (const aggregation of ["seq-mean-token-mean", "seq-mean-token-sum-norm"] as const) {
        const trainer = new Trainer(model, {
          adapters,
          objective: { ...objective, aggregation, normLength: scalar("norm_length") },
          optimizer: { learningRate: 0 },
        });
        const { loss } = await trainer.accumulate(batch);
        t.ok(Math.abs(loss / scalar(`loss.${aggregation}`) - 1) < TOLERANCE, aggregation);
      }
      const computed = new Trainer(model, { adapters, objective, optimizer: { learningRate: 0 } });
      const { refLogprobs: _given, ...withoutReference } = batch;
      const { loss } = await computed.accumulate(withoutReference);
      t.ok(Math.abs(loss / scalar("loss.unified") - 1) < TOLERANCE, "the reference is the backbone with adapters off");
    });
  });

  t.test(`${device}: full-parameter gradients of the supervised loss`, needsShared(folder), async (t) => {
    const want = readTensors(shared(`${folder}/sft.safetensors`) as string);
    await withModel(
      device,
      async (model) => {
        const trainer = new Trainer(model, { full: true, objective: { kind: "sft" }, optimizer: { learningRate: 0 } });
        const { loss } = await trainer.accumulate({
          inputIds: tensor<Int32Array>(want, "ids"),
          cuSeqlens: tensor<Int32Array>(want, "cu_seqlens"),
          lossMask: tensor<Uint8Array>(want, "loss_mask"),
        });
        t.ok(Math.abs(loss / (tensor<Float64Array>(want, "loss")[0] as number) - 1) < TOLERANCE, "loss");
        const names = Object.keys(want).filter((name) => name.startsWith("grad."));
        t.equal(names.length, trainer.parameters().length, "every parameter has a reference");
        for (const name of names) {
          const error = relativeError(trainer.gradients.get(name.slice(5)), tensor(want, name));
          t.ok(error < TOLERANCE, `${name.slice(5)}: ${error.toExponential(1)}`);
        }
      },
      "float32",
    );
  });
}

t.test("adapters saved by peft give peft's logits", needsShared("fixtures/peft", folder), async (t) => {
  const want = readTensors(shared("fixtures/peft/logits.safetensors") as string);
  await withModel("cpu", async (model) => {
    const inputIds = tensor<Int32Array>(want, "ids");
    const cuSeqlens = tensor<Int32Array>(want, "cu_seqlens");
    const roles = new Int8Array(inputIds.length);
    for (const name of ["reason", "tool", "rslora", "partial"]) {
      const adapters = await Adapters.load(model, { role: shared(`fixtures/peft/${name}`) as string });
      const { logits } = await model.forward({ inputIds, cuSeqlens, roles }, { adapters, logits: true });
      t.ok(relativeError(logits as Float32Array, tensor(want, `logits.${name}`)) < TOLERANCE, name);
    }
  });
});
