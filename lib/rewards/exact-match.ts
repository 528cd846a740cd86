import type { Reward } from "./types.js";

/** The tags around an answer. */
export interface AnswerTags {
  /** @default "<answer>" */
  open?: string;
  /** @default "</answer>" */
  close?: string;
}

/** `answer` is the text between the last pair of tags, `prediction` the same normalised; both null without a pair. */
export type ExactMatch =
  { score: 0 | 1; answer: string; prediction: string } | { score: 0; answer: null; prediction: null };

const ASCII_PUNCTUATION = /[!-/:-@[-`{-~]/g;
// A word boundary as Unicode has it: é is a letter, so the "a" of "éa" is no article (JavaScript's \b says it is).
const ARTICLE = /(?<![\p{L}\p{N}_])(?:a|an|the)(?![\p{L}\p{N}_])/gu;
// White space as the published scores count it: the information separators and NEL are, the byte order mark is not.
// eslint-disable-next-line no-control-regex
const WHITE_SPACE = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/;

/**
 * SQuAD's normal form (method.md, section 3): lower case, without ASCII punctuation, without a, an, the, white space
 * collapsed.
 *
 * @example
 * normaliseAnswer(" The  U.S.A.! "); // "usa"
 */
export function normaliseAnswer(text: string): string {
  return text
    .toLowerCase()
    .replace(ASCII_PUNCTUATION, "")
    .replace(ARTICLE, " ")
    .split(WHITE_SPACE)
    .filter((word) => word !== "")
    .join(" ");
}

/** The text between the last pair of tags; pairs are taken left to right, so an opening tag within a pair is text. */
export function lastAnswer(response: string, open: string, close: string): string | null {
  let answer: string | null = null;
  for (let at = 0; ;) {
    const from = response.indexOf(open, at);
    if (from < 0) return answer;
    const to = response.indexOf(close, from + open.length);
    if (to < 0) return answer;
    answer = response.slice(from + open.length, to);
    at = to + close.length;
  }
}

/**
 * Exact match of the last answer in a response with any gold answer, both normalised (the empty string included).
 * A response without a closed pair of tags scores 0. Give the response only: a prompt may hold the tags too.
 *
 * @example
 * exactMatch("<think>…</think><answer> The Seine </answer>", ["Seine"]);
 * // { score: 1, answer: " The Seine ", prediction: "seine" }
 */
export function exactMatch(response: string, gold: readonly string[], tags: AnswerTags = {}): ExactMatch {
  const answer = lastAnswer(response, tags.open ?? "<answer>", tags.close ?? "</answer>");
  if (answer === null) return { score: 0, answer, prediction: null };
  const prediction = normaliseAnswer(answer);
  const score = gold.some((text) => normaliseAnswer(text) === prediction) ? 1 : 0;
  return { score, answer, prediction };
}

/** {@link exactMatch} of a trajectory's response with its question's answers, as a reward: 0 or 1. */
export function exactMatchReward(tags: AnswerTags = {}): Reward {
  return (trajectory, question) => exactMatch(trajectory.response, question.answers, tags).score;
}
