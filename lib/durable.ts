import { existsSync } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat, statfs } from "node:fs/promises";
import path from "node:path";
import { RolegradError } from "./errors.js";

/** Ends the name of everything that is not yet, or no longer, in its place: what a killed process leaves under such a name is worth nothing. */
export const PARTIAL = ".partial";
/** Ends the name of a folder while another takes its place. */
const OLD = `.old${PARTIAL}`;

/** What a system says where there is no room. */
const FULL: Record<string, string> = {
  ENOSPC: "the disk is full",
  EDQUOT: "the quota is used up",
  EFBIG: "a limit of file sizes is reached",
};

/**
 * Writes a file so that its name never stands for half of it, whenever the process or the machine stops: beside its place, onto the disk (fsync), renamed,
 * the folder onto the disk. Without room -> ERR_DISK_FULL, otherwise not to be written -> ERR_WRITE; nothing is left of it then.
 */
export async function writeDurable(
  file: string,
  content: string | Uint8Array | Iterable<string | Uint8Array>,
): Promise<void> {
  const partial = `${file}${PARTIAL}`;
  try {
    const handle = await open(partial, "w");
    try {
      const parts = typeof content === "string" || content instanceof Uint8Array ? [content] : content;
      for (const chunk of chunksOf(parts)) await handle.writeFile(chunk);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(partial, file);
    await syncFolder(path.dirname(file));
  } catch (error) {
    await rm(partial, { force: true }).catch(() => undefined);
    throw await writeError(error, file);
  }
}

/** Appends to a file and waits until it is on the disk. Errors as {@link writeDurable}; the file is as it was then. */
export async function appendDurable(file: string, text: string): Promise<void> {
  try {
    const handle = await open(file, "a");
    try {
      const { size } = await handle.stat();
      try {
        await handle.writeFile(text);
        await handle.sync();
      } catch (error) {
        await handle.truncate(size).catch(() => undefined);
        throw error;
      }
      if (size === 0) await syncFolder(path.dirname(file));
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw await writeError(error, file);
  }
}

/** Makes a folder and those above it that are missing, on the disk. Errors as {@link writeDurable}. */
export async function makeFolder(folder: string): Promise<void> {
  try {
    const first = await makeMissing(folder);
    if (first === undefined) return;
    const above = path.dirname(path.resolve(first));
    for (let at = path.dirname(path.resolve(folder)); at.length >= above.length; at = path.dirname(at)) {
      await syncFolder(at);
      if (at === path.dirname(at)) break;
    }
  } catch (error) {
    throw await writeError(error, folder);
  }
}

/** Makes a folder and those above it; returns the first that was missing. (Node 20's own recursive mkdir never ends where a file system refuses by ENOENT, as /proc does.) */
async function makeMissing(folder: string): Promise<string | undefined> {
  try {
    await mkdir(folder);
    return folder;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST" && (await stat(folder)).isDirectory()) return undefined;
    const above = path.dirname(folder);
    if (code !== "ENOENT" || above === folder || existsSync(above)) throw error;
    const first = await makeMissing(above);
    await mkdir(folder);
    return first ?? folder;
  }
}

/**
 * Writes a folder through `write`, which gets another name for it: it is there under its own name when all of it is on the disk, in place of one that was
 * there before. Errors as {@link writeDurable}.
 */
export async function writeFolder(folder: string, write: (partial: string) => Promise<void>): Promise<void> {
  const [partial, old] = [`${folder}${PARTIAL}`, `${folder}${OLD}`];
  try {
    await rm(partial, { recursive: true, force: true });
    // Without the folder, what a killed process was about to replace is all that there is.
    if (existsSync(folder)) await rm(old, { recursive: true, force: true });
    await makeMissing(partial);
    await write(partial);
    await syncTree(partial);
    if (await renamed(folder, old)) await syncFolder(path.dirname(folder));
    await rename(partial, folder);
    await syncFolder(path.dirname(folder));
    await rm(old, { recursive: true, force: true });
  } catch (error) {
    await rm(partial, { recursive: true, force: true }).catch(() => undefined);
    if (await renamed(old, folder).catch(() => false)) await syncFolder(path.dirname(folder)).catch(() => undefined);
    throw await writeError(error, folder);
  }
}

/** Removes a folder at once: what a process that is killed meanwhile leaves of it has another name. */
export async function removeFolder(folder: string): Promise<void> {
  const partial = `${folder}${PARTIAL}`;
  try {
    await rm(partial, { recursive: true, force: true });
    if (!(await renamed(folder, partial))) return;
    await syncFolder(path.dirname(folder));
    await rm(partial, { recursive: true, force: true });
  } catch (error) {
    throw await writeError(error, folder);
  }
}

/** Removes what processes that were killed have left half-written in a folder (not below it), and puts back what they were about to replace. */
export async function removePartial(folder: string, keep: (name: string) => boolean = () => false): Promise<void> {
  try {
    const names = await readdir(folder).catch((error: NodeJS.ErrnoException): string[] => {
      if (error.code === "ENOENT") return [];
      throw error;
    });
    for (const name of names) {
      if (!name.endsWith(PARTIAL) || keep(name)) continue;
      const place = path.join(folder, name.slice(0, -OLD.length));
      if (name.endsWith(OLD) && !names.includes(path.basename(place))) await rename(path.join(folder, name), place);
      else await rm(path.join(folder, name), { recursive: true, force: true });
    }
  } catch (error) {
    throw await writeError(error, folder);
  }
}

/** The names in a folder onto the disk. */
export async function syncFolder(folder: string): Promise<void> {
  if (process.platform === "win32") return; // which opens no folder
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } catch (error) {
    // Some network file systems have no such thing.
    if (!["EINVAL", "ENOTSUP", "EOPNOTSUPP"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
  } finally {
    await handle.close();
  }
}

/** The same bytes in pieces of a mebibyte or more: a write for each of hundreds of small tensors takes longer than the tensors. */
function* chunksOf(parts: Iterable<string | Uint8Array>): Generator<Uint8Array> {
  let gathered: Uint8Array[] = [];
  let bytes = 0;
  for (const part of parts) {
    const data = typeof part === "string" ? Buffer.from(part) : part;
    gathered.push(data);
    bytes += data.byteLength;
    if (bytes < 2 ** 20) continue;
    yield gathered.length === 1 ? data : Buffer.concat(gathered);
    [gathered, bytes] = [[], 0];
  }
  if (bytes > 0) yield Buffer.concat(gathered);
}

/**
 * A {@link RolegradError} that names what could not be written and how much room there is; what is no error of the file system is returned as it is.
 */
export async function writeError(error: unknown, file: string): Promise<unknown> {
  if (!(error instanceof Error)) return error;
  const { code, syscall, message } = error as NodeJS.ErrnoException;
  if (code === undefined || syscall === undefined) return error;
  const cause = { cause: error };
  const full = FULL[code];
  if (full === undefined)
    return new RolegradError("ERR_WRITE", `Expected to write ${file} but received ${message}`, cause);
  const free = await freeText(path.dirname(file));
  return new RolegradError("ERR_DISK_FULL", `Expected room for ${file} but ${full} (${code})${free}`, cause);
}

/** ": 12.5 MiB are free there" */
async function freeText(folder: string): Promise<string> {
  for (let at = path.resolve(folder); ; at = path.dirname(at)) {
    const found = await statfs(at).catch(() => undefined);
    if (found !== undefined) return `: ${((found.bavail * found.bsize) / 2 ** 20).toFixed(1)} MiB are free there`;
    if (at === path.dirname(at)) return "";
  }
}

/** False where there is nothing to rename. */
async function renamed(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw error;
  }
}

/** All that a folder holds, from its leaves up. */
async function syncTree(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const place = path.join(folder, entry.name);
    if (entry.isDirectory()) await syncTree(place);
    else if (entry.isFile()) {
      const handle = await open(place, "r+");
      await handle.sync().finally(() => handle.close());
    }
  }
  await syncFolder(folder);
}
