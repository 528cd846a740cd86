export { groupAdvantages, penalizedReward } from "./advantages.js";
export { AdamW } from "./optimizer.js";
export { Trainer, type Gradients, type StepOptions } from "./trainer.js";
export type {
  AccumulateOptions,
  AccumulateResult,
  AdvantageEstimator,
  Aggregation,
  CrossRole,
  KlEstimator,
  LeakMatrix,
  LeakOptions,
  Objective,
  Optimizer,
  ResumeOptions,
  StepMetrics,
  TrainerOptions,
  TrainingBatch,
} from "./types.js";
