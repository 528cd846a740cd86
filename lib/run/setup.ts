import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { readPassages, type ReadPassagesOptions } from "../data/passages.js";
import { readQuestions, type ReadQuestionsOptions } from "../data/questions.js";
import type { SkippedRows } from "../data/rows.js";
import { numberedPassages, SearchEnvironment } from "../environments/search.js";
import type { Passage, Question } from "../environments/types.js";
import { fail } from "../errors.js";
import { readCheckpoint } from "../model/checkpoint.js";
import { loadModel } from "../model/model.js";
import type { Tokenizer } from "../model/tokenizer.js";
import type { Reward } from "../rewards/types.js";
import { RoleRouter } from "../roles/router.js";
import type { RolloutParts } from "./evaluate.js";
import type { RunSetup } from "./loop.js";
import { defaultMaxLength } from "./prompts.js";
import { loadReward, rewardModules } from "./reward.js";
import type { RunConfig } from "./schema.js";
import { planVariant } from "./variants.js";

/** A {@link RunSetup} whose model is its own: `close()` gives it back. */
export interface LoadedRun extends RunSetup {
  environment: SearchEnvironment;
  /** Bad rows that data.onBadRow left out, a report a file. */
  skipped: SkippedRows[];
  close(): void;
}

/**
 * Loads what a configuration names: model, questions, passages (indexed), rewards. Errors are those of loadModel, readQuestions, readPassages;
 * a module that is no reward -> ERR_REWARD_MODULE.
 *
 * @example
 * const setup = await loadRun(await readRunConfig("run.json"));
 * try {
 *   await trainRun(setup);
 * } finally {
 *   setup.close();
 * }
 */
export async function loadRun(config: RunConfig): Promise<LoadedRun> {
  const { data, agent, evaluation, variant, rank, alpha } = config;
  const { routes, routing, lossRoles } = planVariant(variant, agent.roles);
  const reward = await loadReward(config.reward, agent);
  const { questions, evalQuestions, environment, skipped } = await loadData(config);
  const { addTokens, precision } = config;
  const model = await loadModel(config.model, { precision, ...(addTokens && { addTokens }) });
  try {
    const tokenizer = model.tokenizer;
    if (tokenizer === undefined)
      fail("ERR_TOKENIZER_NOT_FOUND", `Expected tokenizer.json in ${model.directory}; download it with the checkpoint`);
    const maxLength = agent.maxLength ?? defaultMaxLength(model);
    return {
      model,
      environment,
      skipped,
      rollout: rolloutParts({ ...agent, maxLength }, environment, reward, tokenizer),
      adapters: {
        routes,
        rank,
        alpha,
        ...(routing && { routing }),
        ...(config.dropout !== undefined && { dropout: config.dropout }),
        ...(addTokens && { trainableTokens: addTokens }),
      },
      trainer: {
        optimizer: config.optimizer,
        objective: config.objective,
        crossRole: config.crossRole,
        lossRoles,
        microBatchTokens: config.microBatchTokens,
        gradientCheckpointing: config.gradientCheckpointing,
      },
      questions,
      steps: config.steps,
      questionsPerStep: config.questionsPerStep,
      group: config.group,
      seed: config.seed,
      evaluation: { ...evaluation, questions: evalQuestions, split: data.evalSplit ?? "eval" },
      checkpoint: config.checkpoint,
      trajectories: config.trajectories,
      directory: config.output,
      description: {
        ...config,
        agent: { ...agent, maxLength },
        hashes: await hashes(config),
        modelParameters: countParameters(model.directory),
      },
      close: () => model.close(),
    };
  } catch (error) {
    model.close();
    throw error;
  }
}

/** What of a run can be read without its model. */
export interface RunData {
  questions: Question[];
  evalQuestions: Question[];
  environment: SearchEnvironment;
  /** Bad rows that data.onBadRow left out, a report a file. */
  skipped: SkippedRows[];
}

/** Reads the data of a run and indexes its passages: everything that may be wrong with them is found here, before a model is loaded. */
export async function loadData(config: RunConfig): Promise<RunData> {
  const files = new Map<string, SkippedRows>();
  const onSkipped = (report: SkippedRows): void => {
    // A file that is read twice, to train and to evaluate, is reported once: by the reading that saw more of it.
    if (report.rows > (files.get(report.file)?.rows ?? 0)) files.set(report.file, report);
  };
  const { questions, evalQuestions } = await readData(config, onSkipped);
  const environment = await loadEnvironment(config, onSkipped);
  return { questions, evalQuestions, environment, skipped: [...files.values()] };
}

