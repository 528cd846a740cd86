import type { Adapters } from "../adapters/adapters.js";
import { abortable } from "../arguments.js";
import { NO_ADAPTERS, type Model } from "../model/model.js";
import type { Trajectory } from "../rollout/trajectory.js";
import { split } from "./packing.js";

/** Log-probabilities of every token of trajectories of one temperature, by id: of a model alone, or with adapters. */
export async function scoreTrajectories(
  trajectories: readonly Trajectory[],
  options: { model: Model; adapters: Adapters | undefined; microBatchTokens: number; signal?: AbortSignal },
): Promise<Map<string, Float32Array>> {
  const { model, adapters, microBatchTokens, signal } = options;
  const scores = new Map<string, Float32Array>();
  for (const part of split(trajectories, microBatchTokens)) {
    const cuSeqlens = new Int32Array(part.length + 1);
    part.forEach(({ ids }, s) => (cuSeqlens[s + 1] = (cuSeqlens[s] as number) + ids.length));
    const total = cuSeqlens.at(-1) as number;
    const inputIds = new Int32Array(total);
    const roles = new Int8Array(total);
    part.forEach((trajectory, s) => {
      inputIds.set(trajectory.ids, cuSeqlens[s]);
      roles.set(trajectory.routing ?? trajectory.roles, cuSeqlens[s]);
    });
    const table = adapters?.adapterOfRole ?? NO_ADAPTERS;
    const temperature = (part[0] as Trajectory).temperature;
    const own = adapters === undefined ? null : roles;
    const job = model.native.forward(
      inputIds,
      cuSeqlens,
      own,
      adapters?.native ?? null,
      table,
      temperature,
      false,
      null,
    );
    const { logprobs } = await abortable(job, signal);
    part.forEach(({ id }, s) => scores.set(id, logprobs.slice(cuSeqlens[s], cuSeqlens[s + 1])));
  }
  return scores;
}
