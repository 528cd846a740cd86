// One process a run directory: who is refused, whose lock counts for nothing, and that none is left behind.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { setTimeout as pause } from "node:timers/promises";
import t from "tap";
import { RunDirectory } from "rolegrad";
import { rolegrad } from "./helpers/command.js";
import { root } from "./helpers/shared.js";
import { temporary, worldRunFile } from "./helpers/world.js";

const onLinux = existsSync("/proc/self/stat") ? {} : { skip: "needs /proc" };

const locksIn = (folder: string): string[] => readdirSync(folder).filter((name) => name.startsWith("run.lock-"));

/** Locks `folder` in a process of its own, and tells what came of it; it gives the lock back when it may go on, or is killed. */
function holder(folder: string, script = "") {
  const child = spawn(
    process.execPath,
    [
      "--input-type=module",
      "-e",
      `import { RunDirectory } from "rolegrad";
      const work = new RunDirectory(${JSON.stringify(folder)}).locked(["a", "test"], async () => {
        const begin = performance.timeOrigin + performance.now();
        ${script === "" ? 'process.stdout.write("held\\n"); await new Promise((go) => process.stdin.once("data", go));' : script}
        process.stdout.write(JSON.stringify([begin, performance.timeOrigin + performance.now()]) + "\\n");
      });
      await work.catch((error) => process.stdout.write(error.code + "\\n"));
      process.stdin.destroy();`,
    ],
    { cwd: root, stdio: ["pipe", "pipe", "inherit"] },
  );
  return child;
}

/** A lock as another process would have put it there. */
function putLock(folder: string, change: Record<string, unknown> = {}): string {
  const began = readFileSync("/proc/self/stat", "utf8");
  const own = {
    pid: process.pid,
    thread: 0,
    host: os.hostname(),
    boot: readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim(),
    space: null as string | null,
    started: began.slice(began.lastIndexOf(")") + 2).split(" ")[19],
    since: "2026-01-02T03:04:05.000Z",
    command: ["rolegrad", "train", "run.json"],
    ...change,
  };
  const file = path.join(folder, "run.lock-00000000000001-01234567-89ab-cdef-0123-456789abcdef");
  writeFileSync(file, JSON.stringify(own));
  return file;
}

/** This process as its own locks name it. */
async function ownLock(): Promise<Record<string, unknown>> {
  const folder = temporary();
  return new RunDirectory(folder).locked(null, async () => {
    return JSON.parse(readFileSync(path.join(folder, locksIn(folder)[0]!), "utf8")) as Record<string, unknown>;
  });
}

const attempt = (folder: string): Promise<string> => new RunDirectory(folder).locked(null, async () => "locked");

