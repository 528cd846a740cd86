// MCP servers as tools: real servers on both transports, what they answer, how they fail, and that none is left behind.
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import t, { type Test } from "tap";
import {
  loadModel,
  managedTool,
  McpClient,
  McpEnvironment,
  Rollout,
  ToolSet,
  WORLD_CHECKPOINT,
  type McpOptions,
  type McpServer,
  type ToolCall,
} from "rolegrad";
import { call, json, serve, until } from "./helpers/http.js";
import { root } from "./helpers/shared.js";
import { temporary, world, worldRollout } from "./helpers/world.js";

const script = path.join(root, "test/helpers/mcp-server.mjs");
const program: McpServer = { command: process.execPath, args: [script] };
const { signal } = new AbortController();

async function connect(t: Test, server: McpServer = program, options: McpOptions = {}): Promise<McpEnvironment> {
  const environment = await McpEnvironment.connect(server, { reconnectMs: 10, ...options });
  t.teardown(() => environment.close());
  return environment;
}

/** A server on loopback, which a test may kill and start again at the same address. */
async function serveHttp(t: Test, ...args: string[]) {
  let child: ChildProcess | undefined;
  const start = async (port = "0"): Promise<string> => {
    child = spawn(process.execPath, [script, "--http", "--port", port, ...args], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [line] = (await once(child.stdout!, "data")) as [Buffer];
    return line.toString().trim();
  };
  const stop = async (): Promise<void> => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  };
  const url = await start();
  t.teardown(stop);
  return { url, stop, again: () => start(new URL(url).port) };
}

const asked = (name: string, args: Record<string, unknown> = {}): ToolCall => ({ ...call(""), name, arguments: args });
const between = (name: string, text: string): ToolCall => ({ ...call(text), name, arguments: {} });
const alive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

interface Seen {
  running: number;
  mostRunning: number;
  cancelled: number;
  calls: number;
}
const seenBy = async (environment: McpEnvironment): Promise<Seen> =>
  JSON.parse((await environment.act(asked("seen"))).text) as Seen;

for (const [kind, ...args] of [["stdio"], ["http"], ["http", "--stateless"]]) {
  t.test(`a server by ${[kind, ...args].join(" ")}: its tools, their results and their errors`, async (t) => {
    const server = kind === "stdio" ? program : { url: (await serveHttp(t, ...args)).url };
    const environment = await connect(t, server, { maxCharacters: 100 });
    const names = "add define square slow picture weather long crash lookup seen pid";
    t.equal(environment.tools.map(({ name }) => name).join(" "), names, "of all pages of the list");
    t.match(environment.tools[1], { description: "Says what a word means.", text: "word", role: "tool" });
    const text = async (what: ToolCall) => (await environment.act(what, { signal })).text;
    t.equal(await text(asked("add", { a: 1, b: 2 })), "3");
    t.equal(await text(between("add", ' {"a": 1, "b": 2.5}\n')), "3.5", "JSON between tags");
    t.equal(await text(between("define", " tall ")), "of more than average height", "plain text for the one argument");
    t.equal(await text(between("define", '{"word": "tall", "language": "en"}')), "of more than average height");
    t.equal(await text(between("square", "7")), "49", "which may be a number");
    t.equal(
      await text(asked("picture")),
      "A dot:\n[image: image/png, 10 bytes]\n.\n[resource: file:///dot.bin, application/x-dot, 3 bytes]\n[resou\n[24 more characters]",
    );
    t.equal(await text(asked("weather")), '{"celsius":21}');
    t.equal(await text(asked("long", { times: 130 })), `${"x".repeat(100)}\n[30 more characters]`);
    await t.rejects(text(asked("define", { word: "qualm" })), {
      code: "ERR_TOOL_REPORTED",
      message: '"qualm" is not in the dictionary',
      retryable: false,
    });
    for (const [what, said] of [
      [
        asked("add", { a: "1", b: 2 }),
        'the arguments of add are wrong: "a" must be number. Write them as {"a": number, "b": number}',
      ],
      [between("add", '{"a": 1}'), /of add are wrong: they must have required property 'b'\. Write them/],
      [between("add", "1 + 2"), /of add are no JSON object\. Write them as \{"a"/],
      [
        asked("define", { word: "a", language: "fr" }),
        /"language" must be equal to one of .*"language"\?: "en" \| "de"\}$/,
      ],
      [asked("find", {}), /^there is no tool "find"\. The tools are: add, define/],
    ] as const) {
      await t.rejects(text(what), { code: "ERR_TOOL_ARGUMENTS", message: said });
      t.match(environment.check(what), /^Error: /);
    }
    t.equal(environment.check(asked("add", { a: 1, b: 2 })), undefined);
    if (args.length > 0) return;
    t.equal((await seenBy(environment)).calls, 10, "calls that do not fit reach no server");
  });

  if (args.length > 0) continue;
  t.test(`by ${kind}, what is no longer waited for is cancelled, and no more run than may`, async (t) => {
    const server = kind === "stdio" ? program : { url: (await serveHttp(t)).url };
    const environment = await connect(t, server);
    const tool = managedTool(environment, { concurrency: 4, timeout: 200, retries: 0 });
    await t.rejects(tool.act(asked("slow", { ms: 60_000 }), { signal }), { code: "ERR_TOOL_TIMEOUT" });
    const abort = new AbortController();
    const left = tool.act(asked("slow", { ms: 60_000 }), { signal: abort.signal });
    await until(() => tool.stats().running === 1);
    setTimeout(() => abort.abort(new Error("enough")), 50);
    await t.rejects(left, { message: "enough" });
    let seen = await seenBy(environment);
    while (seen.cancelled < 2) seen = await seenBy(environment);
    t.match(seen, { running: 0, cancelled: 2 }, "the server has heard of both");
    const patient = managedTool(environment, { concurrency: 4, retries: 0 });
    const answers = await Promise.all(
      Array.from({ length: 20 }, () =>
        patient.act(asked("slow", { ms: 20 }), { signal: new AbortController().signal }),
      ),
    );
    t.equal(answers.length, 20);
    t.match(await seenBy(environment), { mostRunning: 4, cancelled: 2 }, "what has its answer is not cancelled");
  });
}

