import type { Question } from "../environments/types.js";
import { fail } from "../errors.js";
import type { Model } from "../model/model.js";
import type { RolloutParts } from "./evaluate.js";

/** Tokens of one trajectory where nothing else is said. */
export function defaultMaxLength(model: Model): number {
  return Math.min(4096, model.config.maxPositions);
}

/**
 * Throws before the first step what would otherwise end the run in the middle: a limit beyond the model's (ERR_CONFIG), a prompt that leaves no
 * room for an answer (ERR_PROMPT_TOO_LONG, naming the question).
 */
export function checkPrompts(model: Model, rollout: RolloutParts, questions: readonly Question[]): void {
  const { maxPositions } = model.config;
  const maxLength = rollout.maxLength ?? defaultMaxLength(model);
  if (maxLength > maxPositions) {
    const limit = `${maxPositions} (max_position_embeddings of ${model.name})`;
    fail("ERR_CONFIG", `Expected agent.maxLength of at most ${limit} but received ${maxLength}`);
  }
  const tokenizer = rollout.tokenizer ?? model.tokenizer;
  if (tokenizer === undefined) return;
  const { renderer } = rollout;
  const [first] = questions;
  const around =
    renderer === undefined || first === undefined
      ? 0
      : Buffer.byteLength(tokenizer.decode(renderer.prompt({ ...first, question: "" })));
  // A token but the first (BOS) is a byte at least: most prompts need not be encoded to know that they fit. What a renderer puts around a
  // question is much the same for all; a template may show it more than once, and escape it.
  const bytes = (question: Question): number =>
    renderer === undefined ? Buffer.byteLength(prompt(question)) : around + 8 * Buffer.byteLength(question.question);
  const prompt = rollout.prompt ?? ((question: Question) => question.question);
  for (const question of questions) {
    const encode = (text: string): ArrayLike<number> =>
      rollout.addBos === false ? tokenizer.encode(text) : tokenizer.encodePrompt(text);
    if (bytes(question) + 1 < maxLength) continue;
    const { length } = renderer?.prompt(question) ?? encode(prompt(question));
    if (length < maxLength) continue;
    fail(
      "ERR_PROMPT_TOO_LONG",
      `Expected prompts of fewer than ${maxLength} tokens (agent.maxLength; the model has ${maxPositions} positions) but that of ` +
        `question ${question.id} has ${length}: shorten agent.prompt, or take a model with a longer context`,
    );
  }
}