t.test("a second process is refused by name while the first goes on, and not afterwards", async (t) => {
  const file = worldRunFile({ steps: 1000, evaluation: { questions: 1 } });
  const out = path.join(path.dirname(file), "out");
  const child = spawn(process.execPath, [path.join(root, "bin/rolegrad.js"), "train", file, "--json"], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const closed = once(child, "close") as Promise<[number]>;
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  await lines.next();
  const second = await rolegrad(["train", file]);
  t.match(second, { status: 1, stderr: /ERR_RUN_LOCKED.*train .*run\.json.*since \d{4}-\d\d-\d\dT.*: wait until/ });
  t.match(second.stderr, `process ${child.pid} on ${os.hostname()} `);
  t.equal(locksIn(out).length, 1);
  child.kill("SIGTERM");
  for await (const _ of { [Symbol.asyncIterator]: () => lines }) continue;
  t.equal((await closed)[0], 143);
  t.same(locksIn(out), [], "it was given back");
});

t.test("of processes that begin at the same moment never two have the lock", async (t) => {
  const folder = temporary();
  const children = Array.from({ length: 5 }, () => holder(folder, "await new Promise((go) => setTimeout(go, 150));"));
  const said = await Promise.all(children.map(({ stdout }) => text(stdout)));
  const spans = said
    .filter((line) => line.startsWith("["))
    .map((line) => JSON.parse(line) as [number, number])
    .sort((a, b) => a[0] - b[0]);
  t.ok(spans.length >= 1, `${spans.length} of 5 had it`);
  for (const [i, [begin]] of spans.slice(1).entries()) t.ok(begin >= spans[i]![1], "one after another");
  for (const line of said) t.match(line, /^(\[|ERR_RUN_LOCKED)/);
  t.same(locksIn(folder), []);
});

t.test("in one process, too, and through a link", async (t) => {
  const folder = temporary();
  const link = path.join(temporary(), "link");
  symlinkSync(folder, link, "junction");
  await new RunDirectory(folder).locked(null, async () => {
    await t.rejects(attempt(folder), { code: "ERR_RUN_LOCKED", message: new RegExp(`process ${process.pid} on `) });
    await t.rejects(attempt(link), { code: "ERR_RUN_LOCKED" });
  });
  // The one that has it keeps it until the two others were refused: in turn, each of the three could have had it.
  let refused = 0;
  const attempts = Array.from({ length: 3 }, () =>
    new RunDirectory(folder)
      .locked(null, async () => {
        for (let waited = 0; refused < 2 && waited < 500; waited++) await pause(20);
        return "locked";
      })
      .catch((error: unknown) => {
        refused++;
        return (error as { code: string }).code;
      }),
  );
  t.same((await Promise.all(attempts)).sort(), ["ERR_RUN_LOCKED", "ERR_RUN_LOCKED", "locked"], "of three at once one");
  const failing = new RunDirectory(folder).locked(null, async () => Promise.reject(new Error("work")));
  await t.rejects(failing, { message: "work" });
  t.equal(await attempt(folder), "locked", "a failure gives it back");
});

t.test("the lock of a process that was killed counts for nothing", onLinux, async (t) => {
  const folder = temporary();
  const child = holder(folder);
  await once(child.stdout, "data");
  await t.rejects(attempt(folder), { code: "ERR_RUN_LOCKED" });
  child.kill("SIGKILL");
  await once(child, "exit");
  t.equal(locksIn(folder).length, 1);
  t.equal(await attempt(folder), "locked");
  t.same(locksIn(folder), []);
});

t.test("a process that exits in the middle of its work leaves no lock", async (t) => {
  const folder = temporary();
  const child = holder(folder, "process.exit(3);");
  t.same(await once(child, "exit"), [3, null]);
  t.same(locksIn(folder), []);
});

t.test("a pid that went to another process, and one of before a restart, hold nothing", onLinux, async (t) => {
  const own = await ownLock();
  for (const [what, change] of [
    ["a process that began at another time", { pid: process.ppid, started: "1" }],
    ["this pid at another time", { started: "1" }],
    ["before a restart", { boot: "00000000-0000-0000-0000-000000000000" }],
    ["no process", { pid: 2 ** 22 + 1 }],
    ["this process, which gave it up", {}],
  ] as const) {
    const folder = temporary();
    putLock(folder, { ...own, ...change });
    t.equal(await attempt(folder), "locked", what);
    t.same(locksIn(folder), [], what);
  }
});

t.test("a lock that cannot be judged from here is respected, with what to do", onLinux, async (t) => {
  const own = await ownLock();
  for (const [change, said] of [
    [
      { host: "other.example" },
      /on other\.example \(rolegrad train run\.json\) has had it since 2026-01-02T03.*cannot be seen from here/,
    ],
    [{ space: "pid:[1]" }, /another container/],
    [{ thread: 77 }, /wait until it has ended/],
  ] as const) {
    const folder = temporary();
    const { command: _c, since: _s, ...mine } = own;
    const file = putLock(folder, { ...mine, ...change });
    await t.rejects(attempt(folder), { code: "ERR_RUN_LOCKED", message: said });
    if (!("thread" in change)) await t.rejects(attempt(folder), { message: new RegExp(`remove ${file}`) });
    t.same(locksIn(folder), [path.basename(file)], "it stays");
  }
  const folder = temporary();
  writeFileSync(putLock(folder), "not JSON");
  await t.rejects(attempt(folder), { code: "ERR_RUN_LOCKED", message: /no rolegrad wrote it.*remove it/ });
});

t.test("a folder of something else is refused, and left as it is", async (t) => {
  const folder = temporary();
  mkdirSync(path.join(folder, "photos.partial"));
  await t.rejects(attempt(folder), { code: "ERR_RUN_EXISTS" });
  t.same(readdirSync(folder), ["photos.partial"]);
});
