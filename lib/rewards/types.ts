import type { CallRecord, Question } from "../environments/types.js";

/** What a reward sees of a trajectory. */
export interface Judged {
  /** Everything after the prompt: sampled text and tool output. */
  response: string;
  calls: readonly CallRecord[];
  /** Why it ended: "stop", "length", "budget" or "error". */
  finish: string;
}

/** A score and what it was made of, for the records; all finite. */
export interface ScoredParts {
  score: number;
  parts?: Readonly<Record<string, number>>;
}

/** Scores a finished trajectory: any finite number, alone or with its parts. */
export type Reward = (
  trajectory: Judged,
  question: Question,
) => number | ScoredParts | Promise<number> | Promise<ScoredParts> | Promise<number | ScoredParts>;
