import path from "node:path";
import { skippedText } from "../data/rows.js";
import { annotate } from "../report/annotate.js";
import type { Trajectory } from "../rollout/trajectory.js";
import {
  explainReward,
  samplerText,
  toolText,
  type EvaluationRecord,
  type LoadedRun,
  type RunConfig,
  type RunEvent,
  type RunResult,
  type StepRecord,
} from "../run/index.js";
import { evaluationText } from "./eval.js";
import { grouped } from "./numbers.js";
import { formatSeconds, formatTable } from "./output.js";
import { Progress } from "./progress.js";
import { style } from "./style.js";
import type { TrainOutput } from "./train.js";

/** How many of the last steps say whether a run earns anything. */
const RECENT = 5;

/** What `rolegrad train` says to a reader: a bar on a terminal, else a line a step; evaluations; and at the end where things are. */
export class TrainText implements TrainOutput {
  #training: Progress | undefined;
  #evaluating: Progress | undefined;
  #steps = 0;
  #done = 0;
  #note = "";
  /** Demonstrations have no reward, no calls and no answers. */
  #supervised = false;
  readonly #begin = performance.now();
  /** Why nothing is earned has been said. */
  #explained = false;
  #setup: LoadedRun | undefined;

  start(config: RunConfig, setup: LoadedRun, step: number): void {
    const { model, questions, evaluation, environment, directory } = setup;
    this.#setup = setup;
    this.#steps = config.steps;
    this.#done = step;
    const evalQuestions = evaluation?.questions.length ?? 0;
    const judged = evalQuestions > 0 ? `${grouped(evalQuestions)} to evaluate on` : "none to evaluate on";
    const routes = Object.entries(setup.adapters.routes ?? {}).map(
      ([role, adapter]) => `${role} -> ${adapter ?? "none"}`,
    );
    const { steps, questionsPerStep, group, seed, variant, parameters, rank, alpha, initialAdapters: from } = config;
    const demonstrations = setup.demonstrations?.length;
    this.#supervised = demonstrations !== undefined;
    const source = demonstrations === undefined ? questions.length : demonstrations;
    const ofStep =
      demonstrations === undefined
        ? `${questionsPerStep} questions x ${group} answers`
        : `${Math.min(questionsPerStep * group, demonstrations)} demonstrations`;
    const begin = from === undefined ? "" : `; from ${where(from)}`;
    const trained =
      parameters === "full"
        ? `${variant}: every parameter of ${setup.agents === undefined ? "the model" : "a model a role"}`
        : `${variant}: ${routes.join(", ")}; rank ${rank}, alpha ${alpha}${begin}`;
    const rows = [
      ["model", `${model.name} (${model.info.backend})`],
      [demonstrations === undefined ? "questions" : "demonstrations", `${grouped(source)} to train on, ${judged}`],
      environment.size === undefined
        ? ["tool", toolText(config.environment)]
        : ["passages", `${grouped(environment.size)} indexed`],
      ...setup.skipped.map((report) => ["skipped", skippedText(report)]),
      ...(config.sampler === undefined ? [] : [["sampling", samplerText(config)]]),
      [parameters === "full" ? "trains" : "adapters", trained],
      ["run", `${where(directory)}: ${steps} steps of ${ofStep}, seed ${seed}`],
    ];
    console.log(formatTable(rows.map(([name = "", value = ""]) => [style.bold(name), value])));
    if (step >= steps) console.log(`step ${step} of ${steps} is done already`);
    else if (step > 0) console.log(`going on after step ${step}`);
    if (step < steps) this.#training = new Progress("training", steps);
  }