t.test("a program that falls over is started again, and its calls are made again", async (t) => {
  const lines: string[] = [];
  const environment = await connect(t, program, { onLog: (line) => lines.push(line) });
  const first = environment.client.pid!;
  await t.rejects(environment.act(asked("crash"), { signal }), {
    code: "ERR_TOOL_UNREACHABLE",
    message: /mcp-server\.mjs but there was none: .*closed; its last lines: about to fall over$/,
    retryable: true,
  });
  t.same(lines, ["about to fall over"]);
  t.notOk(alive(first));
  t.equal(environment.client.pid, undefined);
  const tool = managedTool(environment, { retries: 2, backoff: { firstMs: 1 } });
  const slow = Array.from({ length: 5 }, () => tool.act(asked("slow", { ms: 1000 }), { signal }));
  const second = Number((await environment.act(asked("pid"))).text);
  t.not(second, first);
  t.equal(second, environment.client.pid);
  await environment.act(asked("crash")).catch(() => undefined);
  for (const { text } of await Promise.all(slow)) t.equal(text, "waited 1000 ms");
  t.equal(tool.stats().retries, 5);
  t.match(await environment.act(asked("add", { a: 1, b: 1 })), { text: "2" });
});

t.test("a server that cannot be reached again is gone, and is looked for after a while", async (t) => {
  const folder = path.join(root, "node_modules/.cache/rolegrad-mcp-test");
  mkdirSync(folder, { recursive: true });
  const own = path.join(folder, `server-${process.pid}.mjs`);
  cpSync(script, own);
  const server = { command: process.execPath, args: [own] };
  const environment = await connect(t, server, { reconnects: 2, goneMs: 400, name: "calc" });
  writeFileSync(own, 'console.error("no licence"); process.exit(1);');
  await environment.act(asked("crash")).catch(() => undefined);
  const gone = {
    code: "ERR_TOOL_GONE",
    message: /MCP server calc is gone, after 2 attempts.*no licence/,
    retryable: false,
  };
  await t.rejects(environment.act(asked("add", { a: 1, b: 1 })), gone);
  const begin = performance.now();
  await t.rejects(environment.act(asked("add", { a: 1, b: 1 })), gone);
  t.ok(performance.now() - begin < 100, "at once");
  cpSync(script, own);
  await new Promise((resolve) => setTimeout(resolve, 400));
  t.match(await environment.act(asked("add", { a: 1, b: 1 })), { text: "2" });
});

