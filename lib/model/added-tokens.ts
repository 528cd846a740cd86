import { fail } from "../errors.js";
import { checkStrings, describe } from "../arguments.js";
import { vocabularyOf, type AddedToken, type TokenizerFiles } from "./tokenizer-files.js";

/** A tokenizer's files with tokens added, the ids that are new, and the number of ids before. */
export interface AddedTokens {
  files: TokenizerFiles;
  ids: number[];
  sizeBefore: number;
}

/**
 * Each text becomes one atomic token (not special: decoding keeps it). One that the tokenizer has keeps its id, others get the ids after the
 * highest, in order. ERR_INVALID_ARGUMENT for an empty text or one that is given twice.
 */
export function addTokens(files: TokenizerFiles, tokens: readonly string[]): AddedTokens {
  checkStrings(tokens, "addTokens");
  const { tokenizer } = files;
  const known = new Map(tokenizer.added_tokens.map(({ content, id }) => [content, id]));
  const vocabulary = new Map(vocabularyOf(tokenizer.model) as [string, number][]);
  const sizeBefore = [...known.values(), ...vocabulary.values()].reduce((size, id) => Math.max(size, id + 1), 0);
  const added: AddedToken[] = [];
  const ids: number[] = [];
  for (const content of tokens) {
    if (typeof content !== "string" || content === "")
      fail("ERR_INVALID_ARGUMENT", `Expected texts that are not empty for addTokens but received ${describe(content)}`);
    if (added.some((token) => token.content === content))
      fail("ERR_INVALID_ARGUMENT", `Expected distinct texts for addTokens but received ${describe(content)} twice`);
    if (known.has(content)) continue;
    const id = vocabulary.get(content) ?? sizeBefore + ids.length;
    if (id >= sizeBefore) ids.push(id);
    added.push({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: false });
  }
  const whole = { ...tokenizer, added_tokens: [...tokenizer.added_tokens, ...added] };
  return { files: { ...files, tokenizer: whole }, ids, sizeBefore };
}
