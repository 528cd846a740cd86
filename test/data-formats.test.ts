// Questions and passages from JSON Lines, JSON, CSV, TSV and Parquet: the same rows, bad ones named, fields by path.
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import t from "tap";
import { readPassages, readQuestions, type Question, type SkippedRows } from "rolegrad";
import { writeParquet } from "./helpers/parquet.js";
import { needsShared, root, shared } from "./helpers/shared.js";
import { temporary } from "./helpers/world.js";

const folder = temporary();
let files = 0;

/** A new file of this extension. */
function write(extension: string, content: string | Uint8Array): string {
  const file = path.join(folder, `${++files}.${extension}`);
  writeFileSync(file, content);
  return file;
}

const quote = (cell: string): string => `"${cell.replaceAll('"', '""')}"`;
const table = (rows: readonly (readonly string[])[], separator = ",", end = "\n"): string =>
  rows.map((row) => row.map(quote).join(separator) + end).join("");
const lines = (rows: readonly unknown[]): string => rows.map((row) => `${JSON.stringify(row)}\n`).join("");

const QUESTIONS = [
  { id: "1", question: 'Who said "no",\nand why?', answers: ["Ada", "A. L., Countess"], level: "hard" },
  { id: "2", question: "日本の首都は🙂?", answers: ["東京"], level: "easy" },
  { id: "3", question: "[bracketed]; | and \t tab", answers: ["a|b", ""], level: "x" },
];
const CELLS = [
  ["id", "question", "answers", "level"],
  ...QUESTIONS.map(({ id, question, answers, level }) => [id, question, JSON.stringify(answers), level]),
];
const SHAPE = { id: "text", question: "text", answers: ["text"], level: "text" } as const;

function parquet(rows: readonly Record<string, unknown>[], options: Parameters<typeof writeParquet>[3] = {}): string {
  const file = write("parquet", "");
  writeParquet(file, { ...SHAPE, answers: ["text"] }, rows, options);
  return file;
}

t.test("every format gives the same questions", async (t) => {
  const mark = "\ufeff";
  for (const [name, file] of Object.entries({
    jsonl: write("jsonl", lines(QUESTIONS)),
    ndjson: write("ndjson", mark + lines(QUESTIONS)),
    "jsonl.gz": write("jsonl.gz", gzipSync(lines(QUESTIONS))),
    "json, an array": write("json", `${mark}\n ${JSON.stringify(QUESTIONS, null, 2)}`),
    "json, lines": write("json", lines(QUESTIONS)),
    csv: write("csv", table(CELLS)),
    "csv of Excel": write("csv", mark + table(CELLS, ",", "\r\n")),
    "csv.gz": write("csv.gz", gzipSync(mark + table(CELLS))),
    tsv: write("tsv", table(CELLS, "\t")),
    parquet: parquet(QUESTIONS),
    "parquet, gzip": parquet(QUESTIONS, { codec: "GZIP" }),
    "parquet, brotli": parquet(QUESTIONS, { codec: "BROTLI" }),
    "parquet, uncompressed": parquet(QUESTIONS, { codec: "UNCOMPRESSED", rowGroupSize: 2 }),
  })) {
    t.strictSame(await readQuestions(file), QUESTIONS, name);
  }
  t.strictSame(await readQuestions(write("txt", table(CELLS)), { format: "csv" }), QUESTIONS, "by option");
});

t.test("every format gives the same passages", async (t) => {
  const passages = [
    { id: "7", title: 'The "Big" One', text: "Line.\n\nLine." },
    { id: "8", text: "No title." },
  ];
  const csv = table([["id", "title", "text"], ...passages.map(({ id, title = "", text }) => [id, title, text])]);
  const file = write("parquet", "");
  writeParquet(file, { id: "int64", title: "text", text: "text" }, [
    { ...passages[0], id: 7 },
    { ...passages[1], id: 8, title: null },
  ]);
  for (const each of [write("csv", csv), write("json", JSON.stringify(passages)), file])
    t.strictSame(await readPassages(each), passages, each);
  const wiki = write("jsonl", lines([{ key: 1, doc: { body: "x", name: "y" } }]));
  t.strictSame(await readPassages(wiki, { fields: { id: "key", title: "doc.name", text: "doc.body" } }), [
    { id: "1", title: "y", text: "x" },
  ]);
  t.strictSame(await readPassages(write("csv", "text\na\nb\n"), { ids: "row" }), [
    { id: "1", text: "a" },
    { id: "2", text: "b" },
  ]);
});

