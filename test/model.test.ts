// Running a model: what is refused, by which code and which words, and that everything still works after it.
import { writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { createAdapters, loadModel } from "rolegrad";
import type { ForwardOptions, PackedInput } from "rolegrad";
import { copyCheckpoint } from "./helpers/checkpoint.js";
import { runProgram } from "./helpers/command.js";
import { bits, checkpoints, randomAdapters } from "./helpers/engine.js";
import { refusals } from "./helpers/refused.js";
import { root } from "./helpers/shared.js";

const { model, refused } = await refusals(checkpoints.tied);
t.teardown(() => model.close());
const input = { inputIds: Int32Array.of(5, 100, 0, 7), cuSeqlens: Int32Array.of(0, 1, 4) };
const roles = Int8Array.of(0, 1, -1, 0);
const adapters = randomAdapters(model, { roles: ["reason", "tool"] });
const want = bits((await model.forward({ ...input, roles }, { adapters })).logprobs);

t.test("options are checked", async (t) => {
  const load = (options: object) => loadModel(checkpoints.tied, options);
  await refused(t, load({ dtype: "float16" }), "ERR_INVALID_ARGUMENT", "float16");
  await refused(t, load({ device: "tpu" }), "ERR_DEVICE", "tpu");
  const reason = new Error("changed my mind");
  await t.rejects(load({ signal: AbortSignal.abort(reason) }), reason);
  const directory = copyCheckpoint(t.testdir());
  writeFileSync(path.join(directory, "tokenizer.json"), '{"model": {');
  await refused(t, loadModel(directory), "ERR_TOKENIZER_JSON", path.join(directory, "tokenizer.json"));
});

t.test("a batch that does not fit is refused by name and position", async (t) => {
  const i32 = (...values: number[]) => Int32Array.from(values);
  const cases: [string, string | RegExp, Partial<Record<keyof PackedInput, unknown>>][] = [
    ["ERR_TOKEN_RANGE", "inputIds[2] is -1", { inputIds: i32(5, 100, -1, 7) }],
    ["ERR_TOKEN_RANGE", /0 to 100 but inputIds\[3\] is 101/, { inputIds: i32(5, 100, 0, 101) }],
    ["ERR_TOKEN_RANGE", "2147483647", { inputIds: i32(5, 2147483647, 0, 1) }],
    ["ERR_ROLE_RANGE", "roles[1] is 2", { roles: Int8Array.of(0, 2, 0, 0) }],
    ["ERR_ROLE_RANGE", "roles[3] is -2", { roles: Int8Array.of(0, 1, 0, -2) }],
    ["ERR_ROLE_RANGE", "roles[0] is 127", { roles: Int8Array.of(127, 1, 0, 0) }],
    ["ERR_SHAPE", "roles", { roles: Int8Array.of(0, 1, 0) }],
    ["ERR_SHAPE", "roles", { roles: Int8Array.of(0, 1, 0, 0, 0) }],
    ["ERR_EMPTY_BATCH", "empty", { inputIds: i32(), cuSeqlens: i32(0), roles: undefined }],
    ["ERR_EMPTY_BATCH", "empty", { inputIds: i32(), cuSeqlens: i32(), roles: undefined }],
    ["ERR_EMPTY_BATCH", "empty", { inputIds: i32(), cuSeqlens: i32(0, 0), roles: undefined }],
    ["ERR_EMPTY_BATCH", "empty", { cuSeqlens: i32(0) }],
    ["ERR_SHAPE", "sequence 1", { cuSeqlens: i32(0, 1, 1, 4) }],
    ["ERR_SHAPE", "cuSeqlens", { cuSeqlens: i32(0, 3, 2, 4) }],
    ["ERR_SHAPE", "cuSeqlens", { cuSeqlens: i32(1, 2, 4) }],
    ["ERR_SHAPE", "cuSeqlens", { cuSeqlens: i32(0, 1, 5) }],
    ["ERR_SHAPE", "cuSeqlens", { cuSeqlens: i32(0, 1, 3) }],
    ["ERR_SHAPE", "cuSeqlens", { cuSeqlens: i32(0, -1, 4) }],
    ["ERR_SHAPE", "cuSeqlens", { cuSeqlens: i32(0, 2147483647, 4) }],
    ["ERR_INVALID_ARGUMENT", /Int32Array for inputIds .* Array/, { inputIds: [5, 100, 0, 7] }],
    ["ERR_INVALID_ARGUMENT", /Int32Array for inputIds .* undefined/, { inputIds: undefined }],
    ["ERR_INVALID_ARGUMENT", /Int32Array for inputIds .* Float32Array/, { inputIds: Float32Array.of(5, 100, 0, 7) }],
    ["ERR_INVALID_ARGUMENT", /Int32Array for cuSeqlens/, { cuSeqlens: Uint32Array.of(0, 1, 4) }],
    ["ERR_INVALID_ARGUMENT", /Int8Array for roles/, { roles: Int32Array.of(0, 1, 0, 0) }],
  ];
  for (const [code, word, change] of cases) {
    const batch = { ...input, roles, ...change } as PackedInput;
    await refused(t, model.forward(batch, { adapters }), code, word);
  }
  for (const temperature of [0, -1, NaN, Infinity, "hot", null]) {
    const options = { temperature } as ForwardOptions;
    await refused(t, model.forward(input, options), "ERR_INVALID_ARGUMENT", "temperature");
  }
});

t.test("buffers that could change under the engine are refused", async (t) => {
  const detached = Int32Array.from(input.inputIds);
  structuredClone(detached.buffer, { transfer: [detached.buffer] });
  const resizable = Reflect.construct(ArrayBuffer, [16, { maxByteLength: 32 }]) as ArrayBuffer;
  for (const [inputIds, word] of [
    [new Int32Array(new SharedArrayBuffer(16)), "shared"],
    [new Int32Array(resizable), "resizable"],
    [detached, "detached"],
  ] as const) {
    await refused(t, model.forward({ ...input, inputIds }), "ERR_INVALID_ARGUMENT", "inputIds", `on a ${word} buffer`);
  }
  const roles = new Int8Array(new SharedArrayBuffer(4));
  await refused(t, model.forward({ ...input, roles }), "ERR_INVALID_ARGUMENT", "roles", "on a shared buffer");
});

t.test("what is passed in is copied at the call, and a view of a larger buffer will do", async (t) => {
  const wide = Int32Array.of(9, ...input.inputIds, 9);
  const view = wide.subarray(1, 5);
  const result = model.forward({ ...input, inputIds: view, roles }, { adapters });
  wide.fill(1 << 30);
  t.equal(bits((await result).logprobs), want);
});

t.test("adapters of another model are refused", async (t) => {
  const other = await loadModel(checkpoints.untied);
  t.teardown(() => other.close());
  const foreign = createAdapters(other, { roles: ["reason", "tool"], rank: 2, alpha: 4 });
  await refused(t, model.forward({ ...input, roles }, { adapters: foreign }), "ERR_INVALID_ARGUMENT", "adapters");
});

t.test("an abort rejects with its own reason", async (t) => {
  const reason = new Error("enough");
  await t.rejects(model.forward(input, { signal: AbortSignal.abort(reason) }), reason);
  const controller = new AbortController();
  const work = model.forward(input, { signal: controller.signal });
  controller.abort(reason);
  await t.rejects(work, reason);
  t.equal(bits((await model.forward({ ...input, roles }, { adapters })).logprobs), want);
});

t.test("a closed model says so, and closing waits for what runs", async (t) => {
  const own = await loadModel(checkpoints.tied);
  const running = own.forward(input);
  own.close();
  own.close();
  t.equal((await running).logprobs.length, 4, "what was running ends well");
  await refused(t, own.forward(input), "ERR_MODEL_CLOSED", "tied");
  t.throws(() => createAdapters(own, { roles: ["a"], rank: 1, alpha: 1 }), {
    name: "RolegradError",
    code: "ERR_MODEL_CLOSED",
  });
  t.throws(() => own.info, { name: "RolegradError", code: "ERR_MODEL_CLOSED" });
  const disposed = await loadModel(checkpoints.tied);
  await disposed[Symbol.asyncDispose]();
  await refused(t, disposed.forward(input), "ERR_MODEL_CLOSED");
});

t.test("a CPU without the instructions is named, and the attribution works there", async (t) => {
  const code = `
    import { computeInterferenceSync } from "rolegrad/attribution";
    import { loadModel, RolegradError } from "rolegrad";
    const correct = { base: [3], tool: [5], reas: [6], unified: [9], hybridTool: [4], hybridReas: [5] };
    const before = computeInterferenceSync({ samples: 10, correct }).counts;
    const error = await loadModel(${JSON.stringify(checkpoints.tied)}).catch((error) => error);
    const after = computeInterferenceSync({ samples: 10, correct }).counts;
    console.log(JSON.stringify([error instanceof RolegradError, error.code, error.message, before, after]));
  `;
  const env = { ROLEGRAD_ISA: "none", NODE_OPTIONS: undefined };
  const { status, stdout, stderr } = await runProgram(process.execPath, ["--input-type=module", "-e", code], {
    cwd: root,
    env,
  });
  t.equal(status, 0, stderr);
  const [own, errorCode, message, before, after] = JSON.parse(stdout) as [boolean, string, string, unknown, unknown];
  t.ok(own);
  t.equal(errorCode, "ERR_CPU_UNSUPPORTED");
  t.match(message, /AVX2/);
  t.strictSame(before, after);
  t.ok(before);
});
