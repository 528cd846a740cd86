import type { ToolMetrics } from "./tool-metrics.js";
import type { StepMetrics } from "../trainer/types.js";
import type { Finish } from "../rollout/trajectory.js";

/** A line of metrics.jsonl. */
export interface StepRecord extends StepMetrics {
  /** Means of what the reward was made of, where it says so. */
  rewardParts?: Record<string, number>;
  /** Share of answers that called a tool, mean calls an answer, share with an answer tag, and why they ended. */
  toolRate: number;
  searches: number;
  answerRate: number;
  finish: Record<Finish, number>;
  /** By the role whose calls a tool answers; absent where no role calls one. Their seconds differ between equal runs, retries and cacheHits may. */
  tools?: Record<string, ToolMetrics>;
  /** Of the whole step; besides what `tools` says, this and rolloutSeconds are the only figures that differ between equal runs. */
  seconds: number;
  rolloutSeconds: number;
}

/** A line of evaluations.jsonl. */
export interface EvaluationRecord {
  /** Optimizer steps that the policy had taken. */
  step: number;
  /** Which questions. */
  split: string;
  /** "base": the model as it was loaded, without adapters; "model": all of its parameters are trained; "agents": one a role; "hybrid": roles
   * of several policies (`note` says which). */
  policy: "base" | "adapters" | "model" | "agents" | "hybrid";
  /** Questions, and answers to each. */
  n: number;
  samples: number;
  temperature: number;
  /** Share of answers that match a gold answer, with its 95 % interval. */
  exactMatch: number;
  low: number;
  high: number;
  /** Share of answers for which some call retrieved a passage with a gold answer in it; absent where no call gave passages. */
  retrieval?: number;
  /** Means of what the reward was made of, where it says so. */
  rewardParts?: Record<string, number>;
  /** Share of answers that called a tool, and mean calls an answer. */
  toolRate: number;
  searches: number;
  /** Share of answers with an answer tag. */
  answerRate: number;
  finish: Record<Finish, number>;
  seconds: number;
  note?: string;
}
