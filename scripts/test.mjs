// `npm test [-- FILE ...]`: all test files, several at a time where they do not measure times, memory or threads; then those that do, one by one.
// The last line is "N passed, N failed".
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";

/** They measure: beside others they would say little, or fail. */
const ALONE = /^(bench|(.*-)?memory|quickstart|robust-abort|robust-leak|rollout-limits)\.test\.ts$/;

const root = path.join(import.meta.dirname, "..");
const tap = path.join(root, "node_modules/.bin/tap");
const named = process.argv.slice(2);
if (named.length > 0) process.exit(await run(named, {}));

const folder = mkdtempSync(path.join(os.tmpdir(), "rolegrad-test-"));
const files = readdirSync(path.join(root, "test")).filter((name) => name.endsWith(".test.ts"));
const groups = [files.filter((name) => !ALONE.test(name)), files.filter((name) => ALONE.test(name))];
const sum = { passed: 0, failed: 0 };
let status = 0;
try {
  for (const [i, group] of groups.entries()) {
    const tally = path.join(folder, `${i}.json`);
    const jobs = i === 0 ? os.availableParallelism() : 1;
    const own = await run([`--jobs=${jobs}`, ...group.map((name) => path.join("test", name))], {
      ROLEGRAD_TALLY: tally,
    });
    const { passed, failed } = JSON.parse(readFileSync(tally, "utf8"));
    sum.passed += passed;
    sum.failed += failed;
    if (own !== 0 && failed === 0) sum.failed++; // a crash that is no test's
    status ||= own;
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
console.log(`${sum.passed} passed, ${sum.failed} failed`);
process.exitCode = status;

/** tap on these files; its exit code. */
function run(options, variables) {
  const child = spawn(process.execPath, [tap, ...options], {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, ...variables },
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", (code) => resolve(code ?? 1));
  });
}
