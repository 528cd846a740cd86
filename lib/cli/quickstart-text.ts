import path from "node:path";
import { packageRoot } from "../binding.js";
import type { Model } from "../model/model.js";
import { annotate } from "../report/annotate.js";
import { shellCommand } from "../report/format.js";
import type { EvaluationRecord, RunHooks, RunSetup, StepRecord } from "../run/index.js";
import type { BaseProgress } from "../world/train.js";
import { grouped } from "./numbers.js";
import { formatSeconds, formatTable } from "./output.js";
import { Progress } from "./progress.js";
import { ROLES, short, WITHHELD, type QuickstartOutput, type Shown } from "./quickstart.js";
import { style } from "./style.js";

/** Columns of the bar that stands for 100 %. */
const BAR = 36;

/** What `rolegrad quickstart` says to a reader. Progress goes to stderr: a bar on a terminal, else a line now and then. */
export class QuickstartText implements QuickstartOutput {
  #progress: Progress | undefined;
  #steps = 0;
  #step = 0;
  #note = "";
  #perLine = 1;
  #begin = performance.now();

  start({ version, instructionSet, threads, seed }: Parameters<QuickstartOutput["start"]>[0]): void {
    const machine = `${instructionSet}, ${threads} ${threads === 1 ? "thread" : "threads"}, seed ${seed}`;
    console.log(`${style.bold(`rolegrad ${version} quickstart`)}  ${style.dim(machine)}\n`);
  }

  base({ tokens, totalTokens, loss }: BaseProgress): void {
    if (this.#progress === undefined) {
      console.log(
        "The base learns from demonstrations to think, search and answer: well at first, then with their errors.\n",
      );
      this.#begin = performance.now();
      this.#perLine = 0;
      this.#progress = new Progress("base, 1000 tokens", Math.round(totalTokens / 1000));
    }
    const done = Math.min(tokens, totalTokens) / totalTokens;
    this.#progress.update(Math.round((done * totalTokens) / 1000), `loss ${loss.toFixed(2)}`);
    this.#line(done, `base: ${grouped(tokens)} of ${grouped(totalTokens)} tokens, loss ${loss.toFixed(2)}`);
    if (done === 1) this.#progress.end();
  }

  first(shown: Shown, model: Model): void {
    console.log(style.bold("An answer of the base, before any training"));
    this.#answer(shown, model, true);
  }

  training({ questionsPerStep, group, steps, adapters, evaluation }: RunSetup, step: number): void {
    const rank = typeof adapters.rank === "number" ? ` of rank ${adapters.rank}` : "";
    console.log(style.bold("Training: an adapter for each role"));
    console.log(
      style.dim(
        `LoRA${rank}; ${steps} steps of ${questionsPerStep} questions x ${group} answers, rewarded where right${step > 0 ? `; going on after step ${step}` : ""}`,
      ),
    );
    console.log(
      `\n ${style.dim(` step  exact match, 95 % interval  (${evaluation?.questions.length ?? 0} held-out questions)`)}`,
    );
    this.#steps = steps;
    this.#step = step;
    this.#perLine = 0;
    this.#begin = performance.now();
    this.#progress = new Progress("training", steps);
  }

  progress: NonNullable<RunHooks["onProgress"]> = ({ phase, done, total }) => {
    const doing =
      phase === "update" ? "updating" : `${phase === "rollout" ? "answering" : "evaluating"} ${done}/${total}`;
    this.#progress?.update(this.#step, `${this.#note}${doing}`);
  };

  step({ step, reward }: StepRecord): void {
    this.#step = step;
    this.#note = `reward ${reward.toFixed(2)}  `;
    this.#progress?.update(step, this.#note);
    this.#line(step / this.#steps, `step ${step}/${this.#steps}, reward ${reward.toFixed(2)}`);
  }

  evaluation(record: EvaluationRecord): void {
    this.#progress?.end();
    const { step, exactMatch, note } = record;
    const name = note === undefined ? String(step).padStart(5) : "     ";
    const bar =
      note === undefined ? style.good(barOf(exactMatch)) : `${style.good(barOf(exactMatch))} ${style.dim(note)}`;
    console.log(
      ` ${name}  ${style.bold(percent(exactMatch).padStart(7))}  ${style.dim(interval(record).padEnd(12))}  ${bar}`,
    );
  }

