import { ServerError } from "./connection.js";
import type { Generated, GenerateRequest, SamplingServer } from "./types.js";

/** A server with the adapter that is asked for. */
export interface Endpoint {
  readonly server: SamplingServer;
  readonly adapter: string | undefined;
  generate(request: Omit<GenerateRequest, "adapter">, signal: AbortSignal): Promise<Generated>;
}

/** Times that one request is repeated, each: because the server broke it off itself, and because it had lost the adapter. */
const REPEATS = 3;

/**
 * `reload` loads the adapter again where the server has lost it (it was started anew, or has made room); requests that find it missing at the
 * same time share one.
 */
export function makeEndpoint(
  server: SamplingServer,
  adapter?: string,
  reload?: (signal: AbortSignal) => Promise<void>,
): Endpoint {
  let loading: Promise<void> | undefined;
  const loadAgain = (signal: AbortSignal): Promise<void> => {
    loading ??= (reload as NonNullable<typeof reload>)(signal).finally(() => (loading = undefined));
    return loading;
  };
  return {
    server,
    adapter,
    async generate(request, signal) {
      let reloads = 0;
      for (let breaks = 0; ;) {
        try {
          return await server.generate({ ...request, adapter }, { signal });
        } catch (error) {
          signal.throwIfAborted();
          if (!(error instanceof ServerError)) throw error;
          if (error.code === "ERR_SERVER_MODEL" && reload !== undefined && reloads++ < REPEATS) await loadAgain(signal);
          else if (error.code === "ERR_SERVER_PROTOCOL" && error.retryable && breaks++ < REPEATS) continue;
          else throw error;
        }
      }
    },
  };
}
