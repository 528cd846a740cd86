import { createHash } from "node:crypto";
import { setMaxListeners } from "node:events";
import { checkInteger, describe } from "../../arguments.js";
import { fail } from "../../errors.js";
import { ToolError } from "../tool-error.js";
import { Connection, type ListedTool, type RawResult } from "./connection.js";
import { resolveServer, type McpServer, type ResolvedServer } from "./server.js";

/** Options of {@link McpClient}. */
export interface McpClientOptions {
  /** What messages call the server. Default: the program and its arguments, or the address without what may be secret. */
  name?: string;
  /** Milliseconds for connecting, and for each page of the list of tools. @default 30,000 */
  connectTimeout?: number;
  /** Attempts to reach a server again that is lost, before calls fail at once. @default 3 */
  reconnects?: number;
  /** Wait before the second of these attempts, in milliseconds; twice as long before each further one. @default 200 */
  reconnectMs?: number;
  /** Milliseconds for which a server that could not be reached again is taken to be gone. @default 30,000 */
  goneMs?: number;
  /** Bytes of one answer. @default 8 MiB */
  maxBytes?: number;
  /** Called with each line that a program writes to its standard error. */
  onLog?: (line: string) => void;
  /** Ends connecting. */
  signal?: AbortSignal;
}

/** A tool as a server lists it. */
export interface McpTool {
  readonly name: string;
  readonly description: string;
  /** JSON schema of its arguments. */
  readonly inputSchema: Record<string, unknown>;
  /** SHA-256 of these three. */
  readonly hash: string;
}

type Settings = Required<Omit<McpClientOptions, "name" | "onLog" | "signal">> & {
  onLog: McpClientOptions["onLog"] | undefined;
};

/**
 * A connection to an MCP server, over a program's standard streams or streamable HTTP, by `@modelcontextprotocol/sdk`, which has to be installed
 * (ERR_OPTIONAL_MISSING). The list of tools is that of the beginning; what a server says later of a change of it is not heeded. A server that is lost (a
 * program that ends, a session that is forgotten) is connected to again by the next call.
 *
 * @example
 * const client = await McpClient.connect({ command: "node", args: ["server.mjs"] });
 * client.tools; // [{ name: "add", description: "Adds two numbers", inputSchema: { type: "object", … }, hash }]
 * await client.call("add", { a: 1, b: 2 }); // { content: [{ type: "text", text: "3" }] }
 * await client.close();
 */
export class McpClient {
  /** What messages call the server. */
  readonly label: string;
  readonly tools: readonly McpTool[];
  readonly #server: ResolvedServer;
  readonly #options: Settings;
  readonly #stop = new AbortController();
  #connection: Connection;
  /** Of sessions that the server no longer knows. */
  readonly #forgotten = new Set<Connection>();
  #opening: Promise<Connection> | undefined;
  #gone: { until: number; error: ToolError } | undefined;
  #closed: Promise<void> | undefined;

