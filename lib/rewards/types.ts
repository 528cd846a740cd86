import type { CallRecord, Question } from "../environments/types.js";

/** What a reward sees of a trajectory. */
export interface Judged {
  /** Everything after the prompt: sampled text and tool output. */
  response: string;
  calls: readonly CallRecord[];
  /** Why it ended: "stop", "length", "budget" or "error". */
  finish: string;
}

/** Scores a finished trajectory; any finite number. */
export type Reward = (trajectory: Judged, question: Question) => number | Promise<number>;
