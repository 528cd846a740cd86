// Typed arrays and native objects that are not what they seem: on buffers of other kinds, of other classes, changed after the call.
import t from "tap";
import { AdamW, loraLinear } from "rolegrad";
import { native } from "../lib/binding.js";
import { bits, trainingBatch } from "./helpers/engine.js";
import { arrays, detached, linear, optimizer, row, subjects, type Numbers } from "./helpers/hostile.js";
import { router } from "./helpers/toy.js";

const { model, adapters, trainer, trajectories } = await subjects(t);

t.test("typed arrays on shared, resizable and detached buffers are refused by name", async (t) => {
  const check = async (name: string, good: Numbers, call: (bad: never) => unknown): Promise<void> => {
    for (const [i, what] of ["shared", "resizable", "detached"].entries()) {
      await t.rejects(async () => call(arrays(good)[i] as never), {
        name: "RolegradError",
        code: "ERR_INVALID_ARGUMENT",
        message: new RegExp(`${name} but received one on a ${what} buffer`),
      });
    }
  };
  const own = { ...trainingBatch(trajectories), refLogprobs: new Float32Array(17) };
  await check("inputIds", row.inputIds, (inputIds) => model.forward({ ...row, inputIds }));
  await check("cuSeqlens", row.cuSeqlens, (cuSeqlens) => model.forward({ ...row, cuSeqlens }));
  await check("roles", new Int8Array(3), (bad) => model.forward({ ...row, roles: bad }));
  for (const name of Object.keys(own) as (keyof typeof own)[]) {
    await check(name, own[name], (bad) => trainer.accumulate({ ...own, [name]: bad }));
  }
  const { a, b } = adapters.get("tool", "model.layers.0.mlp.up_proj");
  await check("a", a, (bad) => adapters.set("tool", "model.layers.0.mlp.up_proj", { a: bad, b }));
  await check("b", b, (bad) => adapters.set("tool", "model.layers.0.mlp.up_proj", { a, b: bad }));
  for (const name of ["x", "w", "bias", "roles", "cuSeqlens", "dy"] as const) {
    await check(name, linear[name], (bad) => loraLinear.backward({ ...linear, [name]: bad }));
  }
  await check("parameters.w", new Float32Array(2), (w) => new AdamW(optimizer).step({ w }, { w: new Float64Array(2) }));
  await check("gradients.w", new Float64Array(2), (g) =>
    new AdamW(optimizer).step({ w: new Float32Array(2) }, { w: g }),
  );
  await check("tokenBytes", Uint8Array.of(1), (bad) => router.annotate([bad], [1]));
});

t.test("a native object of another class is not taken for one's own", async (t) => {
  const wrong = { name: "RolegradError", code: "ERR_INVALID_ARGUMENT" };
  const { native: handle } = model;
  for (const other of [{}, adapters.native, trainer.native, Object.create(handle)] as never[]) {
    t.throws(() => new native.Trainer(other, null, null, false, false, 0), wrong);
    t.throws(() => new native.Adapters(other, [], null, 0), wrong);
  }
  for (const other of [{}, handle, trainer.native] as never[]) {
    t.throws(() => new native.Trainer(handle, other, null, false, false, 0), wrong);
    t.throws(() => handle.forward(row.inputIds, row.cuSeqlens, null, other, Int32Array.of(), 1, false, null), wrong);
  }
  t.throws(() => native.loadModel({}, null as never, [], "cpu", false, null, "exact", ""), wrong);
  t.throws(() => new native.Adapters(handle, null as never, null, 0), wrong);
});

t.test("what is given is copied at the call", async (t) => {
  const want = bits((await model.forward(row)).logprobs);
  const inputIds = row.inputIds.slice();
  const running = model.forward({ ...row, inputIds });
  inputIds.fill(9);
  detached(inputIds);
  t.equal(bits((await running).logprobs), want);
});
