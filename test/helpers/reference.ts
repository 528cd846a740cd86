// A folder of reference values (model.safetensors, forward, routed, sft) against the public API.
import path from "node:path";
import type { Test } from "tap";
import { createAdapters, loadModel, Trainer } from "rolegrad";
import type { Adapters, CrossRole, Device, LoadModelOptions, Model } from "rolegrad";
import { readTensors, relativeError, tensor, type Tensors } from "./tensors.js";

export const devices: Device[] = ["cpu", "cpu-reference"];
/** The twin of the CUDA library, for tests alone: loadModel knows it where ROLEGRAD_CUDA_EMULATED is set. */
export const emulated = "cuda-emulated" as Device;

/** Norm of the difference over norm, for f32 against f64. */
export const TOLERANCE = 1e-4;

/** Loads a model for a piece of work and closes it. */
export async function withModel<T>(directory: string, options: LoadModelOptions, work: (model: Model) => Promise<T>) {
  const model = await loadModel(directory, options);
  try {
    return await work(model);
  } finally {
    model.close();
  }
}

/** Adapters with the values of routed.safetensors; role and adapter u is named "u". */
export function routedAdapters(model: Model, routed: Tensors): Adapters {
  const names = Object.keys(routed).filter((name) => name.startsWith("lora."));
  const roles = [...new Set(names.map((name) => name.split(".")[1] as string))].sort();
  const rank = routed[names[0] as string]?.shape[0] as number;
  const scale = tensor<Float64Array>(routed, "scale")[0] as number;
  const adapters = createAdapters(model, { roles, rank, alpha: scale * rank });
  for (const name of names.filter((name) => name.endsWith(".A"))) {
    const role = name.split(".")[1] as string;
    const module = name.slice(`lora.${role}.`.length, -2);
    const b = tensor<Float32Array>(routed, `lora.${role}.${module}.B`);
    adapters.set(role, module, { a: tensor<Float32Array>(routed, name), b });
  }
  return adapters;
}

/** The batch of routed.safetensors. */
export function routedBatch(routed: Tensors) {
  return {
    inputIds: tensor<Int32Array>(routed, "ids"),
    cuSeqlens: tensor<Int32Array>(routed, "cu_seqlens"),
    roles: Int8Array.from(tensor<Int32Array>(routed, "roles")),
    lossMask: tensor<Uint8Array>(routed, "loss_mask"),
    advantages: tensor<Float64Array>(routed, "advantages"),
    oldLogprobs: tensor<Float64Array>(routed, "old_logp"),
    refLogprobs: tensor<Float64Array>(routed, "ref_logp"),
  };
}

/** Logits and log-probabilities of the backbone, at each temperature. */
export async function checkForward(t: Test, directory: string, device: Device): Promise<void> {
  const want = readTensors(path.join(directory, "forward.safetensors"));
  await withModel(directory, { device }, async (model) => {
    const input = { inputIds: tensor<Int32Array>(want, "ids"), cuSeqlens: tensor<Int32Array>(want, "cu_seqlens") };
    const total = input.inputIds.length;
    for (const [i, temperature] of tensor<Float64Array>(want, "temperatures").entries()) {
      const got = await model.forward(input, { temperature, logits: true });
      t.ok(relativeError(got.logits as Float32Array, tensor(want, "logits")) < TOLERANCE, "logits");
      const logp = tensor<Float64Array>(want, "logp").subarray(i * total, (i + 1) * total);
      t.ok(relativeError(got.logprobs, logp) < TOLERANCE, `log-probabilities at temperature ${temperature}`);
      for (const start of input.cuSeqlens.subarray(0, -1)) t.equal(got.logprobs[start], 0, "0 at a first token");
    }
  });
}