  onProgress({ phase, done, total }: { phase: string; done: number; total: number }): void {
    if (phase === "evaluation") (this.#evaluating ??= new Progress("evaluating", total)).update(done);
    else
      this.#training?.update(this.#done, `${phase === "update" ? "update" : `answers ${done}/${total}`}${this.#note}`);
  }

  onStep(record: StepRecord): void {
    this.#done = record.step;
    this.#note = this.#supervised ? `  loss ${record.loss.toFixed(4)}` : `  reward ${record.reward.toFixed(3)}`;
    if (process.stdout.isTTY) this.#training?.update(record.step, this.#note.trim());
    else console.log(stepText(record, this.#steps, this.#supervised));
  }

  onEvent({ event, step, message, findings = [] }: RunEvent, trajectory: Trajectory | undefined): void {
    if (event === "stopped") return; // the error says it
    if (event === "zero-reward") this.#explained = true;
    const lines = findings.map((finding) => `\n  - ${finding}`).join("");
    console.log(`\n${style.warning("step")} ${step}: ${message}${lines === "" ? "" : `. In step ${step}:${lines}`}`);
    if (trajectory !== undefined) console.log(this.#example(trajectory));
  }

  #example(trajectory: Trajectory): string {
    const { model, rollout } = this.#setup ?? {};
    if (model?.tokenizer === undefined || rollout === undefined) return "";
    return `One of these answers:\n\n${annotate(trajectory, model.tokenizer, rollout.router.roles)}`;
  }

  onEvaluation(record: EvaluationRecord): void {
    this.#evaluating?.end();
    this.#evaluating = undefined;
    console.log(`step ${record.step}: ${evaluationText(record)}`);
  }

  end(config: RunConfig, _setup: LoadedRun, result: RunResult, report: string): void {
    this.#training?.end();
    const { status, step, stepsTaken, directory, best } = result;
    const folder = config.parameters === "full" ? "model" : "adapters";
    const seconds = formatSeconds((performance.now() - this.#begin) / 1000);
    if (status === "interrupted") {
      console.log(
        `interrupted after step ${step} of ${config.steps} (${seconds}); the same command goes on from there`,
      );
    } else console.log(`${style.good("done")}: ${stepsTaken} steps in ${seconds}`);
    const rows = [
      ["run directory", where(directory)],
      ["checkpoint", where(result.checkpoint)],
      ...(best === undefined ? [] : [["best", `${where(best.checkpoint)} (exact match ${best.value.toFixed(3)})`]]),
      ...(status === "finished" ? [[folder, where(path.join(directory, folder))]] : []),
      ["report", where(report)],
    ];
    console.log(formatTable(rows, { indent: "  " }));
    const recent = result.metrics.slice(-RECENT);
    const reward = recent.reduce((sum, record) => sum + record.reward, 0) / Math.max(1, recent.length);
    const why = explainReward(result.trajectories, config.agent);
    if (why === undefined || reward >= 0.02 || this.#explained) return;
    const lines = why.findings.map((finding) => `  - ${finding}`);
    console.log(
      `\nThe reward is about zero (${reward.toFixed(3)} over the last ${recent.length} steps). In the last step:\n${lines.join("\n")}`,
    );
    if (why.example !== undefined) console.log(this.#example(why.example));
  }
}

function stepText(record: StepRecord, steps: number, supervised: boolean): string {
  const { adapters, klToStart, rewardParts = {}, tools = {} } = record;
  const norms = (name: "gradNorm" | "updateNorm"): string =>
    Object.entries(adapters)
      .map(([adapter, own]) => `${adapter} ${own[name].toPrecision(2)}`)
      .join(" ");
  const parts = Object.entries(rewardParts).map(([part, mean]) => `${part} ${mean.toFixed(3)}`);
  const kl = typeof klToStart === "number" ? `  KL ${klToStart.toPrecision(2)}` : "";
  if (supervised)
    return `step ${record.step}/${steps}  loss ${record.loss.toFixed(4)}  gradients ${norms("gradNorm")}  updates ${norms("updateNorm")}  ${formatSeconds(record.seconds)}`;
  return (
    `step ${record.step}/${steps}  reward ${record.reward.toFixed(3)}${parts.length > 1 ? ` (${parts.join(", ")})` : ""}  ` +
    `loss ${record.loss.toFixed(4)}  gradients ${norms("gradNorm")}  updates ${norms("updateNorm")}${kl}  ` +
    `calls ${record.searches.toFixed(2)}${troubles(tools)}  answered ${(100 * record.answerRate).toFixed(0)} %  ${formatSeconds(record.seconds)}`
  );
}

/** What went wrong with tools; nothing where all is well. */
function troubles(tools: NonNullable<StepRecord["tools"]>): string {
  const list = Object.entries(tools).flatMap(([role, { errors, timeouts, retries }]) => {
    const counts = Object.entries({ errors, timeouts, retries }).filter(([, count]) => count > 0);
    return counts.length === 0 ? [] : [`${role}: ${counts.map(([what, count]) => `${count} ${what}`).join(", ")}`];
  });
  return list.length === 0 ? "" : ` (${list.join("; ")})`;
}

/** A path as short as it can be said from here. */
function where(target: string): string {
  const relative = path.relative(process.cwd(), target);
  return relative.startsWith("..") || relative === "" ? target : relative;
}
