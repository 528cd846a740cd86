import type { Adapters } from "../adapters/adapters.js";
import { fail } from "../errors.js";
import type { Model } from "../model/model.js";
import type { Trajectory } from "../rollout/trajectory.js";
import type { ResolvedObjective } from "./batch.js";
import { orderTrajectories, packTrajectories, type PackedTrajectories, type PackingOptions } from "./packing.js";
import { scoreTrajectories } from "./scoring.js";
import { klToStart, type KlToStart } from "./kl.js";
import type { StepOptions } from "./step-options.js";

/** Trajectories in the order of a step; `make` packs them all, or some of them. */
export interface PreparedTrajectories {
  ordered: Trajectory[];
  make: (part?: readonly Trajectory[]) => PackedTrajectories;
  /** Where it is asked for. */
  kl?: KlToStart;
}

/** What is trained, and by what. */
interface Policy {
  model: Model;
  adapters: Adapters | undefined;
  reference: Model | undefined;
  objective: ResolvedObjective;
  microBatchTokens: number;
  roles: readonly string[];
  /** Measure the KL to the reference, whatever the objective does with it. */
  logKl: boolean;
}

/** Checks trajectories and computes what the objective needs of them beforehand: log-probabilities of this model's own, and the reference's. */
export async function prepareTrajectories(
  trajectories: readonly Trajectory[],
  { model, adapters, reference, objective, microBatchTokens, roles, logKl }: Policy,
  { signal, allowTruncated = false, allowOtherPrecision = false, advantages, wrote }: StepOptions,
): Promise<PreparedTrajectories> {
  const { kind, importance, klCoefficient, klPlacement } = objective;
  const options: PackingOptions = {
    microBatchTokens,
    // Supervised, no log-probability is read.
    allowTruncated: allowTruncated || kind === "sft",
    // With importance weights the ratios are to log-probabilities of this model's own.
    ...(allowOtherPrecision || importance !== undefined || kind === "sft" ? {} : { precision: model.precision }),
    roles,
  };
  const ordered = orderTrajectories(trajectories, options);
  const scoring = { microBatchTokens, ...(signal && { signal }) };
  const old = importance && (await scoreTrajectories(ordered, { ...scoring, model, adapters }));
  const penalty = kind === "policy" && klPlacement === "reward" && klCoefficient > 0;
  if (penalty && adapters === undefined && reference === undefined)
    fail("ERR_REFERENCE", "Expected a reference model for klCoefficient > 0 in full training but received none");
  const measured = logKl && kind === "policy";
  const ref =
    (penalty || measured) &&
    (await scoreTrajectories(ordered, { ...scoring, model: reference ?? model, adapters: undefined }));
  const prepared = {
    ...options,
    ...(old && { old }),
    // Where it enters the loss the engine need not compute it again: the bits are the same.
    ...(ref && klCoefficient > 0 && { reference: ref }),
    ...(advantages && { advantages }),
  };
  return {
    ordered,
    make: (part = ordered) => packTrajectories(part, objective, prepared),
    ...(ref && measured && { kl: klToStart(ordered, ref, old || undefined, roles, wrote) }),
  };
}
