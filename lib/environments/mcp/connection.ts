import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import { packageVersion } from "../../binding.js";
import { importOptional } from "../../optional.js";
import { isRetryable, ToolError } from "../tool-error.js";
import { censor, type ResolvedServer } from "./server.js";
import { Streams } from "./streams.js";

type Sdk = typeof import("@modelcontextprotocol/sdk/client/index.js") &
  typeof import("@modelcontextprotocol/sdk/types.js");
type Client = InstanceType<Sdk["Client"]>;

/** A tool as a server lists it. */
export interface ListedTool {
  name: string;
  description?: string | undefined;
  inputSchema: Record<string, unknown>;
}

/** What a call gave, as the protocol has it. */
export interface RawResult {
  content: readonly Record<string, unknown>[];
  structuredContent?: Record<string, unknown> | undefined;
  isError?: boolean | undefined;
}

export interface ConnectionOptions {
  /** Milliseconds for connecting, and for each page of the list of tools. */
  timeout: number;
  /** Bytes of one message of the server. */
  maxBytes: number;
  /** A line that a program wrote to its standard error. */
  onLog?: ((line: string) => void) | undefined;
  signal: AbortSignal;
}

const NEVER = 2 ** 31 - 1;
const MAX_PAGES = 1000;
const LOG_LINES = 8;
// Time that a server has to hear that the session is over; it is a courtesy.
const FAREWELL_MS = 1000;

/** Programs that run. What ends this process in passing ends them too. */
const running = new Set<number>();
let hooked = false;

function watch(pid: number): void {
  running.add(pid);
  if (hooked) return;
  hooked = true;
  process.on("exit", () => {
    for (const pid of running) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It has ended by itself.
      }
    }
  });
}

/** One connection to a server, from its start to its loss. */
export class Connection {
  /** Of a program. */
  pid: number | undefined;
  /** It has ended, or must not be used again. */
  lost = false;
  readonly #server: ResolvedServer;
  readonly #client: Client;
  readonly #sdk: Sdk;
  readonly #timeout: number;
  readonly #log: string[] = [];
  #farewell: () => Promise<void> = () => Promise.resolve();
  #session: () => string | undefined = () => undefined;
  #closed: Promise<void> | undefined;

  private constructor(server: ResolvedServer, sdk: Sdk, timeout: number) {
    this.#server = server;
    this.#sdk = sdk;
    this.#timeout = timeout;
    this.#client = new sdk.Client({ name: "rolegrad", version: packageVersion() });
  }

  /** Connects and says hello. No server -> ERR_TOOL_UNREACHABLE; without the SDK -> ERR_OPTIONAL_MISSING. */
  static async open(server: ResolvedServer, options: ConnectionOptions): Promise<Connection> {
    const connection = new Connection(server, await loadSdk(), options.timeout);
    options.signal.throwIfAborted();
    try {
      await connection.#start(options);
      return connection;
    } catch (error) {
      const told = options.signal.aborted
        ? (options.signal.reason as unknown)
        : connection.explain(error, "connected to");
      await connection.close();
      throw told;
    }
  }

