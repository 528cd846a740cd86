import { z } from "zod";

const text = z.string().min(1);
const count = z.int().min(1);

const backoff = z.strictObject({
  firstMs: z.number().min(0).default(200).describe("Wait before the first retry, in milliseconds."),
  factor: z.number().min(1).default(2).describe("Each further wait is so many times longer."),
  maxMs: z.number().min(0).max(2147483647).default(10_000).describe("And no longer than this."),
  jitter: z.number().min(0).max(1).default(0.5).describe("Share of a wait that chance (by `seed`) may take off."),
});

const limitsOf = (cacheEntries: number) =>
  z.strictObject({
    concurrency: count.default(16).describe("Calls that are out at once; others wait in their order."),
    timeout: z
      .exactOptional(count.max(2147483647))
      .describe("Milliseconds of one attempt, its wait for a turn apart. Without it: agent.toolTimeout."),
    retries: z.int().min(0).default(3).describe("Attempts after the first, where the failure may pass."),
    backoff: backoff.prefault({}),
    cacheEntries: z.int().min(0).default(cacheEntries).describe("Results that are kept for equal calls; 0: none."),
  });
const limits = limitsOf(10_000);
const ownLimits = z
  .exactOptional(limits)
  .describe("Limits of the tool, and a cache of its results. Without it: none but agent.toolTimeout.");

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
  limits: ownLimits,
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
  limits: limits.prefault({}),
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
  limits: limits.prefault({}),
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
  limits: ownLimits,
});

const withVariables = "${NAME} in it is the environment variable NAME: a run directory keeps this file.";
const program = z.strictObject({
  command: text.describe("The program of the server, which speaks over its standard streams."),
  args: z.array(z.string()).default([]).describe(`Its arguments. ${withVariables}`),
  env: z
    .record(text, z.string())
    .default({})
    .describe(`Added to HOME, PATH and the like, which are all that it gets of this environment. ${withVariables}`),
  cwd: z.exactOptional(text).describe("Where it runs. Without it: where this file is."),
});
const address = z.strictObject({
  url: url.describe("Address of the server (streamable HTTP), without user and password."),
  headers: z.record(text, z.string()).default({}).describe(`Added to each request. ${withVariables}`),
  auth: z.exactOptional(auth),
});

const mcp = z.strictObject({
  kind: z.literal("mcp").describe("The tools of a server of the Model Context Protocol (docs/tools.md)."),
  server: z.union([program, address]).describe("A program (command), or an address (url)."),
  tools: z
    .exactOptional(
      z.union([
        z.array(text).min(1),
        z.record(
          text,
          z.strictObject({
            role: z
              .exactOptional(text)
              .describe('The role of its calls. Without it: "tool", or in a set the role of the name there.'),
            text: z
              .exactOptional(text)
              .describe(
                "The argument that plain text is put into. Without it: the only one, or the only one required.",
              ),
          }),
        ),
      ]),
    )
    .describe("Which of its tools may be called: names, or settings by name. Without it: all."),
  maxCharacters: count.default(20_000).describe("Characters of one result that the model reads."),
  connectTimeout: count.default(30_000).describe("Milliseconds for connecting."),
  reconnects: z.int().min(0).default(3).describe("Attempts to reach a server again that is lost."),
  limits: limitsOf(0).prefault({}).describe("Limits of all its tools together. Nothing is cached unless it says so."),
});

const one = z.discriminatedUnion("kind", [search, retriever, opensearch, sqlite, mcp]);

const set = z.strictObject({
  kind: z.literal("set").describe("Several tools, each under a name."),
  tools: z
    .record(text, one)
    .refine((tools) => Object.keys(tools).length > 0, "at least one tool")
    .describe("An environment under each name: a call goes to the one of its tool's name, or of its role."),
});

const none = z.strictObject({
  kind: z
    .literal("none")
    .describe('No tool: a call is answered with an error. What supervised training ("sft") has where none is named.'),
});

/** `environment` of a run.json: the tool, by its kind. */
export const environment = z.discriminatedUnion("kind", [search, retriever, opensearch, sqlite, mcp, set, none]);