t.test(
  "over HTTP, a server that dies in the middle of a call is told at once, and a session is opened again",
  async (t) => {
    const server = await serveHttp(t);
    const environment = await connect(t, { url: server.url });
    const slow = environment.act(asked("slow", { ms: 60_000 }));
    const failed = t.rejects(slow, { code: "ERR_TOOL_UNREACHABLE", retryable: true });
    while ((await seenBy(environment)).running === 0);
    await server.stop();
    await failed;
    await t.rejects(environment.act(asked("add", { a: 1, b: 1 })), {
      code: "ERR_TOOL_UNREACHABLE",
      message: `Expected an answer from the MCP server ${server.url} but there was none: connect ECONNREFUSED ${new URL(server.url).host}`,
      retryable: true,
    });
    await server.again();
    const all = Array.from({ length: 5 }, (_, a) => environment.act(asked("add", { a, b: 1 })));
    t.same(
      (await Promise.all(all)).map(({ text }) => text),
      ["1", "2", "3", "4", "5"],
    );
    t.equal((await seenBy(environment)).calls, 6);
  },
);

t.test("close ends the program, whatever it makes of it, and so does an exit", async (t) => {
  const environment = await connect(t);
  const pid = environment.client.pid!;
  const slow = t.rejects(environment.act(asked("slow", { ms: 60_000 })), { code: "ERR_TOOL_CLOSED" });
  await environment.close();
  await slow;
  t.notOk(alive(pid));
  await environment.close();
  await t.rejects(environment.act(asked("add", { a: 1, b: 1 })), { code: "ERR_TOOL_CLOSED" });

  const code = `
    import { McpEnvironment } from "rolegrad";
    const server = { command: process.execPath, args: [${JSON.stringify(script)}], env: { STUBBORN: "1" } };
    const environment = await McpEnvironment.connect(server);
    console.log(environment.client.pid);
    process.exit();`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code], {
    cwd: root,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [line] = (await once(child.stdout, "data")) as [Buffer];
  await once(child, "exit");
  await until(() => !alive(Number(line.toString())));

  const stubborn = await connect(t, { ...program, env: { STUBBORN: "1" } });
  const own = stubborn.client.pid!;
  await stubborn.close();
  await until(() => !alive(own));
  t.pass("SIGKILL is not to be heard");
});

t.test("what cannot be connected to says why, and no secret", async (t) => {
  const refuse = (server: McpServer, options: McpOptions, code: string, message: RegExp) =>
    t.rejects(McpEnvironment.connect(server, options), { code, message });
  const gone = await serveHttp(t);
  await gone.stop();
  await refuse(
    { url: gone.url },
    {},
    "ERR_TOOL_UNREACHABLE",
    /^Expected an answer from the MCP server http:\/\/127.* ECONNREFUSED/,
  );
  await refuse({ command: "/no/such/program" }, {}, "ERR_TOOL_UNREACHABLE", /server program but .* ENOENT$/);
  const failing = ["-e", 'console.error("the key " + process.env.KEY + " is wrong"); process.exit(1)'];
  const refused = { command: process.execPath, args: failing, env: { KEY: "hunter22" } };
  await refuse(refused, {}, "ERR_TOOL_UNREACHABLE", /closed; its last lines: the key \*\*\* is wrong$/);
  await refuse(
    { command: "sleep", args: ["60"] },
    { connectTimeout: 100 },
    "ERR_TOOL_TIMEOUT",
    /server sleep 60 when it was connected to but none came in time$/,
  );
  const { url } = await serveHttp(t, "--token", "s3cret-token");
  const open = { url, auth: { bearer: "s3cret-token" } };
  t.match(await (await connect(t, open)).act(asked("add", { a: 1, b: 2 })), { text: "3" });
  const other = { url: `${url}?key=s3cret`, headers: { authorization: "Bearer another-token" } };
  await refuse(other, {}, "ERR_TOOL_HTTP", /from http:\S+\/mcp but received HTTP status 401: who are you, \*\*\*\?$/);
  await refuse(
    program,
    { tools: ["add", "sub"] },
    "ERR_TOOL_OPTIONS",
    /a tool of the MCP server .* \(add, define.*\) but received "sub"$/,
  );
  await refuse(
    program,
    { tools: { add: { text: "c" } } },
    "ERR_TOOL_OPTIONS",
    /argument of tool add for text but received "c"/,
  );
  for (const [server, options] of [
    [{ url: "ftp://a" }, {}],
    [{ command: "" }, {}],
    [{ command: "a", args: [1] }, {}],
    [{ url: "http://a", headers: { a: 1 } }, {}],
    [null, {}],
    [program, { reconnects: -1 }],
    [program, { maxBytes: 1.5 }],
    [program, { maxCharacters: 0 }],
    [program, { tools: "add" }],
    [program, { tools: [] }],
    [program, { role: 1 }],
    [program, { onLog: 1 }],
  ] as [McpServer, McpOptions][])
    await refuse(server, options, "ERR_TOOL_OPTIONS", /^Expected /);
});

