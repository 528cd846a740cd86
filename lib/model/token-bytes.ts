import { describe } from "../arguments.js";
import { fail } from "../errors.js";
import { vocabularyOf, type TokenizerJson } from "./tokenizer-files.js";

const NOTHING = new Uint8Array(0);
const BYTE_FALLBACK = /^<0x([0-9A-Fa-f]{2})>$/;

/**
 * The bytes that each id stands for, by id, from tokenizer.json itself: a decoder is lossy on a token that holds a part of
 * a character. Byte-level vocabularies and byte fallback are known; added tokens are their own text; an id without a token
 * has no bytes. Another decoder -> ERR_TOKENIZER_UNSUPPORTED.
 */
export function tokenBytesOf(tokenizer: TokenizerJson, size: number, file: string): Uint8Array[] {
  const toBytes = vocabularyBytes(tokenizer, file);
  const bytes = new Array<Uint8Array>(size).fill(NOTHING);
  for (const [token, id] of vocabularyOf(tokenizer.model)) bytes[id as number] = toBytes(token as string);
  for (const { id, content } of tokenizer.added_tokens) bytes[id] = utf8(content);
  return bytes;
}

function vocabularyBytes({ decoder, model }: TokenizerJson, file: string): (token: string) => Uint8Array {
  const steps = stepsOf(decoder, file);
  const types = steps.map(({ type }) => (typeof type === "string" ? type : describe(type)));
  if (types.length === 1 && types[0] === "ByteLevel") return byteLevelBytes;

  // SentencePiece as Llama 2 has it: ▁ for a space, <0xNN> for a byte. `Strip` only takes the first space off a whole text.
  const sentencePiece = types.includes("ByteFallback") && model["byte_fallback"] !== false;
  const refused = types.find((type) => !["Replace", "ByteFallback", "Fuse", "Strip"].includes(type));
  if (!sentencePiece || refused !== undefined) {
    const found = decoder === null ? "no decoder" : `decoder ${refused ?? types.join(", ")}`;
    fail("ERR_TOKENIZER_UNSUPPORTED", `Expected a ByteLevel or ByteFallback decoder in ${file} but received ${found}`);
  }
  const replacements = steps.filter((step) => step["type"] === "Replace").map((step) => replacementOf(step, file));
  return (token) => {
    const byte = BYTE_FALLBACK.exec(token);
    if (byte) return Uint8Array.of(parseInt(byte[1]!, 16));
    return utf8(replacements.reduce((text, [from, to]) => text.replaceAll(from, to), token));
  };
}

function stepsOf(decoder: Record<string, unknown> | null, file: string): Record<string, unknown>[] {
  if (decoder === null) return [];
  const inner = decoder["type"] === "Sequence" ? decoder["decoders"] : [decoder];
  if (!Array.isArray(inner) || inner.some((step) => typeof step !== "object" || step === null)) {
    return fail("ERR_TOKENIZER_INVALID", `Expected a list of objects for decoder.decoders in ${file}`);
  }
  return inner as Record<string, unknown>[];
}

function replacementOf(step: Record<string, unknown>, file: string): [from: string, to: string] {
  const from = (step["pattern"] as Record<string, unknown> | undefined)?.["String"];
  const to = step["content"];
  if (typeof from !== "string" || typeof to !== "string") {
    return fail(
      "ERR_TOKENIZER_UNSUPPORTED",
      `Expected a plain string for the pattern of the decoder's Replace in ${file}`,
    );
  }
  return [from, to];
}

/** GPT-2's alphabet, inverted: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and on in order. */
const byteOfCharacter = ((): Map<string, number> => {
  const alphabet = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    alphabet.set(String.fromCodePoint(printable ? byte : next++), byte);
  }
  return alphabet;
})();

/** A token with any character outside the alphabet is its own text, as in Hugging Face's decoder. */
function byteLevelBytes(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = byteOfCharacter.get(character);
    if (byte === undefined) return utf8(token);
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
