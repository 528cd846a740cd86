import type { DenseAccuracy } from "../../dist/attribution/index.js";
import type { Random } from "../../dist/random.js";

export interface TruthEffects {
  base: number;
  reas: number;
  tool: number;
  l23: number;
}
export interface Truth {
  name: string;
  additive?: boolean;
  draw(random: Random): TruthEffects;
}
export const truths: Truth[];
export function normal(random: Random): number;
export function binomial(random: Random, n: number, logit: number): number;
export interface SimulateSettings {
  questions?: number;
  samples: number;
  shifts?: number[];
  effects?: TruthEffects[];
}
export interface Simulated {
  table: DenseAccuracy;
  l23: Float64Array;
  effects: TruthEffects[];
}
export function simulate(truth: Truth, random: Random, settings: SimulateSettings): Simulated;
export function simulatePaired(truth: Truth, random: Random, settings: SimulateSettings): Simulated;
