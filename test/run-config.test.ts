// run.json: what is filled in, what is refused and in which words, which variant means what.
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { planVariant, readRunConfig, resolveRunConfig, runJsonSchema, type RunConfigInput } from "rolegrad";
import { root } from "./helpers/shared.js";
import { temporary } from "./helpers/world.js";

const smallest: RunConfigInput = {
  model: "models/tiny",
  data: { questions: "questions.jsonl" },
  environment: { kind: "search", passages: "../corpus/passages.jsonl" },
};

t.test("what is left out is filled in, and paths are relative to the file", async (t) => {
  const config = resolveRunConfig(smallest, "/data/runs.d/mine.json");
  t.equal(config.data.questions, "/data/runs.d/questions.jsonl");
  t.match(config.environment, { kind: "search", passages: "/data/corpus/passages.jsonl" });
  t.equal(config.output, "/data/runs.d/runs/mine", "a run directory named after the file");
  t.match(config, { variant: "dart", rank: 8, alpha: 16, crossRole: "flow", group: 8, agent: { actionBudget: 4 } });
  t.match(config.agent.prompt, /<search>.*<\/search>.*<information>.*<answer>.*\n\nQuestion: \{question\}\n$/s);
  const again = resolveRunConfig(JSON.parse(JSON.stringify(config)), "/elsewhere/config.json");
  t.same(again, config, "a resolved configuration resolves to itself, wherever it lies");
});

t.test("a database needs no more than its directory: the prompt holds its schema", async (t) => {
  const sqlite = (databases: string | Record<string, string>) =>
    resolveRunConfig({ ...smallest, environment: { kind: "sqlite", databases } }, "/data/run.json");
  const { environment, agent } = sqlite("db");
  t.match(environment, { databases: "/data/db", database: "db", gold: "sql", timeout: 5000, maxRows: 20 });
  t.match(agent.prompt, /\{schema\}\n\nQuestion: \{question\}\n$/);
  t.match(sqlite({ a: "a.db", b: "/x/b.sql" }).environment, { databases: { a: "/data/a.db", b: "/x/b.sql" } });
});

t.test("a model is a directory beside the file, or else a hub id", async (t) => {
  const directory = temporary();
  const file = path.join(directory, "run.json");
  const model = (name: string) => resolveRunConfig({ ...smallest, model: name }, file).model;
  t.equal(model("Qwen/Qwen2.5-0.5B"), "Qwen/Qwen2.5-0.5B");
  t.equal(model("./Qwen/tiny"), path.join(directory, "Qwen/tiny"));
  t.equal(model("/models/tiny"), "/models/tiny");
  t.equal(
    resolveRunConfig({ ...smallest, model: "helpers/shared" }, path.join(root, "test/run.json")).model,
    "helpers/shared",
  );
  t.equal(
    resolveRunConfig({ ...smallest, model: "test/helpers" }, path.join(root, "run.json")).model,
    path.join(root, "test/helpers"),
  );
});

t.test("the prompt speaks of the tags that are configured", async (t) => {
  const agent = {
    spans: [{ role: "tool", open: "[find]", close: "[/find]" }],
    output: { open: "[seen]", close: "[/seen]" },
    answer: { open: "[so]", close: "[/so]" },
  };
  const { prompt } = resolveRunConfig({ ...smallest, agent }, "run.json").agent;
  for (const tag of ["[find]", "[/find]", "[seen]", "[/seen]", "[so]", "[/so]"]) t.match(prompt, tag);
  t.notMatch(prompt, "<search>");
});

t.test("a search server is a tool with limits, and its secrets stay out of the file", async (t) => {
  const url = "http://127.0.0.1:8000";
  const resolve = (environment: object) => resolveRunConfig({ ...smallest, environment }, "run.json").environment;
  t.same(resolve({ kind: "retriever", url, limits: { retries: 1, backoff: { firstMs: 5 } } }), {
    ...{ kind: "retriever", url, topK: 3, form: "queries", separator: "\n" },
    limits: {
      ...{ concurrency: 16, retries: 1, cacheEntries: 10_000 },
      backoff: { firstMs: 5, factor: 2, maxMs: 10_000, jitter: 0.5 },
    },
  });
  t.match(resolve({ kind: "opensearch", url, index: "wiki" }), { fields: ["title", "text"], limits: { retries: 3 } });
  for (const [environment, said] of [
    [
      { kind: "web" },
      /environment\.kind: Expected one of "search", "retriever", "opensearch", "sqlite", "mcp", "set", "none" but received "web"/,
    ],
    [
      {},
      /environment\.kind: Expected one of "search", "retriever", "opensearch", "sqlite", "mcp", "set", "none" but it is missing/,
    ],
    [
      { kind: "retriever", url, topk: 3 },
      /Expected no field environment\.topk; environment has kind, url, form, batch/,
    ],
    [{ kind: "opensearch", url }, /environment\.index: Expected a text but it is missing/],
    [{ kind: "retriever", url, limits: { retry: 1 } }, /environment\.limits\.retry; .* concurrency, timeout, retries/],
    [{ kind: "retriever", url: "http://a:s3cret@b" }, /environment\.url: Expected an address [^]*without a password$/],
  ] as const) {
    t.throws(() => resolve(environment), { code: "ERR_CONFIG", message: said });
  }
});

