import os from "node:os";
import { abortable } from "../arguments.js";
import { type Native, packageVersion } from "../binding.js";
import type { Precision } from "../model/precision.js";
import type { MachineLine } from "./types.js";

/** Beyond the caches of the machines that this runs on. */
const MEMORY_BYTES = 2 ** 29;

/** A part of some work: what it computes, and what it must read at least once. */
export interface Part {
  flops: number;
  bytes: number;
  /** How much lies between two reads of the same byte; a cache may hold less than 256 MiB. @default bytes */
  workingSet?: number;
}

export interface Roofline {
  /** No less than this. */
  seconds: number;
  /** What most of it is for. */
  by: "compute" | "memory";
}

/** What the machine can do, measured at the beginning of a run. */
export class Machine {
  readonly line: MachineLine;
  readonly #native: Native;
  readonly #signal: AbortSignal;
  readonly #bandwidth = new Map<number, number>();

  private constructor(native: Native, signal: AbortSignal, line: MachineLine) {
    this.#native = native;
    this.#signal = signal;
    this.line = line;
  }

  static async measure(native: Native, signal: AbortSignal, precision: Precision = "exact"): Promise<Machine> {
    const { isa, threads, gflops } = await abortable(native.measureFma(), signal);
    const readGBps = await abortable(native.measureRead(MEMORY_BYTES), signal);
    return new Machine(native, signal, {
      bench: "machine",
      cpu: os.cpus()[0]?.model.trim() ?? "unknown",
      isa,
      precision,
      threads,
      fmaPeakGflops: gflops,
      readGBps,
      node: process.versions.node,
      version: packageVersion(),
    });
  }

  /** Bytes a second of reading this much again and again: from memory, or from the cache that holds it. */
  async bandwidth(bytes: number): Promise<number> {
    const { readGBps } = this.line;
    if (bytes >= MEMORY_BYTES / 2) return readGBps * 1e9;
    const size = 2 ** Math.max(17, Math.ceil(Math.log2(bytes)));
    let found = this.#bandwidth.get(size);
    if (found === undefined) {
      found = Math.max(readGBps, await abortable(this.#native.measureRead(size), this.#signal));
      this.#bandwidth.set(size, found);
    }
    return found * 1e9;
  }

  /** The least time of parts that run one after another: of each the longer of its arithmetic and its reading. */
  async roofline(parts: readonly Part[]): Promise<Roofline> {
    const time = { compute: 0, memory: 0 };
    for (const { flops, bytes, workingSet = bytes } of parts) {
      const compute = flops / (this.line.fmaPeakGflops * 1e9);
      // A cache only makes reading faster: where memory would do, it need not be measured.
      const reading = compute >= bytes / (this.line.readGBps * 1e9) ? 0 : bytes / (await this.bandwidth(workingSet));
      if (reading > compute) time.memory += reading;
      else time.compute += compute;
    }
    return { seconds: time.compute + time.memory, by: time.memory > time.compute ? "memory" : "compute" };
  }
}
