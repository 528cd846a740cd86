import { checkArray, checkObject, describe } from "../arguments.js";
import { fail } from "../errors.js";
import { PRECISIONS, type Precision } from "../model/precision.js";
import type { Trajectory } from "../rollout/trajectory.js";
import { groupAdvantages } from "./advantages.js";
import type { Objective, TrainingBatch } from "./types.js";

/** A micro-batch made of trajectories. */
export interface TrajectoryBatch extends TrainingBatch {
  roles: Int8Array;
  advantages: Float64Array;
  oldLogprobs: Float32Array;
}

export interface PackedTrajectories {
  batches: TrajectoryBatch[];
  temperature: number;
  /** Of all trajectories, those without an advantage included. */
  sampledTokens: number;
  sampledSequences: number;
  sampledByRole: Record<string, number>;
  tokens: number;
  reward: number;
  mixedGroups: number;
}

export interface PackingOptions {
  microBatchTokens: number;
  allowTruncated: boolean;
  /** What the trajectories must have been sampled in; undefined: anything. */
  precision?: Precision;
  roles: readonly string[] | undefined;
}

/** Advantages by group, then micro-batches in the order of the trajectories' ids: batch order and split change no bit of a gradient. */
export function packTrajectories(
  trajectories: readonly Trajectory[],
  objective: Objective,
  options: PackingOptions,
): PackedTrajectories {
  const list: unknown = trajectories;
  if (!Array.isArray(list))
    return fail("ERR_INVALID_ARGUMENT", `Expected a list of trajectories but received ${describe(list)}`);
  list.forEach((trajectory, i) => checkObject(trajectory, `trajectories[${i}]`));
  if (trajectories.length === 0) fail("ERR_EMPTY_BATCH", "Expected at least one trajectory but received none");
  const ordered = [...trajectories].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
  ordered.forEach((trajectory, i) => check(trajectory, ordered[i - 1], ordered[0] as Trajectory, options));
  const temperature = (ordered[0] as Trajectory).temperature || 1;

  const groups = groupBy(ordered);
  const advantageOf = new Map<string, number>();
  let mixed = 0;
  for (const members of groups.values()) {
    const advantages = groupAdvantages(
      members.map(({ reward }) => reward),
      { standardize: objective.standardize ?? true },
    );
    members.forEach(({ id }, i) => advantageOf.set(id, advantages[i] as number));
    if (advantages.some((a) => a !== 0)) mixed++;
  }

  const roleNames = options.roles ?? [];
  const sampledByRole: Record<string, number> = Object.fromEntries(roleNames.map((role) => [role, 0]));
  let sampledTokens = 0;
  let sampledSequences = 0;
  for (const { sampled, roles } of ordered) {
    let own = 0;
    for (let t = 1; t < sampled.length; t++) {
      if (sampled[t] === 0) continue;
      own++;
      const role = roleNames[roles[t - 1] as number];
      if (role !== undefined) sampledByRole[role] = (sampledByRole[role] ?? 0) + 1;
    }
    sampledTokens += own;
    if (own > 0) sampledSequences++;
  }
  // Advantage 0 and no KL: the gradient is exactly zero, and the tokens are counted above.
  const taught = ordered.filter(({ id }) => advantageOf.get(id) !== 0 || (objective.klCoefficient ?? 0) !== 0);
  return {
    batches: split(taught, options.microBatchTokens).map((part) => pack(part, advantageOf)),
    temperature,
    sampledTokens,
    sampledSequences,
    sampledByRole,
    tokens: ordered.reduce((sum, { ids }) => sum + ids.length, 0),
    reward: ordered.reduce((sum, { reward }) => sum + reward, 0) / ordered.length,
    mixedGroups: mixed / groups.size,
  };
}

