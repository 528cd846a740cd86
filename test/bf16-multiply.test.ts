// The bf16 multiply mode through the public API: who gets it, what it is called in results, how far it is from the exact mode, and that it keeps
// the contract within itself. The engine's own tests compare its products with their reference, bit for bit (test/native).
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { loadModel, parseTrajectory, Rollout, serializeTrajectory, Trainer } from "rolegrad";
import type { Model } from "rolegrad";
import { native } from "../lib/binding.js";
import { rolegrad, runProgram } from "./helpers/command.js";
import { adapterBits, bits, checkpoints, pack, randomAdapters } from "./helpers/engine.js";
import { batchShapes, holds, rowsOf } from "./helpers/properties.js";
import { routedAdapters, routedBatch, withModel } from "./helpers/reference.js";
import { needsShared, root, shared } from "./helpers/shared.js";
import { sameAlone } from "./helpers/steps.js";
import { readTensors, relativeError, tensor } from "./helpers/tensors.js";
import { environment, questions, reward, roles, router, writeToyModel } from "./helpers/toy.js";

const precision = "bf16-multiply";
const there = native.cpuInfo().precisions.includes(precision);
const fast = there ? {} : { skip: "this CPU (or ROLEGRAD_ISA) has no AVX512-BF16" };
/** Where the fast kernels cannot run the plain loops show the mode. */
const device = there ? "cpu" : "cpu-reference";

t.test("it is an opt-in with a name, and excludes f32 weights", async (t) => {
  await withModel(checkpoints.untied, {}, async (exact) => {
    t.equal(exact.precision, "exact");
    await withModel(checkpoints.untied, { precision, device }, async (model) => {
      t.equal(model.precision, precision);
      t.equal(model.info.backend, there ? "cpu-avx512-bf16" : "reference-bf16");
      t.throws(() => new Trainer(model, { full: true, optimizer: { learningRate: 1 } }), { code: "ERR_DTYPE" });
    });
  });
  const load = (options: object) => loadModel(checkpoints.tied, options);
  await t.rejects(load({ precision: "fp8" }), { code: "ERR_INVALID_ARGUMENT", message: /exact, bf16-multiply.*fp8/ });
  await t.rejects(load({ precision, dtype: "float32" }), { code: "ERR_INVALID_ARGUMENT", message: /float32/ });
});

t.test("where the kernels cannot run it is refused, and says what is missing", async (t) => {
  const code = `
    import { loadModel } from "rolegrad";
    for (const device of ["cpu", "cpu-reference"]) {
      const model = await loadModel(${JSON.stringify(checkpoints.tied)}, { device, precision: "bf16-multiply" }).catch((error) => error);
      console.log(model.code, model.message ?? model.precision);
    }`;
  const env = { ROLEGRAD_ISA: "avx2", NODE_OPTIONS: undefined };
  const { stdout, stderr } = await runProgram(process.execPath, ["--input-type=module", "-e", code], {
    cwd: root,
    env,
  });
  const [cpu, reference] = stdout.split("\n");
  t.match(cpu, /^ERR_CPU_UNSUPPORTED .*bf16-multiply.*avx2/, stderr);
  t.equal(reference, `undefined ${precision}`, "the plain loops compute it anywhere");
  if (!there) await t.rejects(loadModel(checkpoints.tied, { precision }), { code: "ERR_CPU_UNSUPPORTED" });
});

for (const [name, directory] of Object.entries(checkpoints)) {
  t.test(`${name}: a sequence gets the same bits alone and in any batch`, fast, (t) =>
    withModel(directory, { precision }, async (model) => {
      const adapters = randomAdapters(model, { roles });
      await holds(t, batchShapes, 10, (value) => sameAlone(model, adapters, rowsOf(value, model)));
    }),
  );

  t.test(`${name}: the kernels are near the plain loops of the mode`, fast, async (t) => {
    const run = (device: "cpu" | "cpu-reference") =>
      withModel(directory, { precision, device }, async (model) => {
        const adapters = randomAdapters(model, { roles });
        const input = pack(rowsOf({ lengths: [40, 7], seed: 3 }, model));
        return (await model.forward(input, { adapters, logits: true })).logits as Float32Array;
      });
    // Not f32's rounding alone: where it moves an activation over a tie of bf16, half a step of bf16 goes on.
    const error = relativeError(await run("cpu"), await run("cpu-reference"));
    t.ok(error < 1e-2, `relative error ${error.toExponential(1)}`);
  });
}

