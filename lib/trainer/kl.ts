import type { Trajectory } from "../rollout/trajectory.js";
import type { Logprobs } from "./packing.js";

/** The k3 estimate of the KL to the reference over sampled tokens. */
export interface KlToStart {
  /** Means over all sampled tokens, and over those of each role; null: there are none. */
  mean: number | null;
  byRole: (number | null)[];
  /** Sums, by trajectory's id. */
  sums: ReadonlyMap<string, number>;
}

/** Of trajectories in their order, token by token; `logprobs` those of the policy where they are not the recorded ones; `wrote`: its roles. */
export function klToStart(
  trajectories: readonly Trajectory[],
  reference: Logprobs,
  logprobs: Logprobs | undefined,
  roles: readonly string[],
  wrote: readonly string[] = roles,
): KlToStart {
  const others = roles.map((role) => !wrote.includes(role));
  const all = { sum: 0, count: 0 };
  const own = roles.map(() => ({ sum: 0, count: 0 }));
  const sums = new Map<string, number>();
  for (const { id, sampled, roles: of, logprobs: recorded } of trajectories) {
    const ref = reference.get(id) as Float32Array;
    const policy = logprobs?.get(id) ?? recorded;
    let sum = 0;
    for (let t = 1; t < sampled.length; t++) {
      if (sampled[t] === 0 || others[of[t - 1] as number] === true) continue;
      const d = (ref[t] as number) - (policy[t] as number);
      const k3 = Math.exp(d) - d - 1;
      sum += k3;
      for (const part of [all, own[of[t - 1] as number]]) {
        if (part === undefined) continue;
        part.sum += k3;
        part.count++;
      }
    }
    sums.set(id, sum);
  }
  const mean = ({ sum, count }: { sum: number; count: number }): number | null => (count === 0 ? null : sum / count);
  return { mean: mean(all), byRole: own.map(mean), sums };
}