/** Routed forward, the policy loss under every mask and aggregation, and every adapter's gradient, "flow" and "stop". */
export async function checkRouted(t: Test, directory: string, device: Device): Promise<void> {
  const want = readTensors(path.join(directory, "routed.safetensors"));
  const f64 = (name: string) => tensor<Float64Array>(want, name);
  const scalar = (name: string) => f64(name)[0] as number;
  await withModel(directory, { device }, async (model) => {
    const adapters = routedAdapters(model, want);
    const batch = routedBatch(want);
    const forward = await model.forward(batch, { adapters, logits: true });
    t.ok(relativeError(forward.logits as Float32Array, f64("logits")) < TOLERANCE, "logits");
    t.ok(relativeError(forward.logprobs, f64("logp")) < TOLERANCE, "log-probabilities");
    const off = await model.forward({ inputIds: batch.inputIds, cuSeqlens: batch.cuSeqlens });
    t.ok(relativeError(off.logprobs, f64("ref_logp")) < TOLERANCE, "adapters off");

    const objective = { clipLow: scalar("eps"), clipHigh: scalar("eps_high"), klCoefficient: scalar("beta") };
    const optimizer = { learningRate: 0 };
    const check = async (
      key: string,
      gradient: string | ((role: string) => string),
      options: { lossRoles?: string[]; crossRole?: CrossRole },
    ) => {
      const trainer = new Trainer(model, { adapters, objective, optimizer, ...options });
      const result = await trainer.accumulate(batch);
      t.equal(result.normalizer, scalar("n_tokens"), `${key}: N counts every sampled token`);
      const loss = scalar(`loss.${key}`);
      t.ok(Math.abs(result.loss - loss) < TOLERANCE * Math.abs(loss), `${key}: loss`);
      const k3 = scalar(`mean_k3.${key}`);
      t.ok(Math.abs(result.kl - k3) <= TOLERANCE * k3, `${key}: k3`);
      t.ok(Math.abs(result.clipHigh - scalar(`clip_high.${key}`)) < 1e-12, `${key}: clipped from above`);
      t.ok(Math.abs(result.clipLow - scalar(`clip_low.${key}`)) < 1e-12, `${key}: clipped from below`);
      if (key === "unified") {
        t.ok(relativeError(result.perTokenLoss, f64("per_token_loss")) < TOLERANCE, "per-token loss");
      }
      let [worst, modules] = [0, 0];
      for (const role of adapters.roles) {
        const prefix = `${typeof gradient === "string" ? gradient : gradient(role)}.${role}.`;
        for (const name of Object.keys(want).filter((each) => each.startsWith(prefix) && each.endsWith(".A"))) {
          const { a, b } = trainer.gradients.get(role, name.slice(prefix.length, -2));
          worst = Math.max(worst, relativeError(a, f64(name)), relativeError(b, f64(`${name.slice(0, -1)}B`)));
          modules++;
        }
      }
      const shown = `worst ${worst.toExponential(1)} of ${modules} modules`;
      t.ok(modules > 0 && worst < TOLERANCE, `${key}: ${JSON.stringify(options)}, ${shown}`);
    };
    await check("unified", "grad.unified", {});
    for (const role of adapters.roles) await check(`only${role}`, `grad.only${role}`, { lossRoles: [role] });
    await check("unified", "grad_stop.unified", { crossRole: "stop" });
    await check("unified", (role) => `grad.only${role}`, { crossRole: "exact" });

    const measured = await new Trainer(model, { adapters, objective, optimizer }).leakMatrix(batch);
    for (const role of adapters.roles)
      for (const adapter of adapters.names) {
        const squares = (key: string): number =>
          Object.keys(want)
            .filter((name) => name.startsWith(`${key}.${adapter}.`))
            .reduce((sum, name) => sum + f64(name).reduce((s, x) => s + x * x, 0), 0);
        const dot = Object.keys(want)
          .filter((name) => name.startsWith(`grad.only${adapter}.${adapter}.`))
          .reduce((sum, name) => {
            const other = f64(`grad.only${role}.${name.slice(`grad.only${adapter}.`.length)}`);
            return sum + f64(name).reduce((s, x, i) => s + x * (other[i] as number), 0);
          }, 0);
        const [norm, own] = [Math.sqrt(squares(`grad.only${role}`)), Math.sqrt(squares(`grad.only${adapter}`))];
        const shown = `loss ${role}, adapter ${adapter}`;
        if (norm === 0) {
          t.strictSame([measured.norms[role]?.[adapter], measured.cosines[role]?.[adapter]], [0, null], shown);
          continue;
        }
        t.ok(Math.abs((measured.norms[role]?.[adapter] as number) / norm - 1) < TOLERANCE, `${shown}: norm ${norm}`);
        const cosine = dot / norm / own;
        t.ok(
          Math.abs((measured.cosines[role]?.[adapter] as number) - cosine) < TOLERANCE,
          `${shown}: cosine ${cosine}`,
        );
      }

    for (const aggregation of ["seq-mean-token-mean", "seq-mean-token-sum-norm"] as const) {
      const other = { ...objective, aggregation, normLength: scalar("norm_length") };
      const { loss } = await new Trainer(model, { adapters, objective: other, optimizer }).accumulate(batch);
      t.ok(Math.abs(loss / scalar(`loss.${aggregation}`) - 1) < TOLERANCE, aggregation);
    }
    const { refLogprobs: _given, ...withoutReference } = batch;
    const { loss } = await new Trainer(model, { adapters, objective, optimizer }).accumulate(withoutReference);
    t.ok(Math.abs(loss / scalar("loss.unified") - 1) < TOLERANCE, "the reference is the backbone with adapters off");
  });
}

/** The supervised loss and its gradient by every parameter. */
export async function checkSupervised(t: Test, directory: string, device: Device): Promise<void> {
  const want = readTensors(path.join(directory, "sft.safetensors"));
  await withModel(directory, { device, dtype: "float32" }, async (model) => {
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
  });
}