t.test("a rollout's log-probabilities are the trainer's, bit for bit", fast, async (t) => {
  const directory = t.testdir();
  await writeToyModel(directory);
  await withModel(directory, { precision }, async (model) => {
    const adapters = randomAdapters(model, { roles });
    const make = (concurrency: number) =>
      new Rollout(model, {
        ...{ adapters, router, environment, reward, group: 6, seed: 3, concurrency },
        sampling: { temperature: 0.7, maxNewTokens: 70 },
      });
    const trajectories = await make(18).collect(questions);
    const { logprobs } = await model.forward(pack(trajectories), { adapters, temperature: 0.7 });
    const sampled = trajectories.flatMap((x) => Array.from(x.sampled));
    const recorded = Float32Array.from(trajectories.flatMap((x) => Array.from(x.logprobs)));
    t.equal(bits(logprobs.map((x, i) => (sampled[i] === 1 ? x : 0))), bits(recorded));
    const alone = await make(1).collect(questions);
    t.equal(bits(...alone.map((x) => x.logprobs)), bits(...trajectories.map((x) => x.logprobs)), "decoded one by one");
    const trainer = new Trainer(model, { adapters, optimizer: { learningRate: 0.01 }, microBatchTokens: 300 });
    t.equal((await trainer.step(trajectories)).maxRatioDeviation, 0, "every ratio is exactly 1");
  });
});

t.test("a trajectory names the precision and is trained on in it, unless the step is told otherwise", async (t) => {
  const directory = t.testdir();
  await writeToyModel(directory);
  const sample = async (model: Model) => {
    const made = await new Rollout(model, {
      ...{ adapters: randomAdapters(model, { roles }), router, environment, reward, group: 3, seed: 3 },
      sampling: { maxNewTokens: 8 },
    }).collect(questions.slice(0, 1));
    return made.map((x) => parseTrajectory(serializeTrajectory(x)));
  };
  await withModel(directory, { precision, device }, async (model) => {
    await withModel(directory, {}, async (exact) => {
      for (const [own, other] of [
        [model, exact],
        [exact, model],
      ] as const) {
        const trajectories = await sample(own);
        t.ok(trajectories.every((x) => x.precision === own.precision));
        const make = (on: Model) =>
          new Trainer(on, { adapters: randomAdapters(on, { roles }), optimizer: { learningRate: 0.01 } });
        const trainer = make(other);
        const before = adapterBits(trainer.adapters!);
        const refused = { code: "ERR_PRECISION", message: new RegExp(`"${other.precision}".*"${own.precision}"`) };
        await t.rejects(trainer.step(trajectories), refused);
        await t.rejects(trainer.leakMatrix(trajectories), refused);
        t.equal(adapterBits(trainer.adapters!), before);
        t.ok(await trainer.leakMatrix(trajectories, { allowOtherPrecision: true }));
        t.equal((await trainer.step(trajectories, { allowOtherPrecision: true })).step, 1);
        t.equal((await make(own).step(trajectories)).step, 1);
      }
      const [line] = await sample(exact);
      const { precision: _, ...old } = line!;
      t.equal(parseTrajectory(serializeTrajectory(old)).precision, "exact", "a line without a word about it: exact");
      t.throws(() => parseTrajectory(serializeTrajectory({ ...old, precision: "fp8" as never })), {
        code: "ERR_TRAJECTORY",
        message: /precision/,
      });
    });
  });
});

