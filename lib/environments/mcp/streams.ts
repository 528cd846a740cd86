/** What a response that did not come is told as: the request's error, in JSON-RPC's form. */
export interface BrokenAnswer {
  jsonrpc: "2.0";
  id: number | string;
  error: { code: number; message: string; data: "lost" | "too large" };
}

type Id = number | string;

/**
 * The fetch of a streamable HTTP connection. The SDK leaves a request waiting whose stream of events ends without its response: it is told here. It
 * also bounds what a response may hold, ends the stream of a request that was cancelled, and opens no stream for what a server says unasked,
 * since nothing of that is heeded.
 */
export class Streams {
  readonly #maxBytes: number;
  readonly #deliver: (answer: BrokenAnswer) => void;
  readonly #open = new Map<Id, AbortController>();

  constructor(maxBytes: number, deliver: (answer: BrokenAnswer) => void) {
    this.#maxBytes = maxBytes;
    this.#deliver = deliver;
  }

  /** A response has come. */
  answered(id: Id): void {
    this.#open.delete(id);
  }

  readonly fetch = async (url: string | URL, init: RequestInit = {}): Promise<Response> => {
    const unasked = init.method === "GET" && !new Headers(init.headers).has("last-event-id");
    if (unasked) return new Response(null, { status: 405 });
    const { id, method, params } = message(init.body);
    if (id === undefined || method === undefined) {
      const response = await fetch(url, init);
      const cancelled = method === "notifications/cancelled" ? params?.requestId : undefined;
      if (cancelled !== undefined) {
        const stream = this.#open.get(cancelled);
        this.#open.delete(cancelled);
        stream?.abort();
      }
      return response;
    }
    const own = new AbortController();
    const all = init.signal;
    const end = (): void => own.abort(all?.reason);
    if (all?.aborted === true) end();
    all?.addEventListener("abort", end, { once: true });
    this.#open.set(id, own);
    const over = (): void => all?.removeEventListener("abort", end);
    try {
      const response = await fetch(url, { ...init, signal: own.signal });
      if (!response.ok || response.body === null) {
        this.#open.delete(id);
        over();
        return response;
      }
      const { status, statusText, headers } = response;
      return new Response(this.#watched(response.body, id, over), { status, statusText, headers });
    } catch (error) {
      this.#open.delete(id);
      over();
      throw error;
    }
  };

  #watched(body: ReadableStream<Uint8Array>, id: Id, over: () => void): ReadableStream<Uint8Array> {
    const reader = body.getReader();
    let bytes = 0;
    // With ids of events a stream can be taken up again, which the SDK does, or tells as an error of the transport.
    let resumable = false;
    const ended = (data: BrokenAnswer["error"]["data"], why: string): void => {
      over();
      if (resumable && data === "lost") return;
      // What has come may still be on its way through the parser.
      setTimeout(() => {
        if (!this.#open.delete(id)) return;
        this.#deliver({ jsonrpc: "2.0", id, error: { code: -32000, message: why, data } });
      }, 20);
    };
    return new ReadableStream({
      pull: async (controller) => {
        try {
          const { done, value } = await reader.read();
          if (done) {
            controller.close();
            return ended("lost", "the answer ended before the result had come");
          }
          bytes += value.length;
          if (bytes > this.#maxBytes) {
            const why = `the answer has more than ${this.#maxBytes} bytes`;
            ended("too large", why);
            controller.error(new Error(why));
            return await reader.cancel();
          }
          resumable ||= /(^|\n)id:/.test(Buffer.from(value).toString("latin1"));
          controller.enqueue(value);
        } catch (error) {
          ended("lost", `the answer broke off: ${(error as Error).message}`);
          controller.error(error);
        }
      },
      cancel: (reason) => {
        over();
        return reader.cancel(reason);
      },
    });
  }
}

interface Message {
  id?: Id;
  method?: string;
  params?: { requestId?: Id };
}

function message(body: unknown): Message {
  return typeof body === "string" ? (JSON.parse(body) as Message) : {};
}
