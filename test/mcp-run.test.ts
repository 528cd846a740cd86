// A run.json whose tools are MCP servers, or several tools of several kinds: what it means, what a server is asked, a training run.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import path from "node:path";
import t from "tap";
import {
  loadRun,
  readRunConfig,
  resolveRunConfig,
  trainRun,
  WORLD_TAGS,
  type RunConfig,
  type RunConfigInput,
} from "rolegrad";
import { writeChatTokenizer } from "./helpers/chat.js";
import { rolegrad } from "./helpers/command.js";
import { call, json, serve } from "./helpers/http.js";
import { root } from "./helpers/shared.js";
import { questions, writeToyModel } from "./helpers/toy.js";
import { temporary, world, worldRunFile } from "./helpers/world.js";

const script = path.join(root, "test/helpers/mcp-server.mjs");
const server = { command: process.execPath, args: [script] };
const { signal } = new AbortController();
const short = { steps: 1, evaluation: { every: 0, questions: 1 } };

async function load<T>(
  config: RunConfig,
  use: (setup: Awaited<ReturnType<typeof loadRun>>) => T | Promise<T>,
): Promise<T> {
  const setup = await loadRun(config);
  try {
    return await use(setup);
  } finally {
    setup.close();
  }
}

t.test("without spans each tool has a tag of its name, which the prompt explains", async (t) => {
  const environment = { kind: "mcp" as const, server, tools: { add: { role: "calculate" }, define: {} } };
  const agent = { roles: ["reason", "tool", "calculate"], maxLength: 500 };
  const config = await readRunConfig(worldRunFile({ environment, agent, ...short }));
  t.match(config.agent, { spans: [], prompt: /The tools:\n\{tools\}\n\nQuestion: \{question\}\n$/ });
  await load(config, async ({ rollout, environment: tools, questions, description }) => {
    t.match(rollout.router.spans, [
      { role: "calculate", open: "<add>", close: "</add>" },
      { role: "tool", open: "<define>", close: "</define>" },
    ]);
    const prompt = setupText(rollout, questions[0]!);
    t.match(
      prompt,
      '\n<add> {"a": number, "b": number} </add>: Adds two numbers.\n<define> your word </define>: Says what',
    );
    const asked = rollout.renderer!.parseCall({ span: 0, text: ' {"a": 1, "b": 2} ' });
    t.match(asked, { name: "add" });
    if ("error" in asked) return;
    t.match(await tools.act({ ...call(""), role: "calculate", ...asked }, { signal }), { text: "3" });
    t.equal(rollout.toolTimeout, undefined, "the tool's own limits count its time");
    t.match(description, { hashes: { "tool add": /^[0-9a-f]{64}$/, "tool define": /./, "tool slow": undefined } });
  });
  t.throws(
    () => resolveRunConfig({ ...config, environment: { ...environment, tools: { add: { role: "sum" } } } }, "run.json"),
    {
      code: "ERR_CONFIG",
      message: /environment\.tools\.add\.role: .* received "sum"/,
    },
  );
});

const setupText = (
  rollout: Awaited<ReturnType<typeof loadRun>>["rollout"],
  question: (typeof questions)[number],
): string => rollout.tokenizer!.decode(rollout.renderer!.prompt(question));

t.test("under chat the tools come from the server, and calls are checked by its schemas", async (t) => {
  const directory = temporary();
  const chat = writeChatTokenizer(path.join(directory, "tokenizer"), "chatml");
  await writeToyModel(directory, { tokenizer: chat });
  writeFileSync(path.join(directory, "chat_template.jinja"), readFileSync(path.join(chat, "chat_template.jinja")));
  const environment = { kind: "mcp" as const, server, tools: ["add", "define"] };
  const agent = { format: "chat" as const, chat: false, maxLength: 1000 };
  const config = await readRunConfig(worldRunFile({ model: directory, environment, agent, ...short }));
  t.equal(config.agent.tools, undefined);
  await load(config, async ({ rollout, environment: tools, questions }) => {
    const prompt = setupText(rollout, questions[0]!);
    for (const said of ["Adds two numbers.", '"define"', '"the other one"']) t.ok(prompt.includes(said), said);
    const parse = (text: string) => rollout.renderer!.parseCall({ span: 0, text });
    const good = parse('{"name": "add", "arguments": {"a": 1, "b": 2}}');
    t.match(good, { name: "add", arguments: { a: 1, b: 2 } });
    if (!("error" in good)) t.match(await tools.act({ ...call(""), ...good }, { signal }), { text: "3" });
    t.match(parse('{"name": "add", "arguments": {"a": "x"}}'), {
      error: /^Error: the arguments of add are wrong: .*"b"/,
    });
    t.match(parse('{"name": "slow", "arguments": {"ms": 1}}'), {
      error: /no tool "slow"\. The tools are: add, define/,
    });
  });
});

