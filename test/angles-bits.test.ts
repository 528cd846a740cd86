import path from "node:path";
import t from "tap";
import { loadModel } from "rolegrad";
import { runProgram } from "./helpers/command.js";
import { checkpoints } from "./helpers/engine.js";
import { root } from "./helpers/shared.js";
import { writeToyModel } from "./helpers/toy.js";

interface Bits {
  threads: number;
  hashes: Record<string, string>;
}

// Its gradients take several blocks of the measurement, and its products several tasks of every operation.
const wide = path.join(t.testdir(), "wide");
await writeToyModel(wide, { sizes: { layers: 2, hidden: 96, heads: 3, headDim: 32, intermediate: 320 } });

async function bitsOf(env: NodeJS.ProcessEnv): Promise<Bits> {
  const script = path.join(root, "test/helpers/angle-bits.mjs");
  const { status, stdout, stderr } = await runProgram(
    process.execPath,
    [script, `${wide}=backbone,adapters`, `${checkpoints.qwen3}=all`],
    {
      env: { NODE_OPTIONS: undefined, ROLEGRAD_ISA: undefined, ROLEGRAD_THREADS: undefined, ...env },
    },
  );
  if (status !== 0) throw new Error(`the child ended with ${status}: ${stderr}`);
  return JSON.parse(stdout) as Bits;
}

t.test("one thread and several give the same angles, in every bit", async (t) => {
  const counts = [1, 2, 5];
  const [one, ...several] = await Promise.all(counts.map((n) => bitsOf({ ROLEGRAD_THREADS: String(n) })));
  t.equal(new Set(Object.values(one!.hashes)).size, 3, "each is of another measurement");
  t.same(
    [one!, ...several].map(({ threads }) => threads),
    counts,
  );
  for (const { hashes } of several) t.strictSame(hashes, one!.hashes);
});

const model = await loadModel(wide);
const { backend } = model.info;
model.close();
const avx512 =
  backend === "cpu-avx512" ? {} : { skip: `this CPU runs ${backend}: AVX2 cannot be compared with AVX-512` };
t.test("AVX2 and AVX-512 give the same angles, in every bit", avx512, async (t) => {
  const [narrow, widest] = await Promise.all([bitsOf({ ROLEGRAD_ISA: "avx2" }), bitsOf({ ROLEGRAD_ISA: "avx512" })]);
  t.strictSame(narrow.hashes, widest.hashes);
});
