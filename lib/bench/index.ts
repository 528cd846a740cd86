import { native } from "../binding.js";
import { fail } from "../errors.js";
import type { Precision } from "../model/precision.js";
import { Checkpoints, type SizeName, sizeNames } from "./checkpoint.js";
import { decodeBench } from "./decode.js";
import { interference } from "./interference.js";
import { gemm, routedBackward, routedForward } from "./linear.js";
import { Machine } from "./machine.js";
import { Peer } from "./peer.js";
import { packedTokens, threads } from "./scaling.js";
import { fullTrainStep, trainStep } from "./train.js";
import { type Bench, type BenchContext, type BenchLine, type BenchName, benchNames } from "./types.js";

export { sizeNames, type SizeName } from "./checkpoint.js";
export { benchNames, type BenchLine, type BenchName, type MachineLine, type ResultLine } from "./types.js";

const benches: Record<BenchName, Bench> = {
  gemm,
  "routed-forward": routedForward,
  "routed-backward": routedBackward,
  "train-step": trainStep,
  "full-train-step": fullTrainStep,
  decode: decodeBench,
  threads,
  "packed-tokens": packedTokens,
  interference,
};

const inEveryPrecision: ReadonlySet<BenchName> = new Set([
  "gemm",
  "routed-forward",
  "routed-backward",
  "train-step",
  "decode",
]);

export interface BenchOptions {
  /** Default: all. */
  benches?: readonly BenchName[];
  /** Model sizes. Default: all; with `quick` all but the largest. */
  sizes?: readonly SizeName[];
  /** Only cases whose name contains one of these. */
  cases?: readonly string[];
  /** One round of a few runs, fewer cases and tokens. */
  quick?: boolean;
  /** What models and linears multiply; benches that have only "exact" are left out of others. @default "exact" */
  precision?: Precision;
  /** Run the same work in Python beside it. */
  peer?: boolean;
  signal?: AbortSignal;
  status?: (text: string) => void;
  remark?: (text: string) => void;
}

/**
 * Measures the machine, then case by case; every case is verified before it is timed, and ERR_BENCH_WRONG ends the run where
 * a result is wrong.
 */
export async function* runBenches(options: BenchOptions = {}): AsyncGenerator<BenchLine, void, undefined> {
  const { benches: names = benchNames, cases = [], quick = false, remark = () => {}, status = () => {} } = options;
  const signal = options.signal ?? new AbortController().signal;
  const { precision = "exact" } = options;
  if (!native.cpuInfo().precisions.includes(precision)) {
    fail(
      "ERR_CPU_UNSUPPORTED",
      `Expected a CPU (and ROLEGRAD_ISA) for precision "${precision}" but this one offers: ${native.cpuInfo().precisions.join(", ")}`,
    );
  }
  const sizes = options.sizes ?? sizeNames.filter((name) => !quick || name !== "qwen2.5-0.5b");
  status("measuring the machine");
  const machine = await Machine.measure(native, signal, precision);
  yield machine.line;
  const checkpoints = new Checkpoints();
  const peer = options.peer === true ? await Peer.start(machine.line.threads, remark) : undefined;
  const context: BenchContext = {
    native,
    machine,
    checkpoints,
    peer,
    sizes,
    quick,
    precision,
    repeats: quick ? { rounds: 1, runs: 3, least: 0.01 } : { rounds: 3, runs: 5, least: 0.05 },
    wanted: (name) => cases.length === 0 || cases.some((part) => name.includes(part)),
    status,
    remark,
    signal,
  };
  try {
    for (const name of benchNames.filter((bench) => names.includes(bench))) {
      signal.throwIfAborted();
      if (precision === "exact") {
        yield* benches[name](context);
      } else if (!inEveryPrecision.has(name)) {
        remark(`${name}: skipped. It has no precision but "exact"`);
      } else {
        for await (const line of benches[name](context)) yield { ...line, precision };
      }
    }
  } finally {
    peer?.close();
    await checkpoints.remove();
  }
}
