import { checkObject, describe } from "../arguments.js";
import { fail } from "../errors.js";
import { judge } from "./judge.js";
import type { Reward } from "./types.js";

export interface WeightedPart {
  reward: Reward;
  /** Any finite number; below 0 it is a penalty. @default 1 */
  weight?: number;
  /** Under which the part is recorded; distinct. */
  name: string;
}

/**
 * The sum of weight times score, added in the order of the list. The scores themselves, before their weights, are recorded by name as
 * `Trajectory.rewardParts`; parts of a part as "name.part". The rewards are asked at the same time. No part, a name twice or a weight that is no finite
 * number -> ERR_INVALID_ARGUMENT; a part that fails or is not finite -> ERR_REWARD, naming it and the question.
 *
 * @example
 * const reward = weightedReward([
 *   { name: "f1", reward: f1Reward() },
 *   { name: "format", reward: formatReward(), weight: 0.1 },
 * ]);
 */
export function weightedReward(parts: readonly WeightedPart[]): Reward {
  if (!Array.isArray(parts) || parts.length === 0)
    fail("ERR_INVALID_ARGUMENT", `Expected a list of rewards but received ${describe(parts)}`);
  const list = parts.map((part: WeightedPart, i) => {
    checkObject(part, `rewards[${i}]`);
    const { reward, weight = 1, name } = part;
    if (typeof reward !== "function")
      fail("ERR_INVALID_ARGUMENT", `Expected a function for rewards[${i}].reward but received ${describe(reward)}`);
    if (typeof name !== "string" || name === "")
      fail("ERR_INVALID_ARGUMENT", `Expected a name for rewards[${i}].name but received ${describe(name)}`);
    if (!Number.isFinite(weight))
      fail("ERR_INVALID_ARGUMENT", `Expected a finite weight of reward ${name} but received ${describe(weight)}`);
    return { reward, weight, name };
  });
  const twice = list.find(({ name }, i) => list.findIndex((other) => other.name === name) !== i);
  if (twice !== undefined)
    fail("ERR_INVALID_ARGUMENT", `Expected distinct names of rewards but received ${twice.name} twice`);
  return async (trajectory, question) => {
    const judged = await Promise.all(
      list.map(async ({ reward, weight, name }) => ({
        name,
        weight,
        ...(await judge(reward, trajectory, question, name)),
      })),
    );
    const score = judged.reduce((sum, { weight, reward }) => sum + weight * reward, 0);
    const named = judged.flatMap(({ name, reward, rewardParts = {} }) => [
      [name, reward] as const,
      ...Object.entries(rewardParts).map(([part, value]) => [`${name}.${part}`, value] as const),
    ]);
    return { score, parts: Object.fromEntries(named) };
  };
}
