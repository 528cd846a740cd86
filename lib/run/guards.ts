import path from "node:path";
import { makeFolder, writeDurable } from "../durable.js";
import { fail, RolegradError } from "../errors.js";
import { serializeTrajectory, type Trajectory } from "../rollout/trajectory.js";
import { divergenceOf, type Offending } from "../trainer/divergence.js";
import type { StepLimits, StepOptions } from "../trainer/step-options.js";
import type { RunDirectory } from "./directory.js";
import type { RunEvent } from "./events.js";
import { guards as schema, type Guards, type GuardSettings } from "./guard-schema.js";
import type { Policy } from "./policy.js";
import type { StepRecord } from "./records.js";
import { RewardWatch } from "./reward-watch.js";

/** What guards work with. */
export interface Guarded {
  policy: Policy;
  directory: RunDirectory;
  /** The run's steps so far. */
  history: readonly StepRecord[];
  tags: ConstructorParameters<typeof RewardWatch>[1];
  /** Answers are written by the policy; false: demonstrations. */
  written: boolean;
  onEvent: (event: RunEvent, trajectory: Trajectory | undefined) => void | Promise<void>;
}

/** Steps with something learned that a median needs. */
const FEWEST = 5;

/** Sees that each step of a run is what it should be: before its update (limits, on policy) and after it (adapters changed, rewards differ). */
export class RunGuards {
  readonly #settings: Guards;
  readonly #guarded: Guarded;
  readonly #rewards: RewardWatch;
  readonly #history: StepRecord[];

  /** Settings that make no sense -> ERR_INVALID_ARGUMENT. */
  constructor(settings: GuardSettings, guarded: Guarded) {
    const parsed = schema.safeParse(settings);
    if (!parsed.success) {
      const [issue] = parsed.error.issues;
      fail("ERR_INVALID_ARGUMENT", `guards.${issue?.path.join(".") ?? ""}: ${issue?.message ?? "invalid"}`);
    }
    this.#settings = parsed.data;
    this.#guarded = guarded;
    this.#history = [...guarded.history];
    this.#rewards = new RewardWatch(guarded.history, guarded.tags);
  }

  /** A step under guard. What ends it is recorded: the trajectory in a file, and an event. */
  async step(
    trajectories: readonly Trajectory[],
    take: (options: Pick<StepOptions, "limits" | "onPolicy">) => Promise<StepRecord>,
  ): Promise<StepRecord> {
    const { policy, written } = this.#guarded;
    const { stalePolicy } = this.#settings;
    const step = policy.steps + 1;
    try {
      if (written && stalePolicy === "stop") checkVersions(trajectories, policy.steps);
      return await take({ limits: this.#limits(), onPolicy: written && stalePolicy === "stop" });
    } catch (error) {
      throw await this.#stopped(step, error, trajectories);
    }
  }

  /** A step that has been taken and recorded. */
  async taken(record: StepRecord, trajectories: readonly Trajectory[]): Promise<void> {
    this.#history.push(record);
    const { written, policy } = this.#guarded;
    const { zeroReward, stalePolicy } = this.#settings;
    // Shuffled routes teach other adapters than those of the roles.
    if (!trajectories.some(({ routing }) => routing !== undefined)) await this.#checkChanged(record);
    if (!written) return;
    const stale = stalePolicy === "warn" && isStale(record, trajectories, policy);
    if (stale) {
      const message = `The first probability ratio of step ${record.step} is ${record.firstRatioMax} away from 1: other adapters sampled its answers`;
      await this.#tell({ step: record.step, event: "stale-policy", message });
    }
    const told = this.#rewards.after(record, trajectories, zeroReward.steps, zeroReward.action === "stop");
    if (told === undefined) return;
    await this.#tell(told.event, told.example);
    if (zeroReward.action !== "stop") return;
    const { message, findings = [] } = told.event;
    const error = new RolegradError("ERR_REWARD_ZERO", `${message}: ${findings.join("; ")}`);
    throw await this.#stopped(record.step, error, trajectories);
  }

  #limits(): StepLimits {
    const { explosion, limits } = this.#settings;
    const { factor, window } = explosion;
    const learned = this.#history.slice(-window);
    const bound = (floor: number, fixed: number | undefined, of: (record: StepRecord) => number | null | undefined) => {
      const values = learned.map(of).filter((value): value is number => typeof value === "number" && value > 0);
      const relative = factor === 0 || values.length < FEWEST ? Infinity : Math.max(floor, factor * median(values));
      return Math.min(relative, fixed ?? Infinity);
    };
    const names = this.#guarded.policy.groups;
    return {
      gradNorm: Object.fromEntries(
        names.map((name) => [name, bound(explosion.gradNorm, limits.gradNorm, ({ gradNorms }) => gradNorms?.[name])]),
      ),
      loss: bound(explosion.loss, limits.loss, ({ loss }) => Math.abs(loss)),
      kl: bound(explosion.kl, limits.kl, ({ klToStart }) => klToStart),
    };
  }

  /** An adapter whose roles' tokens were taught something has other bits now. */
  async #checkChanged({ step, learningRate, adapters, roles }: StepRecord): Promise<void> {
    const { unchanged } = this.#settings;
    const { taughtBy } = this.#guarded.policy;
    if (unchanged === "off" || learningRate === 0) return;
    for (const [name, { gradNorm, updateNorm }] of Object.entries(adapters)) {
      const taught = (taughtBy[name] ?? []).reduce((sum, role) => sum + (roles[role]?.taught ?? 0), 0);
      if (taught === 0 || updateNorm > 0) continue;
      const tokens = `${taught} tokens of its roles were taught in step ${step}`;
      if (gradNorm === 0) {
        // Answers that are alike and earn as much for as against cancel each other: this may be as it should be.
        await this.#tell({
          step,
          event: "no-gradient",
          message: `Adapter ${name} got a gradient of 0 although ${tokens}`,
        });
        continue;
      }
      const message =
        `Expected adapter ${name} to change, as ${tokens} with gradient norm ${gradNorm}, but not a bit of it did: the learning rate of ` +
        `${learningRate} is too small for f32`;
      await this.#tell({ step, event: "adapters-unchanged", message });
      if (unchanged === "stop")
        throw await this.#stopped(step, new RolegradError("ERR_ADAPTERS_UNCHANGED", message), []);
    }
  }

  async #tell(event: RunEvent, trajectory?: Trajectory): Promise<void> {
    await this.#guarded.directory.appendEvent(event);
    await this.#guarded.onEvent(event, trajectory);
  }

  /** Of a step that was taken in part (an update, an agent) there is no checkpoint. */
  async #kept(): Promise<string> {
    const { directory, policy } = this.#guarded;
    const recorded = this.#history.at(-1)?.step ?? 0;
    if (policy.whole && policy.steps === recorded)
      return `What was trained before is kept: ${directory.checkpointPath(recorded)}`;
    const newest = (await directory.checkpoints()).at(-1);
    const from = newest === undefined ? "the beginning: there is no checkpoint yet" : directory.checkpointPath(newest);
    return `Part of step ${recorded + 1} had been taken, and a run goes on from whole steps alone: this one from ${from}`;
  }

  /** The error with what helps to go on; one that is not a guard's is given back as it is. */
  async #stopped(step: number, error: unknown, trajectories: readonly Trajectory[]): Promise<unknown> {
    const offending = divergenceOf(error);
    if (!(error instanceof RolegradError) || (offending === undefined && !(error.code in HOW))) return error;
    const { directory } = this.#guarded;
    const trajectory = trajectories.find(({ id }) => id === offending?.trajectory);
    const file = offending && trajectory && (await writeOffending(directory, step, { error, offending, trajectory }));
    const written = file === undefined ? "" : `. The trajectory is in ${path.join(directory.path, file)}`;
    const message = `${error.message}${written}. ${HOW[error.code] ?? ""} ${await this.#kept()}`;
    await this.#tell(
      {
        step,
        event: "stopped",
        code: error.code,
        message: error.message,
        ...(offending && { trajectory: offending.trajectory }),
        ...(file !== undefined && { file }),
      },
      trajectory,
    );
    return new RolegradError(error.code, message, { cause: error });
  }
}

