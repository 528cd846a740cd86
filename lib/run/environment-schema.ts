import { z } from "zod";

const text = z.string().min(1);
const count = z.int().min(1);

const backoff = z.strictObject({
  firstMs: z.number().min(0).default(200).describe("Wait before the first retry, in milliseconds."),
  factor: z.number().min(1).default(2).describe("Each further wait is so many times longer."),
  maxMs: z.number().min(0).max(2147483647).default(10_000).describe("And no longer than this."),
  jitter: z.number().min(0).max(1).default(0.5).describe("Share of a wait that chance (by `seed`) may take off."),
});

const limits = z.strictObject({
  concurrency: count.default(16).describe("Calls that are out at once; others wait in their order."),
  timeout: z
    .exactOptional(count.max(2147483647))
    .describe("Milliseconds of one attempt, its wait for a turn apart. Without it: agent.toolTimeout."),
  retries: z.int().min(0).default(3).describe("Attempts after the first, where the failure may pass."),
  backoff: backoff.prefault({}),
  cacheEntries: z.int().min(0).default(10_000).describe("Results that are kept for equal calls; 0: none."),
});

const shown = {
  topK: count.default(3).describe("Passages that one search returns."),
  passage: z
    .exactOptional(text)
    .describe('How a passage is shown, with {n}, {title} and {text}. Without it: Passage 1 (Title: "…") …'),
  separator: z.string().default("\n").describe("Put between passages that are shown by `passage`."),
};
const url = text
  .regex(/^https?:\/\/[^/@]+(\/[^@]*)?$/, "an address that begins with http:// or https://, without a password")
  .describe("Address of the server, without user and password: a run directory keeps this file.");
const variable = (what: string) => z.exactOptional(text).describe(`Environment variable that holds ${what}.`);
const auth = z
  .strictObject({
    username: z.exactOptional(text),
    passwordFrom: variable("the password of username"),
    apiKeyFrom: variable("an API key"),
    bearerFrom: variable("a bearer token"),
  })
  .describe("How to say who asks. Secrets stand in environment variables, which are named here.");

const search = z.strictObject({
  kind: z.literal("search").describe("The tool: BM25 search over passages."),
  passages: text.describe(
    "File of passages (JSON Lines, JSON, CSV, TSV, Parquet): id, title (may be absent), text; or id, contents. Or a directory that `rolegrad index` made.",
  ),
  topK: shown.topK,
  titleWeight: z.int().min(0).default(1).describe("How often a title counts beside the text."),
  k1: z.number().min(0).default(1.2).describe("BM25's saturation of repeated words."),
  b: z.number().min(0).max(1).default(0.75).describe("BM25's share of length normalisation."),
  passage: shown.passage,
  separator: shown.separator,
});

const retriever = z.strictObject({
  kind: z.literal("retriever").describe("The tool: a search server that speaks Search-R1's protocol."),
  url,
  form: z
    .enum(["queries", "query"])
    .default("queries")
    .describe('"query": for servers that know only requests of one query.'),
  batch: z
    .exactOptional(z.strictObject({ waitMs: z.int().min(0).default(2), maxQueries: count.default(64) }))
    .describe("Send queries that come within waitMs of each other as one request. Without it: a request for each."),
  auth: z.exactOptional(auth),
  ...shown,
  tools: limits.prefault({}),
});

const opensearch = z.strictObject({
  kind: z.literal("opensearch").describe("The tool: search in an index of OpenSearch or Elasticsearch."),
  url,
  index: text.describe("Name of the index."),
  fields: z.array(text).min(1).default(["title", "text"]).describe('Fields that are searched; "title^2" weighs one.'),
  titleField: z.string().default("title").describe('Field that is a passage\'s title; "": none.'),
  textField: text.default("text").describe("Field that is a passage's text."),
  auth: z.exactOptional(auth),
  ...shown,
  tools: limits.prefault({}),
});

const sqlite = z.strictObject({
  kind: z.literal("sqlite").describe("The tool: reading queries on SQLite databases (docs/sql.md)."),
  databases: z
    .union([text, z.record(text, text)])
    .describe(
      "A directory of NAME.sqlite, NAME.db or NAME.sql (a script) or NAME/NAME.sqlite; or the file of each name.",
    ),
  database: text
    .default("db")
    .describe("The field of a question that names its database; not needed for a single one."),
  gold: text.default("sql").describe("The field of a question that holds the gold query, for the reward."),
  sampleRows: z.int().min(0).default(0).describe("First rows of each table that {schema} in the prompt shows."),
  timeout: count.default(5000).describe("Milliseconds that one query may run."),
  maxRows: count.default(20).describe("Rows of a result that the model reads."),
  maxCellCharacters: count.default(200).describe("Characters of one value that it reads."),
  maxCharacters: count.default(4000).describe("Characters of one result that it reads."),
  workers: z.exactOptional(count.max(256)).describe("Threads that run queries. Without it: up to 4."),
});

const none = z.strictObject({
  kind: z
    .literal("none")
    .describe('No tool: a call is answered with an error. What supervised training ("sft") has where none is named.'),
});

/** `environment` of a run.json: the tool, by its kind. */
export const environment = z.discriminatedUnion("kind", [search, retriever, opensearch, sqlite, none]);
