import { setTimeout as sleep } from "node:timers/promises";
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { checkInteger, describe } from "../arguments.js";
import { isRetryable } from "../environments/tool-error.js";
import { fail, RolegradError } from "../errors.js";

/** Options of a connection to a server. */
export interface ServerConnectionOptions {
  /** http:// or https://, with a path where the server is behind one; may hold user and password. */
  url: string;
  /** Sent as a bearer token. */
  apiKey?: string;
  /** Milliseconds of one request, its wait in the server's queue included. @default 600000 */
  timeout?: number;
  /** Attempts after the first where the failure may pass: no connection, one that broke, 408, 425, 429, 5xx. @default 5 */
  retries?: number;
  /** Milliseconds before the first of these; each further wait is twice as long, and up to 10 s. @default 500 */
  retryAfter?: number;
}

/** A server's failure. `status` is that of a refusal, `retryable` says that the same request may succeed later. */
export class ServerError extends RolegradError {
  readonly status: number | undefined;
  readonly retryable: boolean;
  readonly retryAfterMs: number;

  constructor(
    code: string,
    message: string,
    details: { status?: number; retryable?: boolean; retryAfterMs?: number; cause?: unknown } = {},
  ) {
    super(code, message, details.cause === undefined ? {} : { cause: details.cause });
    this.status = details.status;
    this.retryable = details.retryable ?? false;
    this.retryAfterMs = details.retryAfterMs ?? 0;
  }
}

const LONGEST_WAIT = 10_000;
/** A server that asks for a longer pause than this is not waited for. */
const LONGEST_PAUSE = 60_000;
const MOST_BYTES = 256 * 2 ** 20;

/**
 * Requests to one server, over connections that are kept. Not fetch: that gives up on an answer that has not begun after five minutes, which a
 * long queue takes. Requests are repeated where that may help: sampling again is harmless.
 *
 * @internal
 */
export class ServerConnection {
  /** The address in messages: without user, password and query. */
  readonly label: string;
  readonly #base: URL;
  readonly #agent: HttpAgent | HttpsAgent;
  readonly #headers: Record<string, string>;
  readonly #secrets: string[];
  readonly #timeout: number;
  readonly #retries: number;
  readonly #retryAfter: number;

