import { describe } from "../arguments.js";
import { fail } from "../errors.js";
import type { ChatTool } from "../prompts/calls.js";
import { Random } from "../random.js";
import { Gate } from "./gate.js";
import { ResultCache } from "./lru.js";
import { isRetryable, retryAfterOf, ToolError } from "./tool-error.js";
import type { Environment, ToolCall, ToolResult } from "./types.js";

/** How long to wait before the k-th retry: firstMs factor^(k-1), at most maxMs, less up to `jitter` of it by chance. */
export interface Backoff {
  /** @default 200 */
  firstMs?: number;
  /** @default 2 */
  factor?: number;
  /** @default 10,000 */
  maxMs?: number;
  /** Share of the wait that chance may take off, from 0 to 1. @default 0.5 */
  jitter?: number;
  /** @default 0 */
  seed?: number;
  /** A tool that asks for more than this (Retry-After) is not waited for: the call fails. @default 60,000 */
  maxRetryAfterMs?: number;
}

/** Options of {@link managedTool}. */
export interface ManagedToolOptions {
  /** Calls out at once; the others wait in their order. @default 16 */
  concurrency?: number;
  /** Milliseconds of one attempt, without what it waited for its turn. @default 30,000 */
  timeout?: number;
  /** Attempts after the first, where the failure may pass. @default 3 */
  retries?: number;
  backoff?: Backoff;
  /**
   * Keep results, by role, name, arguments and text, and let equal calls share one request. For a tool whose answer follows from these;
   * where it also reads the question, give `key` (undefined: not this call). Without `cache` every call is made.
   */
  cache?: { maxEntries?: number; maxBytes?: number; key?: (call: ToolCall) => string | undefined };
  /** What messages call the tool. @default "The tool" */
  name?: string;
}

/** What a managed tool has done. */
export interface ToolStats {
  /** Calls that came in. */
  calls: number;
  /** Answered from the cache. */
  hits: number;
  /** Answered by the request of an equal call. */
  shared: number;
  /** Requests made, retries included. */
  attempts: number;
  retries: number;
  /** Attempts that ran out of time. */
  timeouts: number;
  /** Requests that came to nothing in the end. */
  failures: number;
  /** Calls whose caller left. */
  aborted: number;
  /** Milliseconds of all attempts together. */
  ms: number;
  /** Out at this moment. */
  running: number;
  /** Waiting for their turn at this moment. */
  queued: number;
}

/** See {@link managedTool}. */
export interface ManagedTool extends Environment {
  readonly timesOut: true;
  close(): Promise<void>;
  stats(): ToolStats;
}

/** One request, for all the calls that wait for it. */
interface Flight {
  controller: AbortController;
  waiters: number;
  promise: Promise<ToolResult>;
}

/**
 * An environment with limits: so many calls out at once, a time-out and a signal of its own for each attempt, retries with
 * exponential back-off where a failure may pass (a `retryable` error, the network's errors, a time-out), and a cache. Bad
 * options -> ERR_TOOL_OPTIONS; out of time -> ERR_TOOL_TIMEOUT; no text -> ERR_TOOL_ANSWER; after close() ->
 * ERR_TOOL_CLOSED. An abort rejects at once, with the signal's reason; a request that nobody waits for any more is
 * aborted. An attempt that is out of time gives its place to the next, also where the tool ignores its signal.
 *
 * @example
 * const tool = managedTool(new RetrieverClient({ url: "http://127.0.0.1:8000" }), { concurrency: 8, retries: 3 });
 * tool.stats(); // { calls: 0, hits: 0, … }
 */
export function managedTool(environment: Environment, options: ManagedToolOptions = {}): ManagedTool {
  return new Managed(environment, options);
}

