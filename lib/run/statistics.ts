import type { Finish, Trajectory } from "../rollout/trajectory.js";

/** 97.5 % point of the normal distribution. */
const Z = 1.959963984540054;

/**
 * Wilson's 95 % interval of a share, from `successes` in `n` independent trials (either may be a fraction: an effective number):
 * centre (p + z²/2n) / (1 + z²/n), half width z sqrt(p (1 - p)/n + z²/4n²) / (1 + z²/n). Without trials: 0 to 1.
 *
 * @example
 * wilson(7, 10); // { low: 0.397, high: 0.892 }
 */
export function wilson(successes: number, n: number): { low: number; high: number } {
  if (n <= 0) return { low: 0, high: 1 };
  const p = successes / n;
  const z2 = (Z * Z) / n;
  const centre = (p + z2 / 2) / (1 + z2);
  const half = (Z * Math.sqrt((p * (1 - p)) / n + z2 / (4 * n))) / (1 + z2);
  return { low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
}

/**
 * Mean score with a 95 % interval over questions, from the scores (0 to 1) of each question's answers. One answer each: Wilson's interval.
 * Several: Wilson's too, of the number of independent answers that would have the variance seen between questions (answers to one question
 * are alike), which lies between the number of questions and the number of answers.
 */
export function meanOverQuestions(scores: readonly (readonly number[])[]): { mean: number; low: number; high: number } {
  const questions = scores.length;
  if (questions === 0) return { mean: 0, low: 0, high: 1 };
  const answers = scores.reduce((sum, own) => sum + own.length, 0);
  const means = scores.map((own) => own.reduce((sum, score) => sum + score, 0) / Math.max(1, own.length));
  const mean = means.reduce((sum, own) => sum + own, 0) / questions;
  let squares = 0;
  for (const own of means) squares += (own - mean) ** 2;
  const variance = squares / Math.max(1, questions - 1) / questions;
  const effective = variance > 0 ? (mean * (1 - mean)) / variance : questions;
  const n = answers === questions ? questions : Math.min(answers, Math.max(questions, effective));
  return { mean, ...wilson(mean * n, n) };
}

/** What a set of trajectories did, as the lines of a run directory have it. */
export function behaviour(trajectories: readonly Trajectory[]): {
  toolRate: number;
  searches: number;
  answerRate: number;
  finish: Record<Finish, number>;
} {
  const n = Math.max(1, trajectories.length);
  const finish: Record<Finish, number> = { stop: 0, length: 0, budget: 0, error: 0 };
  let callers = 0;
  let calls = 0;
  let answered = 0;
  for (const trajectory of trajectories) {
    finish[trajectory.finish]++;
    calls += trajectory.calls.length;
    if (trajectory.calls.length > 0) callers++;
    if (trajectory.answer !== null) answered++;
  }
  return { toolRate: callers / n, searches: calls / n, answerRate: answered / n, finish };
}