t.test("several tools in one run: each call goes to its own, and files and lists are hashed", async (t) => {
  const folder = temporary();
  writeFileSync(path.join(folder, "passages.jsonl"), `${JSON.stringify({ title: "Bank", text: "Ann owns it." })}\n`);
  const environment: NonNullable<RunConfigInput["environment"]> = {
    kind: "set",
    tools: {
      search: { kind: "search", passages: path.join(folder, "passages.jsonl"), limits: { cacheEntries: 5 } },
      calc: { kind: "mcp", server, tools: ["add", "square"] },
    },
  };
  const file = worldRunFile({ environment, agent: { roles: ["reason", "search", "calc"], maxLength: 500 }, ...short });
  const json = JSON.parse(readFileSync(file, "utf8")) as { data: object };
  writeFileSync(file, JSON.stringify({ ...json, data: { ...json.data, passageIds: "row" } }));
  await load(await readRunConfig(file), async ({ rollout, environment: tools, description }) => {
    t.match(rollout.router.spans, [
      { role: "search", open: "<search>" },
      { role: "calc", open: "<add>" },
      { role: "calc", open: "<square>" },
    ]);
    const act = async (span: number, text: string) => {
      const asked = rollout.renderer!.parseCall({ span, text });
      if ("error" in asked) throw new Error(asked.error);
      return (await tools.act({ ...call(text), role: rollout.router.spans[span]!.role, ...asked }, { signal })).text;
    };
    t.match(await act(0, "bank"), /Ann owns it/);
    t.equal(await act(1, '{"a": 2, "b": 2}'), "4");
    t.equal(await act(2, "3"), "9");
    const hash = /^[0-9a-f]{64}$/;
    t.match(description, { hashes: { "search passages": hash, "calc tool add": hash, "calc tool square": hash } });
  });
  const other = { kind: "set", tools: { a: { kind: "mcp", server: { comand: "x" } } } };
  const refuse = (own: object, message: RegExp) =>
    t.throws(() => resolveRunConfig({ model: "m", data: { questions: "q" }, environment: own }, "run.json"), {
      code: "ERR_CONFIG",
      message,
    });
  refuse(other, /no field environment\.tools\.a\.server\.comand; environment\.tools\.a\.server has command, args, env/);
  refuse({ kind: "set", tools: {} }, /environment\.tools: .*at least one tool/);
  refuse(
    { kind: "set", tools: { a: { kind: "web" } } },
    /environment\.tools\.a\.kind: Expected one of .* received "web"/,
  );
  refuse({ kind: "mcp", server: {} }, /environment\.server/);
});

t.test("train calls a server's tool, and says so", async (t) => {
  const texts = path.join(temporary(), "texts.jsonl");
  writeFileSync(texts, world.pages.map((page) => `${JSON.stringify(page)}\n`).join(""));
  const environment = {
    kind: "mcp" as const,
    server: { ...server, env: { TEXTS: "${TEXTS}", ADD_NAME: "${ADD_NAME}" } },
    tools: { add: {}, lookup: { text: "query" } },
  };
  const agent = {
    prompt: " Question: {question}\n",
    output: WORLD_TAGS.output,
    maxLength: 256,
    spans: [{ role: "tool", open: "<search>", close: "</search>", tool: "lookup" }],
  };
  const file = worldRunFile({ environment, agent, ...short });
  const cwd = path.dirname(file);
  const env = { TEXTS: texts, ADD_NAME: "add" };
  const unset = await rolegrad(["train", "run.json", "--check"], { cwd, env: { ...env, TEXTS: undefined } });
  t.match(unset, { status: 1, stderr: /ERR_CONFIG.*environment\.server\.env\.TEXTS: .* TEXTS to be set/ });
  const check = await rolegrad(["train", "run.json", "--check"], { cwd, env });
  t.match(check, {
    status: 0,
    stderr: "",
    stdout: /, MCP server node .*mcp-server\.mjs\n {2}add \{"a": number, "b": number\} Adds/,
  });
  const done = await rolegrad(["train", "run.json", "--json"], { cwd, env });
  t.match(done, { status: 0, stderr: "" });
  const answers = readFileSync(path.join(cwd, "out/trajectories/step-000001.jsonl"), "utf8").trim().split("\n");
  const calls = answers.flatMap((line) => (JSON.parse(line) as { calls: { result: string; error?: object }[] }).calls);
  t.ok(calls.length > 8 && calls.every(({ error }) => error === undefined), `${calls.length} calls`);
  const config = readFileSync(path.join(cwd, "out/config.json"), "utf8");
  t.match(config, '"TEXTS": "${TEXTS}"', "variables are kept by name");
});