  async #start({ maxBytes, onLog, signal, timeout }: ConnectionOptions): Promise<void> {
    const transport = await this.#transport(maxBytes, onLog);
    transport.onclose = () => {
      this.lost = true;
      if (this.pid !== undefined) running.delete(this.pid);
    };
    transport.onerror = (error) => {
      // Streams that could not be taken up again: what waits for them would wait for ever.
      if (error.message.startsWith("Maximum reconnection attempts")) void this.close();
    };
    await this.#client.connect(transport, { signal, timeout });
  }

  async #transport(maxBytes: number, onLog: ConnectionOptions["onLog"]): Promise<Transport> {
    const server = this.#server;
    if (server.kind === "stdio") {
      const { StdioClientTransport } = await importOptional<typeof import("@modelcontextprotocol/sdk/client/stdio.js")>(
        "@modelcontextprotocol/sdk/client/stdio.js",
        USE,
      );
      const { command, args, env, cwd } = server;
      const transport = new StdioClientTransport({
        ...{ command, args, env, stderr: "pipe", maxBufferSize: maxBytes },
        ...(cwd !== undefined && { cwd }),
      });
      const start = transport.start.bind(transport);
      transport.start = async () => {
        await start();
        if (transport.pid !== null) watch((this.pid = transport.pid));
      };
      let rest = "";
      transport.stderr?.on("data", (chunk: Buffer) => {
        const lines = `${rest}${censor(chunk.toString("utf8"), server.secrets)}`.split("\n");
        rest = (lines.pop() ?? "").slice(0, 10_000);
        for (const line of lines) {
          if (this.#log.push(line.slice(0, 500)) > LOG_LINES) this.#log.shift();
          onLog?.(line);
        }
      });
      return transport;
    }
    const { StreamableHTTPClientTransport } = await importOptional<
      typeof import("@modelcontextprotocol/sdk/client/streamableHttp.js")
    >("@modelcontextprotocol/sdk/client/streamableHttp.js", USE);
    const streams = new Streams(maxBytes, (answer) => transport.onmessage?.(answer));
    const transport = new StreamableHTTPClientTransport(new URL(server.url), {
      requestInit: { headers: server.headers },
      fetch: streams.fetch,
      reconnectionOptions: {
        ...{ initialReconnectionDelay: 200, maxReconnectionDelay: 2000, reconnectionDelayGrowFactor: 2, maxRetries: 3 },
      },
    });
    // The protocol's own listener is called after this one.
    transport.onmessage = (message) => {
      if ("id" in message && message.id !== undefined && !("method" in message)) streams.answered(message.id);
    };
    this.#session = () => transport.sessionId;
    this.#farewell = () => transport.terminateSession();
    return transport;
  }

  /** Every page of the server's tools. */
  async listTools(signal: AbortSignal): Promise<ListedTool[]> {
    const tools: ListedTool[] = [];
    try {
      let cursor: string | undefined;
      for (let page = 0; page < MAX_PAGES; page++) {
        const list = await this.#client.request(
          { method: "tools/list", ...(cursor !== undefined && { params: { cursor } }) },
          this.#sdk.ListToolsResultSchema,
          { signal, timeout: this.#timeout },
        );
        tools.push(...list.tools);
        if (list.nextCursor === undefined) return tools;
        cursor = list.nextCursor;
      }
    } catch (error) {
      signal.throwIfAborted();
      throw this.explain(error, "asked for its tools");
    }
    throw new ToolError("ERR_TOOL_ANSWER", `Expected a list of tools from ${this.#server.label} but it has no end`);
  }

  /** Calls a tool. An abort tells the server that the call is cancelled. Errors as they come: see {@link explain}. */
  async call(name: string, args: Record<string, unknown>, signal: AbortSignal): Promise<RawResult> {
    // The SDK would listen to a signal for ever, and cancel calls that have their answer.
    const own = new AbortController();
    const abort = (): void => own.abort(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    try {
      const request = { method: "tools/call" as const, params: { name, arguments: args } };
      const options = { signal: own.signal, timeout: NEVER };
      return await this.#client.request(request, this.#sdk.CallToolResultSchema, options);
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  /** Whether an error says that the server does not know this session (any more): the call has not been made. */
  forgotten(error: unknown): boolean {
    const { code } = error as { code?: unknown };
    return isHttpError(error) && (code === 404 || code === 400) && this.#session() !== undefined;
  }

  /** A failure of a request, in this package's words. */
  explain(error: unknown, what: string): ToolError {
    const { label } = this.#server;
    if (error instanceof ToolError) return error;
    const { code, data, message } = error as { code?: unknown; data?: unknown; message: string };
    if (isHttpError(error) && typeof code === "number") {
      const retryable = code >= 500 || [408, 425, 429].includes(code);
      const said = excerpt(this.#clean(message.replace(/^.*?Error POSTing to endpoint: ?/s, "")));
      const text = `Expected an answer from ${label} but received HTTP status ${code}${said === "" ? "" : `: ${said}`}`;
      return new ToolError("ERR_TOOL_HTTP", text, { retryable, cause: error });
    }
    if (data === "too large")
      return new ToolError("ERR_TOOL_ANSWER", `Expected a shorter answer from ${label}: ${tidy(message)}`);
    if (Array.isArray((error as { issues?: unknown }).issues)) {
      const text = `Expected what the protocol asks for from ${label} when it was ${what} but received another shape`;
      return new ToolError("ERR_TOOL_ANSWER", `${text}: ${excerpt(message)}`, { cause: error });
    }
    if (code === this.#sdk.ErrorCode.RequestTimeout && message.endsWith("Request timed out")) {
      const text = `Expected an answer from the MCP server ${label} when it was ${what} but none came in time`;
      return new ToolError("ERR_TOOL_TIMEOUT", text, { retryable: true, cause: error });
    }
    if (this.lost || data === "lost" || !(error instanceof this.#sdk.McpError)) return this.#unreachable(error);
    const text = `${label} answered with an error when it was ${what}: ${excerpt(this.#clean(tidy(message)))}`;
    return new ToolError("ERR_TOOL_REPORTED", text, { cause: error });
  }

  #unreachable(error: unknown): ToolError {
    if (error instanceof ToolError) return error;
    const { label, kind } = this.#server;
    const said = this.#log.length === 0 ? "" : `; its last lines: ${this.#log.join(" | ")}`;
    const why = excerpt(this.#clean(tidy(reason(error))));
    const retryable =
      kind === "stdio" || this.lost || isRetryable(error) || (error as { data?: unknown }).data === "lost";
    const text = `Expected an answer from the MCP server ${label} but there was none: ${why}${said}`;
    return new ToolError("ERR_TOOL_UNREACHABLE", text, { retryable, cause: error });
  }

  #clean(text: string): string {
    return censor(text, this.#server.secrets);
  }

  /** Ends the program (its input ends, then SIGTERM, then SIGKILL, 2 s apart) or the session. */
  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  async #close(): Promise<void> {
    const alive = !this.lost;
    this.lost = true;
    if (alive && this.#session() !== undefined) {
      let timer: NodeJS.Timeout | undefined;
      const enough = new Promise<void>((resolve) => (timer = setTimeout(resolve, FAREWELL_MS)));
      await Promise.race([this.#farewell().catch(() => undefined), enough]);
      clearTimeout(timer);
    }
    await this.#client.close().catch(() => undefined);
  }
}

const USE = "MCP servers";

async function loadSdk(): Promise<Sdk> {
  const client = await importOptional<Sdk>("@modelcontextprotocol/sdk/client/index.js", USE);
  const types = await importOptional<Sdk>("@modelcontextprotocol/sdk/types.js", USE);
  return { ...client, ...types };
}

const isHttpError = (error: unknown): boolean =>
  error instanceof Error && error.message.startsWith("Streamable HTTP error: ");

const tidy = (message: string): string => message.replace(/^(MCP error -?\d+: )+/, "");

function reason(error: unknown): string {
  const { message, cause } = error as { message?: string; cause?: unknown };
  // fetch says "fetch failed", and the cause why; of several addresses it has no words of its own.
  if (!(cause instanceof Error)) return message ?? String(error);
  const { errors, code } = cause as { errors?: Error[]; code?: string };
  return cause.message || (errors?.map((each) => each.message).join("; ") ?? code ?? cause.name);
}

function excerpt(text: string): string {
  const line = text.slice(0, 2000).replace(/\s+/g, " ").trim();
  return line.length > 400 ? `${line.slice(0, 397)}...` : line;
}
