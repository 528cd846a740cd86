// The commands of each example's README run as they stand there, in a copy of the folder, and give what the README says.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import t from "tap";
import { readRunConfig } from "rolegrad";
import {
  checkCalls,
  checkRun,
  clone,
  commandsOf,
  env,
  examples,
  peer,
  run,
  runAll,
  words,
} from "./helpers/examples.js";

t.test("every example has a README with commands, and the table names it", async (t) => {
  const table = readFileSync(path.join(examples, "README.md"), "utf8");
  for (const entry of readdirSync(examples, { withFileTypes: true }).filter((one) => one.isDirectory())) {
    t.ok(commandsOf(entry.name).length > 0, `commands of ${entry.name}`);
    t.match(table, `(${entry.name}/README.md)`);
  }
});

t.test("what READMEs link to is there, and each run.json can be read", async (t) => {
  for (const entry of readdirSync(examples, { recursive: true, encoding: "utf8" })) {
    const file = path.join(examples, entry);
    const links = entry.endsWith("README.md") ? readFileSync(file, "utf8").matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g) : [];
    for (const [, link = ""] of links) t.ok(existsSync(path.resolve(path.dirname(file), link)), `${entry}: ${link}`);
    const isRun = /(^|[/\\])(run|sft|real|real-sft|retriever)\.json$/.test(entry);
    if (isRun) await t.resolves(readRunConfig(file), entry);
  }
});

t.test("hotpotqa-search: exact match and retrieval rise, over an index and over a server", async (t) => {
  const [alone = [], [serve = "", ask = ""] = []] = commandsOf("hotpotqa-search");
  const [, check, , greedy, inspected] = await runAll(t, alone);
  t.equal(check, "64 questions to train on, 32 to evaluate on, 126 passages\n");
  t.match(greedy, /^exact match 0\.\d+ \[.*a gold answer was retrieved in \d+ %/s);
  t.match(inspected, "report.html");
  const trained = await checkRun(t, "hotpotqa-search", "search");
  checkCalls(t, trained);
  const [first, last] = [trained.evaluations[0]!, trained.evaluations.at(-1)!];
  t.ok(last.exactMatch > first.exactMatch + 0.2, `exact match ${first.exactMatch} to ${last.exactMatch}`);
  t.ok(last.retrieval! > first.retrieval! + 0.2, `retrieval ${first.retrieval} to ${last.retrieval}`);

  // As the README has it but for the port, which must be free.
  const config = path.join(examples, "hotpotqa-search/retriever.json");
  t.match(serve, "--port 8021 &");
  t.match(readFileSync(config, "utf8"), "127.0.0.1:8021");
  const server = spawn(process.execPath, words(serve.replace("8021 &", "0 --json")), {
    cwd: clone,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [printed] = (await once(createInterface(server.stdout), "line")) as [string];
  const { host, port } = JSON.parse(printed) as { host: string; port: number };
  writeFileSync(config, readFileSync(config, "utf8").replace("127.0.0.1:8021", `${host}:${port}`));
  await run(t, ask);
  server.kill("SIGTERM");
  t.strictSame(await once(server, "exit"), [0, null], "the server ends cleanly");
  const served = await checkRun(t, "hotpotqa-search", "retriever");
  const losses = ({ metrics }: typeof served) => metrics.slice(0, 2).map(({ reward, loss }) => ({ reward, loss }));
  t.strictSame(losses(served), losses(trained), "the steps are the same");
});

t.test(
  "spider-sql: gold queries score 1, and reinforcement begins with what supervision made",
  peer("@sqlite.org/sqlite-wasm"),
  async (t) => {
    const [commands = []] = commandsOf("spider-sql");
    const [gold, base, demonstrations, supervised, reinforced] = await runAll(t, commands);
    t.match(gold, "20 of 20 gold queries score 1");
    t.match(base, "tool used in 0 % of the answers");
    t.match(demonstrations, "14 demonstrations");
    t.match(supervised, /^demonstrations +14 to train on/m);
    t.notMatch(supervised, "reward");
    t.match(reinforced, "from examples/spider-sql/runs/sft");
    const sft = await checkRun(t, "spider-sql", "sft");
    t.ok(sft.metrics.at(-1)!.loss < sft.metrics[0]!.loss / 2, "the loss falls");
    t.strictSame(sft.config["environment"], { kind: "none" });
    const trained = await checkRun(t, "spider-sql", "sql");
    t.match(trained.config["hashes"], { "initial adapter tool, adapter_model.safetensors": /^[0-9a-f]{64}$/ });
    t.equal(
      trained.evaluations[0]!.policy,
      "adapters",
      "what is evaluated before the first step is what it begins with",
    );
    t.ok(trained.evaluations[0]!.toolRate > 0.5, "most answers call the tool");
    checkCalls(t, trained);
  },
);

t.test("chat-agent: calls by the template, with corrections", async (t) => {
  const [commands = []] = commandsOf("chat-agent");
  const [, base] = await runAll(t, commands);
  t.match(base, "tool used in 0 % of the answers");
  const trained = await checkRun(t, "chat-agent", "chat");
  checkCalls(t, trained);
  t.match(
    trained.answers
      .flatMap(({ calls }) => calls.map(({ error }) => error?.code))
      .filter((code) => code !== undefined)[0],
    "ERR_TOOL_CALL",
  );
});

t.test("custom: a tool and a reward of one's own", async (t) => {
  const [commands = []] = commandsOf("custom");
  const [library = ""] = await runAll(t, commands);
  t.match(library, /^after 0 steps: exact match 0\.\d+ .*\n(step \d: reward .*\n){8}after 8 steps: .*\nfinished: /);
  const trained = await checkRun(t, "custom", "library");
  checkCalls(t, trained);
  const [first, last] = trained.evaluations;
  t.ok(last!.exactMatch > first!.exactMatch + 0.1, `exact match ${first!.exactMatch} to ${last!.exactMatch}`);
  const { right, calls } = trained.metrics.at(-1)!.rewardParts!;
  t.ok(Math.abs(trained.metrics.at(-1)!.reward - (right! - 0.01 * calls!)) < 1e-9, "the price of calls is paid");
  const json = await checkRun(t, "custom", "json");
  checkCalls(t, json);
  t.ok("thrifty.calls" in json.metrics.at(-1)!.rewardParts!, "parts by the name in run.json");
});

t.test("mcp-tool: a server of the example's own answers calls", peer("@modelcontextprotocol/sdk"), async (t) => {
  const [commands = []] = commandsOf("mcp-tool");
  const [check] = await runAll(t, commands);
  t.match(check, "8 questions to train on, 4 to evaluate on");
  const trained = await checkRun(t, "mcp-tool", "units");
  checkCalls(t, trained);
  const calls = trained.answers.flatMap((answer) => answer.calls);
  t.ok(
    calls.every(({ error }) => error?.code === "ERR_TOOL_REPORTED"),
    "the server says that a name is no quantity",
  );
});

t.test("attribution: prints its sentence", async (t) => {
  const { stdout } = await run(t, "node examples/attribution.mjs");
  t.match(stdout, "interfere in 4 of 5 answered questions");
});
