import path from "node:path";
import type { Command } from "commander";
import { fail, RolegradError } from "../errors.js";
import type { Budget } from "../experiment/budget.js";
import type { CellStatus, ExperimentHooks, ExperimentPlan } from "../experiment/index.js";
import { ask } from "./ask.js";
import { notNegative } from "./numbers.js";
import { printJson } from "./output.js";
import { interruptExitCode, interruptSignal } from "./signal.js";

interface Options {
  quick?: boolean;
  full?: boolean;
  size?: string;
  task?: string;
  out?: string;
  plan?: boolean;
  yes?: boolean;
  only?: string;
  cells?: string | true;
  report?: boolean;
  retry?: boolean;
  minutes?: number;
  json?: boolean;
}

/** What is said on the way: for a reader, or as one JSON object a line. */
export interface ExperimentOutput extends ExperimentHooks {
  begin(about: { directory: string; plan: ExperimentPlan; statuses: CellStatus[]; budget: Budget }): void;
  list(statuses: CellStatus[]): void;
  end(done: { status: string; plan: ExperimentPlan; directory: string; report: string; statuses: CellStatus[] }): void;
  /** Takes away what is drawn over and over. */
  clear(): void;
}

/** `rolegrad experiment`: the paper's study in the embedded world. */
export function register(program: Command): void {
  program
    .command("experiment")
    .description("the paper's study in small: arms, knobs and seeds in the embedded world, in pieces if need be")
    .option("--quick", `half an hour on two cores; a smoke run, no inference (default)`)
    .option("--full", "the study that docs/experiment.md declares; many hours")
    .option("--size <name>", "tiny, quick or full")
    .option("--task <name>", "search (default), or sql: NL2SQL on generated databases, quick form alone")
    .option("--out <dir>", "the experiment's folder; one that has begun goes on (default: runs/experiment-NAME)")
    .option("--plan", "print cells, steps and estimated minutes, and stop there")
    .option("--yes", "do not ask before it starts (nobody is asked without a terminal)")
    .option("--only <arms>", "these arms alone, by commas, with what they need")
    .option("--cells [names]", "these cells alone, by commas, with what they need; without names: list all and stop")
    .option("--report", "only make report.html, results.json and counts.csv of what there is")
    .option("--retry", "try cells again that failed (a loss that is not finite, say)")
    .option("--minutes <m>", "save and stop after so many minutes", notNegative)
    .option("--json", "print JSON for machines: one object a line")
    .addHelpText(
      "after",
      "\nWhat has ended is never done again: the same command goes on where the last one stopped, to the same bits." +
        "\nCtrl-C saves and stops; the report then shows what there is.",
    )
    .action(async (options: Options) => {
      const output: ExperimentOutput =
        options.json === true ? jsonOutput() : new (await import("./experiment-text.js")).ExperimentText();
      await run(options, output);
    });
}

async function run(options: Options, output: ExperimentOutput): Promise<void> {
  const { PLANS } = await import("../experiment/plan.js");
  const { budgetOf, calibrate, calibrationOf } = await import("../experiment/budget.js");
  const { chosenCells, experimentStatus, runExperiment } = await import("../experiment/runner.js");
  const { ExperimentDirectory } = await import("../experiment/directory.js");
  const { writeExperimentReport } = await import("../experiment/report.js");
  const size = sizeOf(options, Object.keys(PLANS));
  const directory = path.resolve(options.out ?? path.join("runs", `experiment-${size ?? "quick"}`));
  // What has begun goes on as it began.
  const begun = await new ExperimentDirectory(directory).readPlan();
  if (options.report === true && begun === undefined)
    fail("ERR_EXPERIMENT_NOT_FOUND", `Expected an experiment in ${directory} but there is none`);
  const plan = size === undefined && begun !== undefined ? begun : (PLANS[size ?? "quick"] as ExperimentPlan);
  await new ExperimentDirectory(directory).checkPlan(plan);
  const interrupt = interruptSignal();
  const pick = {
    ...(options.only !== undefined && { arms: words(options.only) }),
    ...(typeof options.cells === "string" && { cells: words(options.cells) }),
  };
  const chosen = new Set(chosenCells(plan, pick).map(({ id }) => id));
  const statusNow = async (): Promise<CellStatus[]> =>
    (await experimentStatus(directory, plan)).filter(({ cell }) => chosen.has(cell.id));
  const before = await statusNow();
  if (options.cells === true) return output.list(before);
  let status = "report";
  let stopped: { error: unknown } | undefined;
  if (options.report !== true) {
    const calibration = (await calibrationOf(directory, before)) ?? (await calibrate(plan, interrupt));
    const budget = budgetOf(plan, before, calibration, directory);
    output.begin({ directory, plan, statuses: before, budget });
    if (options.plan === true) return;
    if (options.yes !== true && options.json !== true && !(await agreed(interrupt))) return;
    const limit = limitOf(options.minutes);
    try {
      const signal = AbortSignal.any([interrupt, limit.signal]);
      const { onCell, onProgress, onStep, onEvaluation } = output;
      const hooks = {
        onCell: onCell?.bind(output),
        onProgress: onProgress?.bind(output),
        onStep: onStep?.bind(output),
        onEvaluation: onEvaluation?.bind(output),
      };
      const given = Object.fromEntries(
        Object.entries(hooks).filter(([, hook]) => hook !== undefined),
      ) as ExperimentHooks;
      const command = ["rolegrad", ...process.argv.slice(2)];
      const retry = options.retry === true;
      const result = await runExperiment({ directory, plan, signal, command, retry, ...pick, ...given });
      status = result.status === "finished" ? "finished" : interrupt.aborted ? "interrupted" : "out of time";
    } catch (error) {
      // Who else writes there reports as well.
      if (error instanceof RolegradError && error.code === "ERR_RUN_LOCKED") throw error;
      stopped = { error };
      status = "stopped by an error";
    } finally {
      clearTimeout(limit.timer);
      output.clear();
    }
  }
  try {
    const report = await writeExperimentReport(directory, plan);
    output.end({ status, plan, directory, report, statuses: await statusNow() });
  } catch (error) {
    throw stopped === undefined ? error : stopped.error;
  }
  if (stopped !== undefined) throw stopped.error;
  if (status === "interrupted") process.exitCode = interruptExitCode() ?? 1;
}

