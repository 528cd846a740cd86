import { describe } from "../arguments.js";
import type { Question } from "../environments/types.js";
import { fail, RolegradError } from "../errors.js";
import type { Judged, Reward } from "./types.js";

/** A reward's result, checked, under the names that a trajectory has. */
export interface Judgement {
  reward: number;
  rewardParts?: Record<string, number>;
}

/**
 * Asks a reward, and checks what it says. A throw, a rejection, or a score or part that is no finite number -> ERR_REWARD, naming the question and
 * the reward (`name`; default: the function's own).
 */
export async function judge(
  reward: Reward,
  trajectory: Judged,
  question: Question,
  // A function that is written in the options has the name of its field.
  name: string = reward.name === "reward" ? "" : reward.name,
): Promise<Judgement> {
  const who = name === "" ? "" : ` from reward ${name}`;
  let result: unknown;
  try {
    result = await reward(trajectory, question);
  } catch (cause) {
    // A part of a weighted sum has said which it was.
    if (cause instanceof RolegradError && cause.code === "ERR_REWARD") throw cause;
    const message = cause instanceof Error ? cause.message : String(cause);
    fail("ERR_REWARD", `Expected a score${who} for question ${question.id} but it failed: ${message}`, cause);
  }
  const withParts = typeof result === "object" && result !== null && "score" in result;
  const { score, parts } = (withParts ? result : { score: result }) as { score: unknown; parts?: unknown };
  const finite = (value: unknown, what: string): number => {
    if (typeof value === "number" && Number.isFinite(value)) return value;
    return fail(
      "ERR_REWARD",
      `Expected a finite ${what}${who} for question ${question.id} but received ${describe(value)}`,
    );
  };
  finite(score, "reward");
  if (parts === undefined) return { reward: score as number };
  if (typeof parts !== "object" || parts === null)
    fail("ERR_REWARD", `Expected parts by name${who} for question ${question.id} but received ${describe(parts)}`);
  const entries = Object.entries(parts).map(([part, value]) => [part, finite(value, `part ${part}`)] as const);
  return { reward: score as number, rewardParts: Object.fromEntries(entries) };
}

/** The mean of each part over the trajectories that have it; nothing where none has parts. */
export function meanParts(trajectories: readonly Pick<Judgement, "rewardParts">[]): {
  rewardParts?: Record<string, number>;
} {
  const sums = new Map<string, { sum: number; n: number }>();
  for (const { rewardParts = {} } of trajectories) {
    for (const [name, value] of Object.entries(rewardParts)) {
      const { sum, n } = sums.get(name) ?? { sum: 0, n: 0 };
      sums.set(name, { sum: sum + value, n: n + 1 });
    }
  }
  if (sums.size === 0) return {};
  return { rewardParts: Object.fromEntries([...sums].map(([name, { sum, n }]) => [name, sum / n])) };
}
