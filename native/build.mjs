// Builds the addon from its sources into build/Release/rolegrad.node, only what changed:
//
//   node native/build.mjs [--target NAME] [--out FOLDER] [-DNAME=VALUE ...]
//
// Needs CMake and a C++20 compiler, and nothing of npm but this package's dependencies: it is what `npm run build` runs
// in a clone and what `rolegrad build` runs in an installed package. Options: the CMake target (default: the addon), the
// folder that CMake works in (default build/cmake), and definitions for CMake.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const { values: options } = parseArgs({
  options: {
    target: { type: "string", default: "rolegrad" },
    out: { type: "string", default: "build/cmake" },
    define: { type: "string", short: "D", multiple: true, default: [] },
  },
});

function run(command, args) {
  const result = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (result.error?.code === "ENOENT") throw new Error(`Expected ${command} on PATH: install CMake 3.22 or newer`);
  if (result.error !== undefined) throw result.error;
  if (result.status !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${result.signal ?? result.status}`);
}

function has(command) {
  return spawnSync(command, ["--version"], { stdio: "ignore" }).status === 0;
}

/** Configures when it was never done or definitions are given; CMake sees to later changes of CMakeLists.txt itself. */
function configure() {
  if (options.define.length === 0 && existsSync(path.join(root, options.out, "CMakeCache.txt"))) return;
  const generator = has("ninja") ? ["-G", "Ninja"] : [];
  const definitions = options.define.map((definition) => `-D${definition}`);
  run("cmake", ["-S", ".", "-B", options.out, ...generator, "-DCMAKE_BUILD_TYPE=Release", ...definitions]);
}

function alive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** Two builds at once (two terminals) would write the same object files: the second waits for the first. */
async function lock() {
  const file = path.join(root, "build", ".lock");
  mkdirSync(path.dirname(file), { recursive: true });
  for (let said = false; ;) {
    try {
      writeFileSync(file, String(process.pid), { flag: "wx" });
      return () => rmSync(file, { force: true });
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    const holder = existsSync(file) ? Number(readFileSync(file, "utf8")) : 0;
    if (holder > 0 && !alive(holder)) {
      rmSync(file, { force: true });
      continue;
    }
    if (!said) console.error(`waiting for the build of process ${holder}`);
    said = true;
    await setTimeout(200);
  }
}

const unlock = await lock();
try {
  configure();
  run("cmake", ["--build", options.out, "--target", options.target, "--parallel", String(availableParallelism())]);
} catch (error) {
  console.error(`error [ERR_BUILD]: ${error.message}`);
  process.exitCode = 1;
} finally {
  unlock();
}