t.test("whatever an address answers, a call ends, and only what is given up is cancelled", async (t) => {
  const methods: string[] = [];
  const { url } = await serve(t, (response, { request, body }) => {
    if (request.method !== "POST") return response.writeHead(405).end();
    const { id, method, params } = JSON.parse(body) as {
      id?: number;
      method: string;
      params: { protocolVersion: string; arguments: { m: string } };
    };
    methods.push(method);
    const answer = (rest: object) => json(response, { jsonrpc: "2.0", id, ...rest });
    if (method === "initialize") {
      const { protocolVersion } = params;
      return answer({
        result: { protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "x", version: "1" } },
      });
    }
    const inputSchema = {
      $schema: "https://json-schema.org/draft/2020-12/schema",
      ...{ type: "object", properties: { m: { $ref: "#/$defs/M" } }, required: ["m"] },
      $defs: { M: { enum: ["json", "ends", "breaks", "busy", "wrong", "quota"] } },
    };
    if (method === "tools/list") return answer({ result: { tools: [{ name: "t", inputSchema }] } });
    if (method !== "tools/call") return response.writeHead(202).end();
    const { m } = params.arguments;
    if (m === "json") return answer({ result: { content: [{ type: "text", text: "yes" }] } });
    if (m === "wrong") return answer({ result: { content: "yes" } });
    if (m === "quota") return answer({ error: { code: -32000, message: "no more of it" } });
    if (m === "busy") return response.writeHead(503).end("in a moment");
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(": hello\n\n");
    return setTimeout(() => (m === "ends" ? response.end() : response.destroy()), 5);
  });
  const environment = await connect(t, { url: `${url}/mcp?key=s3cret` });
  const act = async (m: string, own = new AbortController()) => {
    try {
      return (await environment.act(asked("t", { m }), { signal: own.signal })).text;
    } finally {
      own.abort(); // as a rollout does
    }
  };
  t.equal(await act("json"), "yes");
  for (const [m, code, retryable, said] of [
    ["ends", "ERR_TOOL_UNREACHABLE", true, `server ${url}/mcp but there was none: the answer ended before`],
    ["breaks", "ERR_TOOL_UNREACHABLE", true, `server ${url}/mcp but there was none: the answer broke off`],
    ["busy", "ERR_TOOL_HTTP", true, `${url}/mcp but received HTTP status 503: in a moment`],
    ["wrong", "ERR_TOOL_ANSWER", false, `from ${url}/mcp when it was called for t but received another shape`],
    ["quota", "ERR_TOOL_REPORTED", false, "when it was called for t: no more of it"],
    ["new", "ERR_TOOL_ARGUMENTS", false, 'Write them as {"m": "json" | "ends" | "breaks"'],
  ] as const)
    await t.rejects(act(m), { code, retryable, message: said }, m);
  t.equal(await act("json"), "yes");
  t.notOk(methods.includes("notifications/cancelled"));
});

