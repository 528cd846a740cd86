export {
  demonstration,
  HARD,
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
export { trainBase, type BaseProgress, type TrainBaseOptions } from "./base.js";
export { WORLD_CHECKPOINT, WORLD_TAGS } from "./text.js";
export { World, type WorldOptions, type WorldQuestion, type WorldQuestionOptions } from "./world.js";