function check(
  trajectory: Trajectory,
  previous: Trajectory | undefined,
  first: Trajectory,
  { allowTruncated, precision: wanted }: PackingOptions,
): void {
  const { id, group, ids, roles, sampled, logprobs, reward, topP, topK, temperature } = trajectory;
  const { precision = "exact" } = trajectory;
  if (typeof id !== "string" || typeof group !== "string")
    fail(
      "ERR_TRAJECTORY",
      `Expected an id and a group that are strings but received ${describe(id)}, ${describe(group)}`,
    );
  checkArray(ids, Int32Array, `ids of trajectory ${id}`);
  checkArray(roles, Int8Array, `roles of trajectory ${id}`);
  checkArray(sampled, Uint8Array, `sampled of trajectory ${id}`);
  checkArray(logprobs, Float32Array, `logprobs of trajectory ${id}`);
  for (const [name, value] of Object.entries({ topP, topK, temperature })) {
    if (typeof value !== "number" || Number.isNaN(value))
      fail("ERR_TRAJECTORY", `Expected a number for ${name} of trajectory ${id} but received ${describe(value)}`);
  }
  if (previous?.id === id) fail("ERR_TRAJECTORY", `Expected distinct trajectory ids but received ${id} twice`);
  if (roles.length !== ids.length || sampled.length !== ids.length || logprobs.length !== ids.length) {
    fail("ERR_SHAPE", `Expected ids, roles, sampled and logprobs of one length in trajectory ${id}`);
  }
  if (!Number.isFinite(reward))
    fail("ERR_NOT_FINITE", `Expected a finite reward for trajectory ${id} but received ${describe(reward)}`);
  if (!allowTruncated && (topP < 1 || topK > 0)) {
    fail(
      "ERR_TRUNCATED_SAMPLING",
      `Expected untruncated sampling but trajectory ${id} has topP ${topP}, topK ${topK}: its ratios would be wrong`,
    );
  }
  if (!PRECISIONS.includes(precision)) {
    fail(
      "ERR_TRAJECTORY",
      `Expected precision "exact" or "bf16-multiply" of trajectory ${id} but received ${describe(precision)}`,
    );
  }
  if (wanted !== undefined && precision !== wanted) {
    fail(
      "ERR_PRECISION",
      `Expected trajectories that a model of precision "${wanted}" sampled, as the trained one is, but ${id} is of "${precision}": its ratios ` +
        "would not begin at 1. allowOtherPrecision: true trains on it all the same",
    );
  }
  if (temperature !== first.temperature) {
    fail(
      "ERR_TRAJECTORY",
      `Expected one temperature in a batch but trajectories ${first.id} and ${id} have ${first.temperature} and ${temperature}`,
    );
  }
  if (temperature === 0) fail("ERR_TRUNCATED_SAMPLING", `Expected sampled trajectories but ${id} was decoded greedily`);
}

function groupBy(trajectories: readonly Trajectory[]): Map<string, Trajectory[]> {
  const groups = new Map<string, Trajectory[]>();
  for (const trajectory of trajectories) {
    const members = groups.get(trajectory.group);
    if (members === undefined) groups.set(trajectory.group, [trajectory]);
    else members.push(trajectory);
  }
  return groups;
}

function split(trajectories: readonly Trajectory[], limit: number): Trajectory[][] {
  const parts: Trajectory[][] = [];
  let room = 0;
  for (const trajectory of trajectories) {
    if (trajectory.ids.length > room || parts.length === 0) {
      parts.push([]);
      room = limit;
    }
    room -= trajectory.ids.length;
    parts.at(-1)?.push(trajectory);
  }
  return parts;
}

function pack(trajectories: readonly Trajectory[], advantageOf: ReadonlyMap<string, number>): TrajectoryBatch {
  const total = trajectories.reduce((sum, { ids }) => sum + ids.length, 0);
  const batch = {
    inputIds: new Int32Array(total),
    cuSeqlens: new Int32Array(trajectories.length + 1),
    roles: new Int8Array(total),
    lossMask: new Uint8Array(total),
    keys: trajectories.map(({ id }) => id),
    advantages: Float64Array.from(trajectories, ({ id }) => advantageOf.get(id) as number),
    oldLogprobs: new Float32Array(total),
  };
  let at = 0;
  trajectories.forEach(({ ids, roles, sampled, logprobs }, s) => {
    batch.inputIds.set(ids, at);
    batch.roles.set(roles, at);
    batch.lossMask.set(sampled, at);
    batch.oldLogprobs.set(logprobs, at);
    at += ids.length;
    batch.cuSeqlens[s + 1] = at;
  });
  return batch;
}