// What breaks readers of text: quotes, separators, line ends, marks, surrogates, and any other character.
const hostile = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        '"',
        '""',
        ",",
        "\t",
        "\n",
        "\r\n",
        "\r",
        "\ufeff",
        "[",
        "]",
        "\\",
        "'",
        "\u2028",
        "🙂",
        "\0",
        " ",
      ),
      fc.string({ unit: "grapheme", maxLength: 3 }),
    ),
    { maxLength: 12 },
  )
  .map((parts) => parts.join(""));
const hostileQuestions = fc
  .array(
    fc.record({
      question: hostile.map((text) => `?${text}`),
      answers: fc.array(hostile),
      extra: hostile.map((x) => `+${x}`),
    }),
    {
      minLength: 1,
      maxLength: 12,
    },
  )
  .map((rows) => rows.map((row, i): Question => ({ id: `q${i}`, ...row })));

t.test("text of every kind comes back as it was", async () => {
  await fc.assert(
    fc.asyncProperty(hostileQuestions, fc.constantFrom("\n", "\r\n"), async (questions, end) => {
      const cells = questions.map((q) => [q.id, q.question, JSON.stringify(q.answers), q["extra"] as string]);
      const header = ["id", "question", "answers", "extra"];
      const check = async (file: string): Promise<void> => {
        const found = await readQuestions(file);
        t.strictSame(found, questions, file);
      };
      await check(write("jsonl", lines(questions)));
      await check(write("csv", table([header, ...cells], ",", end)));
      await check(write("tsv", table([header, ...cells], "\t", end)));
    }),
    { numRuns: 60 },
  );
});

t.test("a bad row is named by the line it begins on, whatever lines the rows before it fill", async () => {
  const cell = fc.array(fc.constantFrom("x", "\n", "\r\n", '"', ","), { maxLength: 6 }).map((parts) => parts.join(""));
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(cell, fc.nat(2)), { maxLength: 30 }),
      fc.constantFrom("\n", "\r\n"),
      async (rows, end) => {
        let text = `\ufeffid,question,answers${end}`;
        for (const [i, [extra, blank]] of rows.entries())
          text += table([[`${i}`, `?${extra}`, "a"]], ",", end) + end.repeat(blank);
        const line = text.split("\n").length;
        const file = write("csv", `${text}"","multi\nline","a"${end}`);
        await t.rejects(readQuestions(file), { code: "ERR_DATA_FIELD", message: new RegExp(`id at .*csv:${line} `) });
      },
    ),
    { numRuns: 60 },
  );
});

t.test("lines are counted right over many reads of a file", async (t) => {
  const rows = Array.from({ length: 20_000 }, (_, i) => [`${i}`, `?${"\n".repeat(i % 4)}`, "a"]);
  const good = table([["id", "question", "answers"], ...rows]);
  const file = write("csv", `${good}7,again,a\n`);
  const line = good.split("\n").length;
  await t.rejects(readQuestions(file), {
    code: "ERR_DATA_DUPLICATE",
    message: `"7" at ${file}:${line} and on line 18`,
  });
});

