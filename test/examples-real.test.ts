// What the examples' READMEs say of real data, on such data and with the tiny base: from the files as their sources have them to a step of training.
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { checkRun, clone, examples, peer, run, runAll } from "./helpers/examples.js";
import { needsShared, root, shared } from "./helpers/shared.js";

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
    shrink("spider-sql/real.json", { data: { limit: 2 }, evaluation: { questions: 2 } });
    t.match((await run(t, demonstrations)).stdout, "2 demonstrations");
    await run(t, supervised);
    await run(t, reinforced);
    const trained = await checkRun(t, "spider-sql", "spider");
    t.match(trained.config["initialAdapters"], /spider-sft$/);
  },
);
