// rolegrad index, and what it makes as the passages of a run.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import { loadRun, readRunConfig, SearchIndex } from "rolegrad";
import type { Environment } from "rolegrad";
import { rolegrad } from "./helpers/command.js";
import { root } from "./helpers/shared.js";
import { temporary, world, worldRunFile } from "./helpers/world.js";

const ask = (environment: Environment, text: string) => {
  const question = { id: "q", question: "?", answers: [] };
  const call = { role: "tool", text, question, trajectory: { id: "t", calls: [] } };
  return environment.act(call, { signal: new AbortController().signal });
};

const rows = (objects: readonly object[]): string => objects.map((object) => `${JSON.stringify(object)}\n`).join("");

t.test("index says what it made, inspect what is there, and an index is only replaced when asked", async (t) => {
  const cwd = temporary();
  writeFileSync(path.join(cwd, "a.jsonl"), rows([{ id: "1", title: "Seine", text: "runs through Paris" }]));
  writeFileSync(path.join(cwd, "b.jsonl"), rows([{ id: "2", contents: '"Rhine"\nrises in the Alps' }]));
  const made = await rolegrad(["index", "a.jsonl", "b.jsonl", "--out", "sub/index", "--k1", "0.9"], { cwd });
  t.match(made, { status: 0, stderr: "" });
  t.match(made.stdout, /index +.*sub\/index\npassages +2\ntokens +9, 9 different\nsize +.* B\ntime +/);
  t.match(await rolegrad(["inspect", "sub/index"], { cwd }), {
    status: 0,
    stdout: /search index +sub\/index\npassages +2\n[^]*BM25 with k1 0\.9, b 0\.75, title weight 1/,
  });
  const refused = await rolegrad(["index", "a.jsonl", "--out", "sub/index", "--json"], { cwd });
  t.match(refused, { status: 1, stderr: "" });
  t.match(JSON.parse(refused.stdout), { error: { code: "ERR_INDEX_EXISTS", message: /--force/ } });
  const replaced = await rolegrad(["index", "a.jsonl", "--out", "sub/index", "--force", "--json"], { cwd });
  t.match(JSON.parse(replaced.stdout), { passages: 1, tokens: 4, terms: 4, bytes: Number, seconds: Number });
  t.strictSame(readdirSync(path.join(cwd, "sub")), ["index"]);
});

t.test("what is wrong with the passages or the settings is said, with its place, and nothing is left", async (t) => {
  const cwd = temporary();
  writeFileSync(path.join(cwd, "a.jsonl"), rows([{ id: "1", text: "x" }]));
  writeFileSync(path.join(cwd, "bad.jsonl"), rows([{ id: "2", text: "x" }, { id: "3" }]));
  writeFileSync(path.join(cwd, "same.jsonl"), rows([{ id: "1", text: "y" }]));
  writeFileSync(path.join(cwd, "empty.jsonl"), "");
  for (const [args, message] of [
    [["a.jsonl", "bad.jsonl"], /ERR_DATA_FIELD.*bad\.jsonl:2/],
    [["a.jsonl", "same.jsonl"], /ERR_DATA_DUPLICATE.*"1" at same\.jsonl:1 and at a\.jsonl:1/],
    [["a.jsonl", "empty.jsonl"], /ERR_DATA_EMPTY.*empty\.jsonl/],
    [["none.jsonl"], /ERR_DATA_NOT_FOUND.*none\.jsonl/],
    [["a.jsonl", "--b", "2"], /ERR_SEARCH_OPTIONS.*for b but received 2/],
    [["a.jsonl", "--k1", "x"], /ERR_SEARCH_OPTIONS.*for k1 but received NaN/],
  ] as const) {
    t.match(await rolegrad(["index", ...args, "--out", "index"], { cwd }), { status: 1, stderr: message });
  }
  t.match(await rolegrad(["index", "a.jsonl"], { cwd }), { status: 2, stderr: /--out/ });
  t.strictSame(
    readdirSync(cwd).filter((name) => name.startsWith("index")),
    [],
  );
});

t.test("Ctrl-C while an index is built leaves the one that was there", async (t) => {
  const cwd = temporary();
  const text = "the river runs through the town ".repeat(20);
  writeFileSync(path.join(cwd, "a.jsonl"), rows([{ id: "old", text: "old" }]));
  writeFileSync(path.join(cwd, "many.jsonl"), rows(Array.from({ length: 60_000 }, (_, i) => ({ id: `${i}`, text }))));
  await rolegrad(["index", "a.jsonl", "--out", "index"], { cwd });
  const args = [path.join(root, "bin/rolegrad.js"), "index", "many.jsonl", "--out", "index", "--force", "--json"];
  const child = spawn(process.execPath, args, { cwd, stdio: ["ignore", "pipe", "ignore"] });
  const ended = once(child, "close");
  let out = "";
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  while (!readdirSync(cwd).some((name) => name.startsWith("index.building-"))) await sleep(5);
  child.kill("SIGINT");
  t.equal(((await ended) as [number])[0], 130);
  t.match(JSON.parse(out), { error: { code: "ERR_ABORTED" } });
  t.strictSame(readdirSync(cwd).sort(), ["a.jsonl", "index", "many.jsonl"]);
  const index = await SearchIndex.open(path.join(cwd, "index"));
  t.equal(index.search("old")[0]?.passage.id, "old");
  index.close();
});

t.test("a run searches an index as it searches the file of the passages", async (t) => {
  const file = worldRunFile();
  const cwd = path.dirname(file);
  const withFile = await loadRun(await readRunConfig(file));
  t.match(await rolegrad(["index", "passages.jsonl", "--out", "index", "--title-weight", "2"], { cwd }), { status: 0 });
  const run = JSON.parse(readFileSync(file, "utf8")) as { environment: Record<string, unknown> };
  const change = (environment: object): void =>
    writeFileSync(file, JSON.stringify({ ...run, environment: { ...run.environment, ...environment } }));
  change({ passages: "index" });
  const withIndex = await loadRun(await readRunConfig(file));
  t.equal(withIndex.environment.size, world.pages.length);
  for (const { question } of world.questions("dev", 6, 0)) {
    const text = `${question} ${world.pages[3]!.title}`;
    t.strictSame(await ask(withIndex.environment, text), await ask(withFile.environment, text), text);
  }
  const { passages } = withIndex.description["hashes"] as { passages: string };
  t.match(passages, /^[0-9a-f]{64}$/);
  withFile.close();
  withIndex.close();
  await t.rejects(ask(withIndex.environment, "x"), { code: "ERR_INDEX_CLOSED" });
  change({ passages: "index", titleWeight: 1 });
  await t.rejects(loadRun(await readRunConfig(file)), { code: "ERR_INDEX_SETTINGS", message: /titleWeight 2.*1/ });
  change({ passages: "." });
  await t.rejects(loadRun(await readRunConfig(file)), { code: "ERR_DATA_UNREADABLE" });
});