t.test("each kind of bad row names its place and its field", async (t) => {
  const csv = (rows: string) => write("csv", `id,question,answers\n${rows}`);
  const cases: [string, string, RegExp][] = [
    [csv("1,who,a,b\n"), "ERR_DATA_LINE", /3 cells, as the header has, at .*csv:2 but received 4/],
    [csv("1,who,a\n2,who\n"), "ERR_DATA_LINE", /csv:3 but received 2/],
    [csv("1,,a\n"), "ERR_DATA_FIELD", /string for question at .*:2 but received nothing/],
    [csv('1," ",a\n'), "ERR_DATA_FIELD", /text for question at .*:2 but received " "/],
    [csv("1,who,\n"), "ERR_DATA_FIELD", /field answers at .*:2 but received id, question/],
    [csv("1,who,\"['a' 'b']\"\n"), "ERR_DATA_FIELD", /answers at .*:2 but received .*no JSON list/],
    [csv('1,who,"[1]"\n'), "ERR_DATA_FIELD", /strings for answers at .*:2/],
    [csv('1,"\n",a\n1,who,a\n'), "ERR_DATA_FIELD", /:2/],
    [csv('1,"who\n",a\n\n1,who,a\n'), "ERR_DATA_DUPLICATE", /"1" at .*csv:5 and on line 2/],
    [csv('1,who,a\n2,"who\n\n'), "ERR_DATA_FORMAT", /closed quotes.* at .*csv:3/],
    [csv('1,who,a\n2,"who"x,a\n3,who,a\n'), "ERR_DATA_FORMAT", /at .*csv:3/],
    [write("csv", "id,id\n1,2\n"), "ERR_DATA_FORMAT", /"id" twice/],
    [write("csv", ""), "ERR_DATA_EMPTY", /none/],
    [write("json", '[{"id": "1"}, 3'), "ERR_DATA_FORMAT", /JSON array in .*json/],
    [write("json", JSON.stringify([QUESTIONS[0], 3])), "ERR_DATA_LINE", /object at .*json, row 2 but received 3/],
    [parquet([QUESTIONS[0]!, { ...QUESTIONS[1], id: "1" }]), "ERR_DATA_DUPLICATE", /parquet, row 2 and in row 1/],
    [parquet([QUESTIONS[0]!, { ...QUESTIONS[1], question: null }]), "ERR_DATA_FIELD", /question at .*, row 2/],
    [write("parquet", "id,question\n"), "ERR_DATA_FORMAT", /Parquet file at/],
    [write("jsonl.gz", lines(QUESTIONS)), "ERR_DATA_UNREADABLE", /incorrect header/],
    [write("jsonl.gz", gzipSync(lines(QUESTIONS)).subarray(0, -9)), "ERR_DATA_UNREADABLE", /unexpected end/],
  ];
  for (const [file, code, message] of cases) await t.rejects(readQuestions(file), { code, message }, String(message));
  const bytes = Buffer.concat([
    Buffer.from("id,question,answers\n1,who,a\n2,caf"),
    Buffer.from([0xe9]),
    Buffer.from(",a\n"),
  ]);
  await t.rejects(readQuestions(write("csv", bytes)), { code: "ERR_DATA_LINE", message: /UTF-8 at .*csv:3/ });
  for (const extension of ["csv", "json", "parquet", "jsonl.gz"]) {
    const none = path.join(folder, `none.${extension}`);
    await t.rejects(readQuestions(none), { code: "ERR_DATA_NOT_FOUND", message: none }, none);
  }
  const where = { code: "ERR_INVALID_ARGUMENT" };
  await t.rejects(readQuestions(cases[0]![0], { onBadRow: "ignore" as "skip" }), where);
  await t.rejects(readQuestions(cases[0]![0], { format: "xlsx" as "csv" }), where);
});

t.test("bad rows are skipped when that is asked for, and counted", async (t) => {
  const rows = [QUESTIONS[0], "{", { id: "x" }, QUESTIONS[0], 7, { ...QUESTIONS[1], answers: 3 }, "[", QUESTIONS[2]];
  const file = write("jsonl", rows.map((row) => (typeof row === "string" ? row : JSON.stringify(row))).join("\n"));
  const reports: SkippedRows[] = [];
  const onSkipped = (report: SkippedRows): void => void reports.push(report);
  const found = await readQuestions(file, { onBadRow: "skip", onSkipped });
  t.same(found, [QUESTIONS[0], QUESTIONS[2]]);
  t.match(reports, [{ file, rows: 8, skipped: 6 }]);
  t.match(
    reports[0]!.first.map(({ code, message }) => `${code} ${message}`),
    [/LINE .*:2/, /FIELD .*:3/, /DUPLICATE .*:4 and on line 1/, /LINE .*:5/, /FIELD .*:6/],
    "the first five, with their places",
  );
  await readQuestions(write("jsonl", lines(QUESTIONS)), { onBadRow: "skip", onSkipped });
  t.equal(reports.length, 1, "nothing is said where nothing was skipped");
  const warned = new Promise<Error & { code?: string }>((resolve) => process.once("warning", resolve));
  await readPassages(write("csv", "id,text\n1,a\n2\n3,c\n"), { onBadRow: "skip" });
  t.match(await warned, { code: "ROLEGRAD_ROWS_SKIPPED", message: /^1 of 3 rows of .*csv skipped: .*csv:3/ });
  await t.rejects(readQuestions(write("jsonl", "{\n7\n"), { onBadRow: "skip", onSkipped }), {
    code: "ERR_DATA_EMPTY",
    message: /2 bad rows: .*:1/,
  });
  const broken = write("csv", 'id,question,answers\n1,who,a\n2,"who\n');
  await t.rejects(readQuestions(broken, { onBadRow: "skip", onSkipped }), { code: "ERR_DATA_FORMAT" });
});

