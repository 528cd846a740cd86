import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { readDemonstrations } from "../data/demonstrations.js";
import { readPassages } from "../data/passages.js";
import { readQuestions } from "../data/questions.js";
import { numberedPassages, SearchEnvironment } from "../environments/search.js";
import type { Passage, Question } from "../environments/types.js";
import { fail } from "../errors.js";
import { readCheckpoint } from "../model/checkpoint.js";
import { loadModel } from "../model/model.js";
import type { Tokenizer } from "../model/tokenizer.js";
import { exactMatchReward } from "../rewards/exact-match.js";
import { RoleRouter } from "../roles/router.js";
import type { RolloutParts } from "./evaluate.js";
import type { RunSetup } from "./loop.js";
import { defaultMaxLength } from "./prompts.js";
import type { RunConfig } from "./schema.js";
import { planVariant } from "./variants.js";

/** A {@link RunSetup} whose model is its own: `close()` gives it back. */
export interface LoadedRun extends RunSetup {
  environment: SearchEnvironment;
  close(): void;
}

/**
 * Loads what a configuration names: model, questions, passages (indexed). Errors are those of loadModel, readQuestions, readPassages.
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
  const { questions, evalQuestions } = await readData(config);
  const environment = await loadEnvironment(config.environment);
  const { addTokens, precision } = config;
  const model = await loadModel(config.model, { precision, ...(addTokens && { addTokens }) });
  try {
    const tokenizer = model.tokenizer;
    if (tokenizer === undefined)
      fail("ERR_TOKENIZER_NOT_FOUND", `Expected tokenizer.json in ${model.directory}; download it with the checkpoint`);
    const maxLength = agent.maxLength ?? defaultMaxLength(model);
    const rollout = rolloutParts({ ...agent, maxLength }, environment, tokenizer);
    const { router } = rollout;
    const demonstrations =
      data.demonstrations === undefined
        ? undefined
        : await readDemonstrations(data.demonstrations, { tokenizer, router, maxLength });
    return {
      model,
      environment,
      rollout,
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
      ...(demonstrations && { demonstrations }),
      steps: config.steps,
      questionsPerStep: config.questionsPerStep,
      group: config.group,
      ...(config.epochs !== undefined && { epochs: config.epochs }),
      ...(config.minibatches !== undefined && { minibatches: config.minibatches }),
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

async function readData(config: RunConfig): Promise<{ questions: Question[]; evalQuestions: Question[] }> {
  const { questions: file, split, limit, evalQuestions: evalFile, evalSplit } = config.data;
  const questions = await readQuestions(file, {
    ...(split === undefined ? {} : { split }),
    ...(limit === undefined ? {} : { limit }),
  });
  if (evalFile === undefined && evalSplit === undefined) return { questions, evalQuestions: [] };
  const evalQuestions = await readQuestions(evalFile ?? file, {
    limit: config.evaluation.questions,
    ...(evalSplit === undefined ? {} : { split: evalSplit }),
  });
  return { questions, evalQuestions };
}

async function loadEnvironment(config: RunConfig["environment"]): Promise<SearchEnvironment> {
  const { passages, topK, titleWeight, k1, b, passage, separator } = config;
  const show = (template: string) => (found: Passage[]) =>
    found.map(({ title = "", text }, i) => fill(template, { n: String(i + 1), title, text })).join(separator);
  return SearchEnvironment.fromPassages(await readPassages(passages), {
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
  tokenizer: Tokenizer,
): RolloutParts {
  const { roles, base, spans, output, answer, sampling, concurrency } = agent;
  const { actionBudget, maxLength, cacheTokens, toolTimeout, onToolError, prompt: template } = agent;
  const prompt = ({ question }: Question): string => {
    const content = fill(template, { question });
    if (!agent.chat) return content;
    return tokenizer.applyChatTemplate([{ role: "user", content }], { addGenerationPrompt: true });
  };
  return {
    router: new RoleRouter({ roles, base, spans }),
    environment,
    reward: exactMatchReward(answer),
    sampling,
    concurrency,
    ...(cacheTokens !== undefined && { cacheTokens }),
    actionBudget,
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

/** SHA-256 of the data: a run goes on only with the data that it began with. */
async function hashes({ data, environment }: RunConfig): Promise<Record<string, string>> {
  const files = {
    questions: data.questions,
    ...(data.evalQuestions === undefined ? {} : { evalQuestions: data.evalQuestions }),
    ...(data.demonstrations === undefined ? {} : { demonstrations: data.demonstrations }),
    passages: environment.passages,
  };
  const out: Record<string, string> = {};
  for (const [name, file] of Object.entries(files)) {
    const hash = createHash("sha256");
    await pipeline(createReadStream(file), hash);
    out[name] = hash.digest("hex");
  }
  return out;
}
