// Search servers and their clients, over real connections on loopback.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { connect } from "node:net";
import path from "node:path";
import { createInterface } from "node:readline";
import t, { type Test } from "tap";
import {
  managedTool,
  OpenSearchClient,
  readPassages,
  readQuestions,
  RetrieverClient,
  SearchEnvironment,
  startRetriever,
  type Passage,
  type RetrieverServerOptions,
} from "rolegrad";
import { rolegrad } from "./helpers/command.js";
import { call, json, serve, until } from "./helpers/http.js";
import { needsShared, root, shared } from "./helpers/shared.js";
import { temporary } from "./helpers/world.js";

const signal = new AbortController().signal;
const backoff = { firstMs: 1, maxMs: 4 };

const RIVERS: Passage[] = [
  { id: "s", title: "Seine", text: "The Seine runs through Paris to the sea." },
  { id: "r", title: 'The "great" Rhine', text: "The Rhine rises in the Alps.\nIt runs to the sea." },
  { id: "n", text: "Of no title.\nAnd two lines, by the sea." },
];
const rivers = SearchEnvironment.fromPassages(RIVERS);

async function start(t: Test, options: RetrieverServerOptions = {}) {
  const server = await startRetriever(rivers, { port: 0, ...options });
  t.teardown(() => server.close());
  return server;
}

const post = async (url: string, body: unknown) => {
  const response = await fetch(url, { method: "POST", body: typeof body === "string" ? body : JSON.stringify(body) });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
};

t.test("the retriever speaks the protocol: both forms, with scores and without", async (t) => {
  const { url } = await start(t);
  const [hit] = rivers.search("Alps", 1);
  const document = {
    ...{ id: "r", title: 'The "great" Rhine', text: RIVERS[1]!.text },
    contents: `"The "great" Rhine"\n${RIVERS[1]!.text}`,
  };
  const scored = { document, score: hit!.score };
  for (const [body, result] of [
    [{ queries: ["Alps", "nowhere"], topk: 2, return_scores: true }, [[scored], []]],
    [{ queries: ["Alps"], topk: null, return_scores: false }, [[document]]],
    [{ queries: ["Alps"] }, [[document]]],
    [{ query: "Alps", return_scores: true }, [[scored]]],
    [{ queries: [] }, []],
  ] as const)
    t.same(await post(url, body), { status: 200, body: { result } });
  const { body } = await post(url, { query: "sea", topk: 3 });
  t.equal(
    (body["result"] as { contents: string }[][])[0]!.find((d) => d.contents.startsWith('""\nOf no')) !== undefined,
    true,
  );
  const health = await fetch(url.replace("/retrieve", "/health"));
  t.same(await health.json(), { status: "ok", passages: 3, topk: 3 });
});

t.test("a request that makes no sense gets a 4xx that says why, and the server goes on", async (t) => {
  const { url, port } = await start(t, { maxBytes: 2000, maxQueries: 2, maxTopK: 5 });
  for (const [body, status, said] of [
    ["{", 400, /Expected JSON/],
    ["[]", 400, /a JSON object but received a list/],
    [{}, 400, /"queries" with a list of texts/],
    [{ queries: "Alps" }, 400, /"queries" with a list/],
    [{ queries: [1] }, 400, /"queries" with a list/],
    [{ queries: ["a"], query: "a" }, 400, /received both/],
    [{ queries: ["a", "b", "c"] }, 400, /at most 2 queries but received 3/],
    [{ query: "a", topk: 0 }, 400, /from 1 to 5 for topk but received 0/],
    [{ query: "a", topk: 6 }, 400, /received 6/],
    [{ query: "a", topk: "3" }, 400, /received "3"/],
    [{ query: "a", return_scores: "yes" }, 400, /return_scores/],
    [{ query: "a".repeat(3000) }, 413, /at most 2000 bytes/],
  ] as const)
    t.match(await post(url, body), { status, body: { error: said } });
  t.equal((await fetch(url)).status, 405);
  t.equal((await fetch(url.replace("/retrieve", "/other"))).status, 404);
  // Without a length, a little at a time; and one that leaves in the middle.
  const chunks = new ReadableStream({
    start(controller) {
      for (let i = 0; i < 30; i++) controller.enqueue(Buffer.alloc(100, "x"));
      controller.close();
    },
  });
  const long = await fetch(url, { method: "POST", body: chunks, duplex: "half" }).catch(() => undefined);
  t.ok(long === undefined || long.status === 413);
  const socket = connect(port, "127.0.0.1");
  socket.resume().end("POST /retrieve HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{");
  await once(socket, "close");
  t.equal((await post(url, { query: "Alps" })).status, 200);
});