t.test("fields are found by path, and ids made from the rows' numbers", async (t) => {
  const row = { qid: 5, query: "Who?", meta: { gold: ["a"], part: "dev", "x.y": 1 }, id: { odd: true } };
  const file = write("jsonl", lines([row]));
  const fields = { id: "qid", question: "query", answers: "meta.gold", split: "meta.part" };
  t.strictSame(await readQuestions(file, { fields, split: "dev" }), [
    { ...row, split: "dev", id: "5", question: "Who?", answers: ["a"] },
  ]);
  t.equal((await readQuestions(file, { fields: { ...fields, answers: "meta.gold.0" } }))[0]!.answers[0], "a");
  await t.rejects(readQuestions(file, { fields: { ...fields, answers: "meta.gold.text" } }), {
    code: "ERR_DATA_FIELD",
    message: /field meta\.gold\.text at .*:1 but received qid, query, meta, id/,
  });
  await t.rejects(readQuestions(file, { fields: { ...fields, question: "constructor.name" } }), {
    code: "ERR_DATA_FIELD",
  });
  const dotted = write("csv", "question,reward_model.target\nWho?,a; b ;;\n\nWhat?,c\n");
  const options = { fields: { answers: "reward_model.target" }, separator: ";", ids: "row" } as const;
  t.match(await readQuestions(dotted, options), [
    { id: "1", answers: ["a", "b"] },
    { id: "2", answers: ["c"] },
  ]);
  const gaps = write("jsonl", `\n${lines([row])}{\n${lines([row])}`);
  const numbered = await readQuestions(gaps, { fields, ids: "row", onBadRow: "skip", onSkipped: () => undefined });
  t.same(
    numbered.map(({ id }) => id),
    ["1", "3"],
    "a bad row has a number too: skipping it changes no other id",
  );
});

t.test("the layouts of HotpotQA and Search-R1 on the Hugging Face hub are read", async (t) => {
  const hotpot = {
    id: "5a7a06935542990198eaf050",
    question: "Which magazine was started first?",
    answer: "Arthur's Magazine",
    type: "comparison",
    level: "medium",
    supporting_facts: { title: ["Arthur's Magazine", "First for Women"], sent_id: [0, 0] },
    context: { title: ["Radio City"], sentences: [["Radio City is ", "a station."]] },
  };
  const file = write("parquet", "");

  writeParquet(
    file,
    {
      ...{ id: "text", question: "text", answer: "text", type: "text", level: "text" },
      supporting_facts: { title: ["text"], sent_id: ["int64"] },
      context: { title: ["text"], sentences: [["text"]] },
    },
    [hotpot],
  );
  const { answer, ...rest } = hotpot;
  t.same(await readQuestions(file), [{ ...rest, answers: [answer] }]);

  // The file holds two data sets whose ids are the same.
  const row = (source: string, target: string[]) => ({
    id: "train_0",
    question: "total number of death row inmates in the us",
    golden_answers: target,
    data_source: source,
    prompt: [{ content: "Answer the given question.", role: "user" }],
    ability: "fact-reasoning",
    reward_model: { ground_truth: { target }, style: "rule" },
    extra_info: { index: 0, split: "train" },
  });
  const searchR1 = write("parquet", "");
  writeParquet(
    searchR1,
    {
      ...{ id: "text", question: "text", golden_answers: ["text"], data_source: "text" },
      prompt: [{ content: "text", role: "text" }],
      ability: "text",
      reward_model: { ground_truth: { target: ["text"] }, style: "text" },
      extra_info: { index: "int64", split: "text" },
    },
    [row("nq", ["2,718"]), row("hotpotqa", ["2,718", "about 2,700"])],
  );
  await t.rejects(readQuestions(searchR1), { code: "ERR_DATA_DUPLICATE", message: /"train_0".*row 2 and in row 1/ });
  const usual = await readQuestions(searchR1, { ids: "row" });
  const mapped = await readQuestions(searchR1, {
    ids: "row",
    fields: { answers: "reward_model.ground_truth.target", split: "extra_info.split" },
    split: "train",
  });
  t.match(usual, [
    { id: "1", answers: ["2,718"], data_source: "nq", prompt: [{ role: "user" }], extra_info: { index: 0 } },
    { id: "2", answers: ["2,718", "about 2,700"], data_source: "hotpotqa" },
  ]);
  t.same(
    mapped.map(({ answers }) => answers),
    usual.map(({ answers }) => answers),
  );
});

