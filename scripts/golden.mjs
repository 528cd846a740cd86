// Writes the golden bits of this tree: test/golden.json (the public API) and test/native/golden_bits.h (the engine alone, for machines
// without Node). Refuses unless numericsVersion was raised since they were written: a change of bits is a decision (docs/numerics.md).
//
//   npm run golden [-- --check]      --check: says whether it would, and writes nothing
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const golden = path.join(root, "test/golden.json");
const header = path.join(root, "test/native/golden_bits.h");

function run(command, args, options = {}) {
  const { status, stdout, error } = spawnSync(command, args, {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    ...options,
  });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${status}`);
  return stdout;
}

function headerText(version, lines) {
  const entries = lines.map(([name, hash]) => `    {${JSON.stringify(name)}, ${JSON.stringify(hash)}},\n`).join("");
  return `#pragma once
// Written by \`npm run golden\`: hashes of the runs of golden.cc.

namespace rolegrad::testing {

inline constexpr int kGoldenNumericsVersion = ${version};
// clang-format off
inline constexpr struct {
  const char *name, *hash;
} kGoldenBits[] = {
${entries}};
// clang-format on

}  // namespace rolegrad::testing
`;
}

/** The number that a source file gives the version. */
function versionIn(file, pattern) {
  const found = pattern.exec(readFileSync(path.join(root, file), "utf8"));
  if (found === null) throw new Error(`Expected the numerics version in ${file}`);
  return Number(found[1]);
}

const numericsVersion = versionIn("lib/numerics.ts", /numericsVersion = (\d+);/);
const ofEngine = versionIn("native/core/numerics.h", /kNumericsVersion = (\d+);/);
if (ofEngine !== numericsVersion) {
  console.error(`error: lib/numerics.ts says ${numericsVersion} but native/core/numerics.h says ${ofEngine}`);
  process.exit(1);
}
const before = existsSync(golden) ? JSON.parse(readFileSync(golden, "utf8")).numericsVersion : 0;
if (numericsVersion <= before) {
  console.error(
    `error: Expected numericsVersion above ${before}, which ${path.relative(root, golden)} was written with, but it is ` +
      `${numericsVersion}. If results are meant to change their bits, raise it in lib/numerics.ts and native/core/numerics.h first.`,
  );
  process.exit(1);
}
if (process.argv.includes("--check")) process.exit(0);
run("npm", ["run", "--silent", "build"], { stdio: "inherit" });
run("node", ["native/build.mjs", "--target", "rolegrad_tests"], { stdio: "inherit" });
const program = process.platform === "win32" ? "rolegrad_tests.exe" : "rolegrad_tests";
const lines = run(path.join(root, "build/cmake/Release", program), ["--golden"])
  .trim()
  .split("\n")
  .map((line) => line.split(" | "));
// The last needs a CPU with AVX512-BF16, and says so.
const [bits, bf16] = ["exact", "bf16-multiply"].map((precision) =>
  JSON.parse(run(process.execPath, ["test/helpers/golden-bits.mjs", precision])),
);
writeFileSync(header, headerText(numericsVersion, lines));
writeFileSync(
  golden,
  `${JSON.stringify({ numericsVersion, bits: bits.hashes, bf16MultiplyBits: bf16.hashes }, null, 2)}\n`,
);
console.log(
  `wrote ${lines.length} hashes to ${path.relative(root, header)} and ${Object.keys(bits.hashes).length} to ${path.relative(root, golden)}`,
);
