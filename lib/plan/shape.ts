import { existsSync } from "node:fs";
import path from "node:path";
import { describe } from "../arguments.js";
import { fail } from "../errors.js";
import { findCheckpoint, readCheckpoint, readJson } from "../model/checkpoint.js";
import { parseModelConfig, type ModelConfig } from "../model/config.js";
import type { RunConfig } from "../run/schema.js";
import { planVariant } from "../run/variants.js";
import type { AnswerLength, RunShape } from "./types.js";

/** What a model's files say, with or without its weights. */
export interface PlannedModel {
  directory: string;
  config: ModelConfig;
  stored: "bfloat16" | "float32";
}

/** A checkpoint's architecture and the type of its weights: from their headers, or where there are none from config.json. */
export function readPlannedModel(model: string, configFile?: string): PlannedModel {
  const directory = configFile === undefined ? findCheckpoint(model) : path.dirname(path.resolve(configFile));
  const file = configFile ?? path.join(directory, "config.json");
  const json = readJson(file, "ERR_MODEL_NOT_FOUND");
  const config = parseModelConfig(json, file);
  const weights = ["model.safetensors", "model.safetensors.index.json"];
  if (configFile === undefined && weights.some((name) => existsSync(path.join(directory, name)))) {
    const { tensors } = readCheckpoint(directory);
    return { directory, config, stored: tensors.some(({ dtype }) => dtype === "F32") ? "float32" : "bfloat16" };
  }
  const { dtype, torch_dtype: older } = json as { dtype?: unknown; torch_dtype?: unknown };
  const stored = dtype ?? older ?? "float32";
  if (stored !== "float32" && stored !== "bfloat16" && stored !== "float16")
    fail("ERR_MODEL_CONFIG", `${file}: Expected float32 or bfloat16 for torch_dtype but received ${describe(stored)}`);
  return { directory, config, stored: stored === "float32" ? "float32" : "bfloat16" };
}

/** Tokens of an answer at its longest, as the limits of a run allow it. */
export function longestAnswer({ agent, environment }: RunConfig, maxLength: number, prompt: number): AnswerLength {
  const before = Math.min(prompt, maxLength - 1);
  const written = Math.min(agent.sampling.maxNewTokens, maxLength - before);
  const calls = environment.kind === "none" ? 0 : agent.actionBudget;
  const observed = Math.min(maxLength - before - written, calls * (agent.observationTokens ?? Infinity));
  return { prompt: before, written, observed: Number.isNaN(observed) ? 0 : observed };
}

/** An answer of so many tokens in all whose parts stand to each other as in another. */
export function scaleAnswer({ prompt, written, observed }: AnswerLength, total: number): AnswerLength {
  const rest = Math.max(1, total - prompt);
  const share = written / Math.max(1, written + observed);
  return { prompt, written: Math.max(1, Math.round(rest * share)), observed: Math.round(rest * (1 - share)) };
}

/** How often a run evaluates, and so how many answers that takes. */
function evaluationAnswers({ data, evaluation, steps }: RunConfig): number {
  if (data.evalSplit === undefined && data.evalQuestions === undefined) return 0;
  const { every, questions, samples } = evaluation;
  const between = every === 0 ? 0 : Math.floor((steps - 1) / every);
  return (steps === 0 ? 1 : 2 + between) * questions * samples;
}

/** A version of run.json without this setting has none. */
function momentsByRole({ variant, optimizer }: RunConfig): boolean {
  return variant === "shared-two-moments" || ("momentsByRole" in optimizer && optimizer.momentsByRole === true);
}

/** A run in the numbers that its memory and its work follow from. */
export function shapeOf(run: RunConfig, { config, stored }: PlannedModel, answer: AnswerLength): RunShape {
  const { agent, objective, variant, parameters, rank = 0, logKl } = run;
  const full = parameters === "full";
  const supervised = objective.kind === "sft";
  const { routes, routing, agents: each } = planVariant(variant, agent.roles);
  const roles = agent.roles.length;
  const agents = each === true ? roles : 1;
  const names = new Set(Object.values(routes).filter((name) => name !== null));
  const size = routing === "soft" ? { rank: rank * roles, experts: roles } : { rank, experts: 0 };
  const held = stored === "bfloat16" || run.precision === "bf16-multiply" ? 2 : 4;
  const kl = objective.klCoefficient > 0;
  const reference = !supervised && (kl || logKl);
  const inReward = kl && objective.klPlacement === "reward";
  const evaluated = evaluationAnswers(run);
  const sampled = run.sampler === undefined && (!supervised || evaluated > 0);
  return {
    config,
    width: full ? 4 : held,
    ...(full && reference && { referenceWidth: held }),
    full,
    adapters: full ? [] : Array.from({ length: each === true ? agents : names.size }, () => size),
    dropout: (run.dropout ?? 0) > 0,
    tokens: run.addTokens?.length ?? 0,
    agents,
    caches: sampled ? agents : 0,
    crossRole: run.crossRole,
    routed: Math.max(1, names.size),
    roles,
    trackLossRoles: run.trackLossRoles,
    momentRoles: momentsByRole(run) ? roles : 0,
    checkpointing: run.gradientCheckpointing,
    supervised,
    scoring: { reference, policy: !supervised && objective.importance !== undefined },
    scoredInside: !full && !logKl && !inReward,
    questionsPerStep: run.questionsPerStep,
    group: run.group,
    epochs: run.epochs ?? 1,
    minibatches: Math.min(run.minibatches ?? 1, Math.max(1, run.questionsPerStep)),
    concurrency: agent.concurrency,
    ...(agent.cacheTokens !== undefined && { cacheTokens: agent.cacheTokens }),
    maxLength: agent.maxLength ?? Math.min(4096, config.maxPositions),
    microBatchTokens: run.microBatchTokens,
    steps: run.steps,
    answer,
    evaluationAnswers: evaluated,
    evaluatedTogether: evaluated > 0 ? run.evaluation.questions * run.evaluation.samples : 0,
  };
}
