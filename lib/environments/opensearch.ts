import { fail } from "../errors.js";
import { JsonEndpoint } from "./http.js";
import { checkCount, resultOf, type SearchClientOptions } from "./retriever.js";
import { MAX_QUERY_CHARACTERS, numberedPassages, type SearchHit } from "./search.js";
import type { Environment, Passage, ToolCall, ToolResult } from "./types.js";

/** Options of {@link OpenSearchClient}. */
export interface OpenSearchOptions extends SearchClientOptions {
  index: string;
  /** Fields that are searched, each with a weight where one is wanted ("title^2"). @default ["title", "text"] */
  fields?: string[];
  /** Field of a document that is its title; "" for none. @default "title" */
  titleField?: string;
  /** Field of a document that is its text. @default "text" */
  textField?: string;
  /** Another query than `match` (one field) or `multi_match` (several). */
  query?: (text: string) => Record<string, unknown>;
}

/**
 * Search in an index of OpenSearch (or Elasticsearch), as an environment: the text of a call is the query. Options and
 * errors as {@link RetrieverClient}; a document without its text field -> ERR_TOOL_ANSWER.
 *
 * @example
 * const search = new OpenSearchClient({ url: "http://127.0.0.1:9200", index: "wiki", fields: ["title^2", "text"] });
 */
export class OpenSearchClient implements Environment {
  readonly topK: number;
  readonly #endpoint: JsonEndpoint;
  readonly #titleField: string;
  readonly #textField: string;
  readonly #query: (text: string) => Record<string, unknown>;
  readonly #format: (passages: Passage[]) => string;
  readonly #nothingFound: string;

  constructor(options: OpenSearchOptions) {
    const { url, index, fields = ["title", "text"], topK = 3, auth, headers } = options;
    const { titleField = "title", textField = "text" } = options;
    this.topK = checkCount("topK", topK);
    if (typeof index !== "string" || index === "") fail("ERR_TOOL_OPTIONS", "Expected the name of an index for index");
    if (fields.length === 0) fail("ERR_TOOL_OPTIONS", "Expected at least one field for fields but received none");
    const address = typeof url === "string" && URL.canParse(url) ? new URL(url) : undefined;
    // The server may lie below a path of its own.
    if (address !== undefined)
      address.pathname = `${address.pathname.replace(/\/$/, "")}/${encodeURIComponent(index)}/_search`;
    this.#endpoint = new JsonEndpoint({ url: address?.href ?? url, auth, headers });
    this.#titleField = titleField;
    this.#textField = textField;
    this.#query = options.query ?? ((text) => matchOf(fields, text));
    this.#format = options.format ?? numberedPassages;
    this.#nothingFound = options.nothingFound ?? "nothing found";
  }

  async act(call: Pick<ToolCall, "text">, options: { signal?: AbortSignal } = {}): Promise<ToolResult> {
    const hits = await this.search(call.text, options);
    return resultOf(hits, this.#format, this.#nothingFound);
  }

  /** The passages for a query, best first. */
  async search(query: string, { signal }: { signal?: AbortSignal } = {}): Promise<SearchHit[]> {
    const shown = [this.#titleField, this.#textField].filter((field) => field !== "");
    const text = query.slice(0, MAX_QUERY_CHARACTERS).trim();
    const body = { size: this.topK, query: this.#query(text), _source: shown };
    const answer = await this.#endpoint.post(body, signal ?? new AbortController().signal);
    const hits = (answer as { hits?: { hits?: unknown } } | null)?.hits?.hits;
    if (!Array.isArray(hits)) return this.#endpoint.misshapen('"hits.hits" with a list of documents', answer);
    return hits.slice(0, this.topK).map((hit) => this.#hit(hit));
  }

  #hit(hit: unknown): SearchHit {
    const { _id: id, _score: score, _source: source } = (hit ?? {}) as Record<string, unknown>;
    const fields = (source ?? {}) as Record<string, unknown>;
    const title = fields[this.#titleField];
    const text = fields[this.#textField];
    if (typeof id !== "string" || typeof text !== "string")
      return this.#endpoint.misshapen(`_id and a text in _source.${this.#textField} of each document`, hit);
    const passage = { id, ...(typeof title === "string" ? { title } : {}), text };
    return { passage, score: typeof score === "number" ? score : 0 };
  }
}

function matchOf(fields: readonly string[], query: string): Record<string, unknown> {
  const [first = ""] = fields;
  if (fields.length === 1 && !first.includes("^")) return { match: { [first]: { query } } };
  return { multi_match: { query, fields } };
}
