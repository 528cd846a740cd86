import { randomUUID } from "node:crypto";
import { readFileSync, rmSync } from "node:fs";
import { readdir, readFile, readlink, realpath, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { threadId } from "node:worker_threads";
import { z } from "zod";
import { removePartial, writeDurable } from "../durable.js";
import { fail } from "../errors.js";

/** The right to write to a run directory. */
export interface RunLock {
  /** Gives it back; more than once is once. */
  release(): Promise<void>;
}

const PREFIX = "run.lock-";
const NAME = /^run\.lock-\d{14}-[0-9a-f-]{36}$/;
/** How long two that begin at once wait for each other, in milliseconds. */
const PATIENCE = 2000;

const schema = z.object({
  pid: z.int(),
  /** Of worker_threads. */
  thread: z.int(),
  host: z.string(),
  /** Linux: which boot, which namespace of pids, and the process's start in ticks after the boot. */
  boot: z.string().nullable(),
  space: z.string().nullable(),
  started: z.string().nullable(),
  since: z.string(),
  command: z.array(z.string()).nullable(),
});
type Holder = z.infer<typeof schema>;

/** Locks of this process, whichever copy of the package took them. */
const held = ((globalThis as Record<symbol, unknown>)[Symbol.for("rolegrad.runLocks")] ??=
  new Set<string>()) as Set<string>;
let listening = false;

/** Whether a file of a run directory is such a lock, whole or half written. */
export function isLock(name: string): boolean {
  return name.startsWith(PREFIX);
}

/**
 * Locks a folder that is there for this process, or throws ERR_RUN_LOCKED, which names who has it. A lock of a process that is no more counts for nothing.
 *
 * Each process puts down a file of its own and then looks for others': of two, at least the later sees the other. No file of a living process is ever
 * removed or replaced by another, so there is no moment at which two hold the lock.
 */
export async function lockFolder(folder: string, command: readonly string[] | null): Promise<RunLock> {
  const home = await realpath(folder);
  const since = new Date();
  const name = `${PREFIX}${String(since.getTime()).padStart(14, "0")}-${randomUUID()}`;
  const file = path.join(home, name);
  const own = await identify(since, command);
  const release = async (): Promise<void> => {
    if (held.delete(file)) await rm(file, { force: true }).catch(() => undefined);
  };
  held.add(file);
  if (!listening) process.on("exit", releaseAll);
  listening = true;
  try {
    await put(file, `${JSON.stringify(own)}\n`);
    for (let waited = 0; ; waited += 50) {
      const other = await findOther(home, name, own);
      if (other === undefined) break;
      // The later of two gives way; the earlier waits for it, unless that one looked first and has the lock.
      if (other.name < name || waited >= PATIENCE) refuse(home, other, own);
      await pause(50);
    }
    await removePartial(home, (entry) => !isLock(entry));
  } catch (error) {
    await release();
    throw error;
  }
  return { release };
}

/** Writes a lock, again where one that has the lock has just removed what it took for a killed process's. */
async function put(file: string, text: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await writeDurable(file, text);
    } catch (error) {
      if (attempt === 3 || ((error as Error).cause as NodeJS.ErrnoException | undefined)?.code !== "ENOENT")
        throw error;
    }
  }
}

/** Another's lock that counts; those of processes that are no more are removed. */
async function findOther(
  home: string,
  mine: string,
  own: Holder,
): Promise<{ name: string; holder: Holder | undefined } | undefined> {
  for (const name of (await readdir(home)).filter((entry) => NAME.test(entry) && entry !== mine).sort()) {
    const file = path.join(home, name);
    const text = await readFile(file, "utf8").catch(() => undefined);
    if (text === undefined) continue; // given back meanwhile
    const holder = parse(text);
    if (holder === undefined || isHeld(file, holder, own)) return { name, holder };
    await rm(file, { force: true });
  }
  return undefined;
}

function parse(text: string): Holder | undefined {
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** false only where it is sure that its process is no more. */
function isHeld(file: string, holder: Holder, own: Holder): boolean {
  if (elsewhere(holder, own)) return true;
  if (holder.boot !== own.boot) return false;
  const began = startOf(holder.pid);
  if (holder.pid === own.pid && holder.started === own.started) return holder.thread !== own.thread || held.has(file);
  if (own.started !== null) return began !== null && began === holder.started;
  // No /proc: a pid may have gone to another process, but not one of before the boot.
  if (Date.parse(holder.since) < Date.now() - os.uptime() * 1000) return false;
  try {
    return process.kill(holder.pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

/** Its processes cannot be seen from here: another machine, or another container of this one. */
function elsewhere(holder: Holder, own: Holder): boolean {
  return holder.host !== own.host || (holder.boot === own.boot && holder.space !== own.space);
}

function refuse(home: string, { name, holder }: { name: string; holder: Holder | undefined }, own: Holder): never {
  const file = path.join(home, name);
  const begin = `Expected no other process on the run in ${home} but`;
  if (holder === undefined)
    fail(
      "ERR_RUN_LOCKED",
      `${begin} ${file} is another's lock, and no rolegrad wrote it: if no run goes on there, remove it`,
    );
  const { pid, host, since, command } = holder;
  const what = command === null ? "" : ` (${command.join(" ")})`;
  const who = `process ${pid} on ${host}${what} has had it since ${since}`;
  if (!elsewhere(holder, own)) fail("ERR_RUN_LOCKED", `${begin} ${who}: wait until it has ended, or end it`);
  fail(
    "ERR_RUN_LOCKED",
    `${begin} ${who}, and whether it still runs cannot be seen from here (${own.host}${host === own.host ? ", another container" : ""}). ` +
      `If it does not, remove ${file}`,
  );
}

async function identify(since: Date, command: readonly string[] | null): Promise<Holder> {
  const quiet = (found: Promise<string>): Promise<string | null> => found.then((text) => text.trim()).catch(() => null);
  return {
    pid: process.pid,
    thread: threadId,
    host: os.hostname(),
    boot: await quiet(readFile("/proc/sys/kernel/random/boot_id", "utf8")),
    space: await quiet(readlink("/proc/self/ns/pid")),
    started: startOf(process.pid),
    since: since.toISOString(),
    command: command === null ? null : [...command],
  };
}

/** When a process began (Linux; elsewhere null): a pid that is used again has another start. null where it has ended, reaped or not. */
function startOf(pid: number): string | null {
  try {
    // "PID (NAME) STATE ...": the name may hold anything.
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return ["Z", "X"].includes(fields[0] ?? "") ? null : (fields[19] ?? null);
  } catch {
    return null;
  }
}

/** Whatever way a process ends in which it can still do something. */
function releaseAll(): void {
  for (const file of held) {
    try {
      rmSync(file, { force: true });
    } catch {
      // It is stale from now on.
    }
  }
  held.clear();
}
