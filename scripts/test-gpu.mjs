// npm run test:gpu [-- NAME ...]: the operation tables on the real CUDA library, where there is a GPU. Prints one JSON object a line: what was
// found, each test, and a summary. Exit code: 0 where all passed, or where there is no GPU at all (and the summary says "skipped"); 1 else: also
// where there is one, and it or the library cannot be used.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";

const root = path.join(import.meta.dirname, "..");
const library = process.env.ROLEGRAD_CUDA_LIBRARY ?? path.join(root, "build/cuda/librolegrad_cuda.so");
const program = path.join(root, "build/cmake/Release/rolegrad_cuda_tests");
const print = (object) => console.log(JSON.stringify(object));
const needed = { [library]: "npm run build:cuda", [program]: "node native/build.mjs --target rolegrad_cuda_tests" };

// What NVIDIA's driver makes, in containers too.
const hasGpu = existsSync("/dev/nvidiactl") || existsSync("/dev/dxg");
const missing = Object.keys(needed).find((file) => !existsSync(file));
if (missing !== undefined) {
  const why = `${path.relative(root, missing)} is not there: ${needed[missing]} makes it`;
  print({ test: "summary", ...(hasGpu ? { failed: 1, error: why } : { skipped: why }) });
  process.exitCode = hasGpu ? 1 : 0;
} else {
  process.exitCode = await run();
}

async function run() {
  const child = spawn(program, process.argv.slice(2), {
    env: { ...process.env, ROLEGRAD_CUDA_LIBRARY: library },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise((resolve) => child.on("close", (code) => resolve(code)));
  const tests = [];
  let unavailable;
  let start = performance.now();
  for await (const line of createInterface({ input: child.stdout })) {
    const [, not, claim] = /^(not )?ok \d+ - (.*)$/.exec(line) ?? [];
    if (claim !== undefined) {
      const seconds = Number(((performance.now() - start) / 1000).toFixed(3));
      tests.push({ test: claim, ok: not === undefined, seconds, notes: [] });
      start = performance.now();
    } else if (line.startsWith("# ")) {
      tests.at(-1)?.notes.push(line.slice(2));
      if (line.includes("ERR_CUDA_UNAVAILABLE") || line.includes("Expected a GPU but found")) {
        unavailable = line.replace(/^# (threw: )?/, "");
        child.kill(); // every other test would say the same
      }
    }
  }
  const status = await ended;
  if (unavailable !== undefined) {
    for (const each of tests) print(each);
    print({ test: "summary", ...(hasGpu ? { failed: 1, error: unavailable } : { skipped: unavailable }) });
    return hasGpu ? 1 : 0;
  }
  for (const each of tests) print(each);
  const failed = tests.filter((each) => !each.ok).length;
  print({ test: "summary", library: path.relative(root, library), passed: tests.length - failed, failed, status });
  return status === 0 && failed === 0 ? 0 : 1;
}
