import { fail } from "../errors.js";

/** A value as messages show it. */
export function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value);
  if (typeof value === "function") return "a function";
  if (typeof value === "bigint") return `${value}n`;
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "object" && value !== null) {
    const { constructor } = value as { constructor?: unknown };
    if (constructor === undefined) return "a null-prototype object";
    return typeof constructor !== "function" || constructor === Object ? "an object" : `a ${constructor.name}`;
  }
  return String(value);
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

export function isArrayLike(value: unknown): value is ArrayLike<unknown> {
  if (!isObject(value)) return false;
  const length = value["length"];
  return typeof length === "number" && Number.isInteger(length) && length >= 0;
}

/** An option among named ones: its place in `names`. Throws ERR_INVALID_ARGUMENT. */
export function choice(names: readonly string[], value: unknown, name: string): number {
  const index = names.indexOf(value as string);
  if (index < 0)
    fail(
      "ERR_INVALID_ARGUMENT",
      `Expected ${names.map((n) => `"${n}"`).join(" or ")} for ${name} but received ${show(value)}`,
    );
  return index;
}

/** A boolean option. Throws ERR_INVALID_ARGUMENT. */
export function flag(value: unknown, name: string): boolean {
  if (typeof value !== "boolean")
    fail("ERR_INVALID_ARGUMENT", `Expected a boolean for ${name} but received ${show(value)}`);
  return value;
}

/** An options object. Throws ERR_INVALID_ARGUMENT. */
export function optionsObject(value: unknown, name: string): void {
  if (!isObject(value) || Array.isArray(value))
    fail("ERR_INVALID_ARGUMENT", `Expected an object for ${name} but received ${show(value)}`);
}

/** Checks an option that is a number from `low` to `high`. Throws ERR_INVALID_ARGUMENT. */
export function numberFrom(low: number, high: number, value: unknown, name: string): number {
  if (typeof value !== "number" || !(value >= low && value <= high))
    fail("ERR_INVALID_ARGUMENT", `Expected a number from ${low} to ${high} for ${name} but received ${show(value)}`);
  return value;
}

/** The same for an integer. */
export function integerFrom(low: number, high: number, value: unknown, name: string): number {
  if (!Number.isInteger(value) || (value as number) < low || (value as number) > high)
    fail("ERR_INVALID_ARGUMENT", `Expected an integer from ${low} to ${high} for ${name} but received ${show(value)}`);
  return value as number;
}

/** Checks options.seed. Throws ERR_INVALID_SEED. */
export function checkSeed(seed: unknown): number {
  if (!Number.isSafeInteger(seed) || (seed as number) < 0)
    fail("ERR_INVALID_SEED", `Expected an integer from 0 to 2^53 - 1 for options.seed but received ${show(seed)}`);
  return seed as number;
}
