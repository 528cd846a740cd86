import { fail } from "../../errors.js";
import type { Interference } from "../types.js";
import { isArrayLike, isObject, optionsObject, show } from "../values.js";
import { effectNames } from "./effects.js";
import type { InterferenceRenderOptions } from "./types.js";

/** Refuses what is no result. A result that went through JSON (arrays for typed arrays) is one. */
export function checkResult(result: Interference): void {
  const whole =
    isObject(result) &&
    isArrayLike(result.kept) &&
    isArrayLike(result.dropped) &&
    isArrayLike(result.saturated) &&
    isObject(result.counts) &&
    isObject(result.interferenceShare) &&
    isObject(result.mean23) &&
    isObject(result.median23) &&
    isObject(result.contrasts) &&
    isObject(result.naiveTests) &&
    Array.isArray(result.warnings) &&
    isObject(result.lambda) &&
    effectNames.every(({ key }) => isArrayLike(result.lambda[key]) && result.lambda[key].length === result.kept.length);
  if (!whole)
    fail("ERR_INVALID_ARGUMENT", `Expected a result of computeInterference for result but received ${show(result)}`);
}

/** Refuses what is no result and wrong options, before anything is drawn. */
export function checkRendered(result: Interference, options: InterferenceRenderOptions): void {
  checkResult(result);
  optionsObject(options, "options");
  const { name, table, bins, byHalves } = options;
  if (bins !== undefined && !areBins(bins))
    fail("ERR_INVALID_ARGUMENT", `Expected bins of effectsByAccuracy for options.bins but received ${show(bins)}`);
  if (byHalves !== undefined && !(Array.isArray(byHalves) && byHalves.length === 2 && byHalves.every(areBins)))
    fail(
      "ERR_INVALID_ARGUMENT",
      `Expected what effectsByHalves returns for options.byHalves but received ${show(byHalves)}`,
    );
  if (name !== undefined && typeof name !== "string")
    fail("ERR_INVALID_ARGUMENT", `Expected a string for options.name but received ${show(name)}`);
  if (table !== undefined && !isObject(table))
    fail("ERR_INVALID_ARGUMENT", `Expected a table for options.table but received ${show(table)}`);
}

function areBins(bins: unknown): boolean {
  return Array.isArray(bins) && bins.every((bin) => isObject(bin) && isArrayLike(bin["questions"]));
}
