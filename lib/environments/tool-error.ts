import { RolegradError } from "../errors.js";

/** Options of {@link ToolError}. */
export interface ToolErrorOptions {
  /** Whether the same call may succeed a moment later. @default false */
  retryable?: boolean;
  /** Milliseconds that the tool asks to be left alone. */
  retryAfterMs?: number;
  cause?: unknown;
}

/**
 * A tool's failure. `retryable` says that it may pass (a connection lost, a server that is busy): `managedTool` tries
 * such a call again. An environment of one's own may throw it, or any error with these two properties.
 *
 * @example
 * throw new ToolError("ERR_WEATHER", "The weather service is busy", { retryable: true, retryAfterMs: 500 });
 */
export class ToolError extends RolegradError {
  readonly retryable: boolean;
  readonly retryAfterMs: number | undefined;

  constructor(code: string, message: string, { retryable = false, retryAfterMs, cause }: ToolErrorOptions = {}) {
    super(code, message, cause === undefined ? {} : { cause });
    this.retryable = retryable;
    this.retryAfterMs = retryAfterMs;
  }
}

// What sockets and undici call a connection that could not be made or did not last.
const PASSING =
  /^(ECONNREFUSED|ECONNRESET|ECONNABORTED|EPIPE|ETIMEDOUT|EAI_AGAIN|ENETUNREACH|EHOSTUNREACH|UND_ERR_(SOCKET|CONNECT_TIMEOUT|HEADERS_TIMEOUT|BODY_TIMEOUT))$/;

/** Whether a failure may pass: what it says itself, else whether it, or what led to it, is one of the network's. */
export function isRetryable(error: unknown): boolean {
  for (let at = error, depth = 0; typeof at === "object" && at !== null && depth < 5; depth++) {
    const { retryable, code, cause } = at as { retryable?: unknown; code?: unknown; cause?: unknown };
    if (typeof retryable === "boolean") return retryable;
    if (typeof code === "string" && PASSING.test(code)) return true;
    at = cause;
  }
  return false;
}

/** The milliseconds that a failure asks to wait, 0 where it asks for none. */
export function retryAfterOf(error: unknown): number {
  const wanted = (error as { retryAfterMs?: unknown } | null | undefined)?.retryAfterMs;
  return typeof wanted === "number" && wanted > 0 ? wanted : 0;
}