t.test("by a chat template: tools and their roles in place of tags", async (t) => {
  const agent = (change: object) =>
    resolveRunConfig({ ...smallest, agent: { format: "chat", ...change } }, "run.json").agent;
  t.match(agent({}), { spans: [], tools: [{ name: "search" }], prompt: /call a tool .*<answer> .*\{question\}/s });
  t.notMatch(agent({}).prompt, "<search>");
  const tools = [{ name: "sql", role: "query", text: "statement", parameters: { type: "object" } }];
  const spans = [{ role: "plan", open: "<think>", close: "</think>" }];
  const roles = ["plan", "act", "query"];
  const own = agent({
    roles,
    base: "act",
    tools,
    spans,
    system: "Be brief.",
    templateVariables: { enable_thinking: false },
  });
  t.match(own, { tools, spans, system: "Be brief.", templateVariables: { enable_thinking: false } });
  t.strictSame(resolveRunConfig({ ...smallest, agent: own }, "run.json").agent, own, "a resolved one stays as it is");
  const refused = (change: object, message: RegExp) =>
    t.throws(() => resolveRunConfig({ ...smallest, agent: change }, "run.json"), { code: "ERR_CONFIG", message });
  refused({ format: "chat", tools: [{ name: "a", role: "act" }] }, /agent\.tools\[0\]\.role: .* received "act"/);
  refused({ format: "chat", roles: ["reason"] }, /agent\.tools\[0\]\.role: .* received "tool"/);
  refused({ format: "chat", chat: true }, /agent\.chat: Expected no agent\.chat/);
  refused({ tools }, /agent\.tools: Expected agent\.format "chat"/);
  refused({ system: "x" }, /agent\.system: Expected agent\.format "chat"/);
  refused({ format: "xml" }, /agent\.format: .*"tags", "chat"/);
});

t.test("the command line has the last word", async (t) => {
  const config = resolveRunConfig({ ...smallest, steps: 5, seed: 1, output: "a" }, "/data/run.json", {
    steps: 2,
    seed: 9,
    output: "/out/b",
  });
  t.match(config, { steps: 2, seed: 9, output: "/out/b" });
});

t.test("an adapter that serves several roles gets the rank of them all", async (t) => {
  const ranks = (variant: string) => {
    const { rank, alpha } = resolveRunConfig({ ...smallest, variant }, "run.json");
    return { rank, alpha };
  };
  t.same(ranks("dart-tool"), { rank: 8, alpha: 16 });
  t.same(ranks("shared"), { rank: 16, alpha: 32 });
});