  same(before: Shown, after: Shown, model: Model): void {
    console.log(`\n${style.bold("One held-out question, before training")}`);
    this.#answer(before, model, false);
    console.log(style.bold(`and after ${after.trajectory.policyVersion} steps`));
    this.#answer(after, model, false);
  }

  end({ directory, report, seconds, evaluations, adapters }: Parameters<QuickstartOutput["end"]>[0]): void {
    const judged = evaluations.filter(({ note }) => note === undefined);
    const rows: [string, EvaluationRecord | undefined, string][] = [
      ["before", judged[0], ""],
      [`after ${judged.at(-1)?.step ?? 0} steps`, judged.at(-1), ""],
      [WITHHELD, evaluations.find(({ note }) => note === WITHHELD), "the control: every search finds nothing"],
    ];
    const cells = rows.flatMap(([name, record, about]) =>
      record === undefined
        ? []
        : [[name, style.bold(percent(record.exactMatch)), style.dim(interval(record)), style.dim(about)]],
    );
    console.log(style.bold(`Exact match on ${judged[0]?.n ?? 0} held-out questions, 95 % interval`));
    console.log(`\n${formatTable(cells, { right: [1], indent: "  " })}\n`);
    const folder = short(directory);
    const folders = adapters.map((name) => path.join("adapters", name)).join(", ");
    console.log(`${style.good("done")} in ${formatSeconds(seconds)}. In ${style.bold(folder)}:`);
    console.log(`  report.html, ${folders}, metrics, answers\n`);
    console.log(style.bold("Try next"));
    const next = nextCommands(folder, short(report));
    console.log(
      `\n${formatTable(
        next.map(([command, about]) => [command, style.dim(about)]),
        { indent: "  " },
      )}`,
    );
  }

  #answer({ trajectory, question }: Shown, { tokenizer }: Model, legend: boolean): void {
    if (tokenizer === undefined) return;
    const said = trajectory.answer === null ? "no answer" : trajectory.answer.trim();
    const gold = question.answers.join(" or ");
    const verdict = trajectory.reward > 0 ? style.good(`right: ${said}`) : style.bad(`wrong: ${said} (right: ${gold})`);
    console.log(`\n${annotate(trajectory, tokenizer, ROLES, { legend })}\n\n ${verdict}\n`);
  }

  /** Where there is no terminal for a bar: a line for each tenth that is done. */
  #line(done: number, text: string): void {
    if (process.stderr.isTTY || (done < this.#perLine && done < 1)) return;
    this.#perLine = Math.floor(done * 10 + 1e-9) / 10 + 0.1;
    const seconds = (performance.now() - this.#begin) / 1000;
    console.error(
      done < 1 ? `${text}, ${formatSeconds((seconds * (1 - done)) / done)} left` : `${text}, ${formatSeconds(seconds)}`,
    );
  }
}

/** Three commands that work as they stand. */
function nextCommands(directory: string, report: string): [command: string, about: string][] {
  const opener = { darwin: "open", win32: "start" }[process.platform as string] ?? "xdg-open";
  const rolegrad = invocation();
  return [
    [shellCommand([opener, report]) as string, "curves, answers, figures"],
    [`${rolegrad} ${shellCommand(["inspect", directory]) as string}`, "what the run left"],
    [`${rolegrad} init search`, "a run.json for your own data"],
  ];
}

/** How this program is called from here: by its name where it is installed, from a clone by its file. */
function invocation(): string {
  if (packageRoot.split(path.sep).includes("node_modules")) return "npx rolegrad";
  return shellCommand(["node", short(path.join(packageRoot, "bin", "rolegrad.js"))]) as string;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

function interval({ low, high }: EvaluationRecord): string {
  return `${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)}`;
}

/** A bar in eighths of a column. */
function barOf(share: number): string {
  const eighths = Math.round(share * BAR * 8);
  return "█".repeat(Math.floor(eighths / 8)) + ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
}
