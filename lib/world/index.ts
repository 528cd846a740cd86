export {
  demonstration,
  HARD,
  MILD,
  PERFECT,
  type DemonstrationOptions,
  type Imperfections,
  type Segment,
} from "./demonstrations.js";
export {
  demonstrationStream,
  packDemonstrations,
  type Demonstration,
  type DemonstrationStreamOptions,
  type PackedDemonstrations,
} from "./stream.js";
export { trainBase, type TrainBaseOptions } from "./base.js";
export type { BaseProgress, BaseTrainingOptions } from "./train.js";
export {
  markRates,
  trainDialectBase,
  type Dialect,
  type MarkRates,
  type TrainDialectBaseOptions,
  type WorldSearch,
} from "./dialect.js";
export { WORLD_CHECKPOINT, WORLD_TAGS } from "./text.js";
export { World, type WorldOptions, type WorldQuestion, type WorldQuestionOptions } from "./world.js";
export * from "./sql/index.js";
