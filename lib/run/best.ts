import type { EvaluationRecord } from "./records.js";

/** checkpoints/best.json: the checkpoint whose evaluation was the best. */
export interface BestCheckpoint {
  /** Its optimizer steps, which name it. */
  step: number;
  /** What it is the best by, and how much of that it has: exact match on the evaluation split, from 0 to 1. */
  metric: "exactMatch";
  value: number;
}

/** The best of trained policies by evaluations like `as`, of equals the earliest; of all `steps` where that is undefined. */
export function bestOf(
  records: readonly EvaluationRecord[],
  as: { split: string; n: number; samples: number; temperature: number },
  steps?: readonly number[],
): BestCheckpoint | undefined {
  let best: BestCheckpoint | undefined;
  for (const record of records) {
    const { step, exactMatch: value, note, policy } = record;
    const alike = (["split", "n", "samples", "temperature"] as const).every((name) => record[name] === as[name]);
    if (note !== undefined || policy === "base" || step === 0 || !alike) continue;
    if (steps !== undefined && !steps.includes(step)) continue;
    if (best === undefined || value > best.value || (value === best.value && step < best.step))
      best = { step, metric: "exactMatch", value };
  }
  return best;
}
