import { checkInteger, checkObject, checkSignal, describe } from "../arguments.js";
import { fail } from "../errors.js";
import type { GroupAdvantages } from "./packing.js";

/** Numbers of an update above which it is not taken. Without one there is no such limit; what is not finite is never taken. */
export interface StepLimits {
  /** Of the gradient's norm before clipping: of each adapter, or by adapter's name. */
  gradNorm?: number | Record<string, number>;
  /** Of the loss's absolute value. */
  loss?: number;
  /** Of the mean KL to the start; needs `logKl` of the trainer. */
  kl?: number;
}

export interface StepOptions {
  signal?: AbortSignal;
  /** Train on trajectories whose sampling was truncated (top-p, top-k) all the same. @default false */
  allowTruncated?: boolean;
  /** Train on trajectories that a model of another precision sampled (ERR_PRECISION) all the same. @default false */
  allowOtherPrecision?: boolean;
  /**
   * Advantages of one's own instead of the group's: called with each group, its members in the order of their ids; returns an advantage for each, or
   * an array of one for each of its tokens (those of tokens that were not sampled are not read).
   */
  advantages?: GroupAdvantages;
  /**
   * Times that the trajectories are gone through, with an optimizer update each, clipped against the log-probabilities of before. @default 1
   */
  epochs?: number;
  /** Updates of one epoch: whole groups, in the order of their ids, in so many parts of their own N. At most one a group. @default 1 */
  minibatches?: number;
  /** Refuse what has gone astray: ERR_LOSS_EXPLODED, naming the trajectory that contributes most; nothing has changed then. */
  limits?: StepLimits;
  /**
   * Claim that these adapters, as they are, sampled the trajectories with this engine: a probability ratio of the first update that is not
   * exactly 1 -> ERR_STALE_POLICY naming the trajectory, before anything changes. Not checked where ratios need not be 1: with dropout, `importance` or kind
   * "sft". @default false
   */
  onPolicy?: boolean;
  /** Roles that this policy wrote, of those of several agents: the KL to the start is that of their tokens. @internal */
  wrote?: readonly string[];
}

/** ERR_INVALID_ARGUMENT where an option is not what it must be. */
export function checkStepOptions(options: StepOptions): void {
  const { signal, epochs = 1, minibatches = 1, advantages, limits = {}, onPolicy = false } = options;
  checkSignal(signal);
  checkInteger(epochs, "epochs", 1);
  checkInteger(minibatches, "minibatches", 1);
  if (advantages !== undefined && typeof advantages !== "function")
    fail("ERR_INVALID_ARGUMENT", `Expected a function for advantages but received ${describe(advantages)}`);
  if (typeof onPolicy !== "boolean")
    fail("ERR_INVALID_ARGUMENT", `Expected a boolean onPolicy but received ${describe(onPolicy)}`);
  checkObject(limits, "limits");
  const { gradNorm, loss, kl } = limits;
  const byName = typeof gradNorm === "object" && gradNorm !== null ? gradNorm : { "": gradNorm };
  const named = Object.entries(byName).map(([name, value]) => [`gradNorm${name === "" ? "" : `.${name}`}`, value]);
  for (const [name, value] of [...named, ["loss", loss], ["kl", kl]] as [string, unknown][])
    if (value !== undefined && !(typeof value === "number" && value >= 0))
      fail("ERR_INVALID_ARGUMENT", `Expected a limits.${name} of at least 0 but received ${describe(value)}`);
}