t.test("a checkpoint names the precision and is continued in it, unless other bits will do", async (t) => {
  const folder = t.testdir();
  const options = { optimizer: { learningRate: 0.01 } };
  await withModel(checkpoints.tied, { precision, device }, async (model) => {
    await new Trainer(model, { adapters: randomAdapters(model, { roles }), ...options }).save(folder);
    t.equal((await Trainer.resume(folder, model, options)).model, model);
  });
  const file = path.join(folder, "trainer.json");
  const state = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
  t.equal(state["precision"], precision);
  await withModel(checkpoints.tied, {}, async (exact) => {
    const refused = { code: "ERR_PRECISION", message: /"bf16-multiply".*trainer\.json.*"exact"/ };
    await t.rejects(Trainer.resume(folder, exact, options), refused);
    t.ok(await Trainer.resume(folder, exact, { ...options, allowOtherNumerics: true }));
    delete state["precision"];
    writeFileSync(file, JSON.stringify(state));
    t.ok(await Trainer.resume(folder, exact, options), "without a word about it: exact");
  });
});

t.test("bench and doctor name it", fast, async (t) => {
  const cases = ["gemm", "routed-backward", "--quick", "--json", "--case", "1x896x9728"];
  const { stdout, stderr, status } = await rolegrad(["bench", ...cases, "--precision", precision]);
  t.equal(status, 0, stderr);
  const [machine, ...lines] = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  t.match(machine, { bench: "machine", isa: "avx512", precision });
  t.equal(lines.length, 2);
  for (const line of lines) t.match(line, { case: /bf16/, precision });
  const doctor = JSON.parse((await rolegrad(["doctor", "--json"])).stdout) as Record<string, unknown>;
  t.strictSame(doctor["precisions"], ["exact", precision]);
});

// Operands have 8 bits: half a step is 2^-9. Each logit and gradient of these models is some dozens of such roundings of random sign away.
const TOLERANCE = 2e-2;

for (const name of ["qwen2-tiny", "qwen3-tiny", "llama3-tiny"]) {
  t.test(`${name}: near the logits and gradients of transformers`, needsShared(`fixtures/${name}`), async (t) => {
    const directory = shared(`fixtures/${name}`) as string;
    await withModel(directory, { precision, device }, async (model) => {
      const plain = readTensors(path.join(directory, "forward.safetensors"));
      const input = { inputIds: tensor<Int32Array>(plain, "ids"), cuSeqlens: tensor<Int32Array>(plain, "cu_seqlens") };
      const { logits } = await model.forward(input, { logits: true });
      const near = (what: string, error: number, bound = TOLERANCE) => {
        t.ok(error < bound, `${what}: ${error.toExponential(1)}`);
        t.ok(error > 1e-5, `${what} is not the exact mode's`);
      };
      near("logits", relativeError(logits as Float32Array, tensor(plain, "logits")));

      const want = readTensors(path.join(directory, "routed.safetensors"));
      const adapters = routedAdapters(model, want);
      const batch = routedBatch(want);
      const forward = await model.forward(batch, { adapters, logits: true });
      near("routed logits", relativeError(forward.logits as Float32Array, tensor(want, "logits")));
      // The loss as on policy: ratios far from 1 would only magnify the distance of the log-probabilities.
      const trainer = new Trainer(model, { adapters, objective: { kind: "sft" }, optimizer: { learningRate: 0 } });
      const exact = await loadModel(directory, { dtype: "float32" });
      const others = routedAdapters(exact, want);
      const reference = new Trainer(exact, {
        adapters: others,
        objective: { kind: "sft" },
        optimizer: { learningRate: 0 },
      });
      await trainer.accumulate(batch);
      await reference.accumulate(batch);
      let worst = 0;
      for (const role of adapters.roles)
        for (const key of Object.keys(want).filter((each) => each.startsWith(`lora.${role}.`) && each.endsWith(".A"))) {
          const module = key.slice(`lora.${role}.`.length, -2);
          const [got, expected] = [trainer, reference].map((each) => each.gradients.get(role, module));
          worst = Math.max(worst, relativeError(got!.a, expected!.a), relativeError(got!.b, expected!.b));
        }
      near("the worst gradient of a module", worst, 5e-2);
      exact.close();
    });
  });
}
