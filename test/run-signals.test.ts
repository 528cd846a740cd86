// Ctrl-C, SIGTERM, and either of them twice: exit codes, checkpoints, and that the same command goes on.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import t from "tap";
import { rolegrad } from "./helpers/command.js";
import { root } from "./helpers/shared.js";
import { worldRunFile } from "./helpers/world.js";

type Event = Record<string, unknown> & { event: string; step: number };

/** Runs a command until `at` is seen in what it prints, then sends it the signals, the second when it has said that it heard the first. */
async function interrupt(args: readonly string[], at: RegExp, signals: readonly NodeJS.Signals[]) {
  const child = spawn(process.execPath, [path.join(root, "bin/rolegrad.js"), ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const closed = once(child, "close") as Promise<[number | null]>;
  child.stderr.once("data", () => signals[1] !== undefined && child.kill(signals[1]));
  const stderr = text(child.stderr);
  const lines: string[] = [];
  let sent = false;
  for await (const line of createInterface({ input: child.stdout })) {
    lines.push(line);
    if (sent || !at.test(line)) continue;
    sent = true;
    child.kill(signals[0]);
  }
  return { status: (await closed)[0], lines, stderr: await stderr };
}

t.test("Ctrl-C exits with 130 and SIGTERM with 143, each with a checkpoint that the output names", async (t) => {
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    const file = worldRunFile({ steps: 1000, evaluation: { questions: 1 } });
    const out = path.join(path.dirname(file), "out");
    const { status, lines } = await interrupt(["train", file, "--json"], /"event":"step","step":2/, [signal]);
    t.equal(status, code, signal);
    const last = JSON.parse(lines.at(-1)!) as Event;
    t.equal(last.event, "interrupted");
    t.equal(last["checkpoint"], path.join(out, "checkpoints", `step-${String(last.step).padStart(6, "0")}`));
    t.match(readdirSync(path.join(out, "checkpoints")), [path.basename(String(last["checkpoint"]))]);
    const goOn = await rolegrad(["train", file, "--steps", String(last.step + 1), "--json"]);
    t.equal(goOn.status, 0);
    t.match(JSON.parse(goOn.stdout.split("\n")[0]!), { event: "start", step: last.step });
  }
});

t.test("a second one ends at once, and the last whole checkpoint stands", async (t) => {
  const file = worldRunFile({
    steps: 1000,
    questionsPerStep: 12,
    group: 32,
    evaluation: { questions: 1 },
    checkpoint: { every: 1 },
  });
  const { status } = await interrupt(["train", file], /^step 2\//, ["SIGINT", "SIGINT"]);
  t.equal(status, 130);
  const out = path.join(path.dirname(file), "out");
  t.same(
    readdirSync(out).filter((name) => name.startsWith("run.lock")),
    [],
    "the lock is given back",
  );
  const steps = readdirSync(path.join(out, "checkpoints")).filter((name) => /^step-\d+$/.test(name));
  t.ok(steps.length > 0);
  const goOn = await rolegrad(["train", file, "--steps", "4", "--json"]);
  t.equal(goOn.status, 0, goOn.stdout);
  t.match(JSON.parse(goOn.stdout.split("\n")[0]!), { event: "start", step: Number(steps.sort().at(-1)!.slice(5)) });
});

t.test("an evaluation that Ctrl-C ends exits with 130 and says so", async (t) => {
  const file = worldRunFile({ evaluation: { questions: 12, samples: 400 } });
  const child = spawn(process.execPath, [path.join(root, "bin/rolegrad.js"), "eval", file, "--json"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  // It says nothing until it has ended: it is asked until it hears (before it listens, the signal itself ends it).
  const stdout = text(child.stdout);
  await new Promise((go) => setTimeout(go, 1500));
  child.kill("SIGINT");
  const [status, signal] = (await once(child, "close")) as [number | null, string | null];
  if (signal !== null) return t.comment("skipped: it had not begun to listen");
  t.equal(status, 130);
  t.match(JSON.parse(await stdout), { error: { code: "ERR_ABORTED" } });
});
