import path from "node:path";
import { McpEnvironment } from "../environments/mcp/environment.js";
import type { McpServer } from "../environments/mcp/server.js";
import { fail } from "../errors.js";
import { readAuth } from "./auth.js";
import type { NamedOne } from "./environments.js";

type Mcp = Extract<NamedOne, { kind: "mcp" }>;

/** The tools of an MCP server as a configuration names it; `role` is that of tools for which it says none. */
export function loadMcp(named: Mcp, role: string): Promise<McpEnvironment> {
  const { server, tools, maxCharacters, connectTimeout, reconnects } = named;
  return McpEnvironment.connect(serverOf(server), {
    ...{ role, maxCharacters, connectTimeout, reconnects, name: serverName(server) },
    ...(tools && { tools }),
  });
}

/** What messages call a server: as the file has it, so that no variable of the environment is shown. */
export function serverName(server: Mcp["server"]): string {
  if ("url" in server) return server.url.replace(/[?#].*$/, "");
  return [path.basename(server.command), ...server.args].join(" ");
}

function serverOf(server: Mcp["server"]): McpServer {
  if ("url" in server) {
    const { url, headers, auth } = server;
    const who = auth === undefined ? {} : { auth: readAuth(auth) };
    return { url: interpolate(url, "url"), headers: interpolateAll(headers, "headers"), ...who };
  }
  const { command, args, env, cwd } = server;
  return {
    command,
    args: args.map((arg, i) => interpolate(arg, `args[${i}]`)),
    env: interpolateAll(env, "env"),
    ...(cwd !== undefined && { cwd }),
  };
}

function interpolateAll(values: Record<string, string>, field: string): Record<string, string> {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, interpolate(value, `${field}.${name}`)]),
  );
}

/** Puts variables of the environment where a text names them: ${NAME}. One that is not set -> ERR_CONFIG. */
function interpolate(value: string, field: string): string {
  return value.replace(/\$\{(\w+)\}/g, (_, name: string) => {
    const found = process.env[name];
    if (found !== undefined && found !== "") return found;
    return fail(
      "ERR_CONFIG",
      `environment.server.${field}: Expected the environment variable ${name} to be set but it is not`,
    );
  });
}
