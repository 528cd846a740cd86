// The engine's own tests (test/native/*.cc), which need no Node: each claim there is an assertion here.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import t, { type Test } from "tap";
import { root } from "./helpers/shared.js";

const program =
  process.env["ROLEGRAD_NATIVE_TESTS"] ??
  path.join(root, "build/cmake/Release", process.platform === "win32" ? "rolegrad_tests.exe" : "rolegrad_tests");

/** No test of it takes a tenth of this, on a loaded machine neither: what is silent for longer hangs, and is named. */
const longestSilence = 120_000;

async function run(t: Test, names: string[], threads?: number): Promise<void> {
  if (!existsSync(program)) {
    t.fail(`${program} is not there: node native/build.mjs --target rolegrad_tests builds it`);
    return;
  }
  const env = threads === undefined ? process.env : { ...process.env, ROLEGRAD_THREADS: String(threads) };
  const child = spawn(program, names, { env, stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(child, "close") as Promise<[number | null, string | null]>;
  let planned: number | undefined;
  let ran = 0;
  let failed: { claim: string; notes: string[] } | undefined;
  let last = "none";
  const hangs = (): void => {
    t.fail(`the native tests go on: nothing for ${longestSilence / 1000} s after ${ran} of them, the last: ${last}`);
    child.kill("SIGKILL");
  };
  let silence = setTimeout(hangs, longestSilence);
  const report = (): void => {
    if (failed !== undefined) t.fail(failed.claim, { notes: failed.notes });
    failed = undefined;
  };
  for await (const line of createInterface({ input: child.stdout })) {
    clearTimeout(silence);
    silence = setTimeout(hangs, longestSilence);
    const [, not, claim = ""] = /^(not )?ok \d+ - (.*)$/.exec(line) ?? [undefined, undefined, undefined];
    const plan = /^1\.\.(\d+)$/.exec(line);
    if (claim !== "") {
      report();
      ran++;
      last = claim;
      if (not === undefined) t.pass(claim);
      else failed = { claim, notes: [] };
    } else if (plan !== null) {
      planned = Number(plan[1]);
    } else if (line.startsWith("# ") && failed !== undefined) {
      failed.notes.push(line.slice(2));
    } else {
      t.comment(line);
    }
  }
  clearTimeout(silence);
  report();
  const [status, signal] = await ended;
  t.ok(
    ran > 0 && planned === ran,
    `the native tests ran to their end (${ran} of ${planned ?? "?"}, ${signal ?? status})`,
  );
  if (planned === ran && t.counts.fail === 0) t.equal(status, 0, "rolegrad_tests ends with 0 when nothing failed");
}

t.test("the native tests pass", (t) => run(t, []));

// Not where the tests are sanitized: memory is left out there, and the rest was run once.
const everything = process.env["ROLEGRAD_LEAVE_OUT"] === undefined;

// How rows divide among threads decides what a thread needs: one more and one fewer than this machine has matter too.
for (const threads of everything ? [1, 3] : [])
  t.test(`memory with ${threads} threads`, (t) => run(t, ["allocates n"], threads));

// Where "all threads" are two, one against all says little: five divide rows, heads and panels otherwise. And one thread
// of a pool is not a pool of one, for which work may be cut otherwise: the golden bits, and each operation's, are of
// either.
t.test("whole models with 5 threads", { skip: !everything && "sanitized" }, (t) =>
  run(
    t,
    [
      "one thread gives the bits",
      "the split of a batch",
      "gets the same log-probabilities and logits alone",
      "gives the golden bits",
    ],
    5,
  ),
);
t.test(
  "every operation gives the same bits in a pool of 1, of 2 and of 5 threads",
  { skip: !everything && "sanitized" },
  async (t) => {
    const [one = "", ...others] = await Promise.all(
      [1, 2, 5].map(async (threads) => {
        const env = { ...process.env, ROLEGRAD_THREADS: String(threads) };
        return (await promisify(execFile)(program, ["--hashes"], { env, maxBuffer: 1 << 26 })).stdout;
      }),
    );
    t.match(one, /\n/, "there are hashes");
    for (const other of others) t.same(other.split("\n"), one.split("\n"));
  },
);
