import { readDemonstrations } from "../data/demonstrations.js";
import type { SkippedRows } from "../data/rows.js";
import { SqlEnvironment } from "../environments/sql/environment.js";
import { sqlPrompt } from "../environments/sql/prompt.js";
import type { Question } from "../environments/types.js";
import { fail } from "../errors.js";
import { readCheckpoint } from "../model/checkpoint.js";
import { loadModel } from "../model/model.js";
import type { Tokenizer } from "../model/tokenizer.js";
import { chatRenderer } from "../prompts/chat.js";
import type { Renderer } from "../prompts/renderer.js";
import { tagRenderer } from "../prompts/tags.js";
import { hashes, loadData } from "./data.js";
import type { RolloutParts } from "./evaluate.js";
import type { RunSetup } from "./loop.js";
import { defaultMaxLength } from "./prompts.js";
import { judgedBySql, loadReward } from "./reward.js";
import type { RunConfig } from "./schema.js";
import { fill, type RunEnvironment } from "./tools.js";
import { planVariant } from "./variants.js";

/** A {@link RunSetup} whose model is its own: `close()` gives it back. */
export interface LoadedRun extends RunSetup {
  environment: RunEnvironment;
  /** Bad rows that data.onBadRow left out, a report a file. */
  skipped: SkippedRows[];
  close(): void;
}

/**
 * Loads what a configuration names: questions, passages (indexed, or an index) or databases, rewards, model. Errors are those of readQuestions,
 * readPassages, {@link SearchIndex.open}, {@link SqlEnvironment.open} and loadModel; ERR_INDEX_SETTINGS where an index was built with other settings
 * of BM25; a module that is no reward -> ERR_REWARD_MODULE.
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
  const { questions, evalQuestions, environment, skipped } = await loadData(config);
  let model: Awaited<ReturnType<typeof loadModel>> | undefined;
  const close = (): void => {
    model?.close();
    // Only ends what is still out: there is nothing to wait for.
    void Promise.resolve(environment.close?.()).catch(() => undefined);
  };
  try {
    const sql = sqlOf(config, environment);
    const reward = await loadReward(config.reward, { ...agent, ...(sql && { sql }) });
    const { addTokens, precision } = config;
    model = await loadModel(config.model, { precision, ...(addTokens && { addTokens }) });
    const { tokenizer } = model;
    if (tokenizer === undefined)
      fail("ERR_TOKENIZER_NOT_FOUND", `Expected tokenizer.json in ${model.directory}; download it with the checkpoint`);
    const maxLength = agent.maxLength ?? defaultMaxLength(model);
    const content = await contentOf(config, environment, [...questions, ...evalQuestions]);
    const renderer = rendererOf(agent, content, tokenizer);
    const demonstrations =
      data.demonstrations === undefined
        ? undefined
        : await readDemonstrations(data.demonstrations, { tokenizer, router: renderer.router, maxLength });
    return {
      model,
      environment,
      skipped,
      rollout: {
        ...rolloutParts({ ...agent, maxLength }, config, renderer),
        environment,
        reward,
        tokenizer,
        ...(judgedBySql(config) && { evaluateBy: "reward" }),
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
        logKl: config.logKl,
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
      guards: config.guards,
      tensorboard: config.tensorboard,
      checkpoint: config.checkpoint,
      trajectories: config.trajectories,
      directory: config.output,
      description: {
        ...config,
        agent: { ...agent, maxLength },
        hashes: await hashes(config),
        modelParameters: countParameters(model.directory),
      },
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

function sqlOf({ environment: named }: RunConfig, environment: RunEnvironment) {
  if (!(environment instanceof SqlEnvironment) || named.kind !== "sqlite") return undefined;
  return { environment, gold: named.gold };
}

/** The text of a question's prompt; of a database, with its schema. */
async function contentOf(
  { agent, environment: named }: RunConfig,
  environment: RunEnvironment,
  questions: readonly Question[],
): Promise<(question: Question) => string> {
  if (environment instanceof SqlEnvironment && named.kind === "sqlite")
    return sqlPrompt(environment, questions, { template: agent.prompt, sampleRows: named.sampleRows });
  return ({ question }) => fill(agent.prompt, { question });
}

function rendererOf(agent: RunConfig["agent"], prompt: (question: Question) => string, tokenizer: Tokenizer): Renderer {
  const { roles, base, spans, output, answer, chat, system, tools = [], templateVariables: variables } = agent;
  if (agent.format === "tags") return tagRenderer(tokenizer, { roles, base, spans, output, answer, prompt, chat });
  return chatRenderer(tokenizer, {
    roles,
    base,
    spans,
    prompt,
    tools,
    variables,
    ...(system !== undefined && { system }),
  });
}

function rolloutParts(
  agent: RunConfig["agent"] & { maxLength: number },
  { environment }: RunConfig,
  renderer: Renderer,
): Omit<RolloutParts, "environment" | "reward" | "tokenizer"> {
  const { answer, sampling, concurrency, actionBudget, finalAnswer, observationTokens } = agent;
  const { maxLength, cacheTokens, toolTimeout, onToolError } = agent;
  return {
    renderer,
    router: renderer.router,
    sampling,
    concurrency,
    ...(cacheTokens !== undefined && { cacheTokens }),
    actionBudget,
    finalAnswer,
    ...(observationTokens !== undefined && { observationTokens }),
    maxLength,
    answer,
    // A tool with limits counts the time of each attempt itself; waiting for a turn or a retry is no failure.
    toolTimeout: "tools" in environment ? 2 ** 31 - 1 : toolTimeout,
    onToolError,
  };
}

function countParameters(directory: string): number {
  const sizes = readCheckpoint(directory).tensors.map(({ shape }) => shape.reduce((product, n) => product * n, 1));
  return sizes.reduce((sum, size) => sum + size, 0);
}