  constructor({ url, apiKey, timeout = 600_000, retries = 5, retryAfter = 500 }: ServerConnectionOptions) {
    const parsed = typeof url === "string" && URL.canParse(url) ? new URL(url) : undefined;
    // The text itself is not shown: it may hold a password.
    if (parsed === undefined || !/^https?:$/.test(parsed.protocol))
      fail("ERR_SERVER_OPTIONS", "Expected an address that begins with http:// or https:// for url");
    if (apiKey !== undefined && (typeof apiKey !== "string" || !/^[\x21-\x7e]+$/.test(apiKey)))
      fail("ERR_SERVER_OPTIONS", "Expected a text of visible ASCII characters for apiKey");
    checkInteger(timeout, "timeout", 1, 2 ** 31 - 1);
    checkInteger(retries, "retries", 0);
    checkInteger(retryAfter, "retryAfter", 0, 2 ** 31 - 1);
    const { username, password } = parsed;
    const secrets = [username, password].map(decodeURIComponent).filter((part) => part !== "");
    const basic = username === "" ? undefined : Buffer.from(secrets.join(":")).toString("base64");
    const authorization =
      apiKey !== undefined ? `Bearer ${apiKey}` : basic === undefined ? undefined : `Basic ${basic}`;
    parsed.username = parsed.password = parsed.hash = parsed.search = "";
    // A base without its last slash would lose its last part.
    if (!parsed.pathname.endsWith("/")) parsed.pathname += "/";
    this.#base = parsed;
    this.label = parsed.href.replace(/\/$/, "");
    const options = { keepAlive: true, maxSockets: Infinity };
    this.#agent = parsed.protocol === "https:" ? new HttpsAgent(options) : new HttpAgent(options);
    this.#headers = {
      ...{ accept: "application/json", "content-type": "application/json" },
      ...(authorization === undefined ? {} : { authorization }),
    };
    this.#secrets = [...secrets, apiKey, basic].filter(
      (secret) => secret !== undefined && secret.length > 3,
    ) as string[];
    this.#timeout = timeout;
    this.#retries = retries;
    this.#retryAfter = retryAfter;
  }

  /** The text of the answer to a POST (with a body) or GET of `path`. A status other than 2xx -> ERR_SERVER_HTTP. */
  async send(path: string, body: unknown, signal?: AbortSignal): Promise<string> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#once(path, body, signal);
      } catch (error) {
        signal?.throwIfAborted();
        const { retryable, retryAfterMs } = error as ServerError;
        if (!retryable || attempt >= this.#retries || retryAfterMs > LONGEST_PAUSE) throw error;
        const wait = Math.min(this.#retryAfter * 2 ** attempt, LONGEST_WAIT);
        await sleep(Math.max(wait, retryAfterMs), undefined, signal && { signal }).catch(() => undefined);
        signal?.throwIfAborted();
      }
    }
  }

  /** The same, as JSON. */
  async json(path: string, body: unknown, signal?: AbortSignal): Promise<unknown> {
    const text = await this.send(path, body, signal);
    try {
      return JSON.parse(text) as unknown;
    } catch {
      return this.misshapen("JSON", path, text);
    }
  }

  /** Throws ERR_SERVER_PROTOCOL: what was expected of this address, and the beginning of what came. */
  misshapen(wanted: string, path: string, received: unknown): never {
    const text = typeof received === "string" ? received : (JSON.stringify(received) ?? "nothing");
    const came = this.#censor(excerpt(text)) || "nothing";
    throw new ServerError("ERR_SERVER_PROTOCOL", `Expected ${wanted} from ${this.#at(path)} but received ${came}`);
  }

  close(): void {
    this.#agent.destroy();
  }

  #at(path: string): string {
    return `${this.label}/${path}`;
  }

  async #once(path: string, body: unknown, signal?: AbortSignal): Promise<string> {
    signal?.throwIfAborted();
    const own = new AbortController();
    const timer = setTimeout(() => own.abort(), this.#timeout);
    const abort = (): void => own.abort();
    signal?.addEventListener("abort", abort, { once: true });
    try {
      const answer = await this.#exchange(path, body, own.signal);
      const text = await readAll(answer);
      const status = answer.statusCode ?? 0;
      if (status < 200 || status > 299) throw this.#refusal(path, status, text, answer.headers["retry-after"]);
      return text;
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof ServerError) throw error;
      const why = own.signal.aborted ? `none within ${this.#timeout} ms` : `there was none: ${explain(error as Error)}`;
      const message = `Expected an answer from ${this.#at(path)} but ${this.#censor(why)}`;
      const retryable = own.signal.aborted || isRetryable(error);
      throw new ServerError("ERR_SERVER_UNREACHABLE", message, { retryable, cause: error });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  }

  #exchange(path: string, body: unknown, signal: AbortSignal): Promise<IncomingMessage> {
    const url = new URL(path, this.#base);
    const text = body === undefined ? undefined : JSON.stringify(body);
    const headers = { ...this.#headers, ...(text !== undefined && { "content-length": Buffer.byteLength(text) }) };
    const options = { method: text === undefined ? "GET" : "POST", agent: this.#agent, headers, signal };
    return new Promise((resolve, reject) => {
      const request = (url.protocol === "https:" ? httpsRequest : httpRequest)(url, options, resolve);
      request.on("error", reject);
      request.end(text);
    });
  }

  #refusal(path: string, status: number, text: string, retryAfter: string | undefined): ServerError {
    const moved = status >= 300 && status < 400 ? " (the address has moved)" : "";
    const said = this.#censor(excerpt(messageOf(text)));
    const message = `Expected an answer from ${this.#at(path)} but received HTTP status ${status}${moved}${said && `: ${said}`}`;
    const seconds = Number(retryAfter ?? 0);
    return new ServerError("ERR_SERVER_HTTP", message, {
      status,
      retryable: status >= 500 || [408, 425, 429].includes(status),
      retryAfterMs: Number.isFinite(seconds) ? Math.max(0, seconds * 1000) : 0,
    });
  }

  #censor(text: string): string {
    return this.#secrets.reduce((censored, secret) => censored.replaceAll(secret, "***"), text);
  }
}

async function readAll(answer: IncomingMessage): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  // Leaving the loop early destroys the stream, and with it the connection.
  for await (const chunk of answer as AsyncIterable<Uint8Array>) {
    bytes += chunk.length;
    if (bytes > MOST_BYTES)
      throw new ServerError(
        "ERR_SERVER_PROTOCOL",
        `Expected an answer of at most ${MOST_BYTES} bytes but received more`,
      );
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** The words of an error's JSON: `{ error: { message } }`, `{ message }`, `{ detail }`, `{ error_message }`; else the text. */
function messageOf(text: string): string {
  try {
    const json = JSON.parse(text) as Record<string, unknown> | null;
    const { error, message, detail, error_message: own } = json ?? {};
    const inner = (error as { message?: unknown } | undefined)?.message;
    const said = [inner, own, message, detail, error].find((value) => typeof value === "string" && value !== "");
    return typeof said === "string" ? said : text;
  } catch {
    return text;
  }
}

/** Several addresses were tried (localhost is two): an AggregateError without words of its own. */
function explain(error: Error): string {
  const { errors, code } = error as { errors?: Error[]; code?: string };
  return error.message || (errors?.map(({ message }) => message).join("; ") ?? code ?? error.name);
}

function excerpt(text: string): string {
  const line = text.slice(0, 1000).replace(/\s+/g, " ").trim();
  return line.length > 300 ? `${line.slice(0, 297)}...` : line;
}

/** ERR_SERVER_OPTIONS unless it is an object with a url. @internal */
export function checkServerOptions(options: unknown): void {
  if (typeof options !== "object" || options === null)
    fail(
      "ERR_SERVER_OPTIONS",
      `Expected an object with a url for a server's options but received ${describe(options)}`,
    );
}