const HOW: Record<string, string> = {
  ERR_LOSS_NOT_FINITE:
    "The same command would come to the same numbers: look at the trajectory, and begin another run (output) with a lower optimizer.learningRate or " +
    "a longer warmupSteps.",
  ERR_LOSS_EXPLODED:
    "Where this is as it should be, raise guards.explosion or guards.limits and give the same command again: the run goes on. Else begin another run " +
    "(output) with a lower optimizer.learningRate or optimizer.maxGradNorm.",
  ERR_STALE_POLICY:
    'Where another engine samples the answers, set objective.importance, or guards.stalePolicy "warn", and give the same command again.',
  ERR_ADAPTERS_UNCHANGED: "Begin another run (output) with a higher optimizer.learningRate.",
  ERR_REWARD_ZERO: "The same command goes on; guards.zeroReward says when to stop.",
};

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] as number;
}

function checkVersions(trajectories: readonly Trajectory[], version: number): void {
  const stale = trajectories.find(({ policyVersion }) => policyVersion !== version);
  if (stale === undefined) return;
  const { id, question, policyVersion } = stale;
  fail(
    "ERR_STALE_POLICY",
    `Expected answers of policy version ${version} but trajectory ${id} (question ${question}) is of version ${policyVersion}`,
  );
}

function isStale({ firstRatioMax, step }: StepRecord, trajectories: readonly Trajectory[], policy: Policy): boolean {
  const other = trajectories.some(({ policyVersion }) => policyVersion !== step - 1);
  return other || (policy.exact && firstRatioMax > 0);
}

/** Writes trajectories/offending-STEP.json, where what is not finite is a text, and returns its name. */
async function writeOffending(
  directory: RunDirectory,
  step: number,
  { error, offending, trajectory }: { error: RolegradError; offending: Offending; trajectory: Trajectory },
): Promise<string> {
  const name = path.join("trajectories", `offending-${String(step).padStart(6, "0")}.json`);
  const text = (_key: string, value: unknown): unknown =>
    typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
  const { logprobs } = trajectory;
  const plain = {
    ...(JSON.parse(serializeTrajectory(trajectory)) as object),
    logprobs: Array.from(logprobs, (x) => (Number.isFinite(x) ? x : String(x))),
  };
  const content = { step, code: error.code, message: error.message, offending, trajectory: plain };
  await makeFolder(path.join(directory.path, "trajectories"));
  await writeDurable(path.join(directory.path, name), `${JSON.stringify(content, text, 1)}\n`);
  return name;
}
