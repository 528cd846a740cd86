import { checkArray, checkLength } from "../arguments.js";
import { fail } from "../errors.js";
import type { Objective, TrainingBatch } from "./types.js";

/** Lengths and values of a batch that the engine relies on. */
export function checkBatch(batch: TrainingBatch, kind: "policy" | "sft"): void {
  const { inputIds, cuSeqlens, roles, lossMask, lossWeights, advantages, oldLogprobs, refLogprobs } = batch;
  checkArray(inputIds, Int32Array, "inputIds");
  checkArray(cuSeqlens, Int32Array, "cuSeqlens");
  checkArray(lossMask, Uint8Array, "lossMask");
  if (inputIds.length === 0 || cuSeqlens.length < 2) {
    fail("ERR_EMPTY_BATCH", "Expected at least one sequence with a token but received an empty batch");
  }
  const total = inputIds.length;
  checkLength(lossMask, total, "lossMask");
  if (roles !== undefined) {
    checkArray(roles, Int8Array, "roles");
    checkLength(roles, total, "roles");
  }
  if (lossWeights !== undefined) {
    checkLength(lossWeights, total, "lossWeights");
    const wrong = lossWeights.findIndex((w, t) => lossMask[t] !== 0 && !Number.isFinite(w));
    if (wrong >= 0)
      fail("ERR_NOT_FINITE", `Expected finite lossWeights but lossWeights[${wrong}] is ${lossWeights[wrong]}`);
  }
  if (refLogprobs !== undefined) checkLength(refLogprobs, total, "refLogprobs");
  if (kind === "sft") return;
  if (advantages === undefined || oldLogprobs === undefined) {
    fail("ERR_INVALID_ARGUMENT", 'Expected advantages and oldLogprobs for the objective "policy"');
  }
  const sequences = cuSeqlens.length - 1;
  if (advantages.length !== sequences && advantages.length !== total) {
    fail(
      "ERR_SHAPE",
      `Expected advantages of length ${sequences} (sequences) or ${total} (tokens) but received ${advantages.length}`,
    );
  }
  const wrong = advantages.findIndex((a) => !Number.isFinite(a));
  if (wrong >= 0) fail("ERR_NOT_FINITE", `Expected finite advantages but advantages[${wrong}] is ${advantages[wrong]}`);
  checkLength(oldLogprobs, total, "oldLogprobs");
  for (const [name, values] of [
    ["oldLogprobs", oldLogprobs],
    ["refLogprobs", refLogprobs],
  ] as const) {
    const at = values?.findIndex((x, t) => lossMask[t] !== 0 && !Number.isFinite(x) && !cuSeqlens.includes(t)) ?? -1;
    if (at >= 0)
      fail("ERR_NOT_FINITE", `Expected finite ${name} where lossMask is 1 but ${name}[${at}] is ${values?.[at]}`);
  }
}

/** Sampled targets: tokens for "token-mean", sequences with one for the others. Masks by role do not enter (method.md, section 3). */
export function batchNormalizer(
  batch: Pick<TrainingBatch, "cuSeqlens" | "lossMask" | "lossWeights">,
  objective: Objective,
): number {
  const { cuSeqlens, lossMask, lossWeights } = batch;
  let tokens = 0;
  let sequences = 0;
  for (let s = 0; s + 1 < cuSeqlens.length; s++) {
    let own = 0;
    for (let t = (cuSeqlens[s] as number) + 1; t < (cuSeqlens[s + 1] as number); t++) {
      if (lossMask[t] !== 0) own += objective.kind === "sft" ? (lossWeights?.[t] ?? 1) : 1;
    }
    tokens += own;
    if (own > 0) sequences++;
  }
  return (objective.aggregation ?? "token-mean") === "token-mean" ? tokens : sequences;
}

/** m_t / N (or the other aggregations' weights) of every target [total]; 0 where masked or of a role that is not trained. */
export function tokenWeights(
  batch: TrainingBatch,
  roles: Int8Array,
  objective: Objective,
  normalizer: number,
  trained: ReadonlySet<number> | undefined,
): Float64Array {
  const { cuSeqlens, lossMask, lossWeights } = batch;
  const { aggregation = "token-mean", normLength } = objective;
  const weights = new Float64Array(lossMask.length);
  for (let s = 0; s + 1 < cuSeqlens.length; s++) {
    const begin = (cuSeqlens[s] as number) + 1;
    const end = cuSeqlens[s + 1] as number;
    let own = 0;
    for (let t = begin; t < end; t++) own += lossMask[t] !== 0 ? 1 : 0;
    const divisor =
      aggregation === "token-mean"
        ? normalizer
        : (aggregation === "seq-mean-token-mean" ? own : (normLength as number)) * normalizer;
    for (let t = begin; t < end; t++) {
      // A target's role is that of the position which predicts it.
      if (lossMask[t] === 0 || (trained !== undefined && !trained.has(roles[t - 1] as number))) continue;
      weights[t] = (lossWeights?.[t] ?? 1) / divisor;
    }
  }
  return weights;
}
