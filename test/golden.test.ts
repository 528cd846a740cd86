// The golden bits (docs/numerics.md): a short training run gives the committed hashes on whatever CPU runs this. The engine's own, without
// Node, are test/native/golden_test.cc.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { numericsVersion } from "rolegrad";
import { native } from "../lib/binding.js";
import { runProgram } from "./helpers/command.js";
import { root } from "./helpers/shared.js";

interface Golden {
  numericsVersion: number;
  bits: Record<string, string>;
  bf16MultiplyBits: Record<string, string>;
}
const golden = JSON.parse(readFileSync(path.join(root, "test/golden.json"), "utf8")) as Golden;
const script = path.join(root, "test/helpers/golden-bits.mjs");

t.test("the package, its addon and the golden bits are of one numerics version", (t) => {
  t.equal(native.cpuInfo().numericsVersion, numericsVersion, "the addon is not of this tree: npm run build");
  t.equal(golden.numericsVersion, numericsVersion, "a raised numericsVersion needs new golden bits: npm run golden");
  t.end();
});

/** The hashes of a run of the script. */
async function run(args: string[], env: Record<string, string>) {
  const { status, stdout, stderr } = await runProgram(process.execPath, [script, ...args], {
    env: { NODE_OPTIONS: undefined, ...env },
  });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as { backend: string; hashes: Record<string, string> };
}

const isas = process.arch === "x64" ? ["avx2", "avx512"] : ["neon"];
for (const isa of isas) {
  const kernels = native.cpuInfo().instructionSets;
  const has = isa !== "avx512" || kernels.includes("avx512f");
  t.test(
    `a short training run gives the golden bits: ${isa}`,
    has ? {} : { skip: `this CPU has no ${isa}` },
    async (t) => {
      const found = await run([], { ROLEGRAD_ISA: isa, ROLEGRAD_THREADS: isa === "avx2" ? "1" : "2" });
      t.equal(found.backend, `cpu-${isa}`);
      t.strictSame(found.hashes, golden.bits);
    },
  );
}

t.test(
  "the same run in the bf16 multiply mode gives its golden bits",
  native.cpuInfo().precisions.includes("bf16-multiply") ? {} : { skip: "this CPU has no AVX512-BF16" },
  async (t) => {
    const { hashes } = await run(["bf16-multiply"], { ROLEGRAD_THREADS: "2" });
    t.strictSame(hashes, golden.bf16MultiplyBits);
    for (const [name, hash] of Object.entries(hashes)) t.not(hash, golden.bits[name], `${name} is of this mode`);
  },
);

t.test("golden bits are not written anew unless numericsVersion was raised", (t) => {
  const { status, stderr } = spawnSync(process.execPath, ["scripts/golden.mjs", "--check"], {
    cwd: root,
    encoding: "utf8",
  });
  t.equal(status, 1);
  t.match(stderr, /Expected numericsVersion above/);
  t.end();
});
