/** What the operating system lets this process use: CPUs and memory (Linux; elsewhere null). */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";

/** See {@link readLimits}. */
export interface Limits {
  /** The CPUs that this process may run on, as a list ("0-3,8"). */
  affinity: string | null;
  /** CPUs' worth of time that the cgroup grants, such as 1.5. */
  cgroupCpus: number | null;
  /** Bytes that the cgroup grants. */
  cgroupMemory: number | null;
  /** Soft resource limits of the process; null: unlimited. */
  addressSpace: number | null;
  lockedMemory: number | null;
  processes: number | null;
  openFiles: number | null;
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return undefined; // not on this system
  }
}

/** The folders of this process's cgroup for a controller, from its own up to the root: each of them limits it. */
function cgroupFolders(controller: string): string[] {
  const folders: string[] = [];
  for (const line of (read("/proc/self/cgroup") ?? "").split("\n")) {
    const [, controllers = "", name = "/"] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    const unified = controllers === "";
    if (!unified && !controllers.split(",").includes(controller)) continue;
    const mount = unified ? "/sys/fs/cgroup" : path.join("/sys/fs/cgroup", controllers);
    for (let folder = name; ; folder = path.dirname(folder)) {
      folders.push(path.join(mount, folder));
      if (folder === "/" || folder === ".") break;
    }
  }
  return folders.filter((folder) => existsSync(folder));
}

/** The smallest of the limits that the folders set, or null where none does. */
function smallest(folders: readonly string[], limit: (folder: string) => number | undefined): number | null {
  const found = folders.map(limit).filter((value) => value !== undefined && Number.isFinite(value) && value > 0);
  return found.length === 0 ? null : Math.min(...(found as number[]));
}

function cpus(folder: string): number | undefined {
  const [quota, period] = (read(path.join(folder, "cpu.max")) ?? "").split(" "); // version 2: "150000 100000", "max 100000"
  if (period !== undefined) return Number(quota) / Number(period);
  const v1 = ["cpu.cfs_quota_us", "cpu.cfs_period_us"].map((file) => Number(read(path.join(folder, file)) ?? NaN));
  return (v1[0] ?? NaN) / (v1[1] ?? NaN);
}

function memory(folder: string): number | undefined {
  const text = read(path.join(folder, "memory.max")) ?? read(path.join(folder, "memory.limit_in_bytes"));
  const bytes = Number(text ?? NaN);
  return bytes < 2 ** 60 ? bytes : undefined; // version 1 says "no limit" as a number near 2^63
}

/** Reads the limits from /proc and /sys. */
export function readLimits(): Limits {
  const limits = read("/proc/self/limits") ?? "";
  const soft = (name: string): number | null => {
    const value = Number(new RegExp(`^${name} +(\\d+)`, "m").exec(limits)?.[1] ?? NaN);
    return Number.isFinite(value) ? value : null;
  };
  return {
    affinity: /^Cpus_allowed_list:\s*(.+)$/m.exec(read("/proc/self/status") ?? "")?.[1] ?? null,
    cgroupCpus: smallest(cgroupFolders("cpu"), cpus),
    cgroupMemory: smallest(cgroupFolders("memory"), memory),
    addressSpace: soft("Max address space"),
    lockedMemory: soft("Max locked memory"),
    processes: soft("Max processes"),
    openFiles: soft("Max open files"),
  };
}