t.test("each thing that is wrong in a run.json is an ERR_CONFIG that names file and field", async (t) => {
  for (const [change, said] of [
    [{ learningRate: 1 }, /^run\.json: Expected no field learningRate; the run has model, data, environment, agent, /],
    [
      { optimizer: { learningrate: 1 } },
      /Expected no field optimizer\.learningrate; optimizer has learningRate, betas/,
    ],
    [{ data: {} }, /data\.questions: Expected a file of questions but it is missing/],
    [
      { data: { questions: "q", fields: { answer: "a" } } },
      /Expected no field data\.fields\.answer; data\.fields has id, question, answers, split/,
    ],
    [
      { data: { questions: "q", onBadRow: "ignore" } },
      /data\.onBadRow: Expected one of "error", "skip" but received "ignore"/,
    ],
    [{ model: "" }, /model: Expected a text that is not empty but received ""/],
    [{ model: 3, seed: "x" }, /model: Expected a text but received 3 \(1 more after this\)/],
    [{ steps: "ten" }, /steps: Expected a number but received "ten"/],
    [{ steps: 1.5 }, /steps: Expected a whole number but received 1\.5/],
    [{ steps: 0 }, /steps: Expected at least 1 but received 0/],
    [{ group: 1 }, /group: Expected at least 2 but received 1/],
    [{ optimizer: { betas: [0.9] } }, /optimizer\.betas: Expected a list of at least 2 but received a list/],
    [{ optimizer: { betas: [0.9, 1] } }, /optimizer\.betas\[1\]: Expected a number below 1 but received 1/],
    [
      { environment: { kind: "sql", passages: "p" } },
      /environment\.kind: Expected one of "search", .* but received "sql"/,
    ],
    [{ environment: { kind: "sqlite" } }, /environment\.databases: Expected a text or an object but it is missing/],
    [
      { environment: { kind: "sqlite", databases: "d", row: 1 } },
      /no field environment\.row; environment has .*databases/,
    ],
    [{ reward: "sql" }, /reward: Expected environment\.kind "sqlite" for the reward "sql"/],
    [{ environment: { ...smallest.environment, topK: 0 } }, /environment\.topK: Expected at least 1 but received 0/],
    [{ crossRole: "none" }, /crossRole: Expected one of "flow", "stop", "exact" but received "none"/],
    [{ agent: { prompt: "Answer!" } }, /agent\.prompt: Expected a text with \{question\} in it/],
    [{ agent: { roles: ["a", "a"], base: "a" } }, /agent\.roles: Expected distinct roles but received "a" twice/],
    [{ agent: { base: "think" } }, /agent\.base: Expected one of agent\.roles \(reason, tool\) but received "think"/],
    [{ agent: { spans: [{ role: "act", open: "<", close: ">" }] } }, /agent\.spans\[0\]\.role: .* received "act"/],
    [
      { agent: { spans: [{ role: "tool", open: "<" }] } },
      /agent\.spans\[0\]\.close: Expected a text but it is missing/,
    ],
    [
      { agent: { sampling: { topP: 0.9 } } },
      /Expected no field agent\.sampling\.topP; agent\.sampling has temperature/,
    ],
    [
      { agent: { sampling: { temperature: 0 } } },
      /agent\.sampling\.temperature: Expected a number above 0 but received 0/,
    ],
    [{ variant: "lora" }, /variant: Expected one of dart, dart-reason, dart-tool, shared, .* but received lora/],
    [{ objective: { clipHigh: 0.5, dualClip: 1.4 } }, /objective\.dualClip: Expected more than 1 \+ clipHigh \(1\.5\)/],
    [{ objective: { importance: { cap: 1 } } }, /objective\.importance\.cap: Expected a number above 1 but received 1/],
    [{ objective: { ratio: "group" } }, /objective\.ratio: Expected one of "token", "sequence"/],
    [{ objective: { kind: "sft" } }, /data\.demonstrations: Expected a file/],
    [{ epochs: 0 }, /epochs: Expected at least 1 but received 0/],
    [{ objective: { aggregation: "seq-mean-token-sum-norm" } }, /objective\.normLength: Expected .* but it is missing/],
  ] as const) {
    const error = { code: "ERR_CONFIG", message: said };
    t.throws(() => resolveRunConfig({ ...smallest, ...change }, "run.json"), error, JSON.stringify(change));
  }
  for (const value of [null, [], 3]) t.throws(() => resolveRunConfig(value, "run.json"), { code: "ERR_CONFIG" });
});

t.test("a file that is not there or no JSON says so", async (t) => {
  const directory = temporary();
  const file = path.join(directory, "run.json");
  await t.rejects(readRunConfig(file), { code: "ERR_CONFIG", message: /ENOENT.*rolegrad init search/ });
  writeFileSync(file, '{ "model": "a", }');
  await t.rejects(readRunConfig(file), { code: "ERR_CONFIG", message: new RegExp(`^Expected JSON in ${file}: `) });
  writeFileSync(file, JSON.stringify({ $schema: "x.json", ...smallest }));
  t.equal((await readRunConfig(file)).data.questions, path.join(directory, "questions.jsonl"));
});

t.test("a variant says which adapter runs each role and which roles are trained", async (t) => {
  const roles = ["reason", "tool"];
  for (const [variant, routes, lossRoles] of [
    ["dart", { reason: "reason", tool: "tool" }, "all"],
    ["dart-reason", { reason: "reason", tool: null }, ["reason"]],
    ["dart-tool", { reason: null, tool: "tool" }, ["tool"]],
    ["shared", { reason: "shared", tool: "shared" }, "all"],
    ["shared-tool", { reason: "shared", tool: "shared" }, ["tool"]],
  ] as const) {
    t.same(planVariant(variant, roles), { routes, lossRoles }, variant);
  }
  const routes = { reason: "mixture", tool: "mixture" };
  t.same(planVariant("mixture", roles), { routes, routing: "soft", lossRoles: "all" });
  t.throws(() => planVariant("dart-act", roles), { code: "ERR_VARIANT" });
});

t.test("assets/run.schema.json is the schema of run.json (node scripts/run-schema.mjs writes it)", async (t) => {
  const written = JSON.parse(readFileSync(path.join(root, "assets/run.schema.json"), "utf8")) as unknown;
  t.same(written, runJsonSchema());
  t.match(written, {
    properties: { steps: { default: 100, minimum: 1, description: /step/ } },
    required: ["model", "data"],
  });
});
