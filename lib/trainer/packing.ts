import { checkArray, checkObject, describe } from "../arguments.js";
import { fail } from "../errors.js";
import { PRECISIONS, type Precision } from "../model/precision.js";
import type { Trajectory } from "../rollout/trajectory.js";
import { groupAdvantages, penalizedReward, rewardsDiffer } from "./advantages.js";
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
  filteredGroups: number;
}

export interface PackingOptions {
  microBatchTokens: number;
  allowTruncated: boolean;
  /** What the trajectories must have been sampled in; undefined: anything. */
  precision?: Precision;
  roles: readonly string[] | undefined;
}

/** Advantages of a group's members, in the order given: one each, or one a token. */
export type GroupAdvantages = (group: readonly Trajectory[]) => ArrayLike<number | ArrayLike<number>>;

/** Log-probabilities by trajectory's id, [T] each. */
export type Logprobs = ReadonlyMap<string, Float32Array>;

/** What was computed of trajectories before they are packed. */
export interface Prepared {
  /** Under the policy as it is before the step, where `importance` asks for it. */
  old?: Logprobs;
  /** Under the reference, where it is known already. */
  reference?: Logprobs;
}

/** Trajectories that fit each other, in the order of their ids: batch order and split change no bit of a gradient. */
export function orderTrajectories(trajectories: readonly Trajectory[], options: PackingOptions): Trajectory[] {
  const list: unknown = trajectories;
  if (!Array.isArray(list))
    return fail("ERR_INVALID_ARGUMENT", `Expected a list of trajectories but received ${describe(list)}`);
  list.forEach((trajectory, i) => checkObject(trajectory, `trajectories[${i}]`));
  if (trajectories.length === 0) fail("ERR_EMPTY_BATCH", "Expected at least one trajectory but received none");
  const ordered = [...trajectories].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
  ordered.forEach((trajectory, i) => check(trajectory, ordered[i - 1], ordered[0] as Trajectory, options));
  return ordered;
}

/** Advantages by group, then micro-batches, of trajectories that {@link orderTrajectories} gave. */
export function packTrajectories(
  ordered: readonly Trajectory[],
  objective: Objective,
  options: PackingOptions & Prepared & { advantages?: GroupAdvantages },
): PackedTrajectories {
  const temperature = (ordered[0] as Trajectory).temperature || 1;
  const { klCoefficient = 0, klPlacement = "loss", filterGroups = false } = objective;

  const groups = groupBy(ordered);
  const advantageOf = new Map<string, Advantage>();
  const filtered = new Set<string>();
  let mixed = 0;
  for (const [group, members] of groups) {
    const differ = rewardsDiffer(members.map(({ reward }) => reward));
    if (differ) mixed++;
    else if (filterGroups && objective.kind !== "sft") filtered.add(group);
    const advantages = options.advantages
      ? given(options.advantages, members)
      : groupAdvantages(
          members.map((trajectory) => penalized(trajectory, objective, options)),
          { standardize: objective.standardize ?? true, estimator: objective.advantageEstimator ?? "grpo" },
        );
    members.forEach(({ id }, i) => advantageOf.set(id, advantages[i] as Advantage));
  }
  const kept = ordered.filter(({ group }) => !filtered.has(group));

  const roleNames = options.roles ?? [];
  const sampledByRole: Record<string, number> = Object.fromEntries(roleNames.map((role) => [role, 0]));
  let sampledTokens = 0;
  let sampledSequences = 0;
  for (const { sampled, roles, group } of ordered) {
    let own = 0;
    for (let t = 1; t < sampled.length; t++) {
      if (sampled[t] === 0) continue;
      own++;
      const role = roleNames[roles[t - 1] as number];
      if (role !== undefined) sampledByRole[role] = (sampledByRole[role] ?? 0) + 1;
    }
    if (filtered.has(group)) continue;
    sampledTokens += own;
    if (own > 0) sampledSequences++;
  }
  // Advantage 0 and no KL: the gradient is exactly zero, and the tokens are counted above.
  const teaches = (advantage: Advantage): boolean =>
    typeof advantage === "number" ? advantage !== 0 : advantage.some((a) => a !== 0);
  const inLoss =
    objective.kind === "sft" ||
    (klCoefficient !== 0 && klPlacement === "loss") ||
    (objective.entropyCoefficient ?? 0) !== 0;
  const taught = kept.filter(({ id }) => inLoss || teaches(advantageOf.get(id) as Advantage));
  return {
    batches: split(taught, options.microBatchTokens).map((part) => pack(part, advantageOf, options)),
    temperature,
    sampledTokens,
    sampledSequences,
    sampledByRole,
    tokens: ordered.reduce((sum, { ids }) => sum + ids.length, 0),
    reward: ordered.reduce((sum, { reward }) => sum + reward, 0) / ordered.length,
    mixedGroups: mixed / groups.size,
    filteredGroups: filtered.size,
  };
}

