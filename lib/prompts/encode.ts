import { fail } from "../errors.js";
import type { Tokenizer } from "../model/tokenizer.js";

/**
 * Ids of a text that is made of others' texts (questions, tool output), of which nothing becomes an added token such as `<|im_end|>`: they
 * stay text, whatever they spell. `render` puts them where they belong; the added tokens that it writes itself are tokens. Where the texts
 * spell none, these are the ids of `tokenizer.encode(render(texts))`.
 *
 * @example
 * encodeAround(tokenizer, [result], ([text]) => `<information>${text}</information>`);
 */
export function encodeAround(
  tokenizer: Tokenizer,
  texts: readonly string[],
  render: (texts: readonly string[]) => string,
): number[] {
  const added = addedTokens(tokenizer);
  const { tokens, pattern } = added;
  let rendered = render(texts);
  let shown = (text: string): string => text;
  if (texts.some((text) => text.search(pattern) >= 0)) {
    // In the texts each token's spelling becomes one character of a private area, which no template looks at: the template can trim, quote
    // and inspect the text as it likes, and what it then holds of tokens is its own.
    const base = freeRange(rendered, tokens.length);
    const hide = (token: string): string => String.fromCodePoint(base + tokens.indexOf(token));
    rendered = render(texts.map((text) => text.replace(pattern, hide)));
    shown = (text) =>
      text.replace(PRIVATE, (character) => tokens[(character.codePointAt(0) as number) - base] ?? character);
  } else {
    const ids = tokenizer.encode(rendered);
    // A normaliser can make a token of a text that does not spell it.
    if (added.count(ids) === [...rendered.matchAll(pattern)].length) return ids;
  }
  const ids: number[] = [];
  let at = 0;
  for (const match of rendered.matchAll(pattern)) {
    ids.push(...encodePlain(tokenizer, shown(rendered.slice(at, match.index))));
    ids.push(tokenizer.addedTokens.get(match[0]) as number);
    at = match.index + match[0].length;
  }
  return [...ids, ...encodePlain(tokenizer, shown(rendered.slice(at)))];
}

/** Ids of a text in which no added token is one: where it spells some, these are cut behind their first character. */
function encodePlain(tokenizer: Tokenizer, text: string): number[] {
  const added = addedTokens(tokenizer);
  const whole = tokenizer.encode(text);
  if (added.count(whole) === 0) return whole;
  const pieces = [];
  let begin = 0;
  for (let i = 0; i < text.length; i++) {
    if (!added.tokens.some((token) => text.startsWith(token, i))) continue;
    const cut = i + firstCharacter(text, i).length;
    pieces.push(text.slice(begin, cut));
    begin = cut;
  }
  pieces.push(text.slice(begin));
  return pieces.flatMap((piece) => {
    const ids = tokenizer.encode(piece);
    if (added.count(ids) === 0) return ids;
    return [...piece].flatMap((character) => {
      const ids = tokenizer.encode(character);
      if (added.count(ids) === 0) return ids;
      const what = `Expected to write ${JSON.stringify(character)} as text with ${tokenizer.file}`;
      return fail("ERR_TOKENIZER_UNSUPPORTED", `${what}, where it is an added token`);
    });
  });
}

function firstCharacter(text: string, at: number): string {
  return String.fromCodePoint(text.codePointAt(at) as number);
}

interface Added {
  /** Longest first. */
  tokens: readonly string[];
  pattern: RegExp;
  /** How many of these ids are added tokens'. */
  count(ids: readonly number[]): number;
}

const known = new WeakMap<Tokenizer, Added>();

function addedTokens(tokenizer: Tokenizer): Added {
  const found = known.get(tokenizer);
  if (found !== undefined) return found;
  const tokens = [...tokenizer.addedTokens.keys()].sort((a, b) => b.length - a.length);
  const ids = new Set(tokenizer.addedTokens.values());
  const added: Added = {
    tokens,
    // Without tokens: what matches nothing.
    pattern: tokens.length === 0 ? /(?!)/gu : new RegExp(tokens.map(escapeRegExp).join("|"), "gu"),
    count: (some) => some.reduce((n, id) => n + Number(ids.has(id)), 0),
  };
  known.set(tokenizer, added);
  return added;
}

/** The first of `size` code points in a row of the private planes 15 and 16 that the text does not hold. */
function freeRange(text: string, size: number): number {
  const used = new Set(Array.from(text.matchAll(PRIVATE), ([character]) => character.codePointAt(0)));
  let base = 0xf0000;
  for (let code = base; code <= 0x10ffff; code++) {
    if (used.has(code)) base = code + 1;
    else if (code - base + 1 === size) return base;
  }
  return fail("ERR_INVALID_ARGUMENT", `Expected a text that leaves ${size} characters of private use free`);
}

const PRIVATE = /[\u{F0000}-\u{10FFFF}]/gu;

function escapeRegExp(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}
