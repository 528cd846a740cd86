import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { readPassages } from "../data/passages.js";
import { readQuestions } from "../data/questions.js";
import { numberedPassages, SearchEnvironment } from "../environments/search.js";
import { listDatabases } from "../environments/sql/databases.js";
import { SqlEnvironment } from "../environments/sql/environment.js";
import { sqlPrompt } from "../environments/sql/prompt.js";
import type { Passage, Question } from "../environments/types.js";
import { fail } from "../errors.js";
import { readCheckpoint } from "../model/checkpoint.js";
import { loadModel } from "../model/model.js";
import type { Tokenizer } from "../model/tokenizer.js";
import { exactMatchReward } from "../rewards/exact-match.js";
import { sqlReward } from "../rewards/sql.js";
import type { Reward } from "../rewards/types.js";
import { RoleRouter } from "../roles/router.js";
import type { RolloutParts } from "./evaluate.js";
import type { RunSetup } from "./loop.js";
import { defaultMaxLength } from "./prompts.js";
import type { RunConfig } from "./schema.js";
import { planVariant } from "./variants.js";

/** A {@link RunSetup} whose model is its own: `close()` gives it back. */
export interface LoadedRun extends RunSetup {
  environment: SearchEnvironment | SqlEnvironment;
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
  const closeEnvironment = (): void => {
    if (environment instanceof SqlEnvironment) void environment.close();
  };
  const { addTokens, precision } = config;
  const model = await loadModel(config.model, { precision, ...(addTokens && { addTokens }) }).catch(
    (error: unknown) => {
      closeEnvironment();
      throw error;
    },
  );
  try {
    const tokenizer = model.tokenizer;
    if (tokenizer === undefined)
      fail("ERR_TOKENIZER_NOT_FOUND", `Expected tokenizer.json in ${model.directory}; download it with the checkpoint`);
    const maxLength = agent.maxLength ?? defaultMaxLength(model);
    return {
      model,
      environment,
      rollout: {
        ...rolloutParts({ ...agent, maxLength }, environment, tokenizer),
        ...(await sqlParts(config, environment, [...questions, ...evalQuestions], tokenizer)),
      },
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
      close: () => {
        model.close();
        closeEnvironment();
      },
    };
  } catch (error) {
    model.close();
    closeEnvironment();
    throw error;
  }
}

async function readData(config: RunConfig): Promise<{ questions: Question[]; evalQuestions: Question[] }> {
  const { questions: file, split, limit, evalQuestions: evalFile, evalSplit } = config.data;
  const withoutAnswers = rewardOf(config) === "sql";
  const questions = await readQuestions(file, {
    withoutAnswers,
    ...(split === undefined ? {} : { split }),
    ...(limit === undefined ? {} : { limit }),
  });
  if (evalFile === undefined && evalSplit === undefined) return { questions, evalQuestions: [] };
  const evalQuestions = await readQuestions(evalFile ?? file, {
    withoutAnswers,
    limit: config.evaluation.questions,
    ...(evalSplit === undefined ? {} : { split: evalSplit }),
  });
  return { questions, evalQuestions };
}

function rewardOf({ reward, environment }: RunConfig): "exact-match" | "sql" {
  return reward ?? (environment.kind === "sqlite" ? "sql" : "exact-match");
}

/** What a database changes: the prompt holds its schema, the reward runs queries. */
async function sqlParts(
  config: RunConfig,
  environment: SearchEnvironment | SqlEnvironment,
  questions: readonly Question[],
  tokenizer: Tokenizer,
): Promise<{ prompt?: (question: Question) => string; reward?: Reward; evaluateBy?: "reward" }> {
  if (!(environment instanceof SqlEnvironment) || config.environment.kind !== "sqlite") return {};
  const { agent } = config;
  const { sampleRows, gold } = config.environment;
  const text = await sqlPrompt(environment, questions, { template: agent.prompt, sampleRows });
  const chat = (content: string): string =>
    tokenizer.applyChatTemplate([{ role: "user", content }], { addGenerationPrompt: true });
  return {
    prompt: (question) => (agent.chat ? chat(text(question)) : text(question)),
    ...(rewardOf(config) === "sql" && {
      reward: sqlReward({ environment, gold, answer: agent.answer }),
      evaluateBy: "reward",
    }),
  };
}

async function loadEnvironment(config: RunConfig["environment"]): Promise<SearchEnvironment | SqlEnvironment> {
  if (config.kind === "sqlite") {
    const { kind: _kind, gold: _gold, sampleRows: _sampleRows, workers, ...options } = config;
    return SqlEnvironment.open({ ...options, ...(workers !== undefined && { workers }) });
  }
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
  environment: SearchEnvironment | SqlEnvironment,
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

function databaseFiles(databases: string | Record<string, string>): Record<string, string> {
  const files = [...listDatabases(databases)].map(([name, file]) => [`database ${name}`, file]);
  return Object.fromEntries(files) as Record<string, string>;
}

/** SHA-256 of the data: a run goes on only with the data that it began with. */
async function hashes({ data, environment }: RunConfig): Promise<Record<string, string>> {
  const files = {
    questions: data.questions,
    ...(data.evalQuestions === undefined ? {} : { evalQuestions: data.evalQuestions }),
    ...(environment.kind === "search" ? { passages: environment.passages } : databaseFiles(environment.databases)),
  };
  const out: Record<string, string> = {};
  for (const [name, file] of Object.entries(files)) {
    const hash = createHash("sha256");
    await pipeline(createReadStream(file), hash);
    out[name] = hash.digest("hex");
  }
  return out;
}