/** Of a sequence, or of each of its tokens. */
type Advantage = number | Float64Array;

/** What the caller's own function says of a group, checked. */
function given(advantages: GroupAdvantages, members: readonly Trajectory[]): Advantage[] {
  const group = (members[0] as Trajectory).group;
  const list: unknown = advantages(members);
  if (!(Array.isArray(list) || ArrayBuffer.isView(list)) || (list as unknown as unknown[]).length !== members.length) {
    fail(
      "ERR_INVALID_ARGUMENT",
      `Expected ${members.length} advantages of group ${group} but received ${describe(list)}`,
    );
  }
  return members.map(({ id, ids, sampled }, i) => {
    const own = (list as unknown as ArrayLike<number | ArrayLike<number>>)[i] as number | ArrayLike<number>;
    if (typeof own === "number") {
      if (!Number.isFinite(own))
        fail("ERR_NOT_FINITE", `Expected a finite advantage of trajectory ${id} but it is ${own}`);
      return own;
    }
    if (own?.length !== ids.length)
      fail(
        "ERR_SHAPE",
        `Expected one advantage or ${ids.length} (one a token) of trajectory ${id} but received ${describe(own)}`,
      );
    // Only those of sampled tokens are read.
    const values = Float64Array.from(own, (a, t) => (sampled[t] === 1 ? a : 0));
    const wrong = values.findIndex((a) => !Number.isFinite(a));
    if (wrong >= 0)
      fail(
        "ERR_NOT_FINITE",
        `Expected finite advantages of trajectory ${id} but that of token ${wrong} is ${values[wrong]}`,
      );
    return values;
  });
}

function penalized(trajectory: Trajectory, objective: Objective, { old, reference }: Prepared): number {
  const refLogprobs = reference?.get(trajectory.id);
  if (refLogprobs === undefined || objective.klPlacement !== "reward") return trajectory.reward;
  const { id, reward, sampled, logprobs } = trajectory;
  return penalizedReward(reward, {
    sampled,
    logprobs: old?.get(id) ?? logprobs,
    refLogprobs,
    coefficient: objective.klCoefficient ?? 0,
    estimator: objective.klEstimator ?? "k3",
  });
}