type OnSkipped = (report: SkippedRows) => void;

async function readData(
  config: RunConfig,
  onSkipped: OnSkipped,
): Promise<{ questions: Question[]; evalQuestions: Question[] }> {
  const { questions: file, split, limit, evalQuestions: evalFile, evalSplit } = config.data;
  const options = questionOptions(config.data, onSkipped);
  const questions = await readQuestions(file, {
    ...options,
    ...(split === undefined ? {} : { split }),
    ...(limit === undefined ? {} : { limit }),
  });
  if (evalFile === undefined && evalSplit === undefined) return { questions, evalQuestions: [] };
  const evalQuestions = await readQuestions(evalFile ?? file, {
    ...options,
    limit: config.evaluation.questions,
    ...(evalSplit === undefined ? {} : { split: evalSplit }),
  });
  return { questions, evalQuestions };
}

function questionOptions(data: RunConfig["data"], onSkipped: OnSkipped): ReadQuestionsOptions {
  const { format, fields, separator, ids, onBadRow, shuffle } = data;
  return {
    onSkipped,
    ...(format && { format }),
    ...(fields && { fields }),
    ...(separator && { separator }),
    ...(ids && { ids }),
    ...(onBadRow && { onBadRow }),
    ...(shuffle !== undefined && { shuffle }),
  };
}

function passageOptions(data: RunConfig["data"], onSkipped: OnSkipped): ReadPassagesOptions {
  const { passageFormat: format, passageFields: fields, onBadRow } = data;
  return { onSkipped, ...(format && { format }), ...(fields && { fields }), ...(onBadRow && { onBadRow }) };
}

async function loadEnvironment({ environment, data }: RunConfig, onSkipped: OnSkipped): Promise<SearchEnvironment> {
  const { passages, topK, titleWeight, k1, b, passage, separator } = environment;
  const show = (template: string) => (found: Passage[]) =>
    found.map(({ title = "", text }, i) => fill(template, { n: String(i + 1), title, text })).join(separator);
  return SearchEnvironment.fromPassages(await readPassages(passages, passageOptions(data, onSkipped)), {
    topK,
    titleWeight,
    k1,
    b,
    format: passage === undefined ? numberedPassages : show(passage),
  });
}

function rolloutParts(
  agent: RunConfig["agent"] & { maxLength: number },
  environment: SearchEnvironment,
  reward: Reward,
  tokenizer: Tokenizer,
): RolloutParts {
  const { roles, base, spans, output, answer, sampling, concurrency } = agent;
  const {
    actionBudget,
    finalAnswer,
    observationTokens,
    maxLength,
    cacheTokens,
    toolTimeout,
    onToolError,
    prompt: template,
  } = agent;
  const prompt = ({ question }: Question): string => {
    const content = fill(template, { question });
    if (!agent.chat) return content;
    return tokenizer.applyChatTemplate([{ role: "user", content }], { addGenerationPrompt: true });
  };
  return {
    router: new RoleRouter({ roles, base, spans }),
    environment,
    reward,
    sampling,
    concurrency,
    ...(cacheTokens !== undefined && { cacheTokens }),
    actionBudget,
    finalAnswer,
    ...(observationTokens !== undefined && { observationTokens }),
    maxLength,
    prompt,
    addBos: !agent.chat, // a chat template says itself how a text begins
    output,
    answer,
    toolTimeout,
    onToolError,
    tokenizer,
  };
}

/** Puts values where the template names them; braces around anything else stay. */
function fill(template: string, values: Record<string, string>): string {
  return template.replace(/\{(\w+)\}/g, (whole, name: string) => (Object.hasOwn(values, name) ? values[name]! : whole));
}

function countParameters(directory: string): number {
  const sizes = readCheckpoint(directory).tensors.map(({ shape }) => shape.reduce((product, n) => product * n, 1));
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** SHA-256 of the data and of reward modules: a run goes on only with what it began with. */
async function hashes({ data, environment, reward }: RunConfig): Promise<Record<string, string>> {
  const files = {
    questions: data.questions,
    ...(data.evalQuestions === undefined ? {} : { evalQuestions: data.evalQuestions }),
    passages: environment.passages,
    ...Object.fromEntries(rewardModules(reward).map(({ name, file }) => [`reward ${name}`, file])),
  };
  const out: Record<string, string> = {};
  for (const [name, file] of Object.entries(files)) {
    const hash = createHash("sha256");
    await pipeline(createReadStream(file), hash);
    out[name] = hash.digest("hex");
  }
  return out;
}
