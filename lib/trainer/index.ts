export { groupAdvantages, penalizedReward } from "./advantages.js";
export { AdamW } from "./optimizer.js";
export type { Gradients } from "./gradients.js";
export type { Offending } from "./divergence.js";
export type { StepLimits, StepOptions } from "./step-options.js";
export { Trainer } from "./trainer.js";
export type {
  AccumulateOptions,
  AccumulateResult,
  AdapterMetrics,
  AdvantageEstimator,
  Aggregation,
  CrossRole,
  KlEstimator,
  LeakMatrix,
  LeakOptions,
  Objective,
  Optimizer,
  ResumeOptions,
  RoleMetrics,
  StepMetrics,
  TrainerOptions,
  TrainingBatch,
} from "./types.js";
