import { readFileSync } from "node:fs";
import type { z } from "zod";
import { fail } from "../errors.js";

/** An adapter's settings file, checked. ERR_ADAPTER_INVALID where it is no JSON or not what the schema says, naming file and field. */
export function readSettings<T>(file: string, schema: z.ZodType<T>): T {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, "utf8"));
  } catch (cause) {
    fail("ERR_ADAPTER_INVALID", `Expected JSON in ${file}: ${(cause as Error).message}`, cause);
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  fail("ERR_ADAPTER_INVALID", `${file}: ${issue?.path.join(".") ?? ""}: ${issue?.message ?? "invalid"}`);
}
