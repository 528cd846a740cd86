import { freemem } from "node:os";
import process from "node:process";
import type { ModelConfig } from "../model/config.js";

/** Positions of a page. */
const PAGE = 64;

/** Room for every sequence at its longest and a prompt that is kept for samples yet to start, as far as half of the free memory allows; always for one. */
export function defaultCacheTokens(config: ModelConfig, concurrency: number, maxLength: number): number {
  const { layers, kvHeads, headDim } = config;
  const bytes = 2 * 4 * layers * kvHeads * headDim; // a key and a value in f32
  const longest = Math.ceil(maxLength / PAGE) * PAGE;
  // availableMemory() knows of a limit that the process runs under; Node 20.13 and later.
  const free = (process as { availableMemory?: () => number }).availableMemory?.() ?? freemem();
  return Math.max(maxLength, Math.min((concurrency + 1) * longest, Math.floor(free / 2 / bytes)));
}