t.test("what the client finds is what the search in memory finds", async (t) => {
  const { url } = await start(t);
  for (const options of [{}, { form: "query" as const }, { batch: {} }]) {
    const client = new RetrieverClient({ url, topK: 2, ...options });
    for (const query of ["Alps", "sea", " the sea in Paris ", "nowhere", ""])
      t.same(await client.search(query), rivers.search(query, 2), query);
    t.match(await client.act(call("nowhere"), { signal }), { text: "nothing found", passages: [] });
  }
  const custom = new RetrieverClient({ url, format: (found) => found.map(({ id }) => id).join() });
  t.equal((await custom.act(call("Alps"))).text, "r");
});

t.test(
  "on HotpotQA, too, through the limits and in batches",
  needsShared("data/hotpotqa/questions.jsonl"),
  async (t) => {
    const search = SearchEnvironment.fromPassages(await readPassages(shared("data/hotpotqa/passages.jsonl")!));
    const questions = (await readQuestions(shared("data/hotpotqa/questions.jsonl")!)).slice(0, 100);
    const server = await startRetriever(search, { port: 0 });
    t.teardown(() => server.close());
    const client = new RetrieverClient({ url: server.url, batch: { maxQueries: 16 } });
    const tool = managedTool(client, { concurrency: 64, cache: { maxEntries: 1000 } });
    const ask = () => Promise.all(questions.map(({ question }) => tool.act(call(question), { signal })));
    for (const [i, result] of (await ask()).entries())
      t.same(result, await search.act({ text: questions[i]!.question }));
    await ask();
    t.match(tool.stats(), { calls: 200, attempts: 100, hits: 100, failures: 0, timeouts: 0 });
  },
);

t.test("queries that come together go as one request, up to the size of a batch", async (t) => {
  const server = await serve(t, (response, { body }) => {
    const { queries } = JSON.parse(body) as { queries: string[] };
    json(response, {
      result: queries.map((query) => [{ document: { id: query, contents: `"T"\n${query}` }, score: 1 }]),
    });
  });
  const client = new RetrieverClient({ url: server.url, batch: { waitMs: 5, maxQueries: 3 } });
  const left = new AbortController();
  const texts = ["a", "b", "c", "d"];
  const found = texts.map((text) => client.search(text));
  const gone = t.rejects(client.search("gone", { signal: left.signal }));
  left.abort(); // before its batch is full
  const hits = await Promise.all(found);
  await gone;
  t.same(
    hits.map(([hit]) => hit!.passage),
    texts.map((text) => ({ id: text, title: "T", text })),
  );
  const sent = server.asked.map(({ body }) => (JSON.parse(body) as { queries: string[] }).queries);
  t.same(sent, [["a", "b", "c"], ["d"]]);
  const alone = new AbortController();
  const ended = t.rejects(client.search("x", { signal: alone.signal }));
  alone.abort();
  await ended;
  t.equal(server.asked.length, 2, "a batch that everybody left is not sent");
});

