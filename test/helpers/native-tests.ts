// Programs of test/native, which print TAP: each claim there is an assertion here.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Test } from "tap";
import { root } from "./shared.js";

/** Where the build puts them. */
export const nativePrograms = path.join(root, "build/cmake/Release");

/** No test of it takes a tenth of this, on a loaded machine neither: what is silent for longer hangs, and is named. */
const longestSilence = 120_000;

/** Runs the tests of a program whose claims have one of the names (none: all), with these variables beside the environment. */
export async function runNativeTests(
  t: Test,
  program: string,
  names: string[],
  variables: Record<string, string> = {},
): Promise<void> {
  if (!existsSync(program)) {
    t.fail(`${program} is not there: node native/build.mjs --target ${path.parse(program).name} builds it`);
    return;
  }
  const env = { ...process.env, ...variables };
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
  if (planned === ran && t.counts.fail === 0) t.equal(status, 0, "the program ends with 0 when nothing failed");
}
