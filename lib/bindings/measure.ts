/** What native/bindings/measure.cc and linear_measurement.cc export, and hooks for tests. */
import type { NativeJob } from "./job.js";

/** One routed linear with random numbers; roles alternate in spans of rows. `close()` gives its memory back. */
export interface NativeLinearMeasurement {
  /** Elements that the engine computed, and what a scalar chain of FMAs gives for each. */
  verify(): NativeJob<{ name: string; got: Float64Array; expected: Float64Array }[]>;
  /** Seconds a call [runs]; a run repeats the call until it lasts `least` seconds. */
  time(
    what: "plain" | "forward" | "plainBackward" | "forwardBackward",
    runs: number,
    least: number,
  ): NativeJob<Float64Array>;
  close(): void;
}

export interface LinearMeasurementOptions {
  /** Rows, inputs, outputs. */
  t: number;
  k: number;
  n: number;
  span: number;
  rank: number;
  roles: number;
  bf16: boolean;
  precision: string;
}

export interface MeasureNative {
  /** The engine computes with at most n threads from now on; no more than it has. */
  limitThreads(n: number): void;
  measureFma(): NativeJob<{ isa: string; threads: number; gflops: number }>;
  /** GB/s of reading a buffer of this size again and again. */
  measureRead(bytes: number): NativeJob<number>;
  /** Blocks of backend memory asked for since the process began, and the bytes held now. */
  memoryUse(): { allocations: number; bytes: number };
  /** Gives memory that the allocator keeps back to the system. */
  trimMemory(): void;
  LinearMeasurement: new (options: LinearMeasurementOptions) => NativeLinearMeasurement;
}

/** There where ROLEGRAD_TEST_HOOKS is set when the addon is loaded. */
export interface TestNative {
  /** The n-th allocation of backend memory, or the n-th task of the executor, from now on fails once; 0: none does. */
  armFault?(kind: "allocation" | "task", n: number): void;
}
