import { describe } from "../arguments.js";
import { splitContents } from "../data/passages.js";
import { fail } from "../errors.js";
import { JsonEndpoint, type HttpAuth } from "./http.js";
import { MAX_QUERY_CHARACTERS, numberedPassages, type SearchHit } from "./search.js";
import type { Environment, Passage, ToolCall, ToolResult } from "./types.js";

/** What clients of search servers have in common. */
export interface SearchClientOptions {
  /** May hold user and password. */
  url: string;
  /** Passages a call returns. @default 3 */
  topK?: number;
  auth?: HttpAuth;
  /** Added to each request. */
  headers?: Record<string, string>;
  /** What the model reads; called with at least one passage. @default {@link numberedPassages} */
  format?: (passages: Passage[]) => string;
  /** What the model reads where nothing was found. @default "nothing found" */
  nothingFound?: string;
}

/** Options of {@link RetrieverClient}. */
export interface RetrieverOptions extends SearchClientOptions {
  /** "queries": a list in each request; "query": one text, for servers that know only this. @default "queries" */
  form?: "queries" | "query";
  /**
   * Send queries that come within `waitMs` (2) of each other as one request, of at most `maxQueries` (64). They also fail
   * together. Without it: a request for each.
   */
  batch?: { waitMs?: number; maxQueries?: number };
}

interface Pending {
  query: string;
  resolve: (hits: SearchHit[]) => void;
  reject: (error: unknown) => void;
}

interface Batch {
  pending: Set<Pending>;
  controller: AbortController;
  timer: NodeJS.Timeout | undefined;
}

/**
 * A search server that speaks Search-R1's protocol, as an environment: the text of a call is the query. The path is
 * /retrieve where `url` has none. Bad options -> ERR_TOOL_OPTIONS; a failure -> ERR_TOOL_UNREACHABLE, ERR_TOOL_HTTP or
 * ERR_TOOL_ANSWER, naming the address. It waits without end: `managedTool` adds time-out and retries.
 *
 * @example
 * const search = new RetrieverClient({ url: "http://127.0.0.1:8000", topK: 3 });
 * await search.search("river in Paris"); // [{ passage: { id, title, text }, score }]
 */
export class RetrieverClient implements Environment {
  readonly topK: number;
  readonly #endpoint: JsonEndpoint;
  readonly #form: "queries" | "query";
  readonly #batch: { waitMs: number; maxQueries: number } | undefined;
  readonly #format: (passages: Passage[]) => string;
  readonly #nothingFound: string;
  #open: Batch | undefined;

  constructor(options: RetrieverOptions) {
    const { url, topK = 3, form = "queries", batch, auth, headers } = options;
    this.topK = checkCount("topK", topK);
    if (form !== "queries" && form !== "query")
      fail("ERR_TOOL_OPTIONS", `Expected "queries" or "query" for form but received ${describe(form)}`);
    if (batch !== undefined && form === "query")
      fail("ERR_TOOL_OPTIONS", 'Expected form "queries" for batch but received "query"');
    this.#endpoint = new JsonEndpoint({ url, path: "/retrieve", auth, headers });
    this.#form = form;
    if (batch !== undefined) {
      const { waitMs = 2, maxQueries = 64 } = batch;
      this.#batch = { waitMs: checkCount("batch.waitMs", waitMs, 0), maxQueries: checkCount("maxQueries", maxQueries) };
    }
    this.#format = options.format ?? numberedPassages;
    this.#nothingFound = options.nothingFound ?? "nothing found";
  }

  async act(call: Pick<ToolCall, "text">, options: { signal?: AbortSignal } = {}): Promise<ToolResult> {
    const hits = await this.search(call.text, options);
    return resultOf(hits, this.#format, this.#nothingFound);
  }

  /** The passages for a query, best first. A server that gives no scores: 0 each. */
  search(query: string, { signal = NEVER }: { signal?: AbortSignal } = {}): Promise<SearchHit[]> {
    const text = query.slice(0, MAX_QUERY_CHARACTERS).trim();
    return this.#batch === undefined ? this.#alone(text, signal) : this.#together(text, signal);
  }

  async #alone(query: string, signal: AbortSignal): Promise<SearchHit[]> {
    const asked = this.#form === "queries" ? { queries: [query] } : { query };
    const [hits] = await this.#ask(asked, 1, signal);
    return hits!;
  }

