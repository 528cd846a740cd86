import { readFileSync, writeFileSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { native } from "../binding.js";

let gc: (() => void) | undefined;

/** Frees what nothing refers to any more: a trainer or a generator keeps its model's weights until it is collected. */
export async function collectGarbage(): Promise<void> {
  if (gc === undefined) {
    setFlagsFromString("--expose-gc");
    gc = runInNewContext("gc") as () => void;
  }
  gc();
  await setImmediate(); // native finalizers run after the collection
  native.trimMemory();
}

/** Forgets the peak of resident memory so far (Linux); elsewhere the peak is that of the process's whole life. */
export function resetPeak(): void {
  try {
    writeFileSync("/proc/self/clear_refs", "5");
  } catch {
    // no such file, or not allowed
  }
}

/** Largest resident memory since {@link resetPeak}, in MiB. */
export function peakRssMiB(): number {
  try {
    const kib = /^VmHWM:\s*(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    if (kib !== undefined) return Number(kib) / 1024;
  } catch {
    // not Linux
  }
  return process.resourceUsage().maxRSS / 1024;
}
