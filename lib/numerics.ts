/**
 * Names the bits of every result: two versions of the package with the same number give the same log-probabilities, gradients, steps and
 * samples, bit for bit, on any CPU. It is raised with every change that moves one (docs/numerics.md). Run directories, checkpoints and
 * `rolegrad doctor` record it.
 */
export const numericsVersion = 1;