t.test("other servers' answers are read: documents without scores, with numbers for ids, a flat list", async (t) => {
  let result: unknown;
  const { url, asked } = await serve(t, (response) => json(response, { result }));
  const passage = { id: "7", title: "Seine", text: "Runs.\nOn." };
  const contents = '"Seine"\nRuns.\nOn.';
  const client = new RetrieverClient({ url, topK: 2 });
  const single = new RetrieverClient({ url: `${url}/deep/search`, form: "query" });
  for (const [answer, wanted, by] of [
    [[[{ id: 7, contents }]], [{ passage, score: 0 }], client],
    [[[{ document: { id: "7", contents }, score: 0.5 }]], [{ passage, score: 0.5 }], client],
    [[[{ contents: "one line" }]], [{ passage: { id: "1", text: "one line" }, score: 0 }], client],
    [
      [[1, 2, 3].map((id) => ({ id, contents: "x" }))],
      [1, 2].map((id) => ({ passage: { id: `${id}`, text: "x" }, score: 0 })),
      client,
    ],
    [[{ document: { id: "7", contents }, score: 2 }], [{ passage, score: 2 }], single],
    [[[{ id: "7", contents }]], [{ passage, score: 0 }], single],
    [[], [], single],
  ] as const) {
    result = answer;
    t.same(await by.search(" the query "), wanted);
  }
  t.equal(asked[0]!.request.url, "/retrieve");
  t.same(JSON.parse(asked[0]!.body), { queries: ["the query"], topk: 2, return_scores: true });
  t.equal(asked.at(-1)!.request.url, "/deep/search");
  t.same(JSON.parse(asked.at(-1)!.body), { query: "the query", topk: 3, return_scores: true });
});

t.test(
  "answers of another shape are an ERR_TOOL_ANSWER that names the address, and are not asked for again",
  async (t) => {
    let body = "";
    const { url, asked } = await serve(t, (response) => response.end(body));
    const tool = managedTool(new RetrieverClient({ url }), { backoff });
    for (const garbage of [
      ...["", "<html>", "null", "[]", '{"result": null}', '{"result": []}', '{"result": [[], []]}', '{"result": [7]}'],
      ...[
        '{"result": [[null]]}',
        '{"result": [[{"document": {}}]]}',
        '{"result": [[{"contents": "x", "score": "1"}]]}',
      ],
    ]) {
      body = garbage;
      const message = `from ${url}/retrieve but received `;
      await t.rejects(tool.act(call("x"), { signal }), { code: "ERR_TOOL_ANSWER", message }, garbage);
    }
    t.equal(asked.length, 11);
  },
);

t.test(
  "a server that fails for a while is asked again: 500 twice, 429 with Retry-After, a reset, a hang",
  async (t) => {
    const good = { result: [[{ document: { id: "1", contents: '"T"\nx' }, score: 1 }]] };
    const { url, sockets } = await serve(t, (response, { request }, count) => {
      if (count <= 2) json(response, { error: "out of memory" }, 500);
      else if (count === 3) json(response, {}, 429, { "retry-after": "1" });
      else if (count === 4) request.socket.resetAndDestroy();
      else if (count === 5)
        return; // never
      else if (count === 6) {
        response.writeHead(200, { "content-length": 1000 });
        response.write("{", () => request.socket.resetAndDestroy()); // in the middle of an answer
      } else json(response, good);
    });
    const tool = managedTool(new RetrieverClient({ url }), { retries: 6, timeout: 300, backoff });
    const begin = performance.now();
    t.match(await tool.act(call("x"), { signal }), { text: 'Passage 1 (Title: "T") x' });
    t.ok(performance.now() - begin > 1300, "the second that was asked for, and the time-out");
    t.match(tool.stats(), { attempts: 7, retries: 6, timeouts: 1, failures: 0 });
    await until(() => sockets.size <= 1); // the one that hung is gone, too
  },
);

