import { native, type WilcoxonArguments } from "../binding.js";
import { fail } from "../errors.js";
import type { TestResult, WilcoxonOptions } from "./types.js";
import { choice, flag, isArrayLike, optionsObject, show } from "./values.js";

/**
 * The two-sided exact binomial test of `negative` successes among `negative + positive` against one half, as
 * scipy.stats.binomtest. The statistic is `negative`; p is 1 where both are 0. Integers from 0 to 2^31 - 1, else
 * ERR_INVALID_ARGUMENT.
 *
 * @example
 * signTest(9, 1).pValue; // 22 / 1024
 */
export function signTest(negative: number, positive: number): TestResult {
  return native.signTest(negative, positive);
}

/**
 * Wilcoxon's signed-rank test of symmetry about 0, two-sided, as scipy.stats.wilcoxon; the statistic is the smaller of the
 * two rank sums. Ties are equal magnitudes, bit for bit. Throws ERR_INVALID_ARGUMENT (a value that is no finite number),
 * ERR_WILCOXON_EXACT (`method: "exact"` with ties, zeros or more than 200 values).
 *
 * @example
 * wilcoxonTest([1.5, -0.2, 3, -2, 0.7, 4]).statistic; // 5
 */
export function wilcoxonTest(x: ArrayLike<number>, options: WilcoxonOptions = {}): TestResult {
  if (!isArrayLike(x)) fail("ERR_INVALID_ARGUMENT", `Expected an array of numbers for x but received ${show(x)}`);
  const values = new Float64Array(x.length);
  for (let i = 0; i < x.length; i++) {
    const value: unknown = x[i];
    if (typeof value !== "number" || !Number.isFinite(value))
      fail("ERR_INVALID_ARGUMENT", `Expected a finite number for x[${i}] but received ${show(value)}`);
    values[i] = value;
  }
  return native.wilcoxon(values, wilcoxonArguments(options, "options"));
}

/** Checks the options and numbers the choices as the engine does. */
export function wilcoxonArguments(options: WilcoxonOptions, name: string): WilcoxonArguments {
  optionsObject(options, name);
  const { zeroMethod = "wilcox", correction = false, method = "auto" } = options;
  return {
    zeroMethod: choice(["wilcox", "pratt"], zeroMethod, `${name}.zeroMethod`),
    correction: flag(correction, `${name}.correction`),
    method: choice(["auto", "exact", "asymptotic"], method, `${name}.method`),
  };
}
