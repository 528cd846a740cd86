import { rename, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Question } from "../environments/types.js";
import type { Finish, Trajectory } from "../rollout/trajectory.js";
import { textSegments, type TextSegment, type TokenBytes } from "./text.js";

/**
 * One answer as the report shows it: a line of a run directory's examples.jsonl. Its text is decoded, so that a report needs neither the
 * tokenizer nor the data. Two lines with one `id` and different `step`s are the same question before and after.
 */
export interface Example {
  /** Id of the question. */
  id: string;
  question: string;
  answers: string[];
  /** Optimizer steps that the policy had taken. */
  step: number;
  reward: number;
  answer: string | null;
  finish: Finish;
  /** Tool calls that were made. */
  calls: number;
  tokens: number;
  roles: string[];
  segments: TextSegment[];
}

/** A trajectory as an {@link Example}. */
export function exampleOf(
  trajectory: Trajectory,
  question: Question,
  tokenizer: TokenBytes,
  roles: readonly string[],
): Example {
  return {
    id: question.id,
    question: question.question,
    answers: question.answers,
    step: trajectory.policyVersion,
    reward: trajectory.reward,
    answer: trajectory.answer,
    finish: trajectory.finish,
    calls: trajectory.calls.length,
    tokens: trajectory.ids.length,
    roles: [...roles],
    segments: textSegments(trajectory, tokenizer, roles),
  };
}

/** Writes a run directory's examples.jsonl, for its report. */
export async function writeExamples(directory: string, examples: readonly Example[]): Promise<void> {
  const file = path.join(directory, "examples.jsonl");
  await writeFile(`${file}.partial`, examples.map((example) => `${JSON.stringify(example)}\n`).join(""));
  await rename(`${file}.partial`, file);
}

type Pair = { before: Trajectory; after: Trajectory };

/**
 * The question to show before and after training: one that was answered wrongly and now is rightly; of these one with calls on both sides and
 * several after, since it shows most; of these the shortest. Where none was learned, the first that both have.
 */
export function pickExample(before: readonly Trajectory[], after: readonly Trajectory[]): Pair | undefined {
  const first = new Map<string, Trajectory>();
  for (const trajectory of before) if (!first.has(trajectory.question)) first.set(trajectory.question, trajectory);
  const pairs = after.flatMap((trajectory): Pair[] => {
    const earlier = first.get(trajectory.question);
    return earlier === undefined ? [] : [{ before: earlier, after: trajectory }];
  });
  const shows = ({ before, after }: Pair): number => Math.min(before.calls.length, 1) + Math.min(after.calls.length, 2);
  const length = ({ before, after }: Pair): number => before.ids.length + after.ids.length;
  const learned = pairs.filter((pair) => pair.after.reward > pair.before.reward);
  return learned.sort((a, b) => shows(b) - shows(a) || length(a) - length(b))[0] ?? pairs[0];
}
