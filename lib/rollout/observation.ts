import type { Tokenizer } from "../model/tokenizer.js";

const ELLIPSIS = " …";

/**
 * The tokens of a tool's output as `render` puts it (between tags, or into a turn of a chat), and the text that they show of it: all, or its start
 * where they are limited.
 */
export function observe(
  tokenizer: Tokenizer,
  render: (shown: string) => Int32Array,
  text: string,
  limit = Infinity,
): { ids: Int32Array; shown: string } {
  let shown = text;
  let ids = render(shown);
  if (ids.length > limit) {
    const tokens = tokenizer.encode(text);
    // Tokens at the seams may join: what is kept is shortened until all of it fits, the ellipsis and what stands around it included.
    for (let keep = Math.min(tokens.length, limit); ids.length > limit && keep >= 0; keep--) {
      // A cut within a character leaves a replacement character at the end.
      shown = tokenizer.decode(tokens.slice(0, keep)).replace(/\ufffd+$/, "") + ELLIPSIS;
      ids = render(shown);
    }
    // What stands around it is all there is room for.
    if (ids.length > limit) ids = render((shown = ""));
  }
  return { ids, shown };
}
