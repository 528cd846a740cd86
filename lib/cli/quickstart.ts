import { existsSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import path from "node:path";
import type { Command } from "commander";
import { native, packageVersion } from "../binding.js";
import { fail, RolegradError } from "../errors.js";
import type { Question } from "../environments/types.js";
import type { Model, ModelConfig } from "../model/index.js";
import type { Example } from "../report/index.js";
import type {
  EvaluationRecord,
  RunDescription,
  RunDirectory,
  RunHooks,
  RunResult,
  RunSetup,
  StepRecord,
} from "../run/index.js";
import type { Trajectory } from "../rollout/trajectory.js";
import type { BaseProgress, World } from "../world/index.js";
import { wholeNumber } from "./numbers.js";
import { printJson } from "./output.js";
import { interruptSignal } from "./signal.js";

export interface QuickstartOptions {
  out?: string;
  seed: number;
  steps: number;
  fromScratch?: boolean;
  base?: string;
  baseTokens: number;
  questions: number;
  questionsPerStep: number;
  group: number;
  json?: boolean;
}

/** An answer with its question, to show. */
export interface Shown {
  trajectory: Trajectory;
  question: Question;
  example: Example;
}

/** What is said on the way: for a reader, or as one JSON object a line. */
export interface QuickstartOutput {
  start(about: {
    version: string;
    instructionSet: string;
    threads: number;
    seed: number;
    steps: number;
    directory: string;
  }): void;
  base(progress: BaseProgress): void;
  first(shown: Shown, model: Model): void;
  training(setup: RunSetup, step: number): void;
  progress: NonNullable<RunHooks["onProgress"]>;
  step(record: StepRecord): void;
  evaluation(record: EvaluationRecord): void;
  same(before: Shown, after: Shown, model: Model): void;
  end(done: {
    directory: string;
    report: string;
    seconds: number;
    evaluations: EvaluationRecord[];
    adapters: string[];
  }): void;
}

export const ROLES = ["reason", "tool"];
/** The note of the evaluation whose searches find nothing. */
export const WITHHELD = "pages withheld";
const EVALUATE_EVERY = 5;
/** The world that it plays in, and how many questions of it are trained on. */
const WORLD_SEED = 1;
const TRAIN_QUESTIONS = 1000;

/** `rolegrad quickstart`: a small world, an agent that searches badly, and what training it by roles makes of it. */
export function register(program: Command): void {
  program
    .command("quickstart")
    .description("train a small agent to search, in about a minute, and write a report")
    .option("--out <dir>", "the run directory; one that was not finished goes on (default: a new one in runs/)")
    .option("--seed <n>", "of adapters, answers and the order of questions", wholeNumber(0), 1)
    .option("--steps <n>", "optimizer steps", wholeNumber(1), 25)
    .option("--from-scratch", "first train the base itself, from random weights (some minutes)")
    .option("--base-tokens <n>", "tokens that --from-scratch trains it on", wholeNumber(1), 2_200_000)
    .option("--base <dir>", "start from the base in this directory instead of the one that comes with the package")
    .option("--questions <n>", "held-out questions of each evaluation", wholeNumber(1), 256)
    .option("--questions-per-step <n>", "training questions of each step", wholeNumber(1), 16)
    .option("--group <n>", "answers to each of them", wholeNumber(2), 8)
    .option("--json", "print JSON for machines: one object a line")
    .addHelpText(
      "after",
      "\nThe world is invented: people, towns, firms and rivers, with a page about each. The base can think, search and answer," +
        "\nbut does it badly. Training gives each role, reason and tool, a LoRA adapter of its own (DART, rank 8).",
    )
    .action(async (options: QuickstartOptions) => {
      const output: QuickstartOutput =
        options.json === true ? jsonOutput() : new (await import("./quickstart-text.js")).QuickstartText();
      await new Quickstart(options, output).run();
    });
}

class Quickstart {
  readonly #options: QuickstartOptions;
  readonly #output: QuickstartOutput;
  readonly #directory: string;
  readonly #signal = interruptSignal();
  readonly #begin = performance.now();

  constructor(options: QuickstartOptions, output: QuickstartOutput) {
    this.#options = options;
    this.#output = output;
    this.#directory = path.resolve(options.out ?? freeDirectory());
  }

  async run(): Promise<void> {
    const { fromScratch = false, base, seed, steps } = this.#options;
    if (fromScratch && base !== undefined) fail("ERR_USAGE", "Expected either --from-scratch or --base, not both");
    const { kernels, threads } = native.cpuInfo();
    this.#output.start({
      version: packageVersion(),
      instructionSet: kernels,
      threads,
      seed,
      steps,
      directory: this.#directory,
    });
    const { WORLD_CHECKPOINT } = await import("../world/text.js");
    const checkpoint = fromScratch ? path.join(this.#directory, "base") : path.resolve(base ?? WORLD_CHECKPOINT);
    if (!fromScratch && !existsSync(path.join(checkpoint, "model.safetensors"))) {
      fail("ERR_NO_BASE", `Expected a base with model.safetensors in ${checkpoint}; --from-scratch trains one`);
    }
    const { parseModelConfig } = await import("../model/config.js");
    const { loadModel } = await import("../model/model.js");
    const file = path.join(fromScratch ? WORLD_CHECKPOINT : checkpoint, "config.json");
    const description = await this.#describe(
      checkpoint,
      parseModelConfig(JSON.parse(await readFile(file, "utf8")), file),
    );
    try {
      if (fromScratch) await this.#trainBase(description);
      const model = await loadModel(checkpoint, { signal: this.#signal });
      try {
        await this.#train(model, description);
      } finally {
        model.close();
      }
    } catch (error) {
      if (error !== this.#signal.reason) throw error;
      throw this.#interrupted("before the first step, nothing is kept");
    }
  }

  /** The base itself, into DIR/base. An interrupt leaves no folder behind. */
  async #trainBase(description: RunDescription): Promise<void> {
    const { RunDirectory } = await import("../run/index.js");
    const { trainBase } = await import("../world/index.js");
    const run = new RunDirectory(this.#directory);
    if (existsSync(path.join(run.path, "base"))) return;
    await run.begin(description, this.#command());
    const { seed, baseTokens: tokens } = this.#options;
    const onProgress = (progress: BaseProgress): void => this.#output.base(progress);
    try {
      await run.writeFolder("base", (directory) =>
        trainBase({ directory, seed, tokens, signal: this.#signal, onProgress }),
      );
    } catch (error) {
      if (this.#signal.aborted) await rm(run.path, { recursive: true });
      throw error;
    }
  }

  /** Shows an answer of the base, trains, shows what that changed, writes the report. */
  async #train(model: Model, description: RunDescription): Promise<void> {
    const { World } = await import("../world/world.js");
    const world = new World({ seed: WORLD_SEED });
    const setup = await this.#setup(model, world, description);
    const questions = setup.evaluation?.questions ?? [];
    await this.#showFirst(model, setup, questions);

    const { RunDirectory, trainRun } = await import("../run/index.js");
    const output = this.#output;
    const result = await trainRun(setup, {
      signal: this.#signal,
      onStart: ({ step }) => output.training(setup, step),
      onProgress: (progress) => output.progress(progress),
      onEvaluation: (record) => output.evaluation(record),
      onStep: (record) => output.step(record),
    });
    const run = new RunDirectory(result.directory);
    const { writeReport } = await import("../report/index.js");
    try {
      this.#signal.throwIfAborted();
      await this.#evaluateWithheld(setup, world, result, run);
      await this.#showSame(model, run, questions, result.step);
    } catch (error) {
      if (error !== this.#signal.reason) throw error;
      await writeReport(run.path);
      const { step, checkpoint } = result;
      const kept = `metrics, answers, report.html, ${path.relative(run.path, checkpoint)}`;
      throw this.#interrupted(
        `after step ${step} of ${setup.steps}; kept: ${kept}. The same command with --out ${short(run.path)} goes on from there`,
      );
    }
    const report = await writeReport(run.path);
    const evaluations = await run.evaluations();
    const seconds = (performance.now() - this.#begin) / 1000;
    output.end({ directory: run.path, report, seconds, evaluations, adapters: result.adapters?.names ?? [] });
  }

  /** config.json's account of the run. */
  async #describe(checkpoint: string, config: ModelConfig): Promise<RunDescription> {
    const { seed, steps, questions, questionsPerStep, group, fromScratch, baseTokens } = this.#options;
    const { WORLD_TAGS } = await import("../world/text.js");
    const { tool, output, answer } = WORLD_TAGS;
    return {
      model: checkpoint,
      modelParameters: parameterCount(config),
      ...(fromScratch === true ? { base: { seed, tokens: baseTokens } } : {}),
      data: { world: { seed: WORLD_SEED }, train: Math.max(TRAIN_QUESTIONS, questionsPerStep), dev: questions },
      agent: {
        roles: ROLES,
        base: "reason",
        spans: [{ role: "tool", ...tool }],
        output,
        answer,
        actionBudget: 4,
        finalAnswer: false, // the base has never read such words
        maxLength: 200,
        concurrency: 128,
        sampling: { temperature: 1 },
      },
      variant: "dart",
      rank: 8,
      alpha: 16,
      optimizer: { learningRate: 3e-3, betas: [0.9, 0.99], warmupSteps: 3 },
      objective: { klCoefficient: 0 },
      crossRole: "flow",
      steps,
      questionsPerStep,
      group,
      seed,
    };
  }

  async #setup(model: Model, world: World, description: RunDescription): Promise<RunSetup> {
    const { seed, steps, questions, questionsPerStep, group } = this.#options;
    const { RoleRouter } = await import("../roles/router.js");
    const { exactMatchReward } = await import("../rewards/exact-match.js");
    type Agent = { roles: string[]; base: string; spans: { role: string; open: string; close: string }[] };
    const { roles, base, spans, ...limits } = description["agent"] as Agent &
      Pick<RunSetup["rollout"], "output" | "answer">;
    const { rank, alpha, optimizer, objective } = description as unknown as RunSetup["adapters"] & RunSetup["trainer"];
    return {
      model,
      rollout: {
        ...limits,
        router: new RoleRouter({ roles, base, spans }),
        environment: world.environment(),
        reward: exactMatchReward(limits.answer),
        prompt: (question) => world.prompt(question),
      },
      adapters: { rank, alpha },
      trainer: { optimizer, crossRole: "flow", ...(objective && { objective }) },
      questions: world.questions("train", Math.max(TRAIN_QUESTIONS, questionsPerStep), 0),
      steps,
      questionsPerStep,
      group,
      seed,
      evaluation: { questions: world.questions("dev", questions, 0), every: EVALUATE_EVERY, split: "dev" },
      checkpoint: { every: EVALUATE_EVERY, keep: 1 },
      trajectories: { every: EVALUATE_EVERY },
      directory: this.#directory,
      description,
      command: this.#command(),
    };
  }

  /** One answer of the base to a question of two hops: the first that calls the tool, and closes every call that it opens. */
  async #showFirst(model: Model, { rollout: parts, seed }: RunSetup, questions: readonly Question[]): Promise<void> {
    const { Rollout } = await import("../rollout/rollout.js");
    const { WORLD_TAGS } = await import("../world/text.js");
    const rollout = new Rollout(model, { ...parts, group: 1, seed });
    const hard = questions.filter(({ hops }) => hops === 2);
    const few = (hard.length > 0 ? hard : questions).slice(0, 8);
    const found = await rollout.collect(few, { purpose: "show", signal: this.#signal });
    const opened = ({ response }: Trajectory): number => response.split(WORLD_TAGS.tool.open).length - 1;
    const shown = found.find((one) => one.calls.length > 0 && one.calls.length === opened(one)) ?? found[0];
    if (shown !== undefined) this.#output.first(await this.#shown(shown, model, questions), model);
  }

  /** The trained adapters where every search finds nothing: what they then answer they have not read. */
  async #evaluateWithheld(
    setup: RunSetup,
    world: World,
    { adapters, step, evaluations }: RunResult,
    run: RunDirectory,
  ): Promise<void> {
    const done = evaluations.find(({ note }) => note === WITHHELD);
    if (done !== undefined) return this.#output.evaluation(done);
    const { evaluate } = await import("../run/index.js");
    const { record, trajectories } = await evaluate({
      model: setup.model,
      ...(adapters && { adapters }),
      rollout: { ...setup.rollout, environment: world.withoutPages() },
      questions: setup.evaluation?.questions ?? [],
      seed: setup.seed,
      step,
      note: WITHHELD,
      signal: this.#signal,
    });
    await run.writeTrajectories(`withheld-${padded(step)}`, trajectories);
    await run.appendEvaluation(record);
    this.#output.evaluation(record);
  }

  async #showSame(model: Model, run: RunDirectory, questions: readonly Question[], step: number): Promise<void> {
    const { pickExample, writeExamples } = await import("../report/index.js");
    const pair = pickExample(
      await run.readTrajectories(`eval-${padded(0)}`),
      await run.readTrajectories(`eval-${padded(step)}`),
    );
    if (pair === undefined) return;
    const before = await this.#shown(pair.before, model, questions);
    const after = await this.#shown(pair.after, model, questions);
    await writeExamples(run.path, [before.example, after.example]);
    this.#output.same(before, after, model);
  }

  async #shown(
    trajectory: Trajectory,
    { tokenizer, directory }: Model,
    questions: readonly Question[],
  ): Promise<Shown> {
    const { exampleOf } = await import("../report/index.js");
    if (tokenizer === undefined) fail("ERR_TOKENIZER_NOT_FOUND", `Expected the base's tokenizer.json in ${directory}`);
    const question = questions.find(({ id }) => id === trajectory.question) as Question;
    return { trajectory, question, example: exampleOf(trajectory, question, tokenizer, ROLES) };
  }

  #interrupted(what: string): RolegradError {
    return new RolegradError("ERR_ABORTED", `Interrupted ${what}`);
  }

  #command(): string[] {
    return ["rolegrad", ...process.argv.slice(2)];
  }
}

