import { readPassages, type ReadPassagesOptions } from "../data/passages.js";
import { managedTool, type ManagedTool, type ToolStats } from "../environments/managed.js";
import { OpenSearchClient } from "../environments/opensearch.js";
import { RetrieverClient } from "../environments/retriever.js";
import { numberedPassages, SearchEnvironment } from "../environments/search.js";
import { SqlEnvironment } from "../environments/sql/environment.js";
import { ToolSet } from "../environments/tool-set.js";
import type { Environment, Passage, ToolCall } from "../environments/types.js";
import { fail } from "../errors.js";
import type { ChatTool } from "../prompts/calls.js";
import type { IndexHeader } from "../search/format.js";
import { isSearchIndex, readIndexHeader, SearchIndex } from "../search/search-index.js";
import { readAuth } from "./auth.js";
import type { OnSkipped } from "./data.js";
import { roleOf, sqliteOf, type NamedOne } from "./environments.js";
import { loadMcp, serverName } from "./mcp.js";
import type { RunConfig } from "./schema.js";

type Search = Extract<NamedOne, { kind: "search" }>;
type Remote = Extract<NamedOne, { kind: "retriever" | "opensearch" }>;

/** A tool, and what a run knows of it. */
export interface RunEnvironment extends Environment {
  /** Passages, where it has them here. */
  readonly size?: number | undefined;
  /** The database that it is, or that is among its tools. */
  readonly sql?: SqlEnvironment | undefined;
  /** SHA-256 of what servers say of each of their tools: a run goes on only with the tools that it began with. */
  readonly hashes?: Record<string, string>;
  /** Of a tool that has limits; of a set, by the role of the calls (of a tool for several roles: `all`). */
  readonly stats?: () => ToolStats | Record<string, ToolStats>;
}

/**
 * The tool that a configuration names, with its limits; of a set, all of them as one. A server is asked once: one that does not answer as it should ->
 * ERR_TOOL_UNREACHABLE, ERR_TOOL_HTTP, ERR_TOOL_ANSWER or ERR_TOOL_TIMEOUT, naming its address.
 */
export async function loadEnvironment(config: RunConfig, onSkipped: OnSkipped): Promise<RunEnvironment> {
  if (config.environment.kind === "none") return NO_TOOL;
  if (config.environment.kind !== "set") return loadOne(config.environment, undefined, config, onSkipped);
  const loaded: [string, RunEnvironment][] = [];
  try {
    for (const [name, own] of Object.entries(config.environment.tools))
      loaded.push([name, await loadOne(own, name, config, onSkipped)]);
    const set = new ToolSet(Object.fromEntries(loaded));
    const hashes = loaded.flatMap(([name, { hashes = {} }]) =>
      Object.entries(hashes).map(([tool, hash]): [string, string] => [`${name} ${tool}`, hash]),
    );
    const sql = sqliteOf(config.environment) && loaded.find(([, { sql }]) => sql !== undefined)?.[1].sql;
    return told(set, {
      tools: set.tools,
      sql,
      hashes: Object.fromEntries(hashes),
      stats: () => statsByRole(loaded.map(([, tool]) => tool)),
    });
  } catch (error) {
    await Promise.allSettled(loaded.map(async ([, tool]) => tool.close?.()));
    throw error;
  }
}

/** What those of a set's tools that have limits have done. */
function statsByRole(tools: readonly RunEnvironment[]): Record<string, ToolStats> {
  const out: Record<string, ToolStats> = {};
  for (const tool of tools) {
    if (tool.stats === undefined) continue;
    const roles = new Set(tool.tools?.map(({ role }) => role));
    const [role = "all"] = roles.size === 1 ? roles : [];
    const own = tool.stats() as ToolStats;
    const sum = (out[role] ??= Object.fromEntries(Object.keys(own).map((name) => [name, 0])) as unknown as ToolStats);
    for (const name of Object.keys(own) as (keyof ToolStats)[]) sum[name] += own[name];
  }
  return out;
}

/** One tool; `name` is its name in a set, by which it is offered unless it tells its tools itself. */
async function loadOne(
  named: NamedOne,
  name: string | undefined,
  config: RunConfig,
  onSkipped: OnSkipped,
): Promise<RunEnvironment> {
  const { agent, data } = config;
  const offer = name === undefined ? {} : { tools: [offerOf(named, name, roleOf(name, agent))] };
  const limit = (tool: RunEnvironment, key?: (call: ToolCall) => string) => limited(tool, named, config, key);
  switch (named.kind) {
    case "sqlite": {
      const { kind: _kind, gold: _gold, sampleRows: _sampleRows, limits: _limits, workers, ...options } = named;
      const sql = await SqlEnvironment.open({ ...options, ...(workers !== undefined && { workers }) });
      // What a query gives is its database's.
      return told(
        limit(sql, ({ question, text }) => JSON.stringify([sql.databaseOf(question), text])),
        { sql, ...offer },
      );
    }
    case "search": {
      const search = await loadSearch(named, data, onSkipped);
      return told(limit(search), { size: search.size, ...offer });
    }
    case "mcp": {
      const mcp = await loadMcp(named, roleOf(name, agent));
      const tools = new Map(mcp.client.tools.map((tool) => [tool.name, tool.hash]));
      const hashes = mcp.tools.map((tool) => [`tool ${tool.name}`, tools.get(tool.name)]);
      return told(limit(mcp), { tools: mcp.tools, hashes: Object.fromEntries(hashes) as Record<string, string> });
    }
    default: {
      const tool = remote(named);
      await ask(tool, named, named.limits.timeout ?? agent.toolTimeout);
      return told(limit(tool), offer);
    }
  }
}

