// Byte-pair encoding, learned: small and slow (every pair is counted anew for every merge), but the same bytes everywhere.

/** GPT-2's words: the pattern that tokenizer.json's ByteLevel pre-tokenizer stands for. */
const WORD = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** GPT-2's character for each byte: printable Latin-1 stands for itself, the others for U+0100 and on. */
export const ALPHABET = (() => {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    return String.fromCodePoint(printable ? byte : next++);
  });
})();

/**
 * Merges, first to last, of a byte-level BPE on the texts: always the most frequent pair, the one that sorts first of several;
 * until `limit` or until every word is one token.
 *
 * @param {string[]} texts
 * @param {number} limit
 * @returns {[string, string][]}
 */
export function learnMerges(texts, limit) {
  const words = wordCounts(texts);
  const merges = [];
  while (merges.length < limit) {
    const pair = mostFrequentPair(words);
    if (pair === undefined) break;
    merges.push(pair);
    for (const word of words) word.symbols = merge(word.symbols, pair);
  }
  return merges;
}

function wordCounts(texts) {
  const counts = new Map();
  for (const text of texts) {
    for (const word of text.match(WORD) ?? []) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  return [...counts].map(([word, count]) => ({
    symbols: Array.from(Buffer.from(word), (byte) => ALPHABET[byte]),
    count,
  }));
}

function mostFrequentPair(words) {
  const counts = new Map();
  for (const { symbols, count } of words) {
    for (let i = 1; i < symbols.length; i++) {
      const key = `${symbols[i - 1]} ${symbols[i]}`;
      counts.set(key, (counts.get(key) ?? 0) + count);
    }
  }
  let best;
  for (const [key, count] of counts) {
    const most = best === undefined ? 0 : counts.get(best);
    if (count > most || (count === most && key < best)) best = key;
  }
  return best?.split(" ");
}

function merge(symbols, [a, b]) {
  const merged = [];
  for (let i = 0; i < symbols.length; i++) {
    if (symbols[i] === a && symbols[i + 1] === b) merged.push(a + symbols[++i]);
    else merged.push(symbols[i]);
  }
  return merged;
}