class Managed implements ManagedTool {
  readonly timesOut = true;
  readonly #environment: Environment;
  readonly #timeout: number;
  readonly #retries: number;
  readonly #backoff: Required<Backoff>;
  readonly #name: string;
  readonly #gate: Gate;
  readonly #random: Random;
  readonly #cache: ResultCache | undefined;
  readonly #key: (call: ToolCall) => string | undefined;
  readonly #flights = new Set<Flight>();
  readonly #byKey = new Map<string, Flight>();
  readonly #counts = {
    ...{ calls: 0, hits: 0, shared: 0, attempts: 0, retries: 0, timeouts: 0, failures: 0, aborted: 0, ms: 0 },
  };
  #closed: Promise<void> | undefined;

  constructor(environment: Environment, options: ManagedToolOptions) {
    const { concurrency = 16, timeout = 30_000, retries = 3, cache, name = "The tool" } = options;
    const backoff = { firstMs: 200, factor: 2, maxMs: 10_000, jitter: 0.5, seed: 0, maxRetryAfterMs: 60_000 };
    if (typeof environment?.act !== "function")
      fail("ERR_TOOL_OPTIONS", `Expected an environment with act() but received ${describe(environment)}`);
    whole("concurrency", concurrency, 1);
    within("timeout", timeout, 1, MAX_TIMER);
    whole("retries", retries, 0);
    this.#backoff = { ...backoff, ...options.backoff };
    within("backoff.firstMs", this.#backoff.firstMs, 0, MAX_TIMER);
    within("backoff.factor", this.#backoff.factor, 1, Number.MAX_VALUE);
    within("backoff.maxMs", this.#backoff.maxMs, 0, MAX_TIMER);
    within("backoff.jitter", this.#backoff.jitter, 0, 1);
    within("backoff.maxRetryAfterMs", this.#backoff.maxRetryAfterMs, 0, MAX_TIMER);
    if (cache?.maxEntries !== undefined) whole("cache.maxEntries", cache.maxEntries, 0);
    if (cache?.maxBytes !== undefined) whole("cache.maxBytes", cache.maxBytes, 0);
    this.#environment = environment;
    this.#timeout = timeout;
    this.#retries = retries;
    this.#name = name;
    this.#gate = new Gate(concurrency);
    this.#random = new Random(this.#backoff.seed, "tool back-off");
    this.#cache = cache === undefined ? undefined : new ResultCache(cache);
    this.#key = cache?.key ?? keyOf;
  }

  get tools(): readonly ChatTool[] {
    return this.#environment.tools ?? [];
  }

  check(call: ToolCall): string | undefined {
    return this.#environment.check?.(call);
  }

  stats(): ToolStats {
    return { ...this.#counts, running: this.#gate.inside, queued: this.#gate.queued };
  }

  async act(call: ToolCall, { signal }: { signal: AbortSignal }): Promise<ToolResult> {
    this.#counts.calls++;
    if (this.#closed !== undefined) throw this.#closedError();
    if (signal.aborted) {
      this.#counts.aborted++;
      throw signal.reason;
    }
    const key = this.#cache === undefined ? undefined : this.#key(call);
    const held = key === undefined ? undefined : this.#cache?.get(key);
    if (held !== undefined) {
      this.#counts.hits++;
      return copyOf(held);
    }
    let flight = key === undefined ? undefined : this.#byKey.get(key);
    if (flight === undefined) flight = this.#start(call, key);
    else this.#counts.shared++;
    return copyOf(await this.#join(flight, signal));
  }

  /** Rejects what is waiting and running, and closes the environment. */
  close(): Promise<void> {
    return (this.#closed ??= this.#shut());
  }

  async #shut(): Promise<void> {
    const promises = [...this.#flights].map(({ promise, controller }) => {
      controller.abort(this.#closedError());
      return promise;
    });
    await Promise.allSettled(promises);
    this.#cache?.clear();
    await this.#environment.close?.();
  }

  #closedError(): ToolError {
    return new ToolError("ERR_TOOL_CLOSED", `${this.#name} is closed`);
  }

  #start(call: ToolCall, key: string | undefined): Flight {
    const controller = new AbortController();
    const flight: Flight = { controller, waiters: 0, promise: this.#request(call, controller.signal) };
    this.#flights.add(flight);
    if (key !== undefined) this.#byKey.set(key, flight);
    const over = (): void => {
      this.#flights.delete(flight);
      if (key !== undefined && this.#byKey.get(key) === flight) this.#byKey.delete(key);
    };
    // Before a next call can come: nobody joins an aborted request, and a result is in the cache once it is told.
    controller.signal.addEventListener("abort", over, { once: true });
    flight.promise = flight.promise.then(
      (result) => {
        over();
        if (key !== undefined && !controller.signal.aborted) this.#cache?.set(key, result);
        return result;
      },
      (error: unknown) => {
        over();
        if (!controller.signal.aborted) this.#counts.failures++;
        throw error;
      },
    );
    return flight;
  }

  /** Waits for a request as one of several; the last that leaves ends it. */
  async #join(flight: Flight, signal: AbortSignal): Promise<ToolResult> {
    flight.waiters++;
    let leave: () => void = () => undefined;
    const left = new Promise<never>((_, reject) => {
      leave = () => {
        this.#counts.aborted++;
        reject(signal.reason as Error);
        if (--flight.waiters === 0) flight.controller.abort(signal.reason);
      };
      signal.addEventListener("abort", leave, { once: true });
    });
    try {
      return await Promise.race([flight.promise, left]);
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  async #request(call: ToolCall, signal: AbortSignal): Promise<ToolResult> {
    for (let retry = 0; ; retry++) {
      await this.#gate.enter(signal, retry > 0);
      let error: unknown;
      try {
        return await this.#attempt(call, signal);
      } catch (caught) {
        error = caught;
      } finally {
        this.#gate.leave();
      }
      signal.throwIfAborted();
      const asked = retryAfterOf(error);
      if (retry >= this.#retries || !isRetryable(error) || asked > this.#backoff.maxRetryAfterMs) throw error;
      // The place is free meanwhile: another's call may fare better.
      await sleep(Math.max(asked, this.#wait(retry)), signal);
      this.#counts.retries++;
    }
  }

  #wait(retry: number): number {
    const { firstMs, factor, maxMs, jitter } = this.#backoff;
    return Math.min(maxMs, firstMs * factor ** retry) * (1 - jitter * this.#random.next());
  }

  async #attempt(call: ToolCall, signal: AbortSignal): Promise<ToolResult> {
    signal.throwIfAborted(); // it may have been between its turn and this
    const own = new AbortController();
    const begin = performance.now();
    this.#counts.attempts++;
    let end: () => void = () => undefined;
    let timer: NodeJS.Timeout | undefined;
    const ended = new Promise<never>((_, reject) => {
      end = () => reject(signal.reason as Error);
      signal.addEventListener("abort", end, { once: true });
      timer = setTimeout(() => {
        this.#counts.timeouts++;
        const message = `${this.#name} did not answer within ${this.#timeout} ms`;
        reject(new ToolError("ERR_TOOL_TIMEOUT", message, { retryable: true }));
      }, this.#timeout);
    });
    try {
      const result = await Promise.race([this.#environment.act(call, { signal: own.signal }), ended]);
      if (typeof (result as { text?: unknown } | undefined)?.text !== "string")
        throw new ToolError("ERR_TOOL_ANSWER", `${this.#name} answered without a text`);
      return result;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      // Whatever the tool still does for this attempt, nobody reads it.
      own.abort();
      this.#counts.ms += performance.now() - begin;
    }
  }
}

const MAX_TIMER = 2 ** 31 - 1;

function keyOf({ role, text, name, arguments: args }: ToolCall): string {
  return JSON.stringify(name === undefined ? [role, text] : [role, text, name, args]);
}

/** One caller may change what it got; the others must not see it. */
function copyOf(result: ToolResult): ToolResult {
  return result.passages === undefined ? { ...result } : { ...result, passages: [...result.passages] };
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const wake = (): void => {
      signal.removeEventListener("abort", stop);
      resolve();
    };
    const timer = setTimeout(wake, ms);
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    };
    signal.addEventListener("abort", stop, { once: true });
  });
}

function whole(name: string, value: number, low: number): void {
  if (!Number.isSafeInteger(value) || value < low)
    fail("ERR_TOOL_OPTIONS", `Expected a whole number of at least ${low} for ${name} but received ${describe(value)}`);
}

function within(name: string, value: number, low: number, high: number): void {
  if (!(typeof value === "number" && value >= low && value <= high))
    fail("ERR_TOOL_OPTIONS", `Expected a number from ${low} to ${high} for ${name} but received ${describe(value)}`);
}
