// Device "cuda". No machine of the tests has a GPU: what is said there, and everything else on the emulated twin of the library, whose
// kernels are the same source (docs/cuda.md). What these tests cannot show is anything about a GPU.
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import t, { type Test } from "tap";
import {
  createAdapters,
  loadModel,
  RolegradError,
  Rollout,
  Trainer,
  World,
  WORLD_CHECKPOINT,
  type Model,
} from "rolegrad";
import { checkpoints } from "./helpers/engine.js";
import { checkForward, checkRouted, checkSupervised, emulated, withModel } from "./helpers/reference.js";
import { nativePrograms, runNativeTests } from "./helpers/native-tests.js";
import { needsShared, root, shared } from "./helpers/shared.js";
import { worldRollout } from "./helpers/world.js";

const linux = process.platform === "linux" ? {} : { skip: "the library is Linux's alone" };
const twin = path.join(nativePrograms, "librolegrad_cuda_emulated.so");

/** Sets variables for the time of a test. */
function withVariables(t: Test, variables: Record<string, string | undefined>): void {
  for (const [name, value] of Object.entries(variables)) {
    const before = process.env[name];
    const set = (to: string | undefined) => {
      if (to === undefined) Reflect.deleteProperty(process.env, name);
      else process.env[name] = to;
    };
    set(value);
    t.teardown(() => set(before));
  }
}

async function refusal(device: string): Promise<RolegradError> {
  try {
    (await loadModel(checkpoints.tied, { device: device as "cuda" })).close();
  } catch (error) {
    if (error instanceof RolegradError) return error;
    throw error;
  }
  throw new Error(`Expected no device ${device} here`);
}

t.test("without the library the error says what to install and what it needs", async (t) => {
  withVariables(t, { ROLEGRAD_CUDA_LIBRARY: "" });
  const { code, message } = await refusal("cuda");
  t.equal(code, "ERR_CUDA_UNAVAILABLE");
  t.match(message, /npm i @rolegrad\/cuda-linux-x64/);
  t.match(message, /driver 580 or newer \(CUDA 13; 525 for a library of CUDA 12\)/);
  t.match(message, /compute capability 8\.0 or newer/);
});

