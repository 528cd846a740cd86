import type { ResolvedObjective } from "./batch.js";
import { MeanByRole } from "./entropy.js";
import type { TrajectoryBatch } from "./packing.js";
import type { AccumulateResult, StepMetrics } from "./types.js";

const MEANS = ["loss", "kl", "clipHigh", "clipLow", "dualClip"] as const;

/** What a step tells of its micro-batches: sums over the parts of an update, means over its updates. */
export class StepSums {
  readonly #updates: number;
  readonly #means = Object.fromEntries(MEANS.map((name) => [name, 0])) as Record<(typeof MEANS)[number], number>;
  readonly #gradNorms: Record<string, number> = {};
  readonly #entropy: MeanByRole;
  #maxRatioDeviation = 0;
  /** Importance weights, those that were bounded, and the tokens that have one: means of what was trained, whatever N counts. */
  readonly #weights = { sum: 0, bounded: 0, tokens: 0 };

  constructor(roles: readonly string[], updates: number) {
    this.#updates = updates;
    this.#entropy = new MeanByRole(roles);
  }

  add(batch: TrajectoryBatch, part: AccumulateResult, { kind }: ResolvedObjective): void {
    for (const name of MEANS) this.#means[name] += part[name] / this.#updates;
    this.#weights.sum += part.importance * part.normalizer;
    this.#weights.bounded += part.importanceBounded * part.normalizer;
    this.#weights.tokens += part.tokens;
    this.#entropy.add(batch.roles, part.entropies);
    if (kind === "policy") this.#maxRatioDeviation = Math.max(this.#maxRatioDeviation, ratioDeviation(batch, part));
  }

  /** Those of one update. */
  addNorms(norms: Record<string, number>): void {
    for (const [name, norm] of Object.entries(norms))
      this.#gradNorms[name] = (this.#gradNorms[name] ?? 0) + norm / this.#updates;
  }

  metrics({ dualClip: dual, importance: weights }: ResolvedObjective) {
    const { loss, kl, clipHigh, clipLow, dualClip } = this.#means;
    const { sum, bounded, tokens } = this.#weights;
    return {
      loss,
      kl,
      clipHigh,
      clipLow,
      ...(this.#entropy.any && { entropy: this.#entropy.means }),
      ...(dual !== undefined && { dualClip }),
      ...(weights && tokens > 0 && { importance: sum / tokens, importanceBounded: bounded / tokens }),
      ...(this.#updates > 1 && { updates: this.#updates }),
      maxRatioDeviation: this.#maxRatioDeviation,
      gradNorms: this.#gradNorms,
    } satisfies Partial<StepMetrics>;
  }
}

function ratioDeviation(batch: TrajectoryBatch, { logprobs }: AccumulateResult): number {
  let most = 0;
  for (let t = 0; t < logprobs.length; t++) {
    const logprob = logprobs[t] as number;
    if (logprob === 0 || batch.lossMask[t] === 0) continue;
    most = Math.max(most, Math.abs(Math.expm1(logprob - (batch.oldLogprobs[t] as number))));
  }
  return most;
}
