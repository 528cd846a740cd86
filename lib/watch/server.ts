import { existsSync } from "node:fs";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { isIP, type AddressInfo } from "node:net";
import path from "node:path";
import { fail, RolegradError } from "../errors.js";
import { contentSecurityPolicy } from "../report/page.js";
import { listAnswers, oneAnswer, Refusal } from "./answers.js";
import { Broadcast } from "./broadcast.js";
import type { LivePage } from "./live-page.js";
import { WatchedRun } from "./watched-run.js";
import { runsIn, WatchedRuns } from "./watched-runs.js";

/** Options of {@link startWatch}. */
export interface WatchOptions {
  /** @default "127.0.0.1", which no other machine reaches */
  host?: string;
  /** 0: one that is free. @default 7340, or one that is free where that is taken */
  port?: number;
  /** Milliseconds between two looks at the files, while a page is open. @default 1000 */
  interval?: number;
}

/** A server that runs. */
export interface WatchServer {
  /** Where the page is, such as "http://127.0.0.1:7340/". */
  readonly url: string;
  readonly host: string;
  readonly port: number;
  /** Ends open pages' connections and lets go of the port. */
  close(): Promise<void>;
}

const PORT = 7340;

/**
 * Serves a page of one run that follows its files, or of several runs: a list, and their curves side by side. One path that is a folder of runs stands for
 * all of them, also those that come later; one that does not exist yet is waited for. Answers only to requests that name this machine by its address,
 * "localhost" or `host`, so that a web page elsewhere cannot read it through a name of its own (DNS rebinding). Nothing that is asked changes
 * anything. A port that cannot be had -> ERR_WATCH_LISTEN.
 *
 * @example
 * const server = await startWatch(["runs/search"], { port: 0 });
 * console.log(server.url);
 * await server.close();
 */
export async function startWatch(runs: readonly string[], options: WatchOptions = {}): Promise<WatchServer> {
  const { host = "127.0.0.1", port, interval = 1000 } = options;
  if (!Array.isArray(runs) || runs.length === 0 || runs.some((run) => typeof run !== "string" || run === ""))
    fail("ERR_INVALID_ARGUMENT", "Expected one or more run directories");
  const site = new Site(runs);
  const broadcast = new Broadcast(interval);
  const server = createServer({ requestTimeout: 30_000 }, (request, response) => {
    void serve(site, broadcast, host, request, response).catch((error: unknown) => {
      if (response.headersSent) return void response.destroy();
      const status = error instanceof Refusal ? error.status : error instanceof RolegradError ? 422 : 500;
      send(response, status, "text/plain; charset=utf-8", error instanceof Error ? error.message : String(error));
    });
  });
  await listen(server, host, port);
  const address = server.address() as AddressInfo;
  const shown = address.family === "IPv6" ? `[${address.address}]` : address.address;
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    const closed = once(server, "close");
    server.close();
    broadcast.close();
    server.closeAllConnections();
    await closed;
  };
  return {
    url: `http://${shown}:${address.port}/`,
    host: address.address,
    port: address.port,
    close: () => (closing ??= close()),
  };
}

async function listen(server: ReturnType<typeof createServer>, host: string, port?: number): Promise<void> {
  for (const attempt of port === undefined ? [PORT, 0] : [port]) {
    try {
      server.listen(attempt, host);
      await once(server, "listening");
      return;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === "EADDRINUSE" && attempt === PORT && port === undefined) continue;
      fail("ERR_WATCH_LISTEN", `Expected to listen on ${host}:${attempt}: ${(cause as Error).message}`, cause);
    }
  }
}

/** What the paths are: one run, or several. Of one path it is known only when something is there. */
class Site {
  readonly #paths: readonly string[];
  #several: WatchedRuns | undefined;
  #one: WatchedRun | undefined;

  constructor(paths: readonly string[]) {
    this.#paths = paths;
    if (paths.length > 1) this.#several = new WatchedRuns(paths);
    else this.#one = new WatchedRun(paths[0] as string);
  }

  /** The page of an address, and what is asked of it: "", "events", ... */
  async find(pathname: string): Promise<{ page: LivePage; run: WatchedRun | undefined; what: string } | undefined> {
    const only = this.#paths[0] as string;
    if (this.#several === undefined && !existsSync(path.join(only, "config.json")) && (await runsIn(only)).length > 0)
      this.#several = new WatchedRuns(only);
    const several = this.#several;
    const match = /^\/(?:runs\/([^/]+)\/)?([a-z.]*)$/.exec(pathname);
    if (match === null) return undefined;
    const [, encoded, what = ""] = match;
    if (several === undefined) {
      const one = this.#one as WatchedRun;
      return encoded === undefined ? { page: one, run: one, what } : undefined;
    }
    if (encoded === undefined) return { page: several, run: undefined, what };
    if (several.runs.size === 0) await several.find();
    const run = several.runs.get(decoded(encoded));
    return run === undefined ? undefined : { page: run, run, what };
  }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

/** An address (no name can stand for it), this machine's own name, or the one that it was told to listen on. */
export function isOwnHost(header: string | undefined, host: string): boolean {
  const match = /^(\[[0-9a-f:.]+\]|[^:[\]]+)(?::\d{1,5})?$/i.exec(header ?? "");
  if (match === null) return false;
  const name = (match[1] as string).toLowerCase();
  return name === "localhost" || name === host.toLowerCase() || isIP(name.replace(/^\[|\]$/g, "")) !== 0;
}

async function serve(
  site: Site,
  broadcast: Broadcast,
  host: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (!isOwnHost(request.headers.host, host))
    throw new Refusal(403, "Expected a request by this machine's address or localhost (see --host)");
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.setHeader("allow", "GET, HEAD");
    throw new Refusal(405, "Expected GET");
  }
  const url = new URL(`http://watch${(request.url ?? "/").replace(/^\/+/, "/")}`);
  if (url.pathname === "/favicon.ico") return send(response, 204, "image/x-icon", "");
  const found = await site.find(url.pathname);
  const query = url.searchParams;
  if (found?.what === "") {
    await found.page.refresh();
    return send(response, 200, "text/html; charset=utf-8", found.page.document());
  }
  if (found?.what === "events") {
    const since = request.headers["last-event-id"]?.toString() ?? query.get("since");
    return broadcast.join(found.page, response, since, headers("text/event-stream; charset=utf-8"));
  }
  if (found?.what === "updates") {
    await found.page.refresh();
    return sendJson(response, found.page.updates(query.get("since")));
  }
  if (found?.run !== undefined && (found.what === "answers" || found.what === "answer")) {
    if (found.run.sources.length === 0) await found.run.refresh();
    return sendJson(response, await (found.what === "answers" ? listAnswers : oneAnswer)(found.run, query));
  }
  throw new Refusal(404, "Expected an address of this page");
}

function headers(type: string): Record<string, string> {
  return {
    "content-type": type,
    "cache-control": "no-store",
    "content-security-policy": `${contentSecurityPolicy(true)}; frame-ancestors 'none'`,
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
  };
}

function sendJson(response: ServerResponse, body: unknown): void {
  send(response, 200, "application/json; charset=utf-8", JSON.stringify(body));
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { ...headers(type), "content-length": Buffer.byteLength(body) });
  response.end(response.req.method === "HEAD" ? undefined : body);
}