t.test("a library that does not open, or is none, is named", linux, async (t) => {
  withVariables(t, { ROLEGRAD_CUDA_LIBRARY: path.join(root, "none.so") });
  t.match(await refusal("cuda"), { code: "ERR_CUDA_UNAVAILABLE", message: /no library that opens \(.*none\.so/ });
  withVariables(t, { ROLEGRAD_CUDA_LIBRARY: "libm.so.6" });
  t.match(await refusal("cuda"), { code: "ERR_CUDA_UNAVAILABLE", message: /without rolegrad_cuda_library, libm/ });
});

t.test("several models in one rollout are refused, whose streams nothing orders", linux, async (t) => {
  withVariables(t, { ROLEGRAD_CUDA_EMULATED: twin });
  const load = (): Promise<Model> => loadModel(WORLD_CHECKPOINT, { device: "cuda-emulated" as "cuda" });
  const [one, two] = await Promise.all([load(), load()]);
  t.teardown(() => [one, two].forEach((model) => model.close()));
  const rollout = new Rollout(one, { ...worldRollout(), writers: { tool: { model: two } }, group: 1, seed: 1 });
  const run = rollout.run(new World({ seed: 1 }).questions("dev", 1, 0))[Symbol.asyncIterator]();
  await t.rejects(run.next(), { code: "ERR_WRITERS", message: /writers of one model on device cuda.* several models/ });
});

t.test("a machine without a driver gets an error that says so", linux, async (t) => {
  withVariables(t, { ROLEGRAD_CUDA_EMULATED: twin, ROLEGRAD_CUDA_EMULATE_FAILURE: "no CUDA-capable device" });
  const { code, message } = await refusal("cuda-emulated");
  t.equal(code, "ERR_CUDA_UNAVAILABLE");
  t.match(message, /found no NVIDIA driver.*no CUDA-capable device.*needs Linux/);
});

const real = path.join(root, "build/cuda/librolegrad_cuda.so");
const built = existsSync(real) && !existsSync("/dev/nvidiactl");
t.test(
  "the real library opens without a driver, and says so",
  built ? {} : { skip: existsSync(real) ? "this machine has a GPU" : "npm run build:cuda was not run" },
  async (t) => {
    withVariables(t, { ROLEGRAD_CUDA_LIBRARY: real });
    const { code, message } = await refusal("cuda");
    t.equal(code, "ERR_CUDA_UNAVAILABLE");
    t.match(message, /found no NVIDIA driver, a library of CUDA 1[23]\.\d, no device \(/);
  },
);

t.test("the library's package has the version of this one", async (t) => {
  const version = (file: string) =>
    (JSON.parse(readFileSync(path.join(root, file), "utf8")) as { version: string }).version;
  t.equal(version("packages/cuda-linux-x64/package.json"), version("package.json"));
});

t.test("the emulated device is there for tests alone", async (t) => {
  withVariables(t, { ROLEGRAD_CUDA_EMULATED: undefined });
  t.equal((await refusal("cuda-emulated")).code, "ERR_DEVICE");
});

t.test("the bf16 multiply mode is the CPU's", async (t) => {
  withVariables(t, { ROLEGRAD_CUDA_EMULATED: twin });
  await t.rejects(loadModel(checkpoints.tied, { device: emulated, precision: "bf16-multiply" }), {
    code: "ERR_PRECISION",
  });
});

t.test("on the emulated library", linux, async (t) => {
  withVariables(t, { ROLEGRAD_CUDA_EMULATED: twin });

  // Random shapes are left out, as under the sanitizers: a block's threads run one after another.
  await t.test("the operation tables pass", (t) =>
    runNativeTests(t, path.join(nativePrograms, "rolegrad_cuda_tests"), [], {
      ROLEGRAD_RUNS: process.env["ROLEGRAD_RUNS"] ?? "0",
    }),
  );

  for (const name of ["qwen2-tiny", "qwen3-tiny", "llama3-tiny"]) {
    const directory = shared(`fixtures/${name}`) ?? "";
    await t.test(`${name}: transformers' and peft's numbers`, needsShared(`fixtures/${name}`), async (t) => {
      await checkForward(t, directory, emulated);
      await checkRouted(t, directory, emulated);
      await checkSupervised(t, directory, emulated);
    });
  }

  await t.test("a step of training is the CPU's within rounding, and the second forward sees it", async (t) => {
    const [cpu, gpu] = [await trained("cpu"), await trained(emulated)];
    t.equal(gpu.backend, "cuda-emulated");
    const error = (a: Float32Array, b: Float32Array) => Math.max(...a.map((value, i) => Math.abs(value - b[i]!)));
    t.ok(error(cpu.before, gpu.before) < 1e-4, "log-probabilities");
    const change = error(gpu.before, gpu.after);
    t.ok(change > 1e-3, `the step is seen: ${change}`);
    // Not to rounding: the first step of Adam is the sign of each gradient, also where that is rounding alone.
    t.ok(error(cpu.after, gpu.after) < 0.02 * change, `the step is the same: ${error(cpu.after, gpu.after)}`);
  });
});

/** Log-probabilities before and after a step with two adapters. */
async function trained(device: "cpu" | typeof emulated) {
  return withModel(checkpoints.tied, { device }, async (model: Model) => {
    const adapters = createAdapters(model, { roles: ["reason", "tool"], rank: 4, alpha: 8, seed: 1 });
    const inputIds = Int32Array.from({ length: 24 }, (_, i) => (i * 7 + 3) % 90);
    const cuSeqlens = Int32Array.of(0, 10, 24);
    const roles = Int8Array.from(inputIds, (_, i) => Math.floor(i / 4) % 2);
    const batch = { inputIds, cuSeqlens, roles };
    const before = (await model.forward(batch, { adapters })).logprobs;
    const trainer = new Trainer(model, {
      adapters,
      objective: { kind: "policy" },
      optimizer: { learningRate: 0.05 },
      seed: 1,
    });
    await trainer.accumulate({
      ...batch,
      lossMask: new Uint8Array(24).fill(1),
      advantages: Float32Array.of(1, -1),
      oldLogprobs: before,
    });
    await trainer.apply();
    const after = (await model.forward(batch, { adapters })).logprobs;
    return { backend: model.info.backend, before, after };
  });
}
