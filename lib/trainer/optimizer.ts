import { native } from "../binding.js";
import { checkArray } from "../arguments.js";
import { checkOptimizer } from "./objective.js";
import type { Optimizer } from "./types.js";

/**
 * AdamW on plain arrays, the trainer's own kernel: torch's update rule (decoupled weight decay), one global norm over all tensors.
 *
 * @example
 * const optimizer = new AdamW({ learningRate: 1e-3, maxGradNorm: 1 });
 * const { norm } = await optimizer.step({ w: new Float32Array(4) }, { w: new Float64Array(4).fill(0.5) });
 */
export class AdamW {
  readonly options: Optimizer;
  /** Moments by name. */
  readonly state = new Map<string, { expAvg: Float32Array; expAvgSq: Float32Array }>();
  #steps = 0;

  constructor(options: Optimizer) {
    checkOptimizer(options);
    this.options = options;
  }

  get steps(): number {
    return this.#steps;
  }

  /** Updates `parameters` in place; `norm` is the total gradient norm before clipping. */
  async step(
    parameters: Record<string, Float32Array>,
    gradients: Record<string, Float64Array>,
  ): Promise<{ norm: number }> {
    const { learningRate, betas = [0.9, 0.999], epsilon = 1e-8, weightDecay = 0, maxGradNorm = 1 } = this.options;
    const names = Object.keys(parameters);
    let sumOfSquares = 0;
    for (const name of names) {
      checkArray(parameters[name], Float32Array, `parameters.${name}`);
      checkArray(gradients[name], Float64Array, `gradients.${name}`);
      for (const g of gradients[name] as Float64Array) sumOfSquares += g * g;
    }
    const step = this.#steps + 1;
    const options = {
      learningRate,
      beta1: betas[0],
      beta2: betas[1],
      epsilon,
      weightDecay,
      maxGradNorm,
      step,
      sumOfSquares,
    };
    for (const name of names) {
      const p = parameters[name] as Float32Array;
      const kept = this.state.get(name) ?? { expAvg: new Float32Array(p.length), expAvgSq: new Float32Array(p.length) };
      const job = native.adamwStep(p, gradients[name] as Float64Array, kept.expAvg, kept.expAvgSq, options);
      const next = await job.promise;
      p.set(next.parameters);
      this.state.set(name, { expAvg: next.first, expAvgSq: next.second });
    }
    this.#steps = step;
    return { norm: Math.sqrt(sumOfSquares) };
  }
}
