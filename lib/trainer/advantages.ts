import { checkNumbers, checkObject } from "../arguments.js";

/**
 * Advantages of one group: (R - mean) / (unbiased standard deviation + 1e-6); without `standardize` R - mean (Dr. GRPO). A group of one, or
 * of equal rewards, has advantage 0 (method.md, section 3).
 *
 * @example
 * groupAdvantages([1, 0, 0, 1]); // Float64Array [0.866, -0.866, -0.866, 0.866]
 */
export function groupAdvantages(rewards: ArrayLike<number>, options: { standardize?: boolean } = {}): Float64Array {
  checkNumbers(rewards, "rewards");
  checkObject(options, "options");
  const { standardize = true } = options;
  const n = rewards.length;
  let mean = 0;
  for (let i = 0; i < n; i++) mean += (rewards[i] as number) / n;
  const centred = Float64Array.from(rewards, (reward) => reward - mean);
  if (n < 2 || Array.prototype.every.call(rewards, (reward: number) => reward === rewards[0])) return centred.fill(0);
  if (!standardize) return centred;
  let squares = 0;
  for (const x of centred) squares += x * x;
  const deviation = Math.sqrt(squares / (n - 1)) + 1e-6;
  return centred.map((x) => x / deviation);
}
