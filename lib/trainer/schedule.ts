import type { Optimizer } from "./types.js";

/** The rate of the step that follows `steps` steps: warm-up times decay. */
export function learningRateAfter(steps: number, optimizer: Optimizer): number {
  const { learningRate, warmupSteps = 0, totalSteps, finalRatio = 0, decay: shape } = optimizer;
  const warm = warmupSteps > 0 ? Math.min(1, (steps + 1) / warmupSteps) : 1;
  const share = totalSteps === undefined ? 0 : Math.min(1, steps / totalSteps);
  const decay = 1 - (1 - finalRatio) * (shape === "cosine" ? (1 - Math.cos(Math.PI * share)) / 2 : share);
  return learningRate * warm * decay;
}