t.test("a package that is missing is named with the line that installs it", async (t) => {
  // By plain Node: the loader of the tests says it in other words.
  const said = (name: string): string => {
    const code = `import(${JSON.stringify(optional)}).then((m) => m.importOptional("${name}", "Parquet files")).then(
      () => console.log("loaded"), ({ code, message }) => console.log(code + " " + message))`;
    return execFileSync(process.execPath, ["-e", code], { cwd: root, encoding: "utf8" }).trim();
  };
  const optional = pathToFileURL(path.join(root, "dist/optional.js")).href;
  t.equal(said("hyparquet"), "loaded");
  t.match(
    said("no-such-package"),
    /^ERR_OPTIONAL_MISSING .* for Parquet files .* not installed: npm i no-such-package$/,
  );
});

t.test("the shuffle depends on seed and ids alone, and a limit comes after it", async (t) => {
  const rows = Array.from({ length: 100 }, (_, i) => ({ id: `q${i}`, question: `${i}?`, answers: ["a"] }));
  const ids = async (content: unknown[], options: object) =>
    (await readQuestions(write("jsonl", lines(content)), options)).map(({ id }) => id);
  const shuffled = await ids(rows, { shuffle: 1 });
  t.strictSame(shuffled.slice(0, 6), ["q60", "q39", "q54", "q17", "q91", "q90"], "it never changes");
  t.strictSame(await ids([...rows].reverse(), { shuffle: 1 }), shuffled, "the file's order does not matter");
  t.same([...shuffled].sort(), rows.map(({ id }) => id).sort(), "no question is lost");
  t.notSame(await ids(rows, { shuffle: 2 }), shuffled);
  t.strictSame(await ids(rows, { shuffle: 1, limit: 7 }), shuffled.slice(0, 7));
  t.strictSame(
    await ids(rows.slice(50), { shuffle: 1 }),
    shuffled.filter((id) => Number(id.slice(1)) >= 50),
    "fewer questions keep their order",
  );
  t.strictSame(await ids(rows, { limit: 2 }), ["q0", "q1"]);
});

for (const name of ["hotpotqa", "nq", "musique", "triviaqa"]) {
  const questionsFile = `data/${name}/questions.jsonl`;
  t.test(`${name} is the same as JSON Lines, CSV and Parquet`, needsShared(questionsFile), async (t) => {
    const questions = await readQuestions(shared(questionsFile)!);
    const cells = questions.map((q) => [q.id, q.question, JSON.stringify(q.answers)]);
    const bare = questions.map(({ id, question, answers }) => ({ id, question, answers }));
    t.strictSame(await readQuestions(write("csv", table([["id", "question", "answers"], ...cells]))), bare);
    const file = write("parquet", "");
    writeParquet(file, { id: "text", question: "text", answers: ["text"] }, bare);
    t.strictSame(await readQuestions(file), bare);
    if (name === "triviaqa") return;
    const passages = await readPassages(shared(`data/${name}/passages.jsonl`)!);
    const rows = passages.map(({ id, title = "", text }) => [id, title, text]);
    t.strictSame(await readPassages(write("tsv", table([["id", "title", "text"], ...rows], "\t"))), passages);
  });
}

t.test("spider's queries are read as answers", needsShared("data/spider/questions.jsonl"), async (t) => {
  const file = shared("data/spider/questions.jsonl")!;
  const questions = await readQuestions(file, { fields: { answers: "sql" }, split: "train" });
  t.equal(questions.length, 196);
  const first = JSON.parse(readFileSync(file, "utf8").split("\n")[0]!) as Question & { sql: string };
  t.strictSame(questions[0], { ...first, answers: [first.sql] }, "with the fields of the row");
});
