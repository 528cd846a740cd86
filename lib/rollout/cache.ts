import process from "node:process";
import type { ModelConfig } from "../model/config.js";

/** Positions of a page. */
const PAGE = 64;

/** Room for every sequence at its longest and a prompt that is kept for samples yet to start, as far as half of the free memory allows; always for one. Of each of `caches`. */
export function defaultCacheTokens(
  config: ModelConfig,
  { concurrency, maxLength, caches = 1 }: { concurrency: number; maxLength: number; caches?: number },
): number {
  const { layers, kvHeads, headDim } = config;
  const bytes = 2 * 4 * layers * kvHeads * headDim; // a key and a value in f32
  const longest = Math.ceil(maxLength / PAGE) * PAGE;
  return Math.max(
    maxLength,
    Math.min((concurrency + 1) * longest, Math.floor(process.availableMemory() / 2 / caches / bytes)),
  );
}
