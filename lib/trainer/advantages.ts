import { checkChoice, checkLength, checkNumbers, checkObject } from "../arguments.js";
import { checkAtLeastZero } from "./objective.js";
import type { AdvantageEstimator, KlEstimator } from "./types.js";

/**
 * Advantages of one group. Estimator "grpo" (default): (R - mean) / (unbiased standard deviation + 1e-6); without `standardize` R - mean (Dr.
 * GRPO). "rloo": R minus the mean of the others' rewards, which is n / (n - 1) (R - mean). A group of one, or of equal rewards, has advantage 0
 * (method.md, section 3).
 *
 * @example
 * groupAdvantages([1, 0, 0, 1]); // Float64Array [0.866, -0.866, -0.866, 0.866]
 * groupAdvantages([1, 0, 0], { estimator: "rloo" }); // Float64Array [1, -0.5, -0.5]
 */
export function groupAdvantages(
  rewards: ArrayLike<number>,
  options: { standardize?: boolean; estimator?: AdvantageEstimator } = {},
): Float64Array {
  checkNumbers(rewards, "rewards");
  checkObject(options, "options");
  const { standardize = true, estimator = "grpo" } = options;
  checkChoice(estimator, ["grpo", "rloo"], "estimator");
  const n = rewards.length;
  let mean = 0;
  for (let i = 0; i < n; i++) mean += (rewards[i] as number) / n;
  const centred = Float64Array.from(rewards, (reward) => reward - mean);
  if (!rewardsDiffer(rewards)) return centred.fill(0);
  if (estimator === "rloo") return centred.map((x) => (x * n) / (n - 1));
  if (!standardize) return centred;
  let squares = 0;
  for (const x of centred) squares += x * x;
  const deviation = Math.sqrt(squares / (n - 1)) + 1e-6;
  return centred.map((x) => x / deviation);
}

/** Whether a group has anything to teach. */
export function rewardsDiffer(rewards: ArrayLike<number>): boolean {
  return Array.prototype.some.call(rewards, (reward: number) => reward !== rewards[0]);
}

/**
 * A reward less what it costs to have left the reference: R - coefficient * the sum of the KL's estimate over the sampled tokens (a sequence's
 * first token is no target). With d = refLogprobs - logprobs the estimates are k1 = -d, k2 = d^2 / 2, k3 = exp(d) - d - 1.
 *
 * @example
 * penalizedReward(1, { sampled, logprobs, refLogprobs, coefficient: 0.01, estimator: "k1" });
 */
export function penalizedReward(
  reward: number,
  options: {
    sampled: ArrayLike<number>;
    logprobs: ArrayLike<number>;
    refLogprobs: ArrayLike<number>;
    coefficient: number;
    /** @default "k1" */
    estimator?: KlEstimator;
  },
): number {
  checkObject(options, "options");
  const { sampled, logprobs, refLogprobs, coefficient, estimator = "k1" } = options;
  checkAtLeastZero(coefficient, "coefficient");
  checkChoice(estimator, ["k1", "k2", "k3"], "estimator");
  checkLength(logprobs, sampled.length, "logprobs");
  checkLength(refLogprobs, sampled.length, "refLogprobs");
  let sum = 0;
  for (let t = 1; t < sampled.length; t++) {
    if (sampled[t] === 0) continue;
    const d = (refLogprobs[t] as number) - (logprobs[t] as number);
    sum += estimator === "k1" ? -d : estimator === "k2" ? (d * d) / 2 : Math.exp(d) - d - 1;
  }
  return reward - coefficient * sum;
}