  private constructor(server: ResolvedServer, options: Settings, connection: Connection, tools: readonly ListedTool[]) {
    this.#server = server;
    this.#options = options;
    // Calls without a signal of their own listen to it.
    setMaxListeners(0, this.#stop.signal);
    this.#connection = connection;
    this.label = server.label;
    this.tools = tools.map(toTool);
  }

  /**
   * Starts the program or opens a session, and lists the tools. Bad options -> ERR_TOOL_OPTIONS; no server that answers -> ERR_TOOL_UNREACHABLE (for a
   * program with the last lines of its standard error), ERR_TOOL_HTTP or ERR_TOOL_TIMEOUT.
   */
  static async connect(server: McpServer, options: McpClientOptions = {}): Promise<McpClient> {
    const { name, signal, onLog } = options;
    const resolved = resolveServer(server, name);
    const { connectTimeout = 30_000, reconnects = 3, reconnectMs = 200, goneMs = 30_000, maxBytes = 2 ** 23 } = options;
    const settings = { connectTimeout, reconnects, reconnectMs, goneMs, maxBytes };
    for (const [name, value] of Object.entries(settings)) whole(name, value, name === "maxBytes" ? 1024 : 0);
    if (onLog !== undefined && typeof onLog !== "function")
      fail("ERR_TOOL_OPTIONS", `Expected a function for onLog but received ${describe(onLog)}`);
    const all = { ...settings, onLog };
    const during = signal ?? new AbortController().signal;
    const connection = await Connection.open(resolved, connectionOptions(all, during));
    try {
      return new McpClient(resolved, all, connection, await connection.listTools(during));
    } catch (error) {
      await connection.close();
      throw error;
    }
  }

  /** Of a program that runs. */
  get pid(): number | undefined {
    return this.#connection.lost ? undefined : this.#connection.pid;
  }

  /**
   * Calls a tool. An abort rejects with the signal's reason, and the server is told. A server that says no -> ERR_TOOL_REPORTED; that is lost meanwhile
   * -> ERR_TOOL_UNREACHABLE (retryable); that could not be reached again -> ERR_TOOL_GONE, for `goneMs` at once.
   */
  async call(
    name: string,
    args: Record<string, unknown>,
    { signal = this.#stop.signal }: { signal?: AbortSignal } = {},
  ): Promise<RawResult> {
    for (let again = false; ; again = true) {
      signal.throwIfAborted();
      const connection = await this.#connected(signal);
      signal.throwIfAborted();
      try {
        return await connection.call(name, args, signal);
      } catch (error) {
        signal.throwIfAborted();
        if (this.#closed !== undefined) throw this.#closedError();
        if (!again && connection.forgotten(error)) {
          // The server has started again, say, and has a session for whoever asks for one.
          connection.lost = true;
          this.#forgotten.add(connection);
          continue;
        }
        throw connection.explain(error, `called for ${name}`);
      }
    }
  }

  async #connected(signal: AbortSignal): Promise<Connection> {
    if (this.#closed !== undefined) throw this.#closedError();
    if (!this.#connection.lost) return this.#connection;
    if (this.#gone !== undefined && performance.now() < this.#gone.until) throw this.#gone.error;
    this.#opening ??= this.#reopen().finally(() => (this.#opening = undefined));
    return unless(signal, this.#opening);
  }

  async #reopen(): Promise<Connection> {
    const { reconnects, reconnectMs, goneMs } = this.#options;
    let last: unknown = new ToolError("ERR_TOOL_UNREACHABLE", "it is not to be connected to again");
    // What is left of the old one: a program that has lost its streams may still run. Of a session that is forgotten other calls have yet to hear so.
    if (!this.#forgotten.has(this.#connection)) void this.#connection.close();
    for (let attempt = 0; attempt < reconnects; attempt++) {
      if (attempt > 0) await pause(reconnectMs * 2 ** (attempt - 1), this.#stop.signal);
      try {
        this.#connection = await Connection.open(this.#server, connectionOptions(this.#options, this.#stop.signal));
        this.#gone = undefined;
        return this.#connection;
      } catch (error) {
        if (this.#closed !== undefined) throw this.#closedError();
        last = error;
      }
    }
    const tried = `${reconnects} attempt${reconnects === 1 ? "" : "s"} to reach it again`;
    const text = `The MCP server ${this.label} is gone, after ${tried}: ${(last as Error).message}`;
    const error = new ToolError("ERR_TOOL_GONE", text, { cause: last });
    this.#gone = { until: performance.now() + goneMs, error };
    throw error;
  }

  #closedError(): ToolError {
    return new ToolError("ERR_TOOL_CLOSED", `The MCP server ${this.label} is closed`);
  }

  /** Ends calls (ERR_TOOL_CLOSED) and the connection: a program's input ends, then it gets SIGTERM, then SIGKILL, 2 s apart. */
  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  async #close(): Promise<void> {
    this.#stop.abort(this.#closedError());
    await this.#opening?.catch(() => undefined);
    await Promise.all([this.#connection, ...this.#forgotten].map((connection) => connection.close()));
  }
}

function connectionOptions({ connectTimeout: timeout, maxBytes, onLog }: Settings, signal: AbortSignal) {
  return { timeout: Math.max(timeout, 1), maxBytes, onLog, signal };
}

function toTool({ name, description = "", inputSchema }: ListedTool): McpTool {
  const hash = createHash("sha256").update(ordered({ name, description, inputSchema })).digest("hex");
  return { name, description, inputSchema, hash };
}

/** JSON that does not depend on the order of keys. */
function ordered(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    typeof part === "object" && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  );
}

/** What a promise gives, unless the signal is aborted first. */
async function unless<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  let stop: () => void = () => undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason as Error);
    signal.addEventListener("abort", stop, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** Waits; an abort ends it early. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const wake = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", wake);
      resolve();
    };
    const timer = setTimeout(wake, ms);
    signal.addEventListener("abort", wake, { once: true });
  });
}

function whole(name: string, value: unknown, low: number): void {
  try {
    checkInteger(value, name, low, 2 ** 31 - 1);
  } catch (cause) {
    fail("ERR_TOOL_OPTIONS", (cause as Error).message, cause);
  }
}
