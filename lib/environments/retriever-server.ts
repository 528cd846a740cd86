import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setImmediate as breathe } from "node:timers/promises";
import { describe } from "../arguments.js";
import { fail } from "../errors.js";
import { checkCount } from "./retriever.js";
import type { SearchHit } from "./search.js";

/** What a retriever serves. */
export interface Searcher {
  /** Number of passages, for /health. */
  readonly size?: number;
  search(query: string, topK: number): SearchHit[] | Promise<SearchHit[]>;
}

/** Options of {@link startRetriever}. */
export interface RetrieverServerOptions {
  /** @default "127.0.0.1" */
  host?: string;
  /** 0: one that is free. @default 8000 */
  port?: number;
  /** Passages a query, where the request does not say. @default 3 */
  topK?: number;
  /** What a request may ask for. @default 100 */
  maxTopK?: number;
  /** Queries of one request. @default 1024 */
  maxQueries?: number;
  /** Bytes of a request. @default 4 MiB */
  maxBytes?: number;
}

/** A server that runs. */
export interface RetrieverServer {
  /** Where it answers, such as "http://127.0.0.1:8000/retrieve". */
  readonly url: string;
  readonly host: string;
  readonly port: number;
  /** Takes no more, finishes what has come (5 s at most), and lets go of the port. */
  close(): Promise<void>;
}

/** What a request gets instead of an answer. */
class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly headers: Record<string, string> = {},
  ) {
    super(message);
  }
}

const GRACE_MS = 5000;

/**
 * Serves passages by Search-R1's protocol: `POST /retrieve` with `queries` (or one `query`), `topk` and `return_scores`;
 * `GET /health`. A request that makes no sense gets a 4xx with `{ "error" }`. A port that cannot be had -> ERR_RETRIEVER_LISTEN.
 *
 * @example
 * const server = await startRetriever(SearchEnvironment.fromPassages(passages), { port: 0 });
 * console.log(server.url);
 * await server.close();
 */
export async function startRetriever(
  searcher: Searcher,
  options: RetrieverServerOptions = {},
): Promise<RetrieverServer> {
  const { host = "127.0.0.1", port = 8000, topK = 3, maxTopK = 100 } = options;
  const { maxQueries = 1024, maxBytes = 4 * 2 ** 20 } = options;
  const limits = { maxTopK, maxQueries, maxBytes, topK };
  for (const [name, value] of Object.entries(limits)) checkCount(name, value);
  if (topK > maxTopK) fail("ERR_TOOL_OPTIONS", `Expected at most maxTopK, ${maxTopK}, for topK but received ${topK}`);

  const server = createServer({ requestTimeout: 30_000 }, (request, response) => {
    // At the end nothing is kept open after its answer.
    response.on("finish", () => {
      if (!server.listening) request.socket.end();
    });
    void answer(searcher, limits, request).then(
      (body) => send(response, 200, body),
      (error: unknown) => {
        if (error instanceof Refusal) send(response, error.status, { error: error.message }, error.headers);
        else send(response, 500, { error: error instanceof Error ? error.message : String(error) });
      },
    );
  });
  try {
    server.listen(port, host);
    await once(server, "listening");
  } catch (cause) {
    fail("ERR_RETRIEVER_LISTEN", `Expected to listen on ${host}:${port}: ${(cause as Error).message}`, cause);
  }
  const address = server.address() as AddressInfo;
  const shown = address.family === "IPv6" ? `[${address.address}]` : address.address;
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    const closed = once(server, "close");
    server.close(); // idle connections go at once, the others with their answer
    const impatience = setTimeout(() => server.closeAllConnections(), GRACE_MS);
    await closed;
    clearTimeout(impatience);
  };
  return {
    url: `http://${shown}:${address.port}/retrieve`,
    host: address.address,
    port: address.port,
    close: () => (closing ??= close()),
  };
}

type Limits = { maxTopK: number; maxQueries: number; maxBytes: number; topK: number };

async function answer(searcher: Searcher, limits: Limits, request: IncomingMessage): Promise<unknown> {
  const path = (request.url ?? "/").replace(/\?.*$/s, "");
  const method = { "/retrieve": "POST", "/health": "GET" }[path];
  if (method === undefined)
    throw new Refusal(404, "Expected POST /retrieve or GET /health but received another address");
  if (request.method !== method)
    throw new Refusal(405, `Expected ${method} for ${path} but received ${request.method}`, { allow: method });
  if (path === "/health")
    return { status: "ok", ...(searcher.size === undefined ? {} : { passages: searcher.size }), topk: limits.topK };

  const asked = parse(await read(request, limits.maxBytes), limits);
  const result: unknown[] = [];
  for (const query of asked.queries) {
    // A search holds the thread: others get a turn between two of a long list.
    if (result.length > 0) await breathe();
    if (request.destroyed && !request.complete) break;
    const hits = await searcher.search(query, asked.topK);
    result.push(hits.map((hit) => (asked.scores ? { document: toDocument(hit), score: hit.score } : toDocument(hit))));
  }
  return { result };
}

/** `contents` is what the protocol has: the title in quotes (empty ones where there is none), and the text below. */
function toDocument({ passage: { id, title, text } }: SearchHit): Record<string, string> {
  return { id, ...(title === undefined ? {} : { title }), text, contents: `"${title ?? ""}"\n${text}` };
}

async function read(request: IncomingMessage, maxBytes: number): Promise<string> {
  // What is too long is not read on: the connection ends with the answer.
  const tooLong = () => new Refusal(413, `Expected at most ${maxBytes} bytes`, { connection: "close" });
  if (Number(request.headers["content-length"] ?? 0) > maxBytes) throw tooLong();
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    request.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= maxBytes) return void chunks.push(chunk);
      request.pause().removeAllListeners("data");
      reject(tooLong());
    });
    request.on("end", () => resolve(Buffer.concat(chunks).toString("utf8")));
    request.on("error", reject);
  });
}

function parse(body: string, limits: Limits): { queries: string[]; topK: number; scores: boolean } {
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch (error) {
    throw new Refusal(400, `Expected JSON: ${(error as Error).message}`);
  }
  if (typeof json !== "object" || json === null || Array.isArray(json))
    throw new Refusal(400, `Expected a JSON object but received ${Array.isArray(json) ? "a list" : describe(json)}`);
  const { queries: list, query, topk, return_scores: scores } = json as Record<string, unknown>;
  if (list !== undefined && query !== undefined) throw new Refusal(400, "Expected queries or query but received both");
  const queries: unknown = query === undefined ? list : [query];
  if (!Array.isArray(queries) || !queries.every((text) => typeof text === "string"))
    throw new Refusal(400, 'Expected "queries" with a list of texts, or "query" with one');
  if (queries.length > limits.maxQueries)
    throw new Refusal(400, `Expected at most ${limits.maxQueries} queries but received ${queries.length}`);
  const topK = topk ?? limits.topK;
  if (!Number.isSafeInteger(topK) || (topK as number) < 1 || (topK as number) > limits.maxTopK)
    throw new Refusal(
      400,
      `Expected a whole number from 1 to ${limits.maxTopK} for topk but received ${describe(topk)}`,
    );
  if (scores !== undefined && scores !== null && typeof scores !== "boolean")
    throw new Refusal(400, `Expected true or false for return_scores but received ${describe(scores)}`);
  return { queries: queries, topK: topK as number, scores: scores === true };
}

function send(response: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}): void {
  const text = JSON.stringify(body);
  const type = { "content-type": "application/json; charset=utf-8", "content-length": Buffer.byteLength(text) };
  response.writeHead(status, { ...type, ...headers }).end(text);
}