t.test("a run that fails or is interrupted leaves no server behind", async (t) => {
  const start = (change: Partial<RunConfigInput>) => {
    const pidFile = path.join(temporary(), "pid");
    const environment = { kind: "mcp" as const, server: { ...server, env: { PID_FILE: pidFile } } };
    const agent = { prompt: " Question: {question}\n", maxLength: 256 };
    const file = worldRunFile({ environment, agent, ...short, ...change });
    return {
      file,
      gone: () => t.throws(() => process.kill(Number(readFileSync(pidFile, "utf8")), 0), { code: "ESRCH" }),
    };
  };
  const failing = start({ model: "missing" });
  t.match(await rolegrad(["train", failing.file]), { status: 1, stderr: /ERR_MODEL/ });
  failing.gone();
  const long = start({ steps: 10_000 });
  const child = spawn(process.execPath, [path.join(root, "bin/rolegrad.js"), "train", long.file, "--json"], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  let told = false;
  for await (const chunk of child.stdout) {
    // A second one would end it at once.
    if (!told && String(chunk).includes('"event":"step"')) told = child.kill("SIGINT");
  }
  if (child.exitCode === null) await once(child, "exit");
  t.equal(child.exitCode, 130);
  long.gone();
});

t.test("a list that has changed is another run's, by the name of the tool", async (t) => {
  const named = { ...server, env: { ADD_NAME: "${ROLEGRAD_TEST_NAME}" } };
  const agent = { prompt: " {question}\n", maxLength: 256, sampling: { maxNewTokens: 4 } };
  const file = worldRunFile({ environment: { kind: "mcp", server: named }, agent, ...short });
  process.env["ROLEGRAD_TEST_NAME"] = "add";
  t.teardown(() => delete process.env["ROLEGRAD_TEST_NAME"]);
  await load(await readRunConfig(file), (setup) => trainRun(setup));
  process.env["ROLEGRAD_TEST_NAME"] = "plus";
  await t.rejects(
    load(await readRunConfig(file), (setup) => trainRun(setup)),
    { code: "ERR_RUN_EXISTS", message: /but hashes\.tool add was "[0-9a-f]{64}" there and is undefined now/ },
  );
});

t.test("a search server that does not answer ends a run at its start", async (t) => {
  const unused = createServer().listen(0, "127.0.0.1");
  await once(unused, "listening");
  const { port } = unused.address() as AddressInfo;
  unused.close();
  const own = await serve(t, (response) => json(response, { result: "none" }));
  const check = (environment: NonNullable<RunConfigInput["environment"]>) =>
    rolegrad(["train", worldRunFile({ environment, ...short }), "--check"]);
  const [wrong, none] = await Promise.all([
    check({ kind: "retriever", url: own.url }),
    check({ kind: "opensearch", url: `http://127.0.0.1:${port}`, index: "wiki" }),
  ]);
  t.match(wrong, { status: 1, stderr: /ERR_TOOL_ANSWER\].*"result" with a list of passages from http:\/\/127/ });
  t.match(none, {
    status: 1,
    stderr: /ERR_TOOL_UNREACHABLE\].*http:\/\/127\.0\.0\.1:\d+\/wiki\/_search but .*ECONNREFUSED/,
  });
  t.equal(own.asked.length, 1, "once");
});
