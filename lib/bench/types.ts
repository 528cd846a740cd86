import type { Native } from "../binding.js";
import type { Checkpoints, SizeName } from "./checkpoint.js";
import type { Machine } from "./machine.js";
import type { Precision } from "../model/precision.js";
import type { Peer } from "./peer.js";

/** What can be measured, in the order of a run. */
export const benchNames = [
  "gemm",
  "routed-forward",
  "routed-backward",
  "train-step",
  "full-train-step",
  "decode",
  "threads",
  "packed-tokens",
  "interference",
] as const;
export type BenchName = (typeof benchNames)[number];

/** The first line of every run. */
export interface MachineLine {
  bench: "machine";
  cpu: string;
  /** The kernels in use: "avx512", "avx2", "neon". */
  isa: string;
  /** Of models and linears (--precision); the FMA peak below is of f32 all the same, so that shares beyond 1 are possible in the other. */
  precision: Precision;
  threads: number;
  /** f32, fused multiply-adds counted as two operations, all threads. */
  fmaPeakGflops: number;
  /** Reading 512 MiB, all threads. */
  readGBps: number;
  node: string;
  version: string;
}

/** One case. Everything is measured in the run that prints it. */
export interface ResultLine {
  bench: BenchName;
  case: string;
  /** Work a second, in `unit`. */
  value: number;
  unit: "GFLOP/s" | "tokens/s" | "questions/s";
  /** The same work at the roofline: the lower of what the FMA peak and the bandwidth of reading allow. */
  limit: number;
  limitedBy: "compute" | "memory";
  /** There where it is not "exact". */
  precision?: Precision;
  /** value / limit. */
  share: number;
  /** Seconds of one call. */
  seconds: number;
  /** Routed ones: time over the engine's own plain work of the same shape. */
  overhead?: number;
  /** Decoding with roles that switch: time of a token over that of the same adapters where none switches. */
  switching?: number;
  /** Steps of adapters: time with crossRole "stop" over that with "flow". */
  stop?: number;
  /** Time with one thread over the time with all. */
  speedup?: number;
  /** Seconds a token over those of the smallest batch of the same model. */
  growth?: number;
  /** Largest resident memory while the steps were timed. */
  peakRssMiB?: number;
  /** What ran the same work beside it, its figure, and value / peerValue. */
  peer?: string;
  peerValue?: number;
  ratio?: number;
  peerPeakRssMiB?: number;
}

export type BenchLine = MachineLine | ResultLine;

/** How often something is timed: the best of `rounds`, each the median of `runs` that last at least `least` seconds. */
export interface Repeats {
  rounds: number;
  runs: number;
  least: number;
}

/** What a bench works with. */
export interface BenchContext {
  native: Native;
  machine: Machine;
  checkpoints: Checkpoints;
  peer: Peer | undefined;
  sizes: readonly SizeName[];
  quick: boolean;
  precision: Precision;
  repeats: Repeats;
  /** Whether the case is asked for (--case). */
  wanted(name: string): boolean;
  /** Says what is under way, for a terminal. */
  status(text: string): void;
  /** Says what was left out and why. */
  remark(text: string): void;
  signal: AbortSignal;
}

export type Bench = (context: BenchContext) => AsyncGenerator<ResultLine, void, undefined>;
