import { findCheckpoint } from "../model/checkpoint.js";
import { loadTokenizer } from "../model/tokenizer.js";
import type { AnswerReader } from "./answer.js";
import { nameColors } from "./names.js";
import type { RunFiles } from "./run.js";
import type { TokenBytes } from "./text.js";

/** The tokenizer of the model that config.json names, or why there is none. */
export async function runTokenizer(
  config: Record<string, unknown>,
): Promise<{ tokenizer: TokenBytes | undefined; missing?: string }> {
  const { model, addTokens } = config;
  if (typeof model !== "string") return { tokenizer: undefined, missing: "config.json names no model" };
  try {
    const added = Array.isArray(addTokens) ? { addTokens: addTokens.map(String) } : {};
    return { tokenizer: await loadTokenizer(findCheckpoint(model), added) };
  } catch (error) {
    return { tokenizer: undefined, missing: `No tokenizer (${(error as Error).message})` };
  }
}

/** What shows the answers of a run. */
export async function answerReader(run: RunFiles): Promise<AnswerReader> {
  return { colors: nameColors(run), ...(await runTokenizer(run.config)) };
}
