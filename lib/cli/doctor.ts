import os from "node:os";
import path from "node:path";
import type { Command } from "commander";
import { type CpuInfo, native, nativeFile, packageRoot, packageVersion } from "../binding.js";
import { RolegradError } from "../errors.js";
import { FAMILIES } from "../model/config.js";
import { numericsVersion } from "../numerics.js";
import { readLimits, type Limits } from "./limits.js";
import { formatBytes, formatTable, printJson } from "./output.js";
import { style } from "./style.js";

/** What a bug report needs. */
interface Diagnosis {
  version: string;
  /** Names the bits of all results. */
  numericsVersion: number;
  node: string;
  platform: string;
  libc: string | null;
  system: string;
  binary: { kind: "prebuild" | "local build"; file: string } | null;
  cpu: string;
  instructionSets: string[] | null;
  kernels: string | null;
  /** What a model can be loaded with here. */
  precisions: string[] | null;
  threads: { engine: number | null; available: number; logical: number };
  memory: { total: number; free: number };
  limits: Limits;
  /** The families of models that this version runs. */
  models: string[];
  /** ROLEGRAD_* and what else of the environment changes how the engine runs. */
  environment: Record<string, string>;
  /** What keeps the engine from running, each with what to do; empty when all is well. */
  problems: { code: string; message: string }[];
}

function libc(): string | null {
  if (process.platform !== "linux") return null;
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
  return header.glibcVersionRuntime === undefined ? "musl" : `glibc ${header.glibcVersionRuntime}`;
}

function diagnose(): Diagnosis {
  const problems: Diagnosis["problems"] = [];
  const attempt = <T>(work: () => T): T | null => {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof RolegradError)) throw error;
      if (!problems.some((problem) => problem.code === error.code))
        problems.push({ code: error.code, message: error.message });
      return null;
    }
  };
  const file = attempt(nativeFile);
  const cpu: CpuInfo | null = file === null ? null : attempt(() => native.cpuInfo());
  if (cpu?.kernels === "") {
    const wanted = process.env["ROLEGRAD_ISA"]
      ? `ROLEGRAD_ISA=${process.env["ROLEGRAD_ISA"]}`
      : "AVX2 and FMA, or NEON";
    const message =
      `Expected a CPU with ${wanted} but found ${cpu.instructionSets.join(", ") || "none of its instruction sets"}: ` +
      "models cannot run here; rolegrad/attribution can";
    problems.push({ code: "ERR_CPU_UNSUPPORTED", message });
  }
  if (cpu !== null && cpu.numericsVersion !== numericsVersion) {
    const message =
      `Expected a binary of numerics version ${numericsVersion} but ${file ?? "it"} has ${cpu.numericsVersion}: ` +
      "it was built from another version of the sources. Build it again with: npx rolegrad build";
    problems.push({ code: "ERR_NUMERICS_VERSION", message });
  }
  return {
    version: packageVersion(),
    numericsVersion,
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
    libc: libc(),
    system: `${os.type()} ${os.release()}`,
    binary:
      file === null ? null : { kind: file.split(path.sep).includes("prebuilds") ? "prebuild" : "local build", file },
    cpu: os.cpus()[0]?.model.trim() ?? "unknown",
    instructionSets: cpu?.instructionSets ?? null,
    kernels: cpu?.kernels ?? null,
    precisions: cpu?.precisions ?? null,
    threads: { engine: cpu?.threads ?? null, available: os.availableParallelism(), logical: os.cpus().length },
    memory: { total: os.totalmem(), free: os.freemem() },
    limits: readLimits(),
    models: Object.values(FAMILIES),
    environment: Object.fromEntries(
      Object.entries(process.env).filter((entry): entry is [string, string] =>
        /^(ROLEGRAD_|OMP_NUM_THREADS$|NODE_OPTIONS$)/.test(entry[0]),
      ),
    ),
    problems,
  };
}

function show(found: Diagnosis): string {
  const { limits, memory, threads } = found;
  const limit = (value: number | null, format: (value: number) => string = String) =>
    value === null ? "unlimited" : format(value);
  const rows: [string, string][] = [
    ["rolegrad", `${found.version} (${packageRoot})`],
    ["numerics", `version ${found.numericsVersion}`],
    ["node", `${found.node} (${process.execPath})`],
    ["platform", [found.platform, found.libc, found.system].filter((part) => part !== null).join(", ")],
    ["binary", found.binary === null ? style.bad("none") : `${found.binary.kind} ${found.binary.file}`],
    ["cpu", found.cpu],
    ["found", found.instructionSets?.join(" ") ?? "unknown"],
    ["precisions", found.precisions?.join(", ") ?? "unknown"],
    ["kernels", found.kernels === null ? "unknown" : found.kernels || style.bad("none")],
    [
      "threads",
      `${threads.engine ?? "unknown"} (available ${threads.available} of ${threads.logical}, ` +
        `affinity ${limits.affinity ?? "unknown"}, cgroup quota ${limit(limits.cgroupCpus)})`,
    ],
    [
      "memory",
      `${formatBytes(memory.free)} free of ${formatBytes(memory.total)}, cgroup limit ${limit(limits.cgroupMemory, formatBytes)}`,
    ],
    [
      "limits",
      `address space ${limit(limits.addressSpace, formatBytes)}, locked memory ${limit(limits.lockedMemory, formatBytes)}, ` +
        `processes ${limit(limits.processes)}, open files ${limit(limits.openFiles)}`,
    ],
    ["models", found.models.join(", ")],
    ...Object.entries(found.environment),
  ];
  const lines = [formatTable(rows.map(([name, value]) => [style.bold(name), value]))];
  for (const { code, message } of found.problems) lines.push(`${style.bad("problem")} [${code}]: ${message}`);
  if (found.problems.length === 0) lines.push(style.good("no problems found"));
  return lines.join("\n");
}

/** `rolegrad doctor`: what a bug report needs. */
export function register(program: Command): void {
  program
    .command("doctor")
    .description("print what a bug report needs: versions, binary, instruction sets, threads, limits")
    .option("--json", "print JSON for machines")
    .addHelpText("after", "\nThe exit code is 1 when something keeps the engine from running.")
    .action((options: { json?: boolean }) => {
      const found = diagnose();
      if (options.json) printJson(found);
      else console.log(show(found));
      if (found.problems.length > 0) process.exitCode = 1;
    });
}
