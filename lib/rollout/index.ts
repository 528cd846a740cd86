export { FINAL_ANSWER, type RolloutOptions, type RunOptions, type Sampling, type StreamedToken } from "./options.js";
export { Rollout } from "./rollout.js";
export type { RolloutStats } from "./stats.js";
export { readTrajectories } from "./trajectory-files.js";
export type { ToolErrorPolicy } from "./tool-call.js";
export {
  parseTrajectory,
  segments,
  serializeTrajectory,
  type Finish,
  type Trajectory,
  type TrajectorySegment,
} from "./trajectory.js";
export type { Writer, WritersCache } from "./writers.js";
