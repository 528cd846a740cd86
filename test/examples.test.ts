// The commands of each example's README run as they stand there, in a copy of the folder, and give what the README says.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import t, { type Test } from "tap";
import { readRunConfig, RunDirectory, runJsonSchema } from "rolegrad";
import { runProgram, type CommandResult } from "./helpers/command.js";
import { needsShared, root, shared } from "./helpers/shared.js";

// Inside the package, so that "rolegrad" resolves to it.
const clone = path.join(root, "build", "examples-test");
const examples = path.join(clone, "examples");
rmSync(clone, { recursive: true, force: true });
mkdirSync(clone, { recursive: true });
cpSync(path.join(root, "examples"), examples, {
  recursive: true,
  filter: (from) => !/[/\\]runs([/\\]|$)/.test(path.relative(root, from)),
});
for (const name of ["assets", "bin", "docs", "README.md"]) symlinkSync(path.join(root, name), path.join(clone, name));
t.teardown(() => rmSync(clone, { recursive: true, force: true }));

const peer = (name: string) =>
  existsSync(path.join(root, "node_modules", name)) ? {} : { skip: `${name} is not installed` };

const knowsMcp = JSON.stringify(runJsonSchema()).includes('"mcp"');

/** The commands of each block of shell in an example's README. */
function commandsOf(example: string): string[][] {
  const readme = readFileSync(path.join(examples, example, "README.md"), "utf8");
  return [...readme.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, code = ""]) => code.trim().split("\n"));
}

/** A line of a README, with the package's command as it stands in this tree. */
function words(line: string): string[] {
  const list = line.split(" ");
  if (list[0] === "npx" && list[1] === "rolegrad") return [path.join("bin", "rolegrad.js"), ...list.slice(2)];
  if (list[0] === "node") return list.slice(1);
  throw new Error(`Expected npx rolegrad or node in the README but received ${line}`);
}

const env = { FORCE_COLOR: undefined, NO_COLOR: "1", NODE_OPTIONS: undefined };

async function run(t: Test, line: string): Promise<CommandResult> {
  const result = await runProgram(process.execPath, words(line), { cwd: clone, env });
  t.equal(result.status, 0, `${line}\n${result.stderr}`);
  return result;
}

async function runAll(t: Test, lines: readonly string[]): Promise<string[]> {
  const printed: string[] = [];
  for (const line of lines) printed.push((await run(t, line)).stdout);
  return printed;
}

/** What a run of an example left, and the text between the role's tags in its last answers. */
async function left(example: string, name: string) {
  const run = new RunDirectory(path.join(examples, example, "runs", name));
  const metrics = await run.metrics();
  const evaluations = await run.evaluations();
  const last = `step-${String(metrics.at(-1)?.step).padStart(6, "0")}`;
  return {
    path: run.path,
    config: await run.readConfig(),
    metrics,
    evaluations,
    answers: await run.readTrajectories(last),
  };
}

/** Both roles trained, on their own samples, and everything is there that a run leaves. */
async function checkRun(t: Test, example: string, name: string): Promise<Awaited<ReturnType<typeof left>>> {
  const found = await left(example, name);
  t.ok(found.metrics.length > 0, "metrics");
  t.ok(
    found.metrics.every(({ maxRatioDeviation }) => maxRatioDeviation === 0),
    "on policy",
  );
  for (const file of ["config.json", "adapters/reason/adapter_config.json", "adapters/tool/adapter_config.json"])
    t.ok(existsSync(path.join(found.path, file)), file);
  return found;
}

/** Calls, and tokens of the role that makes them. */
function checkCalls(t: Test, { answers, metrics }: Awaited<ReturnType<typeof left>>): void {
  const calls = answers.flatMap((answer) => answer.calls);
  t.ok(calls.length > 0, `${calls.length} calls`);
  t.ok(
    calls.every(({ role }) => role === "tool"),
    "of the role tool",
  );
  t.ok((metrics.at(-1)?.sampledTokens["tool"] ?? 0) > 0, "tokens of the role tool");
}

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
    if (isRun && (knowsMcp || !entry.startsWith("mcp-tool"))) await t.resolves(readRunConfig(file), entry);
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

t.test(
  "mcp-tool: a server of the example's own answers calls",
  knowsMcp ? peer("@modelcontextprotocol/sdk") : { skip: 'environment.kind "mcp" is not known here' },
  async (t) => {
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
  },
);

t.test("attribution: prints its sentence", async (t) => {
  const { stdout } = await run(t, "node examples/attribution.mjs");
  t.match(stdout, "interfere in 4 of 5 answered questions");
});

/** The base, for longer texts than it has seen. */
function longBase(): string {
  const model = path.join(clone, "long");
  if (existsSync(model)) return model;
  cpSync(path.join(root, "assets/world"), model, { recursive: true });
  const file = path.join(model, "config.json");
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), max_position_embeddings: 16_384 }));
  return model;
}

type Row = {
  id: string;
  title: string;
  text: string;
  question: string;
  answers: string[];
  supporting_ids: string[];
} & Record<"split" | "db" | "sql", string>;

