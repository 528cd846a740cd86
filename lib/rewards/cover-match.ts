import { lastAnswer, normaliseAnswer, type AnswerTags } from "./exact-match.js";
import type { Reward } from "./types.js";

export interface CoverMatchOptions {
  /**
   * "words": the words of a gold answer stand in the prediction as they are, one after the other. "characters": its characters do, so "car" is
   * in "scarce" (what some published accuracies count, and what scripts without spaces need).
   * @default "words"
   */
  unit?: "words" | "characters";
}

/**
 * 1 if a gold answer is contained in a text, both in SQuAD's normal form, else 0. Words are what white space separates in that form. A gold
 * answer whose normal form is empty is contained in an empty one alone.
 *
 * @example
 * coverMatch("It is the Seine, in Paris.", ["Seine"]); // 1
 */
export function coverMatch(text: string, gold: readonly string[], { unit = "words" }: CoverMatchOptions = {}): 0 | 1 {
  const space = unit === "words" ? " " : "";
  const within = space + normaliseAnswer(text) + space;
  const covers = (answer: string): boolean =>
    answer === "" ? within.trim() === "" : within.includes(space + answer + space);
  return gold.some((answer) => covers(normaliseAnswer(answer))) ? 1 : 0;
}

/** {@link coverMatch} of the last answer in a trajectory's response with its question's answers, as a reward; 0 without an answer. */
export function coverMatchReward({
  open = "<answer>",
  close = "</answer>",
  ...rest
}: AnswerTags & CoverMatchOptions = {}): Reward {
  return (trajectory, question) => {
    const answer = lastAnswer(trajectory.response, open, close);
    return answer === null ? 0 : coverMatch(answer, question.answers, rest);
  };
}
