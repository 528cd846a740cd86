import { fail } from "../errors.js";
import { at, excerpt, type Place, type Row } from "./place.js";

/**
 * The value at a path, "reward_model.ground_truth.target": of the field that is called so as a whole where there is one (as in the header of a
 * CSV file), else part by part. undefined where there is none.
 */
export function lookUp(row: Row, path: string): unknown {
  if (Object.hasOwn(row, path)) return row[path];
  let value: unknown = row;
  for (const part of path.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, part)) return undefined;
    value = (value as Row)[part];
  }
  return value;
}

/** The fields that a reader looks for: the path that is given, else the first of the usual names that the row has. */
export function fieldOf(
  row: Row,
  given: string | undefined,
  usual: readonly string[],
): { name: string; value: unknown } {
  const name = given ?? usual.find((field) => row[field] !== undefined && Object.hasOwn(row, field)) ?? usual[0]!;
  return { name, value: lookUp(row, name) };
}

/** An id: a text that is not empty, or a whole number as one. */
export function toId({ name, value }: { name: string; value: unknown }, place: Place): string {
  if (typeof value === "string" && value !== "") return value;
  if (Number.isSafeInteger(value)) return String(value);
  return fail("ERR_DATA_FIELD", `Expected a string for ${name} at ${at(place)} but received ${excerpt(value)}`);
}

export function toText({ name, value }: { name: string; value: unknown }, place: Place): string {
  if (typeof value === "string") return value;
  return fail("ERR_DATA_FIELD", `Expected a string for ${name} at ${at(place)} but received ${excerpt(value)}`);
}
