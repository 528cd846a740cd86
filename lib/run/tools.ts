import { readPassages, type ReadPassagesOptions } from "../data/passages.js";
import type { HttpAuth } from "../environments/http.js";
import { managedTool } from "../environments/managed.js";
import { OpenSearchClient } from "../environments/opensearch.js";
import { RetrieverClient } from "../environments/retriever.js";
import { numberedPassages, SearchEnvironment } from "../environments/search.js";
import { SqlEnvironment } from "../environments/sql/environment.js";
import type { Environment, Passage } from "../environments/types.js";
import { fail } from "../errors.js";
import type { IndexHeader } from "../search/format.js";
import { isSearchIndex, readIndexHeader, SearchIndex } from "../search/search-index.js";
import type { OnSkipped } from "./data.js";
import type { RunConfig } from "./schema.js";

type Named = RunConfig["environment"];
type Search = Extract<Named, { kind: "search" }>;
type Remote = Extract<Named, { tools: unknown }>;

/** A tool, with its number of passages where it has them here. */
export type RunEnvironment = Environment & { readonly size?: number };

/** The tool that a configuration names: search and databases as they are, a server with its limits. */
export async function loadEnvironment(config: RunConfig, onSkipped: OnSkipped): Promise<RunEnvironment> {
  const { environment, data } = config;
  if (environment.kind === "sqlite") {
    const { kind: _kind, gold: _gold, sampleRows: _sampleRows, workers, ...options } = environment;
    return SqlEnvironment.open({ ...options, ...(workers !== undefined && { workers }) });
  }
  if (environment.kind === "none") return NO_TOOL;
  if (environment.kind !== "search") return limited(remote(environment), environment, config);
  const { passages, topK, titleWeight, k1, b } = environment;
  const format = formatOf(environment);
  if (isSearchIndex(passages)) {
    checkScoring(await readIndexHeader(passages), environment);
    return SearchIndex.open(passages, { topK, format });
  }
  const found = await readPassages(passages, passageOptions(data, onSkipped));
  return SearchEnvironment.fromPassages(found, { topK, titleWeight, k1, b, format });
}

const NO_TOOL: RunEnvironment = {
  act: async () => fail("ERR_NO_TOOL", 'there is no tool (environment.kind "none")'),
};

function passageOptions(data: RunConfig["data"], onSkipped: OnSkipped): ReadPassagesOptions {
  const { passageFormat: format, passageFields: fields, onBadRow } = data;
  return { onSkipped, ...(format && { format }), ...(fields && { fields }), ...(onBadRow && { onBadRow }) };
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
export function toolText(environment: Named): string {
  if (environment.kind === "search") return "search in memory";
  if (environment.kind === "none") return "none";
  if (environment.kind === "sqlite") return "queries on SQLite databases";
  const of = environment.kind === "opensearch" ? `, index ${environment.index}` : "";
  return `${environment.kind} at ${environment.url}${of}`;
}

function remote(environment: Remote): Environment {
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

function limited(tool: Environment, { kind, tools }: Remote, { agent, seed }: RunConfig): Environment {
  const { concurrency, timeout = agent.toolTimeout, retries, backoff, cacheEntries } = tools;
  return managedTool(tool, {
    ...{ concurrency, timeout, retries, name: `The ${kind}` },
    backoff: { ...backoff, seed },
    ...(cacheEntries > 0 && { cache: { maxEntries: cacheEntries } }),
  });
}

function readAuth({ username, passwordFrom, apiKeyFrom, bearerFrom }: NonNullable<Remote["auth"]>): HttpAuth {
  const given = [passwordFrom, apiKeyFrom, bearerFrom].filter((name) => name !== undefined);
  const one = given.length === 1 && (username === undefined) === (passwordFrom === undefined);
  if (!one)
    fail("ERR_CONFIG", "environment.auth: Expected either username and passwordFrom, or apiKeyFrom, or bearerFrom");
  const [variable = ""] = given;
  const secret = process.env[variable];
  if (secret === undefined || secret === "")
    fail("ERR_CONFIG", `environment.auth: Expected the environment variable ${variable} to be set but it is not`);
  if (username !== undefined) return { username, password: secret };
  return apiKeyFrom === undefined ? { bearer: secret } : { apiKey: secret };
}

function formatOf({ passage, separator }: Search | Remote): (found: Passage[]) => string {
  if (passage === undefined) return numberedPassages;
  return (found) =>
    found.map(({ title = "", text }, i) => fill(passage, { n: String(i + 1), title, text })).join(separator);
}

/** Puts values where the template names them; braces around anything else stay. */
export function fill(template: string, values: Record<string, string>): string {
  return template.replace(/\{(\w+)\}/g, (whole, name: string) => (Object.hasOwn(values, name) ? values[name]! : whole));
}
