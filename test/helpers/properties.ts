// Properties over random batches (fast-check), the same cases in every run. ROLEGRAD_SEED makes others, ROLEGRAD_RUNS multiplies them; a
// counterexample is printed with its seed.
import fc from "fast-check";
import type { Test } from "tap";
import { Random } from "rolegrad";
import type { Model, Trajectory } from "rolegrad";
import { randomRow, randomTrajectory, type Row } from "./engine.js";

/** Checks `runs` cases; a counterexample is made small and shown. */
export async function holds<T>(
  t: Test,
  arbitrary: fc.Arbitrary<T>,
  runs: number,
  check: (value: T) => Promise<boolean>,
): Promise<void> {
  const seed = Number(process.env["ROLEGRAD_SEED"] || 20261);
  const numRuns = Math.max(1, Math.round(runs * Number(process.env["ROLEGRAD_RUNS"] || 1)));
  await fc.assert(fc.asyncProperty(arbitrary, check), { seed, numRuns });
  t.pass(`in ${numRuns} cases`);
}

/** How long the sequences of a batch are, and a seed for what they hold. */
export interface BatchShape {
  lengths: number[];
  seed: number;
}

const short = fc.integer({ min: 1, max: 30 });
/** Crosses one or two pages of 64 positions. */
const long = fc.integer({ min: 60, max: 140 });

export const batchShapes: fc.Arbitrary<BatchShape> = fc.record({
  lengths: fc.array(fc.oneof({ weight: 3, arbitrary: short }, long), { minLength: 1, maxLength: 5 }),
  seed: fc.nat(),
});

/** Sequences of roles -1, 0 and 1. */
export function rowsOf({ lengths, seed }: BatchShape, model: Model): Row[] {
  const random = new Random(seed, "rows");
  return lengths.map((length) => randomRow(random, model.config.vocabSize, length, 2));
}

/** Trajectories in groups of two. */
export function trajectoriesOf(shape: BatchShape, model: Model): Trajectory[] {
  const random = new Random(shape.seed, "trajectories");
  return rowsOf(shape, model).map((row, i) => randomTrajectory(random, `q${i >> 1}#${i & 1}`, `q${i >> 1}`, row));
}
