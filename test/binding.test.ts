// What JavaScript and the addon say to each other when something is wrong. Through lib/, as it is not public.
import { Worker } from "node:worker_threads";
import path from "node:path";
import { pathToFileURL } from "node:url";
import t from "tap";
import { checkNodeVersion, native } from "../lib/binding.js";
import { RolegradError } from "../lib/errors.js";
import { root } from "./helpers/shared.js";

t.test("a wrong argument is a RolegradError that says what was expected and what came", async (t) => {
  const cases: [unknown, string][] = [
    [undefined, "undefined"],
    [null, "null"],
    [7, "7"],
    ["text", "a string"],
    [[1], "an array"],
    [{}, "an object"],
    [new Float64Array(2), "Float64Array"],
    [1n, "a BigInt"],
    [Symbol("s"), "a symbol"],
  ];
  for (const [value, said] of cases) {
    try {
      native.setErrorClass(value as typeof RolegradError);
      t.fail(`${said} was accepted`);
    } catch (error) {
      t.ok(error instanceof RolegradError, `${said}: the class of lib/errors.ts`);
      t.equal((error as RolegradError).code, "ERR_INVALID_ARGUMENT");
      t.equal((error as RolegradError).message, `Expected a function for errorClass but received ${said}`);
    }
  }
});

t.test("a buffer that could change under the reader is refused", async (t) => {
  const detached = new Float64Array(2);
  structuredClone(detached.buffer, { transfer: [detached.buffer] });
  // Node 20 has resizable buffers; the types are of a later ECMAScript.
  const resizable = Reflect.construct(ArrayBuffer, [16, { maxByteLength: 32 }]) as ArrayBuffer;
  for (const [values, said] of [
    [new Float64Array(new SharedArrayBuffer(16)), "one on a shared buffer"],
    [new Float64Array(resizable), "one on a resizable buffer"],
    [detached, "one on a detached buffer"],
    [new Float32Array(2), "Float32Array"],
    [new DataView(new ArrayBuffer(16)), "an object"],
    [[1, 2], "an array"],
  ] as const)
    t.throws(() => native.wilcoxon(values as Float64Array, { zeroMethod: 0, correction: false, method: 0 }), {
      name: "RolegradError",
      code: "ERR_INVALID_ARGUMENT",
      message: `Expected Float64Array for x but received ${said}`,
    });
});

t.test("each worker has its own error class, and leaves the main thread's alone", async (t) => {
  const binding = pathToFileURL(path.join(root, "dist/binding.js")).href;
  const code = `
    import { parentPort } from "node:worker_threads";
    import { native } from ${JSON.stringify(binding)};
    import { RolegradError } from ${JSON.stringify(binding.replace("binding.js", "errors.js"))};
    try { native.setErrorClass(1); } catch (error) { parentPort.postMessage([error instanceof RolegradError, error.code]); }
  `;
  const answers = await Promise.all(
    [0, 1].map(
      () =>
        new Promise((resolve, reject) => {
          const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`), { execArgv: [] });
          worker.once("message", resolve).once("error", reject);
        }),
    ),
  );
  t.strictSame(answers, [
    [true, "ERR_INVALID_ARGUMENT"],
    [true, "ERR_INVALID_ARGUMENT"],
  ]);
  t.throws(() => native.setErrorClass(1 as never), { code: "ERR_INVALID_ARGUMENT", name: "RolegradError" });
});

t.test("a Node that is too old is named together with the one that is needed", async (t) => {
  for (const version of ["18.20.4", "20.18.3", "20.9.0"])
    t.throws(() => checkNodeVersion(version), {
      code: "ERR_NODE_VERSION",
      message: `Expected Node 20.19.0 or newer but received ${version}`,
    });
  for (const version of ["20.19.0", "20.20.2", "22.0.0", "25.1.0-nightly"]) {
    checkNodeVersion(version);
    t.pass(`Node ${version} will do`);
  }
});