/** A tool, with what is told of it beside. */
function told(tool: Environment, about: Omit<RunEnvironment, "act" | "check" | "timesOut" | "close">): RunEnvironment {
  return {
    act: (call, options) => tool.act(call, options),
    ...(tool.check && { check: (call: ToolCall) => tool.check?.(call) }),
    timesOut: tool.timesOut === true,
    ...("stats" in tool && { stats: () => (tool as ManagedTool).stats() }),
    close: () => tool.close?.(),
    ...about,
  };
}

/** How a tool that has no schema of its own is offered under a name. */
function offerOf({ kind }: NamedOne, name: string, role: string): ChatTool {
  const [text, description] =
    kind === "sqlite"
      ? ["statement", "Runs one SQLite query that reads, and returns its rows."]
      : ["query", "Searches a collection of texts and returns the passages that fit best."];
  const parameters = { type: "object", properties: { [text]: { type: "string" } }, required: [text] };
  return { name, description, parameters, role, text };
}

/** Asks a server once, so that a wrong address ends a run at its start. */
async function ask(tool: RetrieverClient | OpenSearchClient, named: Remote, timeout: number): Promise<void> {
  const signal = AbortSignal.timeout(timeout);
  try {
    await tool.search("test", { signal });
  } catch (error) {
    if (!signal.aborted) throw error;
    fail("ERR_TOOL_TIMEOUT", `Expected an answer from the ${toolText(named)} within ${timeout} ms but there was none`);
  }
}

async function loadSearch(named: Search, data: RunConfig["data"], onSkipped: OnSkipped) {
  const { passages, topK, titleWeight, k1, b } = named;
  const format = formatOf(named);
  if (isSearchIndex(passages)) {
    checkScoring(await readIndexHeader(passages), named);
    return SearchIndex.open(passages, { topK, format });
  }
  const found = await readPassages(passages, passageOptions(data, onSkipped));
  return SearchEnvironment.fromPassages(found, { topK, titleWeight, k1, b, format });
}

const NO_TOOL: RunEnvironment = {
  act: async () => fail("ERR_NO_TOOL", 'there is no tool (environment.kind "none")'),
};

function passageOptions(data: RunConfig["data"], onSkipped: OnSkipped): ReadPassagesOptions {
  const { passageFormat: format, passageFields: fields, passageIds: ids, onBadRow } = data;
  return {
    onSkipped,
    ...(format && { format }),
    ...(fields && { fields }),
    ...(ids && { ids }),
    ...(onBadRow && { onBadRow }),
  };
}

/** An index has its scoring from when it was built; another one in the run.json would be without effect. */
function checkScoring(header: IndexHeader, config: Search): void {
  for (const name of ["titleWeight", "k1", "b"] as const) {
    if (config[name] === header[name]) continue;
    fail(
      "ERR_INDEX_SETTINGS",
      `Expected environment.${name} ${header[name]}, with which the index in ${config.passages} was built, but received ` +
        `${config[name]}: change it, or build the index again`,
    );
  }
}

/** What the tool is, in words. */
export function toolText(environment: RunConfig["environment"]): string {
  switch (environment.kind) {
    case "none":
      return "no tool";
    case "search":
      return "search in memory";
    case "sqlite":
      return "queries on SQLite databases";
    case "mcp":
      return `MCP server ${serverName(environment.server)}`;
    case "set":
      return Object.entries(environment.tools)
        .map(([name, own]) => `${name} (${toolText(own)})`)
        .join(", ");
    default: {
      const of = environment.kind === "opensearch" ? `, index ${environment.index}` : "";
      return `${environment.kind} at ${environment.url}${of}`;
    }
  }
}

function remote(environment: Remote): RetrieverClient | OpenSearchClient {
  const { url, topK, auth } = environment;
  const who = auth === undefined ? {} : { auth: readAuth(auth) };
  const common = { url, topK, format: formatOf(environment), ...who };
  if (environment.kind === "opensearch") {
    const { index, fields, titleField, textField } = environment;
    return new OpenSearchClient({ ...common, index, fields, titleField, textField });
  }
  const { form, batch } = environment;
  return new RetrieverClient({ ...common, form, ...(batch && { batch }) });
}

/** Limits where a configuration has them: a server's tool always, another where it says so. */
function limited(
  tool: Environment,
  { kind, limits }: NamedOne,
  { agent, seed }: RunConfig,
  key?: (call: ToolCall) => string,
): Environment {
  if (limits === undefined) return tool;
  const { concurrency, timeout = agent.toolTimeout, retries, backoff, cacheEntries } = limits;
  return managedTool(tool, {
    ...{ concurrency, timeout, retries, name: `The ${NAMES[kind]}` },
    backoff: { ...backoff, seed },
    ...(cacheEntries > 0 && { cache: { maxEntries: cacheEntries, ...(key && { key }) } }),
  });
}

const NAMES = {
  ...{ search: "search", sqlite: "database", retriever: "retriever", opensearch: "opensearch", mcp: "MCP server" },
};

function formatOf({ passage, separator }: Search | Remote): (found: Passage[]) => string {
  if (passage === undefined) return numberedPassages;
  return (found) =>
    found.map(({ title = "", text }, i) => fill(passage, { n: String(i + 1), title, text })).join(separator);
}

/** Puts values where the template names them; braces around anything else stay. */
export function fill(template: string, values: Record<string, string>): string {
  return template.replace(/\{(\w+)\}/g, (whole, name: string) => (Object.hasOwn(values, name) ? values[name]! : whole));
}
