// A process, or the machine, that stops at the n-th change of the file system. Every function of node:fs/promises that changes something counts; a write
// and the removal of a folder count twice, as they may stop half way. From the n-th on nothing is changed any more: what is there then is what a killed
// process leaves. An fsync only counts, it is not made: what it is for is seen by what is lost without it. With `power` also what was not brought onto the disk in time is lost: half of each file without an fsync, each name whose folder had none.
import {
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import promises, { type FileHandle } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import path from "node:path";

export class Crash extends Error {
  constructor() {
    super("crashed");
  }
}

class Disk {
  calls = 0;
  /** The call that it stopped at. */
  stopped = "";
  /** Bytes on the disk of files that have more. */
  readonly #dirty = new Map<string, number>();
  /** What was done to a folder since its names were brought onto the disk, and how it is undone. */
  #names: { folder: string; undo: () => void }[] = [];

  constructor(
    readonly stopAt: number,
    readonly power: boolean,
  ) {}

  /** A moment at which it may stop; `half` is what of the call is done then. */
  async moment(what: string, half?: () => Promise<unknown>): Promise<void> {
    if (this.stopped !== "") throw new Crash();
    if (++this.calls < this.stopAt) return;
    this.stopped = what;
    await half?.();
    if (this.power) this.#lose();
    throw new Crash();
  }

  written(file: string, size: number): void {
    if (!this.#dirty.has(file)) this.#dirty.set(file, size);
  }

  synced(place: string): void {
    this.#dirty.delete(place);
    this.#names = this.#names.filter(({ folder }) => folder !== place);
  }

  named(place: string, undo: () => void): void {
    this.#names.push({ folder: path.dirname(place), undo });
  }

  renamed(from: string, to: string): void {
    for (const [file, size] of [...this.#dirty]) {
      if (file !== from && !file.startsWith(`${from}/`)) continue;
      this.#dirty.delete(file);
      this.#dirty.set(to + file.slice(from.length), size);
    }
  }

  #lose(): void {
    for (const [file, size] of this.#dirty) {
      if (!existsSync(file)) continue;
      const now = statSync(file).size;
      if (now > size) truncateSync(file, size + Math.floor((now - size) / 2));
    }
    for (const { undo } of this.#names.reverse()) undo();
  }
}

const real = { ...promises };

/** Calls `work` on a disk that stops at its `stopAt`-th moment (Infinity: never); gives the moments that there were, and the call that it stopped at. */
export async function withCrash(
  stopAt: number,
  work: () => Promise<unknown>,
  { power = false } = {},
): Promise<{ moments: number; stopped: string }> {
  const disk = new Disk(stopAt, power);
  const own = {
    open: async (file: string, flags = "r"): Promise<FileHandle> => {
      if (flags !== "r") await disk.moment(`open ${file}`);
      const fresh = flags !== "r" && !existsSync(file);
      if (flags === "w" && !fresh) disk.written(file, 0);
      const handle = await real.open(file, flags);
      if (fresh) disk.named(file, () => rmSync(file, { force: true }));
      return watched(disk, file, handle);
    },
    mkdir: async (folder: string, options?: { recursive?: boolean }) => {
      await disk.moment(`mkdir ${folder}`);
      const first = await real.mkdir(folder, options);
      if (typeof first === "string") disk.named(first, () => rmSync(first, { recursive: true, force: true }));
      return first;
    },
    rename: async (from: string, to: string) => {
      await disk.moment(`rename ${from}`);
      const before = existsSync(to) && statSync(to).isFile() ? readFileSync(to) : undefined;
      await real.rename(from, to);
      disk.renamed(from, to);
      disk.named(to, () => {
        if (!existsSync(to)) return;
        renameSync(to, from);
        if (before !== undefined) writeFileSync(to, before);
      });
    },
    rm: async (place: string, options?: { recursive?: boolean; force?: boolean }) => {
      if (!existsSync(place)) return real.rm(place, options);
      await disk.moment(`rm ${place}`);
      const [first] = statSync(place).isDirectory() ? readdirSync(place) : [];
      if (first !== undefined)
        await disk.moment(`half of rm ${place}`, () => real.rm(path.join(place, first), { recursive: true }));
      return real.rm(place, options);
    },
    writeFile: async () => Promise.reject(new Error("Expected writeDurable() instead of writeFile()")),
    appendFile: async () => Promise.reject(new Error("Expected appendDurable() instead of appendFile()")),
  };
  Object.assign(promises, own);
  syncBuiltinESMExports();
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Crash)) throw error;
  } finally {
    Object.assign(promises, real);
    syncBuiltinESMExports();
  }
  return { moments: disk.calls, stopped: disk.stopped };
}

function watched(disk: Disk, file: string, handle: FileHandle): FileHandle {
  const before = handle.writeFile.bind(handle);
  const truncate = handle.truncate.bind(handle);
  const writeFile = async (data: string | Uint8Array): Promise<void> => {
    const { size } = await handle.stat();
    disk.written(file, size);
    await disk.moment(`write ${file}`);
    const bytes = typeof data === "string" ? Buffer.from(data) : data;
    if (bytes.length > 1)
      await disk.moment(`half of write ${file}`, () => before(bytes.subarray(0, Math.floor(bytes.length / 2))));
    await before(data);
  };
  const changed = {
    writeFile,
    sync: async (): Promise<void> => {
      await disk.moment(`sync ${file}`);
      disk.synced(file);
    },
    truncate: async (length: number): Promise<void> => {
      await disk.moment(`truncate ${file}`);
      await truncate(length);
    },
  };
  return Object.assign(handle, changed);
}