t.test("a status that will not change is told once, with what the server said", async (t) => {
  const { url, asked } = await serve(t, (response, _asked, count) =>
    count === 1 ? json(response, { error: "no such\nindex" }, 404) : json(response, {}, 308, { location: "/x" }),
  );
  const tool = managedTool(new RetrieverClient({ url }), { backoff });
  await t.rejects(tool.act(call("x"), { signal }), {
    code: "ERR_TOOL_HTTP",
    message: `Expected an answer from ${url}/retrieve but received HTTP status 404: {"error":"no such\\nindex"}`,
  });
  await t.rejects(tool.act(call("x"), { signal }), { code: "ERR_TOOL_HTTP", message: /308 \(the address has moved\)/ });
  t.equal(asked.length, 2);
});

t.test("a server that is not there is an ERR_TOOL_UNREACHABLE, after the retries", async (t) => {
  const server = await startRetriever(rivers, { port: 0 });
  await server.close();
  const tool = managedTool(new RetrieverClient({ url: server.url }), { retries: 2, backoff });
  await t.rejects(tool.act(call("x"), { signal }), {
    code: "ERR_TOOL_UNREACHABLE",
    message: new RegExp(`^Expected an answer from ${server.url} but there was none: .*ECONNREFUSED`),
  });
  t.match(tool.stats(), { attempts: 3, failures: 1 });
});

t.test("user and password go into the header, and no secret into a message", async (t) => {
  const { url, asked } = await serve(t, (response, { request }) =>
    json(response, { you: request.headers.authorization, key: request.headers["x-key"], pw: "s3cret/word" }, 403),
  );
  const secret = new URL(url);
  secret.username = "reader";
  secret.password = "s3cret/word";
  secret.search = "?token=t0ken";
  const basic = Buffer.from("reader:s3cret/word").toString("base64");
  const clients = [
    new RetrieverClient({ url: secret.href, headers: { "x-key": "k3y-value" } }),
    new RetrieverClient({ url, auth: { bearer: "b34rer" }, headers: { "x-key": "k3y-value" } }),
    new OpenSearchClient({ url: secret.href, index: "wiki", auth: { apiKey: "4pikey" } }),
  ];
  for (const client of clients) {
    const error = (await client.search("x").catch((thrown: unknown) => thrown)) as Error;
    t.match(error, { code: "ERR_TOOL_HTTP" });
    for (const part of ["b34rer", "4pikey", "k3y-value", "t0ken", basic]) t.notMatch(error.message, part);
  }
  const first = (await clients[0]!.search("x").catch((thrown: unknown) => thrown)) as Error;
  t.notMatch(first.message, /s3cret|reader/);
  t.same(
    asked.slice(0, 3).map(({ request }) => request.headers.authorization),
    [`Basic ${basic}`, "Bearer b34rer", "ApiKey 4pikey"],
  );
  for (const bad of ["localhost:8000", "file:///x", "http//s3cret", 7 as never])
    t.throws(() => new RetrieverClient({ url: bad }), { code: "ERR_TOOL_OPTIONS", message: /^Expected an address/ });
});

t.test("an abort closes the connection of a request that is out", async (t) => {
  const { url, asked } = await serve(t, () => undefined);
  const tool = managedTool(new RetrieverClient({ url }));
  const own = new AbortController();
  const ended = t.rejects(tool.act(call("x"), { signal: own.signal }), { name: "AbortError" });
  await until(() => asked.length === 1);
  own.abort();
  await ended;
  const begin = performance.now();
  await until(() => asked[0]!.request.socket.destroyed);
  t.ok(performance.now() - begin < 2000);
});

