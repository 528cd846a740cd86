import { Cursor, END, type PostingList } from "./postings.js";

/** A token of a query. */
export interface QueryTerm {
  list: PostingList;
  /** How often the query has it. */
  times: number;
  idf: number;
  /** At least what it adds to any score. */
  bound: number;
}

export interface Ranked {
  document: number;
  score: number;
}

/** BM25 with the arithmetic of SearchEnvironment, operation by operation. */
export class Bm25 {
  readonly #k1: number;
  readonly #b: number;
  readonly #meanLength: number;
  readonly #lengths: Uint32Array;
  // By length: two divisions a posting less. A passage of more tokens is rare enough to be worked out each time.
  readonly #norms: Float64Array;

  constructor({ k1, b, meanLength }: { k1: number; b: number; meanLength: number }, lengths: Uint32Array) {
    this.#k1 = k1;
    this.#b = b;
    this.#meanLength = meanLength;
    this.#lengths = lengths;
    this.#norms = Float64Array.from({ length: 4096 }, (_, length) => this.#norm(length));
  }

  static idf(passages: number, holding: number): number {
    return Math.log(1 + (passages - holding + 0.5) / (holding + 0.5));
  }

  /** What a term adds before idf. */
  part(document: number, frequency: number): number {
    const length = this.#lengths[document]!;
    const norm = length < 4096 ? this.#norms[length]! : this.#norm(length);
    return (frequency * (this.#k1 + 1)) / (frequency + norm);
  }

  #norm(length: number): number {
    return this.#k1 * (1 - this.#b + (this.#b * length) / this.#meanLength);
  }
}

// Passages taken together. Few at first, as nothing can be left out before there are k scores; then 4096, as 32 KiB of sums lie in a first-level cache.
const FIRST_WINDOW = 32;
const LAST_WINDOW = 4096;
// Sums in another order than the score's differ by less than this, even with the 8,192 tokens that a query can have.
const SLACK = 1 + 1e-9;

/**
 * The best `k` passages, exactly those and the scores of summing everything: MaxScore. Terms by bound, ascending: as long as
 * the bounds of the first ones sum to less than the k-th best score so far, a passage with those terms alone cannot enter, so only the other, essential, terms
 * are gone through whole. What passes every bound is scored once more, in the order of the query, as SearchEnvironment does.
 */
export function rank(terms: readonly QueryTerm[], k: number, bm25: Bm25): Ranked[] {
  const sorted = [...terms].sort((a, b) => a.bound - b.bound);
  const cursors = sorted.map(({ list }) => new Cursor(list));
  // below[i]: the most that the first i terms add together.
  const below = [0];
  for (const { bound } of sorted) below.push(below.at(-1)! + bound);
  const best: Ranked[] = [];
  const sums = new Float64Array(LAST_WINDOW);
  const touched = new Uint32Array(LAST_WINDOW / 32);
  const exact = exactScore(terms, bm25);
  let threshold = -Infinity;
  let essential = 0;

  const consider = (document: number, sum: number): void => {
    for (let i = essential - 1; i >= 0; i--) {
      if ((sum + below[i + 1]!) * SLACK < threshold) return;
      const cursor = cursors[i]!;
      cursor.advance(document);
      if (cursor.document !== document) continue;
      const { times, idf } = sorted[i]!;
      sum += times * (idf * bm25.part(document, cursor.frequency));
    }
    if (sum * SLACK < threshold) return;
    const score = exact(document);
    // Passages come in their order, so that of equal scores the first is already there.
    if (best.length === k && score <= threshold) return;
    let at = best.length;
    while (at > 0 && score > best[at - 1]!.score) at--;
    best.splice(at, 0, { document, score });
    if (best.length > k) best.pop();
    if (best.length === k) threshold = best[k - 1]!.score;
  };

  for (let window = FIRST_WINDOW; ; window = Math.min(2 * window, LAST_WINDOW)) {
    while (essential < sorted.length && below[essential + 1]! * SLACK < threshold) essential++;
    let first = END;
    for (let i = essential; i < cursors.length; i++) first = Math.min(first, cursors[i]!.document);
    if (first === END) return best;
    for (let i = essential; i < cursors.length; i++) {
      const cursor = cursors[i]!;
      const { times, idf } = sorted[i]!;
      for (; cursor.document < first + window; cursor.next()) {
        const at = cursor.document - first;
        sums[at]! += times * (idf * bm25.part(cursor.document, cursor.frequency));
        touched[at >>> 5]! |= 1 << (at & 31);
      }
    }
    for (let word = 0; word < window / 32; word++) {
      for (let bits = touched[word]!; bits !== 0; bits &= bits - 1) {
        const at = 32 * word + 31 - Math.clz32(bits & -bits);
        consider(first + at, sums[at]!);
        sums[at] = 0;
      }
      touched[word] = 0;
    }
  }
}

/** The score of a passage, its terms in the order of the query. */
function exactScore(terms: readonly QueryTerm[], bm25: Bm25): (document: number) => number {
  const cursors = terms.map(({ list }) => new Cursor(list));
  return (document) => {
    let score = 0;
    terms.forEach(({ times, idf }, i) => {
      const cursor = cursors[i]!;
      cursor.advance(document);
      if (cursor.document === document) score += times * (idf * bm25.part(document, cursor.frequency));
    });
    return score;
  };
}
