// The engine's own tests (test/native/*.cc), which need no Node: each claim there is an assertion here.
import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import t, { type Test } from "tap";
import { nativePrograms, runNativeTests } from "./helpers/native-tests.js";

const program =
  process.env["ROLEGRAD_NATIVE_TESTS"] ??
  path.join(nativePrograms, process.platform === "win32" ? "rolegrad_tests.exe" : "rolegrad_tests");

function run(t: Test, names: string[], threads?: number): Promise<void> {
  return runNativeTests(t, program, names, threads === undefined ? {} : { ROLEGRAD_THREADS: String(threads) });
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
