import type { Tokenizer } from "../model/tokenizer.js";
import type { ResolvedOptions } from "./options.js";

const ELLIPSIS = " …";

/** The tokens of a tool's output between its tags, and the text that they show of it: all, or its start where the tokens are limited. */
export function observe(
  tokenizer: Tokenizer,
  {
    output: { open, close },
    observationTokens: limit = Infinity,
  }: Pick<ResolvedOptions, "output" | "observationTokens">,
  text: string,
): { ids: Int32Array; shown: string } {
  const encode = (shown: string): number[] => tokenizer.encode(`${open}${shown}${close}`);
  let shown = text;
  let ids = encode(shown);
  if (ids.length > limit) {
    const tokens = tokenizer.encode(text);
    // Tokens at the seams may join: what is kept is shortened until all of it fits, tags and ellipsis included.
    for (let keep = Math.min(tokens.length, limit); ids.length > limit && keep >= 0; keep--) {
      // A cut within a character leaves a replacement character at the end.
      shown = tokenizer.decode(tokens.slice(0, keep)).replace(/\ufffd+$/, "") + ELLIPSIS;
      ids = encode(shown);
    }
    // Not even the tags: they alone.
    if (ids.length > limit) ids = encode((shown = ""));
  }
  return { ids: Int32Array.from(ids), shown };
}