t.test("an answer beyond its bound is an error, and others go on", async (t) => {
  for (const server of [program, { url: (await serveHttp(t)).url }]) {
    const client = await McpClient.connect(server, { maxBytes: 50_000, reconnectMs: 1 });
    t.teardown(() => client.close());
    const long = client.call("long", { times: 60_000 });
    await t.rejects(long, { code: "url" in server ? "ERR_TOOL_ANSWER" : "ERR_TOOL_UNREACHABLE" });
    t.match(await client.call("add", { a: 1, b: 2 }), { content: [{ type: "text", text: "3" }] });
  }
});

t.test("a call finds its tool by its name, or by its role; a set finds it among servers", async (t) => {
  const calc = await connect(t, program, {
    tools: { add: {}, define: { role: "dictionary" }, square: { role: "sum" } },
  });
  const text = async (what: Partial<ToolCall>, of: { act: McpEnvironment["act"] } = calc) =>
    (await of.act({ ...call(""), ...what }, { signal })).text;
  t.equal(
    await text({ role: "dictionary", text: "tall" }),
    "of more than average height",
    "by the only tool of a role",
  );
  t.equal(await text({ role: "sum", name: "sum", text: "3" }), "9", "a span without a tool has its role's name");
  t.equal(await text({ role: "tool", name: "square", arguments: { x: 2 } }), "4", "a name counts more than a role");
  const echo = { act: async ({ text }: ToolCall) => ({ text: `echo ${text}` }) };
  const set = new ToolSet({ echo, calc: managedTool(calc, { retries: 0 }) });
  t.same(
    set.tools.map(({ name }) => name),
    ["add", "define", "square"],
  );
  t.equal(await text({ role: "tool", name: "add", arguments: { a: 1, b: 2 } }, set), "3");
  t.equal(await text({ role: "echo", text: "x" }, set), "echo x");
  t.equal(await text({ role: "tool", name: "echo", text: "x" }, set), "echo x");
  t.match(set.check({ ...call("x"), name: "add", arguments: {} }), /no JSON object/);
  t.equal(set.timesOut, false);
  t.throws(() => new ToolSet({ calc, add: echo }), { code: "ERR_TOOL_OPTIONS", message: /calc offers add/ });
});

t.test("a rollout calls a server's tool by a span: roles are the router's, what it says is not sampled", async (t) => {
  const texts = path.join(temporary(), "texts.jsonl");
  writeFileSync(texts, world.pages.map((page) => `${JSON.stringify(page)}\n`).join(""));
  const lookup = await connect(t, { ...program, env: { TEXTS: texts } }, { tools: ["lookup"] });
  const model = await loadModel(WORLD_CHECKPOINT);
  t.teardown(() => model.close());
  const { environment: _search, ...parts } = worldRollout();
  const run = async (environment: McpEnvironment) =>
    new Rollout(model, { ...parts, environment, group: 4, seed: 1 }).collect(world.questions("train", 6, 0));
  const trajectories = await run(lookup);
  const calls = trajectories.flatMap((trajectory) => trajectory.calls);
  t.ok(calls.length >= 12, "the model searches");
  t.ok(calls.every(({ error }) => error === undefined));
  const titles = world.pages.map(({ title, text }) => `${title}. ${text}`);
  t.ok(calls.every(({ result }) => titles.includes(result) || result === "nothing found"));
  const { router } = parts;
  const tokenBytes = model.tokenizer!.tokenBytes();
  for (const x of trajectories) {
    const bytes = Array.from(x.ids, (id) => tokenBytes[id] ?? new Uint8Array(0));
    t.strictSame(x.roles, router.annotate(bytes, x.sampled));
    let at = 0;
    const text = model.tokenizer!.decode(x.ids);
    for (const { result } of x.calls) t.ok((at = text.indexOf(result, at)) > 0, "each result is read");
  }
  const again = await run(lookup);
  const kept = ({ ids, roles, sampled, calls }: (typeof again)[number]) => [
    ids,
    roles,
    sampled,
    calls.map(({ result }) => result),
  ];
  t.strictSame(again.map(kept), trajectories.map(kept), "and the same again");
});
