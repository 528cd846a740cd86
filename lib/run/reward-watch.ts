import type { Trajectory } from "../rollout/trajectory.js";
import type { RoleSpan } from "../roles/router.js";
import { explainReward } from "./diagnosis.js";
import type { RunEvent } from "./events.js";
import type { StepRecord } from "./records.js";

/** Counts steps in a row from which nothing can be learned: all answers to each question earn the same. */
export class RewardWatch {
  readonly #tags: { spans: readonly RoleSpan[]; answer: { open: string; close: string } };
  #streak = 0;
  /** All of the streak earned exactly nothing. */
  #zero = true;

  constructor(history: readonly StepRecord[], tags: RewardWatch["tags"]) {
    this.#tags = tags;
    for (const record of history) this.#count(record);
  }

  get tags() {
    return this.#tags;
  }

  /** The event where the streak has reached `steps` with this step (with `again`: also at each multiple). */
  after(
    record: StepRecord,
    trajectories: readonly Trajectory[],
    steps: number,
    again: boolean,
  ): { event: RunEvent; example: Trajectory | undefined } | undefined {
    this.#count(record);
    if (steps === 0 || this.#streak === 0) return undefined;
    if (again ? this.#streak % steps !== 0 : this.#streak !== steps) return undefined;
    const why = explainReward(trajectories, this.#tags);
    const example = why?.example ?? trajectories[0];
    const findings = why?.findings ?? [
      `all answers to each question earn the same (${record.reward.toFixed(3)} in the mean), so there is nothing to prefer: the questions may be ` +
        "too easy by now, or the reward too coarse; harder questions, a finer reward or more answers a question (group) would help",
    ];
    const what = this.#zero ? "The reward is 0" : "All answers to each question earn the same";
    return {
      event: {
        step: record.step,
        event: this.#zero ? "zero-reward" : "equal-rewards",
        message: `${what} for ${this.#streak} steps in a row, so nothing was learned`,
        steps: this.#streak,
        findings,
        ...(example && { trajectory: example.id }),
      },
      example,
    };
  }

  #count({ reward, mixedGroups }: StepRecord): void {
    if (mixedGroups > 0) {
      this.#streak = 0;
      this.#zero = true;
      return;
    }
    this.#streak++;
    this.#zero &&= reward === 0;
  }
}
