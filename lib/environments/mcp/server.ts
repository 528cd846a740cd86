import path from "node:path";
import { checkStrings, describe } from "../../arguments.js";
import { fail } from "../../errors.js";
import { authorizationOf, type HttpAuth } from "../http.js";

/** An MCP server: a program that speaks over its standard streams, or an address of the streamable HTTP transport. */
export type McpServer = McpProgram | McpAddress;

export interface McpProgram {
  command: string;
  args?: readonly string[];
  /** Added to HOME, LOGNAME, PATH, SHELL, TERM and USER, which are all that it gets of this process's own. */
  env?: Record<string, string>;
  cwd?: string;
}

export interface McpAddress {
  /** May hold user and password. */
  url: string;
  /** Added to each request. */
  headers?: Record<string, string>;
  auth?: HttpAuth;
}

/** A server as it is connected to, and how messages speak of it. */
export type ResolvedServer = { label: string; secrets: readonly string[] } & (
  | { kind: "stdio"; command: string; args: string[]; env: Record<string, string>; cwd: string | undefined }
  | { kind: "http"; url: string; headers: Record<string, string> }
);

/** Checks a server's description; what is wrong -> ERR_TOOL_OPTIONS. The label shows no user, password, query, header or variable. */
export function resolveServer(server: McpServer, name: string | undefined): ResolvedServer {
  if (typeof server !== "object" || server === null)
    fail("ERR_TOOL_OPTIONS", `Expected a server with a command or a url but received ${describe(server)}`);
  if ("command" in server) {
    const { command, args = [], env = {}, cwd } = server;
    if (typeof command !== "string" || command === "")
      fail("ERR_TOOL_OPTIONS", `Expected a program for command but received ${describe(command)}`);
    strings(args, "args");
    strings(Object.values(env), "env");
    const label = name ?? [path.basename(command), ...args].join(" ");
    return { kind: "stdio", label, secrets: long(Object.values(env)), command, args: [...args], env: { ...env }, cwd };
  }
  const { headers = {} } = server;
  strings(Object.values(headers), "headers");
  const url = typeof server.url === "string" && URL.canParse(server.url) ? new URL(server.url) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol))
    fail("ERR_TOOL_OPTIONS", "Expected an address that begins with http:// or https:// for url, or a command");
  let { auth } = server;
  if (url.username !== "") {
    auth ??= { username: decodeURIComponent(url.username), password: decodeURIComponent(url.password) };
    url.username = url.password = "";
  }
  const authorization = auth === undefined ? {} : { authorization: authorizationOf(auth) };
  url.hash = "";
  return {
    kind: "http",
    label: name ?? `${url.origin}${url.pathname}`,
    secrets: long([...Object.values(auth ?? {}), ...Object.values({ ...authorization, ...headers })]),
    url: url.href,
    headers: { ...authorization, ...headers },
  };
}

function strings(values: readonly unknown[], name: string): void {
  try {
    checkStrings(values, name);
  } catch (cause) {
    fail("ERR_TOOL_OPTIONS", (cause as Error).message, cause);
  }
}

/** What could be a secret, its parts too ("Bearer abc"); "1" or "true" would censor half of a message. */
function long(values: readonly string[]): string[] {
  return values.flatMap((value) => [value, ...value.split(" ")]).filter((value) => value.length > 5);
}

/** A text without the secrets that are known. */
export function censor(text: string, secrets: readonly string[]): string {
  return secrets.reduce((censored, secret) => censored.replaceAll(secret, "***"), text);
}
