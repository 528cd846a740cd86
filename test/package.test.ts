// The package as a user gets it: packed with a prebuild, installed with no install script and no compiler.
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import t from "tap";
import { runProgram, type CommandResult } from "./helpers/command.js";
import { root } from "./helpers/shared.js";

/** Megabytes (10^6 bytes): the tarball, and the package with everything that it depends on. */
const tarballBudget = 12;
const installedBudget = 25;

const work = mkdtempSync(path.join(tmpdir(), "rolegrad-package-"));
const app = path.join(work, "app");
const tools = path.join(work, "tools");
t.teardown(() => rmSync(work, { recursive: true, force: true }));

const manifest = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8")) as { files: string[] };

/** The file that a name on PATH runs. */
function which(name: string): string {
  for (const folder of (process.env["PATH"] ?? "").split(path.delimiter)) {
    const file = path.join(folder, name);
    if (existsSync(file)) return file;
  }
  throw new Error(`Expected ${name} on PATH`);
}

/** What `npm test` puts into the environment would make npm act on this tree. */
const clean: NodeJS.ProcessEnv = {};
for (const name of Object.keys(process.env))
  if (
    /^(npm_(package|lifecycle)_|npm_config_(local|global)_prefix$|npm_command$|INIT_CWD$|NODE_OPTIONS$|TAP|ROLEGRAD_)/.test(
      name,
    )
  )
    clean[name] = undefined;

/** With a PATH on which there is node and npm and nothing else. */
function bare(program: string, args: readonly string[]): Promise<CommandResult> {
  return runProgram(program, args, { cwd: app, env: { ...clean, PATH: tools } });
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath, entry.name));
}

function megabytes(files: readonly string[]): number {
  return files.reduce((sum, file) => sum + statSync(file).size, 0) / 1e6;
}

const prebuild = path.join("prebuilds", `${process.platform}-${process.arch}`, "rolegrad.node");

/** Packs a copy of what is published, with the addon of this tree as its prebuild. */
async function pack(): Promise<string> {
  const stage = path.join(work, "stage");
  mkdirSync(path.join(stage, path.dirname(prebuild)), { recursive: true });
  for (const name of ["package.json", "README.md", "LICENSE", ...manifest.files])
    if (!name.startsWith("!") && name !== "prebuilds" && existsSync(path.join(root, name)))
      cpSync(path.join(root, name), path.join(stage, name), { recursive: true });
  copyFileSync(path.join(root, "build/Release/rolegrad.node"), path.join(stage, prebuild));
  const packed = await runProgram("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", work], {
    cwd: stage,
    env: clean,
  });
  t.equal(packed.status, 0, packed.stderr);
  const [result] = JSON.parse(packed.stdout) as [{ filename: string }];
  return path.join(work, result.filename);
}

