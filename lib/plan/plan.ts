import { existsSync } from "node:fs";
import path from "node:path";
import { checkInteger, checkObject, checkPath, checkSignal } from "../arguments.js";
import { collectGarbage } from "../bench/memory.js";
import { native } from "../binding.js";
import { fail } from "../errors.js";
import type { RunConfig } from "../run/schema.js";
import { countPrompt, dataBytes } from "./data.js";
import { measureMachine, type MachineFigures } from "./machine.js";
import { planMemory } from "./memory.js";
import { adapterParameters, parameterCount } from "./model.js";
import { longestAnswer, readPlannedModel, scaleAnswer, shapeOf } from "./shape.js";
import type { RunPlan, RunShape } from "./types.js";
import { rolloutWork, stepWork, timed } from "./work.js";

export interface PlanOptions {
  /** A config.json in place of that of the run's model, which then need not be there. */
  modelConfig?: string;
  /** Tokens of an answer on average, prompt and tool output included, so more than the prompt's: for the time. Default: all are as long as the limits allow. */
  answerTokens?: number;
  /** Of the prompt. Default: counted, or where there is no tokenizer a quarter of its characters, and 40 for the question. */
  promptTokens?: number;
  /** Of another machine; what is left out is measured here. */
  machine?: MachineFigures;
  signal?: AbortSignal;
}

/** Columns of a panel of packed weights, by the kernels (`NV * LANES`). */
const PANELS: Record<string, number> = { avx512: 32, avx2: 16, neon: 8 };
/** The same of the kernels of the precision bf16-multiply. */
export const BF16_PANEL = 64;

/**
 * What a run will take: memory by its parts, work and time of a step, before anything is loaded. Of the model config.json is enough. Memory is that of
 * answers as long as the run's limits allow; the formulas follow native/ and are in docs/plan.md. Errors: those of readRunConfig's files,
 * ERR_MODEL_NOT_FOUND, ERR_MODEL_CONFIG, ERR_MODEL_UNSUPPORTED, ERR_CONFIG, ERR_INVALID_ARGUMENT.
 *
 * @example
 * const plan = await planRun(await readRunConfig("run.json"), { modelConfig: "qwen2.5-3b/config.json" });
 * console.log(plan.memory.bytes / 2 ** 30, plan.step.seconds);
 */
export async function planRun(run: RunConfig, options: PlanOptions = {}): Promise<RunPlan> {
  checkObject(options, "options");
  checkSignal(options.signal);
  if (options.modelConfig !== undefined) checkPath(options.modelConfig, "modelConfig");
  for (const name of ["answerTokens", "promptTokens"] as const)
    if (options[name] !== undefined) checkInteger(options[name], name, 1);
  const model = readPlannedModel(run.model, options.modelConfig);
  const { config: c, stored } = model;
  const maxLength = run.agent.maxLength ?? Math.min(4096, c.maxPositions);
  if (maxLength > c.maxPositions)
    fail("ERR_CONFIG", `Expected agent.maxLength of at most ${c.maxPositions} (the model's) but received ${maxLength}`);
  const hasTokenizer = existsSync(path.join(model.directory, "tokenizer.json"));
  const tokenizer = hasTokenizer ? model.directory : undefined;
  const counted = await countPrompt(run, { tokenizer, vocabulary: c.vocabSize });
  const prompt = options.promptTokens ?? counted.tokens;
  const longest = longestAnswer(run, maxLength, prompt);
  if (options.answerTokens !== undefined && options.answerTokens <= longest.prompt)
    fail(
      "ERR_INVALID_ARGUMENT",
      `Expected more answerTokens (prompt and tool output included) than the prompt's ${longest.prompt} but received ${options.answerTokens}`,
    );
  const shape = shapeOf(run, model, longest);
  // Before anything is measured, which takes memory of its own.
  await collectGarbage();
  const processBytes = process.memoryUsage.rss() + counted.missingBytes + dataBytes(run);
  const machine = await measureMachine(c, {
    ...{ width: shape.width, precision: run.precision },
    ...(options.machine && { figures: options.machine }),
    ...(options.signal && { signal: options.signal }),
  });
  const panel = run.precision === "bf16-multiply" ? BF16_PANEL : (PANELS[native.cpuInfo().kernels] ?? 32);
  const memory = planMemory(shape, { processBytes, panel, ...machine });
  const answer = options.answerTokens === undefined ? longest : scaleAnswer(longest, options.answerTokens);
  const timedShape: RunShape = { ...shape, answer };
  const step = timed(stepWork(timedShape), machine);
  const evaluations = shape.evaluationAnswers;
  const evaluationSeconds =
    evaluations === 0 ? 0 : timed(rolloutWork(timedShape, evaluations, run.evaluation.samples), machine).seconds;
  const fits = memory.bytes <= machine.memoryBytes;
  const total = answer.prompt + answer.written + answer.observed;
  const answers = shape.questionsPerStep * shape.group;
  const plan: Omit<RunPlan, "warnings"> = {
    model: {
      directory: model.directory,
      name: options.modelConfig === undefined ? path.basename(run.model) : run.model,
      parameters: parameterCount(c),
      stored,
      held: shape.width === 2 ? "bfloat16" : "float32",
    },
    trains: trainsOf(run, shape),
    answer: { ...answer, total, source: options.answerTokens === undefined ? "longest" : "given" },
    tokensPerStep: {
      answers,
      prompt: answers * answer.prompt,
      written: answers * answer.written,
      observed: answers * answer.observed,
      total: answers * total,
    },
    memory: { ...memory, availableBytes: machine.memoryBytes, fits },
    step,
    run: { steps: run.steps, seconds: run.steps * step.seconds + evaluationSeconds, evaluationSeconds },
    machine,
  };
  return { ...plan, warnings: warningsOf(plan, shape) };
}

function trainsOf(run: RunConfig, { config: c, adapters, agents, full }: RunShape): RunPlan["trains"] {
  if (full) {
    const parameters = agents * parameterCount(c);
    return { parameters, description: `every parameter of ${agents === 1 ? "the model" : `${agents} models`}` };
  }
  const parameters = adapters.reduce((sum, size) => sum + adapterParameters(c, size), 0);
  const list = `${adapters.length} adapter${adapters.length === 1 ? "" : "s"} of rank ${adapters[0]?.rank ?? 0}`;
  return { parameters, description: `${run.variant}: ${list} on every linear` };
}

const GIB = 2 ** 30;

function warningsOf({ memory, run }: Omit<RunPlan, "warnings">, shape: RunShape): string[] {
  const warnings: string[] = [];
  if (!memory.fits) {
    const what = memory.lines.find(({ name }) => name === memory.most)?.what ?? "";
    warnings.push(
      `this machine's memory does not suffice: ${(memory.bytes / GIB).toFixed(1)} GiB are needed and ${(memory.availableBytes / GIB).toFixed(1)} GiB are free; most are ${memory.most} (${what})`,
    );
    if (!shape.checkpointing && memory.most === "activations")
      warnings.push("gradientCheckpointing keeps each layer's input alone: try it first");
  } else if (memory.bytes > 0.9 * memory.availableBytes)
    warnings.push("less than a tenth of this machine's free memory would be left");
  if (run.seconds > 7 * 86_400)
    warnings.push(
      `${(run.seconds / 86_400).toFixed(0)} days: run it on a larger machine, or lower steps, questionsPerStep or group`,
    );
  return warnings;
}
