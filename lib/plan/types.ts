import type { ModelConfig } from "../model/config.js";

/** What memory, work and time follow from: a run in numbers. */
export interface RunShape {
  config: ModelConfig;
  /** Bytes of a stored weight as the engine holds it: bf16 or f32. Full training holds f32. */
  width: 2 | 4;
  /** Of the reference model of full training; absent where the model with its adapters off is the reference, or none is needed. */
  referenceWidth?: 2 | 4;
  full: boolean;
  /** Adapters that exist together, by their rank on every linear; none in full training. */
  adapters: { rank: number; experts: number }[];
  dropout: boolean;
  /** Rows of tokens that are trained. */
  tokens: number;
  /** Models (full) or sets of adapters that are trained one after another: 1, but for 2-Agent. */
  agents: number;
  /** Caches that a rollout fills: one a writer. 0: a server samples, or nothing is sampled. */
  caches: number;
  crossRole: "flow" | "stop" | "exact";
  /** Adapters that run a role: backward passes under "exact". */
  routed: number;
  roles: number;
  trackLossRoles: boolean;
  /** One adapter has moments, a gradient sum and a backward pass for each of so many roles (optimizer.momentsByRole); 0: none. */
  momentRoles: number;
  checkpointing: boolean;
  supervised: boolean;
  /** Forward passes over all trajectories besides the update's own, by the model alone and by the policy: KL to the start, importance. */
  scoring: { reference: boolean; policy: boolean };
  /** That pass of the model alone works in the trainer's memory: logKl is false, and the KL is part of the loss. */
  scoredInside: boolean;
  questionsPerStep: number;
  group: number;
  epochs: number;
  /** Updates of an epoch. */
  minibatches: number;
  concurrency: number;
  /** Positions of each cache at most; absent: what the rollout asks for, up to half of the memory that is free then. */
  cacheTokens?: number;
  maxLength: number;
  microBatchTokens: number;
  steps: number;
  /** Tokens of one answer. */
  answer: AnswerLength;
  /** Answers of all evaluations of the run together. */
  evaluationAnswers: number;
  /** Answers of one of them. */
  evaluatedTogether: number;
}

/** Tokens of one trajectory: the prompt, what the model writes, what tools return. */
export interface AnswerLength {
  prompt: number;
  written: number;
  observed: number;
}

/** One line of a memory plan. */
export interface MemoryLine {
  name:
    | "weights"
    | "reference"
    | "adapters"
    | "optimizer"
    | "activations"
    | "scoring"
    | "cache"
    | "decoding"
    | "scratch"
    | "checkpoint"
    | "process";
  bytes: number;
  /** What it is made of, and how to make it less. */
  what: string;
}

export interface MemoryPlan {
  lines: MemoryLine[];
  bytes: number;
  /** The largest line. */
  most: MemoryLine["name"];
}

/** What a machine does: measured, or given by figures. */
export interface PlanMachine {
  source: "measured" | "given";
  cpu?: string;
  threads: number;
  /** Of products of many rows with weights of this model's type, in GFLOP/s. */
  gflops: number;
  /** Of reading memory, in GB/s. */
  readGBps: number;
  /** Bytes that a run may use here. */
  memoryBytes: number;
}

/** Work and time of a part of a step. */
export interface WorkLine {
  name: "prefill" | "decode" | "scoring" | "forward" | "backward" | "optimizer";
  flops: number;
  /** Bytes that must be read at least. */
  bytes: number;
  seconds: number;
}

export interface WorkPlan {
  lines: WorkLine[];
  flops: number;
  seconds: number;
  most: WorkLine["name"];
}

/** What a run will take. */
export interface RunPlan {
  model: {
    directory: string;
    name: string;
    parameters: number;
    stored: "bfloat16" | "float32";
    held: "bfloat16" | "float32";
  };
  trains: { parameters: number; description: string };
  answer: AnswerLength & { total: number; source: "longest" | "given" };
  tokensPerStep: { answers: number; prompt: number; written: number; observed: number; total: number };
  memory: MemoryPlan & { availableBytes: number; fits: boolean };
  step: WorkPlan;
  run: { steps: number; seconds: number; evaluationSeconds: number };
  machine: PlanMachine;
  warnings: string[];
}