t.test("the packed package", async (t) => {
  const tarball = await pack();

  await t.test("is within its size budget", async (t) => {
    const size = megabytes([tarball]);
    t.ok(size < tarballBudget, `${size.toFixed(1)} MB packed, of ${tarballBudget} MB`);
  });

  mkdirSync(app);
  mkdirSync(tools);
  for (const tool of ["node", "npm"]) symlinkSync(which(tool), path.join(tools, tool));
  writeFileSync(path.join(app, "package.json"), '{ "private": true, "type": "module" }\n');

  await t.test("installs where there is no compiler and no install script runs", async (t) => {
    await t.rejects(bare("cmake", ["--version"]), { code: "ENOENT" }, "no CMake on this PATH");
    await t.rejects(bare("g++", ["--version"]), { code: "ENOENT" }, "no compiler on this PATH");
    const args = ["install", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", tarball];
    const { status, stderr } = await bare(path.join(tools, "npm"), args);
    t.equal(status, 0, stderr);
  });

  const installed = path.join(app, "node_modules/rolegrad");

  await t.test("holds what it needs and no tests", async (t) => {
    const files = filesBelow(installed).map((file) => path.relative(installed, file).replaceAll(path.sep, "/"));
    for (const needed of [
      "dist/index.js",
      "dist/index.d.ts",
      "dist/attribution/index.js",
      "bin/rolegrad.js",
      prebuild,
      "LICENSE",
      "README.md",
      "examples/spider-sql/real.json",
      "native/build.mjs",
      "native/gyp/include/node/common.gypi",
    ])
      t.ok(files.includes(needed), needed);
    const stray = files.filter((file) =>
      /(^|\/)(test|tests|benchmarks|runs|scripts|shared|\.ci)\/|\.test\.|tsbuildinfo|\.o$/.test(file),
    );
    t.strictSame(stray, [], "no tests, scripts or build leftovers");
    const size = megabytes(filesBelow(path.join(app, "node_modules")));
    t.ok(size < installedBudget, `${size.toFixed(1)} MB installed with its dependencies, of ${installedBudget} MB`);
  });

  await t.test("answers computeInterference", async (t) => {
    writeFileSync(
      path.join(app, "answer.js"),
      `import { computeInterference } from "rolegrad/attribution";
       const correct = { base: [5], tool: [20], reas: [18], unified: [22], hybridTool: [15], hybridReas: [14] };
       const result = await computeInterference({ samples: 50, correct });
       console.log(result.lambda.l23[0]);`,
    );
    const { status, stdout, stderr } = await bare("node", ["answer.js"]);
    t.equal(status, 0, stderr);
    const z = (correct: number): number => Math.log((correct + 0.5) / (50 - correct + 0.5));
    const expected = z(22) - z(20) - z(18) + z(5);
    t.ok(Math.abs(Number(stdout) - expected) < 1e-12, `lambda23 is ${expected}, printed ${stdout.trim()}`);
  });

  await t.test("can be required from CommonJS", async (t) => {
    const code =
      "console.log(typeof require('rolegrad').RolegradError, typeof require('rolegrad/attribution').computeInterference)";
    const { stdout, stderr } = await bare("node", ["--no-warnings", "--eval", code, "--input-type=commonjs"]);
    t.equal(stdout, "function function\n", stderr);
  });

  await t.test("has a working command line that uses the prebuild", async (t) => {
    const { stdout, stderr } = await bare("node", [path.join(app, "node_modules/.bin/rolegrad"), "doctor", "--json"]);
    t.match(JSON.parse(stdout || stderr), { binary: { kind: "prebuild", file: path.join(installed, prebuild) } });
  });

  await t.test("says how to build where there is no prebuild", async (t) => {
    rmSync(path.join(installed, "prebuilds"), { recursive: true });
    const { status, stderr } = await bare("node", ["answer.js"]);
    t.not(status, 0);
    t.match(stderr, `Expected a rolegrad binary for ${process.platform}-${process.arch}`);
    t.match(stderr, "npx rolegrad build");
    const build = await bare("node", [path.join(app, "node_modules/.bin/rolegrad"), "build"]);
    t.equal(build.status, 1);
    t.match(build.stderr, "Expected cmake on PATH: install CMake 3.22 or newer");
  });
});

t.test(
  "no code for AVX can be picked by the linker for all CPUs",
  { skip: process.platform === "linux" && process.arch === "x64" ? false : "Linux on x64 only" },
  async (t) => {
    // A weak symbol (an inline function, a template, anything of std) of an object that is compiled with -mavx512f may
    // be kept instead of the same one from elsewhere, and then runs on CPUs without AVX-512.
    const folder = path.join(root, "build/cmake/CMakeFiles/rolegrad_core.dir/native/ops/cpu");
    for (const set of ["avx2", "avx512"]) {
      const object = path.join(folder, `kernels_${set}.cc.o`);
      const { status, stdout, stderr } = await runProgram("nm", ["--defined-only", "--demangle", object]);
      t.equal(status, 0, stderr);
      const weak = stdout.split("\n").filter((line) => /^[0-9a-f]+ [WVu] /.test(line));
      t.strictSame(weak, [], `kernels_${set}.cc defines no weak symbol`);
    }
  },
);

t.test(
  "the addon runs on glibc 2.34 and the C++ library of gcc 12",
  { skip: process.platform === "linux" ? false : "Linux only" },
  async (t) => {
    const { status, stdout, stderr } = await runProgram("objdump", ["-T", "build/Release/rolegrad.node"]);
    t.equal(status, 0, stderr);
    const newest = (name: string): number[] =>
      [...stdout.matchAll(new RegExp(`\\(?${name}_(\\d+)\\.(\\d+)(?:\\.(\\d+))?\\)?`, "g"))]
        .map((match) => match.slice(1).map((part) => Number(part ?? 0)))
        .reduce((a, b) => ((a.map((part, i) => part - (b[i] ?? 0)).find((d) => d !== 0) ?? 0) > 0 ? a : b), [0, 0, 0]);
    const atMost = (found: number[], limit: number[]): boolean =>
      (found.map((part, i) => part - (limit[i] ?? 0)).find((d) => d !== 0) ?? 0) <= 0;
    for (const [name, limit] of [
      ["GLIBC", [2, 34, 0]],
      ["GLIBCXX", [3, 4, 30]],
    ] as const)
      t.ok(atMost(newest(name), [...limit]), `needs ${name} ${newest(name).join(".")}, at most ${limit.join(".")}`);
  },
);
