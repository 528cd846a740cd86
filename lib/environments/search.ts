import MiniSearch from "minisearch";
import { fail } from "../errors.js";
import type { Environment, Passage, ToolCall, ToolResult } from "./types.js";

export interface SearchOptions {
  /** Passages a call returns. @default 3 */
  topK?: number;
  /** How often the title counts beside the text. @default 1 */
  titleWeight?: number;
  /** @default 1.2 */
  k1?: number;
  /** @default 0.75 */
  b?: number;
  /** Splits passages and queries into tokens. @default {@link words} */
  tokenize?: (text: string) => string[];
  /** What the model reads; called with at least one passage. @default {@link numberedPassages} */
  format?: (passages: Passage[]) => string;
  /** What the model reads where no passage shares a token with the query. @default "nothing found" */
  nothingFound?: string;
}

export interface SearchHit {
  passage: Passage;
  /** BM25, above 0. */
  score: number;
}

/** The passages that hold one token, and what it adds to their scores. */
interface Postings {
  documents: Int32Array;
  scores: Float64Array;
}

const WORD = /[\p{L}\p{M}\p{N}]+/gu;
// A model may write anything into a query; what it meant stands at its start.
export const MAX_QUERY_CHARACTERS = 16_384;

/**
 * Lower-case runs of letters and digits of any script, composed (NFC); no stemming and no stop words.
 *
 * @example
 * words("Kraków's 3 best-known cafés"); // ["kraków", "s", "3", "best", "known", "cafés"]
 */
export function words(text: string): string[] {
  return text.normalize("NFC").toLowerCase().match(WORD) ?? [];
}

/** One line a passage: `Passage 1 (Title: "…") …`. */
export function numberedPassages(passages: readonly Passage[]): string {
  const line = ({ title, text }: Passage, i: number): string =>
    title === undefined ? `Passage ${i + 1}: ${text}` : `Passage ${i + 1} (Title: "${title}") ${text}`;
  return passages.map(line).join("\n");
}

/**
 * Search by BM25 over passages in memory, as an environment: the text of a call is the query. Title and text are one
 * field; n passages, df of them with token t, which stands tf times in the one being scored:
 *
 *     idf(t) = ln(1 + (n - df + 0.5) / (df + 0.5))
 *     score  = sum over t in query, repeats included: idf(t) tf (k1 + 1) / (tf + k1 (1 - b + b length / mean length))
 *
 * @example
 * const search = SearchEnvironment.fromPassages([{ id: "1", title: "Seine", text: "The Seine runs through Paris." }]);
 * search.search("river in Paris", 3); // [{ passage: { id: "1", … }, score: … }]
 */
export class SearchEnvironment implements Environment {
  /** Number of passages. */
  readonly size: number;
  readonly topK: number;
  readonly #passages: readonly Passage[];
  readonly #index: MiniSearch;
  readonly #tokenize: (text: string) => string[];
  /** What the model reads of the passages found. */
  readonly format: (passages: Passage[]) => string;
  /** What it reads where none was found. */
  readonly nothingFound: string;
  // Made on a token's first use: no larger than the index in all, and a common word is sorted only once.
  readonly #postings = new Map<string, Postings>();
  // By passage; all 0 between searches.
  readonly #scores: Float64Array;

