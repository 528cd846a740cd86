/** What native/bindings/system.cc exports. */
import type { RolegradError } from "../errors.js";

export interface SystemNative {
  /** The class that native errors are made of. */
  setErrorClass(errorClass: typeof RolegradError): void;
  cpuInfo(): CpuInfo;
}

/** What the engine sees of the CPU. */
export interface CpuInfo {
  /** The instruction sets found, as far as CPU and operating system both support them. */
  instructionSets: string[];
  /** The kernels in use: "avx512", "avx2", "neon"; "" where none of them, or not the one that ROLEGRAD_ISA names, can run. */
  kernels: string;
  /** What models can be loaded with, on device "cpu". */
  precisions: string[];
  /** Of the addon's results; see lib/numerics.ts. */
  numericsVersion: number;
  /** Threads that the engine computes with: affinity and the cgroup's quota are taken into account. */
  threads: number;
}
