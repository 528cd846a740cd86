// A run's folder without a run: lines as training writes them, and answers in the world's tokens.
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { RoleRouter, serializeTrajectory, WORLD_CHECKPOINT, WORLD_TAGS, type Tokenizer } from "rolegrad";
import type { EvaluationRecord, StepRecord } from "../../lib/run/records.js";

export const roles = ["reason", "tool"];

const router = new RoleRouter({ roles, base: "reason", spans: [{ role: "tool", ...WORLD_TAGS.tool }] });

export const runConfig = {
  model: WORLD_CHECKPOINT,
  modelParameters: 584960,
  agent: { roles, base: "reason" },
  variant: "dart",
  rank: 8,
  steps: 40,
  objective: { klCoefficient: 0.01 },
  seed: 7,
  package: "rolegrad",
  packageVersion: "0.1.0",
  node: "20.20.2",
  command: ["rolegrad", "train", "run.json"],
  startedAt: "2026-01-02T03:04:05.678Z",
};

/** A line of metrics.jsonl with all that one can have. */
export function metricsLine(step: number): StepRecord {
  const wave = Math.sin(step);
  const line: unknown = {
    step,
    loss: 0.01 * wave,
    kl: 0.002 * step,
    clipHigh: 0.01,
    clipLow: 0.004,
    entropy: { reason: 0.3 - 0.001 * step, tool: 0.6 },
    maxRatioDeviation: 0.02,
    learningRate: 0.003,
    gradNorms: { reason: 0.06 + 0.01 * wave, tool: 0.03 },
    adapters: {
      reason: { gradNorm: 0.06, updateNorm: 0.01, norm: 2 + step },
      tool: { gradNorm: 0.03, updateNorm: 0.02, norm: 3 },
    },
    roles: {
      reason: { tokens: 3800, kl: 0.01 * step, entropy: 0.3, clip: 0.01 },
      tool: { tokens: 800, kl: 0.02 * step, entropy: 0.6, clip: 0.02 },
    },
    tools: { search: { calls: 150, errors: 2, timeouts: 1, retries: 3, cacheHits: 20, seconds: 1.5 } },
    rewardParts: { exact: 0.3, format: 0.9 },
    reward: Math.min(1, 0.2 + 0.01 * step),
    mixedGroups: 0.75,
    trajectories: 128,
    tokens: 9000,
    sampledTokens: { reason: 3811, tool: 822 },
    toolRate: 0.9,
    searches: 1.4,
    answerRate: 0.95,
    finish: { stop: 120, length: 5, budget: 3, error: 0 },
    seconds: 1.25,
    rolloutSeconds: 0.5,
  };
  return line as StepRecord;
}

export function evaluationLine(step: number, exactMatch: number): EvaluationRecord {
  const finish = { stop: 250, length: 6, budget: 0, error: 0 };
  return {
    ...{ step, split: "dev", policy: step === 0 ? "base" : "adapters", n: 256, samples: 1, temperature: 1, exactMatch },
    ...{ low: exactMatch - 0.05, high: exactMatch + 0.05, retrieval: 0.5, toolRate: 0.9, searches: 1.4, answerRate: 1 },
    ...{ finish, seconds: 1 },
  };
}

export interface AnswerLine {
  id: string;
  question?: string;
  reward?: number;
  /** Prompt, then by turns what was sampled and what the tool gave. */
  parts: readonly string[];
  answer?: string | null;
  query?: string;
  error?: { code: string; message: string };
}

/** A line of trajectories/. */
export function answerLine(tokenizer: Tokenizer, { id, parts, ...rest }: AnswerLine): string {
  const tokens = parts.map((part) => [...tokenizer.encode(part)]);
  const sampled = Uint8Array.from(tokens.flatMap((part, i) => part.map(() => i % 2)));
  const ids = Int32Array.from(tokens.flat());
  const bytes = tokenizer.tokenBytes();
  const { query = "Seine river", error } = rest;
  return serializeTrajectory({
    ...{ id, group: id.replace(/#.*/, ""), question: rest.question ?? "q1", ids, sampled },
    roles: router.annotate(
      [...ids].map((token) => bytes[token] as Uint8Array),
      sampled,
    ),
    logprobs: Float32Array.from(ids, (_, i) => (sampled[i] === 1 ? -(i % 4) : 0)),
    ...{ temperature: 1, topP: 1, topK: 0, policyVersion: 0, rngKey: "", response: parts.slice(1).join("") },
    ...{ reward: rest.reward ?? 0, rewardParts: { exact: rest.reward ?? 0 }, answer: rest.answer ?? null },
    calls: [
      { role: "tool", query, result: "Rises in Burgundy.", latencyMs: 12.3, ...(error === undefined ? {} : { error }) },
    ],
    finish: "stop",
  });
}

export const jsonLines = (records: readonly object[]): string =>
  records.map((record) => `${JSON.stringify(record)}\n`).join("");

export function writeFiles(folder: string, files: Record<string, string>): void {
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
    writeFileSync(path.join(folder, name), content);
  }
}