function jsonOutput(): QuickstartOutput {
  const event = (name: string, fields: object): void => printJson({ event: name, ...fields });
  return {
    start: (about) => event("start", about),
    base: (progress) => event("base", progress),
    first: ({ example }) => event("trajectory", example),
    training: ({ questions, questionsPerStep, group }, step) =>
      event("training", { step, questions: questions.length, questionsPerStep, group }),
    progress: () => undefined,
    step: (record) => event("step", record),
    evaluation: (record) => event("evaluation", record),
    same: (before, after) => event("same", { before: before.example, after: after.example }),
    end: (done) => event("done", done),
  };
}

/** runs/quickstart, or the first of runs/quickstart-2, -3, ... that is free. */
function freeDirectory(): string {
  for (let n = 1; ; n++) {
    const name = path.join("runs", n === 1 ? "quickstart" : `quickstart-${n}`);
    if (!existsSync(name)) return name;
  }
}

/** A path as short as it can be said from here. */
export function short(target: string): string {
  const relative = path.relative("", target);
  return relative.startsWith("..") || relative === "" ? target : relative;
}

function padded(step: number): string {
  return String(step).padStart(6, "0");
}

/** Parameters of a decoder of this architecture; a tied head counts once. */
function parameterCount(c: ModelConfig): number {
  const [query, keyValue] = [c.heads * c.headDim, c.kvHeads * c.headDim];
  const attention = 2 * c.hiddenSize * (query + keyValue) + (c.attentionBias ? query + 2 * keyValue : 0);
  const layer = attention + 3 * c.hiddenSize * c.intermediateSize + 2 * c.hiddenSize;
  return c.vocabSize * c.hiddenSize * (c.tied ? 1 : 2) + c.layers * layer + c.hiddenSize;
}