function check(
  trajectory: Trajectory,
  previous: Trajectory | undefined,
  first: Trajectory,
  { allowTruncated, precision: wanted }: PackingOptions,
): void {
  const { id, group, ids, roles, routing, sampled, logprobs, reward, topP, topK, temperature } = trajectory;
  const { precision = "exact" } = trajectory;
  if (typeof id !== "string" || typeof group !== "string")
    fail(
      "ERR_TRAJECTORY",
      `Expected an id and a group that are strings but received ${describe(id)}, ${describe(group)}`,
    );
  checkArray(ids, Int32Array, `ids of trajectory ${id}`);
  checkArray(roles, Int8Array, `roles of trajectory ${id}`);
  if (routing !== undefined) checkArray(routing, Int8Array, `routing of trajectory ${id}`);
  checkArray(sampled, Uint8Array, `sampled of trajectory ${id}`);
  checkArray(logprobs, Float32Array, `logprobs of trajectory ${id}`);
  for (const [name, value] of Object.entries({ topP, topK, temperature })) {
    if (typeof value !== "number" || Number.isNaN(value))
      fail("ERR_TRAJECTORY", `Expected a number for ${name} of trajectory ${id} but received ${describe(value)}`);
  }
  if (previous?.id === id) fail("ERR_TRAJECTORY", `Expected distinct trajectory ids but received ${id} twice`);
  if ([roles, sampled, logprobs, routing ?? ids].some(({ length }) => length !== ids.length)) {
    fail("ERR_SHAPE", `Expected ids, roles, sampled, logprobs and routing of one length in trajectory ${id}`);
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
  if (wanted !== undefined && trajectory.sampler !== undefined) {
    fail(
      "ERR_IMPORTANCE",
      `Expected objective.importance for trajectories that another engine sampled, but ${id} is of ${describe(trajectory.sampler)} and there ` +
        "is none: its ratios would not begin at 1. allowOtherPrecision: true trains on it all the same",
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

export function split(trajectories: readonly Trajectory[], limit: number): Trajectory[][] {
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

function pack(
  trajectories: readonly Trajectory[],
  advantageOf: ReadonlyMap<string, Advantage>,
  { old, reference }: Prepared,
): TrajectoryBatch {
  const total = trajectories.reduce((sum, { ids }) => sum + ids.length, 0);
  const perToken = trajectories.some(({ id }) => typeof advantageOf.get(id) !== "number");
  const rerouted = trajectories.some(({ routing }) => routing !== undefined);
  const batch: TrajectoryBatch & { refLogprobs?: Float32Array; behaviourLogprobs?: Float32Array } = {
    inputIds: new Int32Array(total),
    cuSeqlens: new Int32Array(trajectories.length + 1),
    roles: new Int8Array(total),
    ...(rerouted && { routing: new Int8Array(total) }),
    lossMask: new Uint8Array(total),
    keys: trajectories.map(({ id }) => id),
    advantages: perToken
      ? new Float64Array(total)
      : Float64Array.from(trajectories, ({ id }) => advantageOf.get(id) as number),
    oldLogprobs: new Float32Array(total),
    ...(reference && { refLogprobs: new Float32Array(total) }),
    ...(old && { behaviourLogprobs: new Float32Array(total) }),
  };
  let at = 0;
  trajectories.forEach(({ id, ids, roles, routing, sampled, logprobs }, s) => {
    batch.inputIds.set(ids, at);
    batch.roles.set(roles, at);
    batch.routing?.set(routing ?? roles, at);
    batch.lossMask.set(sampled, at);
    batch.oldLogprobs.set(old?.get(id) ?? logprobs, at);
    batch.behaviourLogprobs?.set(logprobs, at);
    batch.refLogprobs?.set(reference?.get(id) as Float32Array, at);
    const advantage = advantageOf.get(id) as Advantage;
    if (perToken && typeof advantage === "number") batch.advantages.fill(advantage, at, at + ids.length);
    else if (typeof advantage !== "number") batch.advantages.set(advantage, at);
    at += ids.length;
    batch.cuSeqlens[s + 1] = at;
  });
  return batch;
}

/** Whole groups, in the order of their first member's id, in `parts` parts that are as even as groups allow. */
export function cutByGroup(ordered: readonly Trajectory[], parts: number): Trajectory[][] {
  const groups = [...groupBy(ordered).values()];
  const count = Math.min(parts, groups.length);
  return Array.from({ length: count }, (_, i) =>
    groups
      .slice(Math.floor((groups.length * i) / count), Math.floor((groups.length * (i + 1)) / count))
      .flat()
      .sort((a, b) => (a.id < b.id ? -1 : 1)),
  );
}
