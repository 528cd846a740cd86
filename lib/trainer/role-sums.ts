import type { ResolvedObjective } from "./batch.js";
import type { TrajectoryBatch } from "./packing.js";
import type { AccumulateResult } from "./types.js";

interface Sums {
  /** Tokens of the loss, and those of them with an advantage (all under "sft"). */
  tokens: number;
  taught: number;
  loss: number;
  absolute: number;
  clipHigh: number;
  clipLow: number;
}

/** Sums over tokens of the loss by the role that predicted them, in the order of the tokens. */
export class RoleSums {
  readonly #sums: Sums[];

  constructor(roles: readonly string[]) {
    this.#sums = roles.map(() => ({ tokens: 0, taught: 0, loss: 0, absolute: 0, clipHigh: 0, clipLow: 0 }));
  }

  /** weights [total] by target, 0: not of the loss. */
  add(batch: TrajectoryBatch, part: AccumulateResult, weights: Float64Array, objective: ResolvedObjective): void {
    const { kind, clipLow, clipHigh } = objective;
    for (let s = 0; s + 1 < batch.cuSeqlens.length; s++) {
      const begin = (batch.cuSeqlens[s] as number) + 1;
      const end = batch.cuSeqlens[s + 1] as number;
      const shared = objective.ratio === "sequence" ? sequenceRatio(batch, part, weights, begin, end) : undefined;
      for (let t = begin; t < end; t++) {
        const own = this.#sums[batch.roles[t - 1] as number];
        if (weights[t] === 0 || own === undefined) continue;
        own.tokens++;
        const loss = (weights[t] as number) * (part.perTokenLoss[t] as number);
        own.loss += loss;
        own.absolute += Math.abs(loss);
        const advantage = kind === "sft" ? 0 : advantageOf(batch, s, t);
        if (kind === "sft" || advantage !== 0) own.taught++;
        if (kind === "sft" || leftOut(batch, t, objective)) continue;
        const ratio = shared ?? Math.exp((part.logprobs[t] as number) - (batch.oldLogprobs[t] as number));
        if (advantage > 0 && ratio > 1 + clipHigh) own.clipHigh++;
        if (advantage < 0 && ratio < 1 - clipLow) own.clipLow++;
      }
    }
  }

  /** Of each role: what StepMetrics.roles says of the loss, over `updates` updates that go through the tokens `epochs` times. */
  metrics(updates: number, epochs: number) {
    const total = this.#sums.reduce((sum, { absolute }) => sum + absolute, 0);
    return this.#sums.map(({ tokens, taught, loss, absolute, clipHigh, clipLow }) => ({
      taught: taught / epochs,
      loss: loss / updates,
      lossShare: total === 0 ? null : absolute / total,
      clip: tokens === 0 ? null : (clipHigh + clipLow) / tokens,
      clipHigh: tokens === 0 ? null : clipHigh / tokens,
      clipLow: tokens === 0 ? null : clipLow / tokens,
    }));
  }
}

function advantageOf({ advantages, cuSeqlens }: TrajectoryBatch, sequence: number, target: number): number {
  return advantages[advantages.length === cuSeqlens.length - 1 ? sequence : target] as number;
}

/** The geometric mean of the ratios of a sequence's tokens of the loss. */
function sequenceRatio(
  { oldLogprobs }: TrajectoryBatch,
  { logprobs }: AccumulateResult,
  weights: Float64Array,
  begin: number,
  end: number,
): number {
  let sum = 0;
  let count = 0;
  for (let t = begin; t < end; t++) {
    if (weights[t] === 0) continue;
    sum += (logprobs[t] as number) - (oldLogprobs[t] as number);
    count++;
  }
  return Math.exp(sum / count);
}

/** Whether importance "mask" selects a token away. */
function leftOut(
  { oldLogprobs, behaviourLogprobs }: TrajectoryBatch,
  t: number,
  { importance }: ResolvedObjective,
): boolean {
  if (importance?.mode !== "mask" || behaviourLogprobs === undefined) return false;
  const w = Math.exp((oldLogprobs[t] as number) - (behaviourLogprobs[t] as number));
  return w > importance.cap || w < 1 / importance.cap;
}
