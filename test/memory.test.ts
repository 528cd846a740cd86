// A model is in memory once: its panels. The pages of the mapped file are given back as they are packed.
import { existsSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { runProgram } from "./helpers/command.js";
import { writeLargeModel } from "./helpers/large.js";
import { root } from "./helpers/shared.js";

interface Sizes {
  weightBytes: number;
  /** kB of /proc/self/status before and after the load: VmHWM is the highest VmRSS so far. */
  before: Record<string, number>;
  after: Record<string, number>;
}

const program = `
import { readFileSync } from "node:fs";
import { loadModel } from "rolegrad";
const status = () => Object.fromEntries(
  [...readFileSync("/proc/self/status", "utf8").matchAll(/^(\\w+):\\s+(\\d+) kB$/gm)].map(([, name, kb]) => [name, Number(kb)]));
const small = await loadModel(process.argv[1]); // loads the addon, starts the threads
small.close();
const before = status();
const model = await loadModel(process.argv[2], process.argv[3] === "wide" ? { dtype: "float32" } : {});
console.log(JSON.stringify({ weightBytes: model.info.weightBytes, before, after: status() }));
model.close();
`;

const linux = existsSync("/proc/self/status") ? {} : { skip: "memory is measured in /proc/self/status" };
t.test("mapped weights are not held twice, neither while they are packed nor after", linux, async (t) => {
  const directory = t.testdir();
  // Some 80 MB, of which no tensor is a large part.
  await writeLargeModel(directory, { vocabulary: 8000, intermediate: 4096, layers: 5 });
  const small = path.join(root, "test/fixtures/engine/tied");
  for (const dtype of ["stored", "wide"]) {
    const args = ["--input-type=module", "-e", program, small, directory, dtype];
    const { status, stdout, stderr } = await runProgram(process.execPath, args, { env: { NODE_OPTIONS: undefined } });
    t.equal(status, 0, stderr);
    const { weightBytes, before, after } = JSON.parse(stdout) as Sizes;
    const grown = (name: string): number => (((after[name] as number) - (before[name] as number)) * 1024) / weightBytes;
    t.ok(weightBytes > 75e6);
    t.ok(grown("VmRSS") > 0.9, `${dtype}: the panels are there (${grown("VmRSS").toFixed(2)} of their size)`);
    t.ok(grown("VmRSS") < 1.15, `${dtype}: and nothing else (${grown("VmRSS").toFixed(2)})`);
    t.ok(grown("RssFile") < 0.1, `${dtype}: no page of the file (${grown("RssFile").toFixed(2)})`);
    const peak = (((after["VmHWM"] as number) - (before["VmRSS"] as number)) * 1024) / weightBytes;
    t.ok(peak < 1.4, `${dtype}: at no time more than one tensor twice (${peak.toFixed(2)})`);
  }
});