  private constructor(passages: readonly Passage[], options: SearchOptions) {
    const { topK = 3, titleWeight = 1, k1 = 1.2, b = 0.75, tokenize = words } = options;
    expectCount("topK", topK);
    expectScoring({ titleWeight, k1, b });
    this.size = passages.length;
    this.topK = topK;
    this.#passages = passages;
    this.#tokenize = tokenize;
    this.format = options.format ?? numberedPassages;
    this.nothingFound = options.nothingFound ?? "nothing found";
    this.#scores = new Float64Array(passages.length);
    // MiniSearch takes the number of different tokens for a length, where BM25 counts repeats too. So a document's tokens
    // get a number each, which makes them all different, and lose it again on their way into the index.
    this.#index = new MiniSearch({
      fields: ["content"],
      tokenize: (content) => tokenize(content).map((token, i) => `${i} ${token}`),
      processTerm: (token) => token.slice(token.indexOf(" ") + 1),
      searchOptions: { bm25: { k: k1, b, d: 0 }, tokenize: (token) => [token], processTerm: (token) => token },
    });
    passages.forEach((passage, id) => this.#index.add({ id, content: searchedText(passage, titleWeight) }));
  }

  /** Indexes the passages. Bad options -> ERR_SEARCH_OPTIONS. Without passages every search finds nothing. */
  static fromPassages(passages: Iterable<Passage>, options: SearchOptions = {}): SearchEnvironment {
    return new SearchEnvironment([...passages], options);
  }

  /**
   * The best `k` passages that share a token with the query, by score; equal scores in the order of the passages. Only the
   * first 16,384 characters of a query count.
   */
  search(query: string, k: number = this.topK): SearchHit[] {
    expectCount("k", k);
    const repeats = queryTokens(query, this.#tokenize);
    const found: number[] = [];
    const scores = this.#scores;
    for (const [token, times] of repeats) {
      const postings = this.#postingsOf(token);
      for (let i = 0; i < postings.documents.length; i++) {
        const document = postings.documents[i]!;
        if (scores[document] === 0) found.push(document);
        scores[document]! += times * postings.scores[i]!;
      }
    }
    const best = firstOf(found, k, (a, b) => scores[b]! - scores[a]! || a - b);
    const hits = best.map((document) => ({ passage: this.#passages[document]!, score: scores[document]! }));
    for (const document of found) scores[document] = 0;
    return hits;
  }

  act(call: Pick<ToolCall, "text">): Promise<ToolResult> {
    const passages = this.search(call.text).map((hit) => hit.passage);
    return Promise.resolve({
      text: passages.length === 0 ? this.nothingFound : this.format(passages),
      passages,
    });
  }

  #postingsOf(token: string): Postings {
    let postings = this.#postings.get(token);
    if (postings === undefined) {
      // One token at a time: over several, MiniSearch multiplies a score by how many of them matched.
      const results = this.#index.search(token);
      if (results.length === 0) return NO_POSTINGS;
      postings = {
        documents: Int32Array.from(results, (result) => result.id as number),
        scores: Float64Array.from(results, (result) => result.score),
      };
      this.#postings.set(token, postings);
    }
    return postings;
  }
}

const NO_POSTINGS: Postings = { documents: new Int32Array(0), scores: new Float64Array(0) };

/** What of a passage is searched: one field. */
export function searchedText({ title, text }: Passage, titleWeight: number): string {
  return title === undefined ? text : `${`${title}\n`.repeat(titleWeight)}${text}`;
}

/** The tokens of a query, each with how often it is there, in the order of their first places. */
export function queryTokens(query: string, tokenize: (text: string) => string[]): Map<string, number> {
  const repeats = new Map<string, number>();
  for (const token of tokenize(query.slice(0, MAX_QUERY_CHARACTERS))) {
    repeats.set(token, (repeats.get(token) ?? 0) + 1);
  }
  return repeats;
}

/** Settings of BM25 that make no sense -> ERR_SEARCH_OPTIONS. */
export function expectScoring({ titleWeight, k1, b }: { titleWeight: number; k1: number; b: number }): void {
  expect(Number.isInteger(titleWeight) && titleWeight >= 0, "an integer of 0 or more", "titleWeight", titleWeight);
  expect(k1 >= 0 && k1 < Infinity, "a number of 0 or more", "k1", k1);
  expect(b >= 0 && b <= 1, "a number from 0 to 1", "b", b);
}

/** What is no integer of 1 or more -> ERR_SEARCH_OPTIONS. */
export function expectCount(name: string, value: number): void {
  expect(Number.isInteger(value) && value > 0, "an integer of 1 or more", name, value);
}

function expect(holds: boolean, wanted: string, name: string, value: unknown): void {
  if (!holds) fail("ERR_SEARCH_OPTIONS", `Expected ${wanted} for ${name} but received ${String(value)}`);
}

/** The first `k` in the order of `compare`, without sorting the rest. */
function firstOf(items: readonly number[], k: number, compare: (a: number, b: number) => number): number[] {
  const best: number[] = [];
  for (const item of items) {
    if (best.length === k && compare(item, best[k - 1]!) > 0) continue;
    let at = best.length;
    while (at > 0 && compare(item, best[at - 1]!) < 0) at--;
    best.splice(at, 0, item);
    if (best.length > k) best.pop();
  }
  return best;
}