const rowsOf = (file: string): Row[] =>
  readFileSync(shared(file)!, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));

/** A real.json with another model, at a small size. */
function shrink(file: string, change: Record<string, object>): void {
  type Json = Record<string, object>;
  const json = JSON.parse(readFileSync(path.join(examples, file), "utf8")) as Json;
  for (const [field, value] of Object.entries(change)) json[field] = { ...json[field], ...value };
  const small = { model: longBase(), steps: 1, questionsPerStep: 2, group: 2 };
  writeFileSync(path.join(examples, file), JSON.stringify({ ...json, ...small }));
}

/** The commands for real data, which stand in a block of their own. */
function realCommandsOf(example: string): string[] {
  const [, code = ""] = /^```console\n([\s\S]*?)^```$/m.exec(
    readFileSync(path.join(examples, example, "README.md"), "utf8"),
  )!;
  return code.trim().split("\n");
}

for (const layout of ["FlashRAG's", "HotpotQA's"])
  t.test(
    `hotpotqa-search: real.json on real questions in ${layout} layout`,
    needsShared("data/hotpotqa/questions.jsonl", "data/hotpotqa/passages.jsonl"),
    async (t) => {
      const passages = new Map(rowsOf("data/hotpotqa/passages.jsonl").map((passage) => [passage.id, passage]));
      const raw = (split: string) =>
        rowsOf("data/hotpotqa/questions.jsonl")
          .filter((question) => question.split === split)
          .map(({ id, question, answers, supporting_ids: ids }) => {
            const found = ids.map((id) => passages.get(id)!);
            const [titles, sentences] = [
              found.map(({ title }) => title),
              found.map(({ text }) => text.split(/(?<=\.) /)),
            ];
            if (layout === "HotpotQA's")
              return {
                _id: id,
                question,
                answer: answers[0],
                context: titles.map((title, i) => [title, sentences[i]]),
              };
            return { id, question, golden_answers: answers, metadata: { context: { title: titles, sentences } } };
          });
      const json = layout === "HotpotQA's";
      for (const split of ["train", "dev"]) {
        const text = json
          ? JSON.stringify(raw(split))
          : raw(split)
              .map((row) => JSON.stringify(row))
              .join("\n");
        writeFileSync(path.join(clone, `${split}.jsonl`), text);
      }
      rmSync(path.join(examples, "hotpotqa-search/hotpotqa"), { recursive: true, force: true });
      cpSync(path.join(root, "examples/hotpotqa-search/real.json"), path.join(examples, "hotpotqa-search/real.json"));
      const [prepare = "", index = "", check = "", , train = ""] = realCommandsOf("hotpotqa-search");
      const [prepared, , checked] = await runAll(t, [prepare, index, check]);
      t.match(prepared, /^400 questions and \d+ passages/);
      t.match(checked, /^300 questions to train on, 100 to evaluate on, \d+ passages/);
      if (json) return;
      const sampling = { maxNewTokens: 100 };
      const agent = { chat: false, prompt: " Question: {question}\n", maxLength: 2048, sampling };
      shrink("hotpotqa-search/real.json", { agent, evaluation: { questions: 4 } });
      await run(t, train);
      await checkRun(t, "hotpotqa-search", "hotpotqa");
    },
  );

t.test(
  "spider-sql: real.json on Spider's questions, from gold queries to reinforcement",
  { ...needsShared("data/spider/questions.jsonl"), ...peer("@sqlite.org/sqlite-wasm") },
  async (t) => {
    const spider = path.join(examples, "spider-sql/spider");
    mkdirSync(path.join(spider, "database"), { recursive: true });
    cpSync(shared("data/spider/db")!, path.join(spider, "database"), { recursive: true });
    for (const [file, split] of Object.entries({ "train_spider.json": "train", "dev.json": "dev" })) {
      const rows = rowsOf("data/spider/questions.jsonl").filter((row) => row.split === split);
      const list = rows.map(({ db, question, sql }) => ({ db_id: db, question, query: sql }));
      writeFileSync(path.join(spider, file), JSON.stringify(list));
    }
    const [, check = "", gold = "", demonstrations = "", supervised = "", reinforced = ""] =
      realCommandsOf("spider-sql");
    t.match((await run(t, check)).stdout, "196 questions to train on, 56 to evaluate on");
    const agent = { chat: false, maxLength: 8192, sampling: { maxNewTokens: 20 } };
    shrink("spider-sql/real.json", { agent });
    shrink("spider-sql/real-sft.json", { agent });
    t.match((await run(t, gold)).stdout, "252 of 252 gold queries score 1");
    shrink("spider-sql/real.json", { data: { limit: 4 }, evaluation: { questions: 2 } });
    t.match((await run(t, demonstrations)).stdout, "4 demonstrations");
    await run(t, supervised);
    await run(t, reinforced);
    const trained = await checkRun(t, "spider-sql", "spider");
    t.match(trained.config["initialAdapters"], /spider-sft$/);
  },
);
