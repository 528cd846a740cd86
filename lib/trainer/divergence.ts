import { RolegradError } from "../errors.js";
import type { Trajectory } from "../rollout/trajectory.js";
import type { KlToStart } from "./kl.js";
import type { PackedTrajectories, TrajectoryBatch } from "./packing.js";
import type { AccumulateResult } from "./types.js";

/** The trajectory behind a step that was not taken. `value` is what is wrong of it alone. */
export interface Offending {
  trajectory: string;
  question: string;
  what:
    "recorded log-probability" | "log-probability" | "probability ratio" | "loss" | "gradient norm" | "KL to the start";
  value: number;
  /** Place of a token in the trajectory's ids, and the role that predicted it, where it is a token's. */
  position?: number;
  role?: string;
  /** Of a gradient norm. */
  adapter?: string;
}

/** ERR_LOSS_NOT_FINITE, ERR_LOSS_EXPLODED or ERR_STALE_POLICY of a step: no bit of the adapters has changed in the update that it was found in. */
export class DivergenceError extends RolegradError {
  readonly offending: Offending;

  constructor(code: string, message: string, offending: Offending, cause?: unknown) {
    super(code, message, cause === undefined ? {} : { cause });
    this.offending = offending;
  }
}

/** Whether an error is one of a step that its trajectories led astray. @internal */
export function divergenceOf(error: unknown): Offending | undefined {
  return error instanceof DivergenceError ? error.offending : undefined;
}

/** "trajectory q7#2 (question q7): log-probability NaN at token 31 (role tool)" */
export function offendingText({ trajectory, question, what, value, position, role, adapter }: Offending): string {
  const where = position === undefined ? "" : ` at token ${position}${role === undefined ? "" : ` (role ${role})`}`;
  return `trajectory ${trajectory} (question ${question}): ${what} ${value}${adapter === undefined ? "" : ` of adapter ${adapter}`}${where}`;
}

/** One trajectory's own share of an update: undefined where the engine refused it as not finite. */
export interface Share {
  part: AccumulateResult;
  gradNorms: Record<string, number>;
}

/** What the search for a trajectory works with. */
export interface Suspects {
  packed: PackedTrajectories;
  trajectories: readonly Trajectory[];
  roles: readonly string[];
  /** The gradient of one trajectory alone, in the N of the whole update. */
  share(batch: TrajectoryBatch): Promise<Share | undefined>;
  /** Log-probabilities of a trajectory under the policy. */
  score(trajectory: Trajectory): Promise<Float32Array>;
}

/** The first trajectory, in their order, of which something is not finite; else the one of the largest gradient. */
export async function findNotFinite(suspects: Suspects): Promise<Offending> {
  for (const { batch, trajectory } of each(suspects)) {
    const { id, question } = trajectory;
    const own = { trajectory: id, question };
    const targets = targetsOf(batch);
    const at = (what: Offending["what"], t: number, value: number): Offending => {
      const role = suspects.roles[batch.roles[t - 1] as number];
      return { ...own, what, value, position: t, ...(role !== undefined && { role }) };
    };
    for (const t of targets) {
      const recorded = batch.oldLogprobs[t] as number;
      if (!Number.isFinite(recorded)) return at("recorded log-probability", t, recorded);
    }
    const share = await suspects.share(batch);
    if (share === undefined) {
      const logprobs = await suspects.score(trajectory);
      for (const t of targets) {
        const logprob = logprobs[t] as number;
        if (!Number.isFinite(logprob)) return at("log-probability", t, logprob);
        const ratio = Math.exp(logprob - (batch.oldLogprobs[t] as number));
        // What is beyond f32 is infinite to the engine.
        if (!Number.isFinite(Math.fround(ratio))) return at("probability ratio", t, ratio);
      }
      return { ...own, what: "loss", value: NaN };
    }
    const { part, gradNorms } = share;
    const t = targets.find((target) => !Number.isFinite(part.perTokenLoss[target]));
    if (t !== undefined) return at("loss", t, part.perTokenLoss[t] as number);
    for (const [adapter, value] of Object.entries(gradNorms))
      if (!Number.isFinite(value)) return { ...own, what: "gradient norm", value, adapter };
  }
  return findLargest(suspects, ({ gradNorms }) => Math.max(...Object.values(gradNorms)), "gradient norm");
}

/** The trajectory of the largest number. */
export async function findLargest(
  suspects: Suspects,
  measure: (share: Share) => number,
  what: Offending["what"],
): Promise<Offending> {
  let found: Offending | undefined;
  for (const { batch, trajectory } of each(suspects)) {
    const share = await suspects.share(batch);
    const value = share === undefined ? Infinity : measure(share);
    if (found === undefined || Math.abs(value) > Math.abs(found.value))
      found = { trajectory: trajectory.id, question: trajectory.question, what, value };
  }
  return found ?? fallback(suspects.trajectories, what);
}

/** The trajectory of the largest sum of KL. */
export function findLargestKl(trajectories: readonly Trajectory[], { sums }: KlToStart): Offending {
  let found: Offending | undefined;
  for (const { id, question } of trajectories) {
    const value = sums.get(id) ?? 0;
    if (found === undefined || !(value <= found.value))
      found = { trajectory: id, question, what: "KL to the start", value };
  }
  return found ?? fallback(trajectories, "KL to the start");
}

/** No trajectory teaches anything, so none can be told apart. */
function fallback(trajectories: readonly Trajectory[], what: Offending["what"]): Offending {
  const { id = "", question = "" } = trajectories[0] ?? {};
  return { trajectory: id, question, what, value: NaN };
}

function* each({ packed, trajectories }: Suspects): Generator<{ batch: TrajectoryBatch; trajectory: Trajectory }> {
  const byId = new Map(trajectories.map((trajectory) => [trajectory.id, trajectory]));
  for (const batch of packed.batches)
    for (let s = 0; s + 1 < batch.cuSeqlens.length; s++)
      yield { batch: sequenceOf(batch, s), trajectory: byId.get(batch.keys?.[s] as string) as Trajectory };
}

/** One sequence of a batch as a batch. */
function sequenceOf(batch: TrajectoryBatch, s: number): TrajectoryBatch {
  const begin = batch.cuSeqlens[s] as number;
  const end = batch.cuSeqlens[s + 1] as number;
  const { advantages, cuSeqlens, refLogprobs, behaviourLogprobs, keys = [] } = batch;
  const perToken = advantages.length !== cuSeqlens.length - 1;
  return {
    inputIds: batch.inputIds.slice(begin, end),
    cuSeqlens: Int32Array.of(0, end - begin),
    roles: batch.roles.slice(begin, end),
    lossMask: batch.lossMask.slice(begin, end),
    keys: keys.slice(s, s + 1),
    advantages: perToken ? advantages.slice(begin, end) : advantages.slice(s, s + 1),
    oldLogprobs: batch.oldLogprobs.slice(begin, end),
    ...(batch.routing && { routing: batch.routing.slice(begin, end) }),
    ...(refLogprobs && { refLogprobs: refLogprobs.slice(begin, end) }),
    ...(behaviourLogprobs && { behaviourLogprobs: behaviourLogprobs.slice(begin, end) }),
  };
}

/** Targets of one sequence's loss. */
function targetsOf({ lossMask }: TrajectoryBatch): number[] {
  return Array.from(lossMask.keys()).filter((t) => t > 0 && lossMask[t] !== 0);
}
