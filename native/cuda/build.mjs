// Builds librolegrad_cuda.so into build/cuda, only what changed:
//
//   node native/cuda/build.mjs --toolkit PATH [--architectures LIST] [--jobs N]
//
// PATH is a CUDA toolkit of 12.8 or newer; scripts/cuda-toolkit.sh FOLDER installs one without root and prints where it
// is. Default architectures: 80-real;90-real;90-virtual (later GPUs compile the last when the library is first used).
import { spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

const root = path.resolve(import.meta.dirname, "../..");
const { values: options } = parseArgs({
  options: {
    toolkit: { type: "string", default: process.env.CUDA_HOME ?? "" },
    architectures: { type: "string", default: "80-real;90-real;90-virtual" },
    jobs: { type: "string", default: String(availableParallelism()) },
  },
});

function run(command, args) {
  const result = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (result.error?.code === "ENOENT") throw new Error(`Expected ${command} on PATH: install CMake 3.22 or newer`);
  if (result.error !== undefined) throw result.error;
  if (result.status !== 0) throw new Error(`${command} ended with ${result.signal ?? result.status}`);
}

try {
  const compiler = path.join(options.toolkit, "bin/nvcc");
  if (options.toolkit === "" || !existsSync(compiler))
    throw new Error(
      `Expected --toolkit with a CUDA toolkit but received ${JSON.stringify(options.toolkit)}: ` +
        "scripts/cuda-toolkit.sh FOLDER installs one and prints its path",
    );
  const definitions = {
    CMAKE_BUILD_TYPE: "Release",
    CMAKE_CUDA_COMPILER: compiler,
    CMAKE_CUDA_ARCHITECTURES: options.architectures,
    CMAKE_LIBRARY_OUTPUT_DIRECTORY: path.join(root, "build/cuda"),
  };
  run("cmake", [
    "-S",
    "native/cuda",
    "-B",
    "build/cmake-cuda",
    ...Object.entries(definitions).map(([name, value]) => `-D${name}=${value}`),
  ]);
  run("cmake", ["--build", "build/cmake-cuda", "--parallel", options.jobs]);
  const library = path.join(root, "build/cuda/librolegrad_cuda.so");
  console.log(`${path.relative(root, library)}: ${(statSync(library).size / 2 ** 20).toFixed(1)} MiB`);
} catch (error) {
  console.error(`error [ERR_BUILD]: ${error.message}`);
  process.exitCode = 1;
}
