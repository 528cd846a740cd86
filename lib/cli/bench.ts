import { type Command, Option } from "commander";
import type { BenchName, MachineLine, ResultLine, SizeName } from "../bench/index.js";
import { PRECISIONS, type Precision } from "../model/precision.js";
import { fail } from "../errors.js";
import { formatSeconds, formatTable, printJson } from "./output.js";
import { interruptSignal } from "./signal.js";
import { style } from "./style.js";

interface Options {
  device: string;
  size?: string[];
  case?: string[];
  quick?: boolean;
  peer?: boolean;
  precision: Precision;
  json?: boolean;
}

/** `rolegrad bench`: what the machine can do, and what of it the engine uses. */
export function register(program: Command): void {
  program
    .command("bench")
    .argument(
      "[benches...]",
      "gemm, routed-forward, routed-backward, train-step, full-train-step, decode, threads, packed-tokens, interference",
    )
    .description("measure the machine, then kernels, training, decoding and attribution against it")
    .addOption(new Option("--device <device>", "where to compute").choices(["cpu"]).default("cpu"))
    .option("--size <names...>", "models: tiny, small, qwen2.5-0.5b (default: all; with --quick the first two)")
    .option("--case <texts...>", "only cases whose name contains one of these")
    .option("--quick", "fewer cases and repetitions: under a minute")
    .addOption(
      new Option("--precision <precision>", "what models and linears multiply: f32, or operands rounded to bf16")
        .choices(PRECISIONS)
        .default("exact"),
    )
    .option("--peer", "run the same work in Python (torch, transformers, numpy) beside it; ROLEGRAD_PYTHON names one")
    .option("--json", "print JSON for machines, one object a line")
    .addHelpText("after", "\nEvery case is verified before it is timed; the exit code is 1 when a result is wrong.")
    .action(run);
}

async function run(names: string[], options: Options): Promise<void> {
  const { benchNames, runBenches, sizeNames } = await import("../bench/index.js");
  const known = <T extends string>(given: readonly string[], all: readonly T[], what: string): T[] =>
    given.map((name) => {
      if (!(all as readonly string[]).includes(name))
        fail("ERR_USAGE", `Expected ${what} among ${all.join(", ")} but received ${name}`);
      return name as T;
    });
  const benches: BenchName[] = known(names, benchNames, "a bench");
  const sizes: SizeName[] = known(options.size ?? [], sizeNames, "--size");
  const { stderr } = process;
  const live = stderr.isTTY ? (text: string): void => void stderr.write(`\r\x1b[K${text}`) : (): void => {};
  const begin = performance.now();
  const lines = runBenches({
    ...(benches.length > 0 ? { benches } : {}),
    ...(sizes.length > 0 ? { sizes } : {}),
    ...(options.case === undefined ? {} : { cases: options.case }),
    quick: options.quick === true,
    peer: options.peer === true,
    precision: options.precision,
    signal: interruptSignal(),
    status: (text) => live(style.dim(`${text} ...`)),
    remark: (text) => {
      live("");
      console.error(text);
    },
  });
  const rows: ResultLine[] = [];
  const flush = (): void => {
    if (rows.length > 0) console.log(`\n${table(rows.splice(0))}`);
  };
  try {
    for await (const line of lines) {
      live("");
      if (options.json) {
        printJson(line);
      } else if (line.bench === "machine") {
        console.log(describe(line));
      } else {
        if (rows.length > 0 && rows[0]?.bench !== line.bench) flush();
        rows.push(line);
      }
    }
  } finally {
    live("");
    flush();
  }
  if (!options.json) console.log(`\n${style.dim(`measured in ${formatSeconds((performance.now() - begin) / 1000)}`)}`);
}

function describe(machine: MachineLine): string {
  const { cpu, isa, precision, threads, fmaPeakGflops, readGBps } = machine;
  const kernels = precision === "exact" ? isa : `${isa} (${precision})`;
  return `${style.bold(cpu)}, ${kernels}, ${threads} threads: FMA peak ${figure(fmaPeakGflops)} GFLOP/s, reading ${figure(readGBps)} GB/s`;
}

/** Three digits, or whole numbers. */
function figure(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString("en-US") : value.toPrecision(3);
}

/** The cases of one bench. */
function table(lines: readonly ResultLine[]): string {
  const [first] = lines as [ResultLine];
  const percent = (value: number): string => `${(100 * value).toFixed(1)} %`;
  const optional: [string, (line: ResultLine) => string | undefined][] = [
    ["overhead", ({ overhead }) => (overhead === undefined ? undefined : `x ${overhead.toFixed(3)}`)],
    ["switching", ({ switching }) => (switching === undefined ? undefined : `x ${switching.toFixed(3)}`)],
    ["stop", ({ stop }) => (stop === undefined ? undefined : `x ${stop.toFixed(3)}`)],
    ["one thread", ({ speedup }) => (speedup === undefined ? undefined : `x ${speedup.toFixed(3)}`)],
    ["growth", ({ growth }) => (growth === undefined ? undefined : `x ${growth.toFixed(3)}`)],
    ["peak MiB", ({ peakRssMiB }) => peakRssMiB?.toFixed(0)],
    ["peer", ({ peerValue }) => (peerValue === undefined ? undefined : figure(peerValue))],
    ["ratio", ({ ratio }) => (ratio === undefined ? undefined : ratio.toFixed(2))],
    ["peer MiB", ({ peerPeakRssMiB }) => peerPeakRssMiB?.toFixed(0)],
    ["", ({ peer }) => peer],
  ];
  const columns = optional.filter(([, cell]) => lines.some((line) => cell(line) !== undefined));
  const head = [first.bench, first.unit, "limit", "share", "", ...columns.map(([name]) => name)];
  const cells = lines.map((line) => [
    line.case,
    figure(line.value),
    figure(line.limit),
    percent(line.share),
    line.limitedBy,
    ...columns.map(([, cell]) => cell(line) ?? ""),
  ]);
  const right = head.map((_, i) => i).filter((i) => i > 0 && i !== 4 && head[i] !== "");
  return formatTable([head.map((cell) => style.bold(cell)), ...cells], { right });
}
