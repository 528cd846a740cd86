import { existsSync } from "node:fs";
import path from "node:path";
import { z } from "zod";
import { readJson } from "./checkpoint.js";
import { fail } from "../errors.js";

/** How the publisher of a checkpoint samples from it. */
export interface RecommendedSampling {
  /** 0: greedy. */
  readonly temperature: number;
  readonly topP: number;
  /** 0: off. */
  readonly topK: number;
}

const schema = z.looseObject({
  do_sample: z.boolean().nullish(),
  temperature: z.number().nonnegative().nullish(),
  top_p: z.number().positive().max(1).nullish(),
  top_k: z.number().int().nonnegative().nullish(),
});

/** Sampling by generation_config.json: greedy unless it says `do_sample`. None where there is no such file. ERR_MODEL_CONFIG. */
export function readRecommendedSampling(directory: string): RecommendedSampling | undefined {
  const file = path.join(directory, "generation_config.json");
  if (!existsSync(file)) return undefined;
  const parsed = schema.safeParse(readJson(file, "ERR_MODEL_CONFIG"));
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    return fail("ERR_MODEL_CONFIG", `${file}: ${issue?.path.join(".") ?? ""}: ${issue?.message ?? "invalid"}`);
  }
  const { do_sample, temperature, top_p, top_k } = parsed.data;
  return { temperature: do_sample === true ? (temperature ?? 1) : 0, topP: top_p ?? 1, topK: top_k ?? 0 };
}
