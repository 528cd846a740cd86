import { lastAnswer, normaliseAnswer, type AnswerTags } from "./exact-match.js";
import type { Reward } from "./types.js";

/**
 * F1 of the words of a prediction with those of a gold answer, both in SQuAD's normal form: the best over the gold answers, 0 to 1. With n words
 * in common (each as often as both have it), precision n / predicted words and recall n / gold words: 2 p r / (p + r). Equal normal forms
 * score 1, also where both are empty, so F1 is never below exact match.
 *
 * @example
 * f1("the river Seine", ["Seine", "La Seine"]); // 2/3: one word of two, and the only one of "Seine"
 */
export function f1(prediction: string, gold: readonly string[]): number {
  const predicted = normaliseAnswer(prediction);
  return gold.reduce((best, text) => Math.max(best, f1OfNormal(predicted, normaliseAnswer(text))), 0);
}

function f1OfNormal(prediction: string, gold: string): number {
  if (prediction === gold) return 1;
  if (prediction === "" || gold === "") return 0;
  const left = new Map<string, number>();
  const predicted = prediction.split(" ");
  const wanted = gold.split(" ");
  for (const word of wanted) left.set(word, (left.get(word) ?? 0) + 1);
  let common = 0;
  for (const word of predicted) {
    const count = left.get(word) ?? 0;
    if (count === 0) continue;
    left.set(word, count - 1);
    common++;
  }
  if (common === 0) return 0;
  const precision = common / predicted.length;
  const recall = common / wanted.length;
  return (2 * precision * recall) / (precision + recall);
}

/** {@link f1} of the last answer in a trajectory's response with its question's answers, as a reward; 0 without an answer. */
export function f1Reward(tags: AnswerTags = {}): Reward {
  return (trajectory, question) => {
    const answer = lastAnswer(trajectory.response, tags.open ?? "<answer>", tags.close ?? "</answer>");
    return answer === null ? 0 : f1(answer, question.answers);
  };
}