function words(list: string): string[] {
  return list.split(",").map((word) => word.trim());
}

/** The name of a plan; undefined where none was asked for. */
function sizeOf({ quick, full, size, task }: Options, known: readonly string[]): string | undefined {
  if (task !== undefined && task !== "search" && task !== "sql")
    fail("ERR_USAGE", `Expected search or sql for --task but received ${task}`);
  const named = [
    ...(quick === true ? ["quick"] : []),
    ...(full === true ? ["full"] : []),
    ...(size === undefined ? [] : [size]),
  ];
  if (new Set(named).size > 1)
    fail("ERR_USAGE", `Expected one of --quick, --full and --size, not ${named.join(" and ")}`);
  const name = named[0] ?? (task === undefined ? undefined : "quick");
  if (name === undefined) return undefined;
  const suffix = task === "sql" ? "-sql" : "";
  const sizes = known.filter((own) => known.includes(own + suffix) && !own.endsWith("-sql"));
  if (!sizes.includes(name))
    fail("ERR_USAGE", `Expected one of ${sizes.join(", ")} for --size${suffix && " of sql"} but received ${name}`);
  return name + suffix;
}

/** Whether to start; without a terminal there is nobody to ask. */
async function agreed(signal: AbortSignal): Promise<boolean> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) return true;
  const answer = await ask("Start? [Y/n] ", { input: process.stdin, output: process.stderr, signal });
  return answer !== undefined && !/^n/i.test(answer);
}

/** What a timer can wait for, in milliseconds: 24 days. */
const LONGEST = 2 ** 31 - 1;

function limitOf(minutes: number | undefined): { signal: AbortSignal; timer: NodeJS.Timeout | undefined } {
  const controller = new AbortController();
  const end = (): void => controller.abort(new RolegradError("ERR_ABORTED", `${minutes} minutes are over`));
  return {
    signal: controller.signal,
    timer: minutes === undefined ? undefined : setTimeout(end, Math.min(minutes * 60_000, LONGEST)),
  };
}

function jsonOutput(): ExperimentOutput {
  const event = (name: string, fields: object): void => printJson({ event: name, ...fields });
  return {
    begin: ({ directory, plan, statuses, budget }) =>
      event("plan", { directory, stamp: plan.stamp ?? null, cells: statuses.map(plainStatus), budget }),
    list: (statuses) => event("cells", { cells: statuses.map(plainStatus) }),
    onCell: (status) => event("cell", plainStatus(status)),
    onStep: ({ id }, { step, reward }) => event("step", { cell: id, step, reward }),
    onEvaluation: ({ id }, { step, exactMatch }) => event("evaluation", { cell: id, step, exactMatch }),
    clear: () => undefined,
    end: ({ status, plan, directory, report, statuses }) =>
      event("done", {
        status,
        stamp: plan.stamp ?? null,
        directory,
        report,
        finished: statuses.filter(({ state }) => state === "finished").length,
        failed: statuses.filter(({ state }) => state === "failed").length,
      }),
  };
}

function plainStatus({ cell, ...rest }: CellStatus): object {
  return { cell: cell.id, arm: cell.arm, seed: cell.seed, steps: cell.steps, ...rest };
}