  async #ask(asked: { queries: string[] } | { query: string }, count: number, signal: AbortSignal) {
    const answer = await this.#endpoint.post({ ...asked, topk: this.topK, return_scores: true }, signal);
    const result = (answer as { result?: unknown } | null)?.result;
    if (!Array.isArray(result)) return this.#endpoint.misshapen('"result" with a list of passages', answer);
    // One query: some servers leave out the list around its passages.
    const flat = "query" in asked && !result.some((item) => Array.isArray(item));
    const lists: unknown[] = flat ? [result] : result;
    if (lists.length !== count || !lists.every((list) => Array.isArray(list)))
      return this.#endpoint.misshapen(`a list of passages for each of ${count} queries`, answer);
    return (lists as unknown[][]).map((list) => list.slice(0, this.topK).map((item, i) => this.#hit(item, i)));
  }

  /** `{ document, score }`, or the document itself, with `contents` or `title` and `text`. */
  #hit(item: unknown, rank: number): SearchHit {
    const { document = item, score = 0 } = (item ?? {}) as { document?: unknown; score?: unknown };
    const { id, title, text, contents } = (document ?? {}) as Record<string, unknown>;
    const own = typeof id === "string" || typeof id === "number" ? String(id) : String(rank + 1);
    const wanted = '"contents" (or "text") in each passage, and its score as a number,';
    if (typeof score !== "number") return this.#endpoint.misshapen(wanted, item);
    if (typeof text === "string")
      return { passage: { id: own, ...(typeof title === "string" ? { title } : {}), text }, score };
    if (typeof contents !== "string") return this.#endpoint.misshapen(wanted, item);
    const parts = splitContents(contents);
    return { passage: { id: own, ...(parts.title === "" ? { text: parts.text } : parts) }, score };
  }

  #together(query: string, signal: AbortSignal): Promise<SearchHit[]> {
    const { waitMs, maxQueries } = this.#batch!;
    if (signal.aborted) return Promise.reject(signal.reason as Error);
    if (this.#open === undefined) {
      const created: Batch = { pending: new Set(), controller: new AbortController(), timer: undefined };
      created.timer = setTimeout(() => void this.#send(created), waitMs);
      this.#open = created;
    }
    const batch = this.#open;
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        batch.pending.delete(pending);
        reject(signal.reason as Error);
        if (batch.pending.size > 0) return;
        // Nobody is left: neither the timer nor the request is wanted.
        clearTimeout(batch.timer);
        if (this.#open === batch) this.#open = undefined;
        batch.controller.abort(signal.reason);
      };
      const settle = () => signal.removeEventListener("abort", leave);
      const pending: Pending = {
        query,
        resolve: (hits) => (settle(), resolve(hits)),
        reject: (error) => (settle(), reject(error)),
      };
      batch.pending.add(pending);
      signal.addEventListener("abort", leave, { once: true });
      if (batch.pending.size >= maxQueries) void this.#send(batch);
    });
  }

  async #send(batch: Batch): Promise<void> {
    clearTimeout(batch.timer);
    if (this.#open === batch) this.#open = undefined;
    const asked = [...batch.pending];
    const queries = asked.map(({ query }) => query);
    try {
      const lists = await this.#ask({ queries }, queries.length, batch.controller.signal);
      asked.forEach(({ resolve }, i) => resolve(lists[i]!));
    } catch (error) {
      for (const { reject } of asked) reject(error);
    }
  }
}

const NEVER = new AbortController().signal;

/** Passages as a tool's result. */
export function resultOf(
  hits: readonly SearchHit[],
  format: (passages: Passage[]) => string,
  nothingFound: string,
): ToolResult {
  const passages = hits.map(({ passage }) => passage);
  return { text: passages.length === 0 ? nothingFound : format(passages), passages };
}

export function checkCount(name: string, value: number, low = 1): number {
  if (!Number.isSafeInteger(value) || value < low)
    fail("ERR_TOOL_OPTIONS", `Expected a whole number of at least ${low} for ${name} but received ${describe(value)}`);
  return value;
}
