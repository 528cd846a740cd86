import type { RunConfig } from "./schema.js";

export type Named = RunConfig["environment"];
/** One tool of a set, or the only one. */
export type NamedOne = Exclude<Named, { kind: "set" | "none" }>;
export type NamedSqlite = Extract<Named, { kind: "sqlite" }>;

/** The environments of a configuration: each tool of a set under its name, or the only one under no name. */
export function namedEnvironments(environment: Named): [name: string | undefined, own: NamedOne][] {
  if (environment.kind === "none") return [];
  return environment.kind === "set" ? Object.entries(environment.tools) : [[undefined, environment]];
}

/** The database among them, where it is one. */
export function sqliteOf(environment: Named): NamedSqlite | undefined {
  const found = namedEnvironments(environment).flatMap(([, own]) => (own.kind === "sqlite" ? [own] : []));
  return found.length === 1 ? found[0] : undefined;
}

/** Whether what may be called is told by the tools themselves: by a server, or by each of a set. */
export const tellsTools = ({ kind }: Named): boolean => kind === "mcp" || kind === "set";

/** Each path made absolute. */
export function resolveEnvironment(environment: Named, resolve: (name: string) => string): Named {
  if (environment.kind === "none") return environment;
  if (environment.kind !== "set") return resolveOne(environment, resolve);
  const tools = Object.entries(environment.tools).map(([name, own]) => [name, resolveOne(own, resolve)]);
  return { ...environment, tools: Object.fromEntries(tools) as Record<string, NamedOne> };
}

function resolveOne(environment: NamedOne, resolve: (name: string) => string): NamedOne {
  switch (environment.kind) {
    case "search":
      return { ...environment, passages: resolve(environment.passages) };
    case "sqlite": {
      const { databases } = environment;
      if (typeof databases === "string") return { ...environment, databases: resolve(databases) };
      const files = Object.entries(databases).map(([name, file]) => [name, resolve(file)]);
      return { ...environment, databases: Object.fromEntries(files) as Record<string, string> };
    }
    case "mcp": {
      const { server } = environment;
      return "url" in server ? environment : { ...environment, server: { ...server, cwd: resolve(server.cwd ?? ".") } };
    }
    default:
      return environment;
  }
}

/** The role of a tool of which none is said: that of its name in a set, else `tool`, else the only role beside the base. */
export function roleOf(name: string | undefined, { roles, base }: Pick<RunConfig["agent"], "roles" | "base">): string {
  if (name !== undefined && roles.includes(name)) return name;
  if (roles.includes("tool")) return "tool";
  const others = roles.filter((role) => role !== base);
  return others.length === 1 ? others[0]! : base;
}

/** Roles that are named within an environment, each with its field. */
export function rolesNamed(environment: Named): [role: string, field: string][] {
  return namedEnvironments(environment).flatMap(([name, own]) => {
    if (own.kind !== "mcp" || own.tools === undefined || Array.isArray(own.tools)) return [];
    const prefix = name === undefined ? "environment" : `environment.tools.${name}`;
    return Object.entries(own.tools).flatMap(([tool, { role }]): [string, string][] =>
      role === undefined ? [] : [[role, `${prefix}.tools.${tool}.role`]],
    );
  });
}
