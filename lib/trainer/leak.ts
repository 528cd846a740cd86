import type { CrossRole, LeakMatrix } from "./types.js";

/** What the engine measured: norm, ownDot [roles, adapters], own [adapters], tokens [roles]. */
export interface LeakValues {
  norm: Float64Array;
  ownDot: Float64Array;
  own: Float64Array;
  tokens: Int32Array;
}

/** By name; without values (no trajectory teaches anything) all zero. */
export function leakMatrix(
  values: LeakValues | undefined,
  roles: readonly string[],
  adapters: readonly string[],
  crossRole: CrossRole,
): LeakMatrix {
  const at = (array: ArrayLike<number> | undefined, i: number): number => array?.[i] ?? 0;
  const table = <T>(value: (entry: number, adapter: number) => T): Record<string, Record<string, T>> =>
    Object.fromEntries(
      roles.map((role, v) => [
        role,
        Object.fromEntries(adapters.map((name, a) => [name, value(v * adapters.length + a, a)])),
      ]),
    );
  return {
    crossRole,
    norms: table((entry) => at(values?.norm, entry)),
    cosines: table((entry, a) => {
      const size = at(values?.norm, entry) * at(values?.own, a);
      // A vector's cosine to itself may round to a little more than 1.
      return size > 0 ? Math.max(-1, Math.min(1, at(values?.ownDot, entry) / size)) : null;
    }),
    tokens: Object.fromEntries(roles.map((role, v) => [role, at(values?.tokens, v)])),
  };
}
