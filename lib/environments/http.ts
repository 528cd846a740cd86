import { describe } from "../arguments.js";
import { fail } from "../errors.js";
import { isRetryable, ToolError } from "./tool-error.js";

/** How a client says who it is. */
export type HttpAuth = { username: string; password: string } | { apiKey: string } | { bearer: string };

/** Options of {@link JsonEndpoint}. */
export interface EndpointOptions {
  url: string;
  /** Path to use where the address has none. */
  path?: string;
  auth?: HttpAuth | undefined;
  headers?: Record<string, string> | undefined;
  /** Bytes of an answer that are read at most. @default 64 MiB */
  maxBytes?: number | undefined;
}

/**
 * An address that takes and gives JSON, over connections that are kept (fetch's own pool). Errors name the address without what may
 * be secret: no user, password, query or header.
 */
export class JsonEndpoint {
  /** The address in messages. */
  readonly label: string;
  readonly #url: string;
  readonly #headers: Record<string, string>;
  readonly #secrets: string[];
  readonly #maxBytes: number;

  constructor({ url, path = "/", auth, headers = {}, maxBytes = 64 * 2 ** 20 }: EndpointOptions) {
    const parsed = typeof url === "string" && URL.canParse(url) ? new URL(url) : undefined;
    // The text itself is not shown: it may hold a password.
    if (parsed === undefined || !/^https?:$/.test(parsed.protocol))
      fail("ERR_TOOL_OPTIONS", "Expected an address that begins with http:// or https:// for url");
    if (parsed.username !== "") {
      const [username, password] = [decodeURIComponent(parsed.username), decodeURIComponent(parsed.password)];
      auth ??= { username, password };
      parsed.username = parsed.password = "";
    }
    if (parsed.pathname === "/") parsed.pathname = path;
    parsed.hash = "";
    const authorization = auth === undefined ? undefined : authorizationOf(auth);
    this.label = `${parsed.origin}${parsed.pathname}`;
    this.#url = parsed.href;
    this.#headers = {
      ...{ accept: "application/json", "content-type": "application/json" },
      ...(authorization === undefined ? {} : { authorization }),
      ...headers,
    };
    const values = [...Object.values(auth ?? {}), ...Object.values(headers), authorization?.split(" ")[1] ?? ""];
    this.#secrets = values.filter((value) => value.length > 3);
    this.#maxBytes = maxBytes;
  }

  /**
   * The JSON that a POST of this body brings. No connection, or one that broke -> ERR_TOOL_UNREACHABLE; a status other
   * than 2xx -> ERR_TOOL_HTTP (which may pass where it is 408, 425, 429 or 5xx); no JSON, or too much -> ERR_TOOL_ANSWER.
   */
  async post(body: unknown, signal: AbortSignal): Promise<unknown> {
    let text: string;
    try {
      const request = { method: "POST", headers: this.#headers, body: JSON.stringify(body), signal };
      // A redirect would turn the POST into a GET or carry it elsewhere: it is a mistake in the address.
      const response = await fetch(this.#url, { ...request, redirect: "manual" });
      text = await this.#read(response);
      if (!response.ok) throw this.#refusal(response, text);
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (error instanceof ToolError) throw error;
      const { cause } = error as Error;
      const why = cause instanceof Error ? explain(cause) : (error as Error).message;
      const message = `Expected an answer from ${this.label} but there was none: ${this.#censor(why)}`;
      throw new ToolError("ERR_TOOL_UNREACHABLE", message, { retryable: isRetryable(error), cause: error });
    }
    try {
      return JSON.parse(text);
    } catch {
      return this.misshapen("JSON", text);
    }
  }

  /** Throws ERR_TOOL_ANSWER: what was expected of this address, and the beginning of what came. */
  misshapen(wanted: string, received: unknown): never {
    const text = typeof received === "string" ? received : (JSON.stringify(received) ?? "nothing");
    const message = `Expected ${wanted} from ${this.label} but received ${this.#censor(excerpt(text)) || "nothing"}`;
    throw new ToolError("ERR_TOOL_ANSWER", message);
  }

  #refusal(response: Response, text: string): ToolError {
    const { status, headers } = response;
    const retryable = status >= 500 || [408, 425, 429].includes(status);
    const moved = status >= 300 && status < 400 ? " (the address has moved)" : "";
    const said = excerpt(text) === "" ? "" : `: ${this.#censor(excerpt(text))}`;
    const message = `Expected an answer from ${this.label} but received HTTP status ${status}${moved}${said}`;
    const retryAfterMs = readRetryAfter(headers.get("retry-after"));
    return new ToolError("ERR_TOOL_HTTP", message, {
      retryable,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
  }

  async #read(response: Response): Promise<string> {
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    // Leaving the loop early cancels the stream, and with it the connection.
    for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
      bytes += chunk.length;
      if (bytes > this.#maxBytes) {
        const message = `Expected at most ${this.#maxBytes} bytes from ${this.label} but received more`;
        throw new ToolError("ERR_TOOL_ANSWER", message);
      }
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString("utf8");
  }

  #censor(text: string): string {
    return this.#secrets.reduce((censored, secret) => censored.replaceAll(secret, "***"), text);
  }
}

/** The value of the header Authorization. */
export function authorizationOf(auth: HttpAuth): string {
  if ("bearer" in auth) return `Bearer ${auth.bearer}`;
  if ("apiKey" in auth) return `ApiKey ${auth.apiKey}`;
  if (typeof auth.username === "string" && typeof auth.password === "string")
    return `Basic ${Buffer.from(`${auth.username}:${auth.password}`).toString("base64")}`;
  const received = describe(auth);
  return fail("ERR_TOOL_OPTIONS", `Expected username and password, apiKey or bearer for auth but received ${received}`);
}

/** Several addresses were tried (localhost is two): an AggregateError without words of its own. */
function explain(cause: Error): string {
  if (cause.message !== "") return cause.message;
  const { errors, code } = cause as { errors?: Error[]; code?: string };
  return errors?.map(({ message }) => message).join("; ") ?? code ?? cause.name;
}

function excerpt(text: string): string {
  const line = text.slice(0, 1000).replace(/\s+/g, " ").trim();
  return line.length > 200 ? `${line.slice(0, 197)}...` : line;
}

/** Retry-After: seconds, or a date. */
function readRetryAfter(value: string | null): number | undefined {
  if (value === null) return undefined;
  const ms = /^\s*\d+\s*$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}