t.test("OpenSearch is asked for the fields, by match or multi_match, and its documents are passages", async (t) => {
  const source = { title: "Seine", text: "Runs.", body: "Longer." };
  const { url, asked } = await serve(t, (response) =>
    json(response, { took: 1, hits: { total: { value: 1 }, hits: [{ _id: "a", _score: 2.5, _source: source }] } }),
  );
  const client = new OpenSearchClient({ url, index: "wiki-18", fields: ["title^2", "text"], topK: 5 });
  t.same(await client.search(" river in Paris\n"), [
    { passage: { id: "a", title: "Seine", text: "Runs." }, score: 2.5 },
  ]);
  const body = (i: number) => JSON.parse(asked[i]!.body) as unknown;
  t.match(asked[0]!.request, { method: "POST", url: "/wiki-18/_search" });
  t.same(body(0), {
    size: 5,
    query: { multi_match: { query: "river in Paris", fields: ["title^2", "text"] } },
    _source: ["title", "text"],
  });
  const plain = new OpenSearchClient({
    ...{ url: `${url}/es/`, index: "a b", fields: ["body"], textField: "body", titleField: "" },
  });
  t.match(await plain.act(call("x"), { signal }), { text: "Passage 1: Longer.", passages: [{ id: "a" }] });
  t.equal(asked[1]!.request.url, "/es/a%20b/_search");
  t.same(body(1), { size: 3, query: { match: { body: { query: "x" } } }, _source: ["body"] });
  const own = new OpenSearchClient({ url, index: "w", query: (text) => ({ term: { text } }) });
  await own.search("x");
  t.match(body(2), { query: { term: { text: "x" } } });
  const wrong = new OpenSearchClient({ url, index: "w", textField: "contents" });
  await t.rejects(wrong.search("x"), {
    code: "ERR_TOOL_ANSWER",
    message: /_source\.contents of each document from http/,
  });
});

t.test("rolegrad retriever serves a file, says where, and ends well by SIGTERM and Ctrl-C", async (t) => {
  const file = path.join(temporary(), "passages.jsonl");
  writeFileSync(file, RIVERS.map((passage) => `${JSON.stringify(passage)}\n`).join(""));
  for (const [end, flags] of [
    ["SIGTERM", ["--json"]],
    ["SIGINT", []],
  ] as const) {
    const args = [path.join(root, "bin/rolegrad.js"), "retriever", file, "--port", "0", "--topk", "1", ...flags];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
    t.teardown(() => child.kill("SIGKILL"));
    const [line] = (await once(createInterface(child.stdout), "line")) as [string];
    const exit = once(child, "exit");
    const url = /http:\/\/127\.0\.0\.1:\d+\/retrieve/.exec(line)![0];
    if (flags.length > 0)
      t.match(JSON.parse(line), { url, host: "127.0.0.1", port: Number(new URL(url).port), passages: 3, topk: 1 });
    else t.match(line, /^3 passages at http/);
    t.same(await new RetrieverClient({ url }).search("sea"), rivers.search("sea", 3), "topk of the request");
    const taken = await rolegrad(["retriever", file, "--port", new URL(url).port, "--json"]);
    t.match(taken, { status: 1, stdout: /ERR_RETRIEVER_LISTEN.*EADDRINUSE/ });
    child.kill(end); // with a connection that is kept open
    t.same(await exit, [0, null]);
  }
  t.match(await rolegrad(["retriever", "nowhere.jsonl"]), { status: 1, stderr: /ERR_DATA_NOT_FOUND/ });
  t.match(await rolegrad(["retriever", file, "--port", "70000"]), { status: 2, stderr: /from 0 to 65535/ });
});

t.test("close waits for what has come", async (t) => {
  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => (release = resolve));
  const slow = { search: async (query: string, k: number) => held.then(() => rivers.search(query, k)) };
  const server = await startRetriever(slow, { port: 0 });
  const found = new RetrieverClient({ url: server.url, topK: 1 }).search("Alps");
  await new Promise((resolve) => setTimeout(resolve, 50));
  const begin = performance.now();
  const closed = Promise.all([server.close(), server.close()]);
  release();
  t.same(await found, rivers.search("Alps", 1));
  await closed;
  t.ok(performance.now() - begin < 2000, "and for no connection that is kept open");
  t.throws(() => new RetrieverClient({ url: server.url, topK: 0 }), { code: "ERR_TOOL_OPTIONS" });
  await t.rejects(startRetriever(slow, { port: 0, topK: 200 }), { code: "ERR_TOOL_OPTIONS" });
});
