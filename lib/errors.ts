/** Options of {@link RolegradError}. */
export interface RolegradErrorOptions {
  /** What led to this error. */
  cause?: unknown;
}

/**
 * The error of this package. `code` is stable ("ERR_..."), the message says what was expected, what came, where, and
 * what to do.
 *
 * @example
 * try {
 *   await loadModel("missing");
 * } catch (error) {
 *   if (error instanceof RolegradError && error.code === "ERR_MODEL_NOT_FOUND") console.error(error.message);
 * }
 */
export class RolegradError extends Error {
  override readonly name = "RolegradError";
  readonly code: string;

  constructor(code: string, message: string, options: RolegradErrorOptions = {}) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.code = code;
  }
}

/** Throws a {@link RolegradError}. */
export function fail(code: string, message: string, cause?: unknown): never {
  throw cause === undefined ? new RolegradError(code, message) : new RolegradError(code, message, { cause });
}
