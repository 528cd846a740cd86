import { writeFileSync } from "node:fs";
import path from "node:path";
import t, { type Test } from "tap";
import { readPassages, readQuestions } from "rolegrad";
import { needsShared, shared } from "./helpers/shared.js";

/** A file of these lines; objects as their JSON. */
function rows(t: Test, lines: unknown[]): string {
  const file = path.join(t.testdir({}), "rows.jsonl");
  writeFileSync(file, lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n"));
  return file;
}

const ROW = { id: "a", question: "Where?", answers: ["Oslo"] };

t.test("questions are read in every spelling in use, with their other fields", async (t) => {
  const file = rows(t, [
    { ...ROW, split: "train", hops: 2 },
    "",
    { id: 7, question: "Who?", golden_answers: ["Ada", "Ada L."] },
    "  \r",
    { _id: "b", question: "What?", answer: "salt", type: "bridge" },
  ]);
  t.strictSame(await readQuestions(file), [
    { split: "train", hops: 2, id: "a", question: "Where?", answers: ["Oslo"] },
    { id: "7", question: "Who?", answers: ["Ada", "Ada L."] },
    { type: "bridge", id: "b", question: "What?", answers: ["salt"] },
  ]);
});

t.test("a split and a limit keep a part of the questions", async (t) => {
  const file = rows(t, [
    { ...ROW, split: "dev" },
    { ...ROW, id: "b", split: "train" },
    { ...ROW, id: "c", split: "train" },
  ]);
  const ids = async (options: object): Promise<string[]> => (await readQuestions(file, options)).map(({ id }) => id);
  t.strictSame(await ids({ split: "train" }), ["b", "c"]);
  t.strictSame(await ids({ split: "train", limit: 1 }), ["b"]);
  t.strictSame(await ids({ limit: 2 }), ["a", "b"]);
  await t.rejects(readQuestions(file, { split: "test" }), {
    code: "ERR_DATA_EMPTY",
    message: /"test".*"dev", "train"/,
  });
});

t.test("passages are read with title and text, and in Search-R1's form", async (t) => {
  const file = rows(t, [
    { id: "1", title: "Seine", text: "A river." },
    { id: "2", text: "No title." },
    { id: "3", contents: '"The "Big" One"\nFirst line.\nSecond.' },
    { id: "4", contents: "one line" },
  ]);
  t.strictSame(await readPassages(file), [
    { id: "1", title: "Seine", text: "A river." },
    { id: "2", text: "No title." },
    { id: "3", title: 'The "Big" One', text: "First line.\nSecond." },
    { id: "4", text: "one line" },
  ]);
});

t.test("an error names the file and the line", async (t) => {
  const cases: [unknown[], string, RegExp][] = [
    [[ROW, '{"id": "b", "quest'], "ERR_DATA_LINE", /Expected JSON at .*rows\.jsonl:2/],
    [["[", "1]"], "ERR_DATA_LINE", /rows\.jsonl:1 \(one object a line/],
    [["", "7"], "ERR_DATA_LINE", /object at .*rows\.jsonl:2 but received 7/],
    [[{ question: "?", answers: [] }], "ERR_DATA_FIELD", /id at .*:1 but received nothing/],
    [[{ id: "a", answers: ["x"] }], "ERR_DATA_FIELD", /question at .*:1/],
    [[{ id: "a", question: "?" }], "ERR_DATA_FIELD", /answers at .*:1 but received id, question/],
    [[{ ...ROW, answers: [1] }], "ERR_DATA_FIELD", /strings for answers at .*:1 but received \[1\]/],
    [[{ ...ROW, answers: null }], "ERR_DATA_FIELD", /answers at .*:1/],
    [[ROW, "", ROW], "ERR_DATA_DUPLICATE", /"a" at .*:3 and on line 1/],
    [[""], "ERR_DATA_EMPTY", /none/],
  ];
  for (const [lines, code, message] of cases) {
    await t.rejects(readQuestions(rows(t, lines)), { code, message }, JSON.stringify(lines));
  }
  await t.rejects(readPassages(rows(t, [{ id: "1", title: 3, text: "x" }])), {
    code: "ERR_DATA_FIELD",
    message: /title/,
  });
  await t.rejects(readPassages(rows(t, [{ id: "1" }])), { code: "ERR_DATA_FIELD", message: /text at/ });
  await t.rejects(readPassages(rows(t, [""])), { code: "ERR_DATA_EMPTY" });
});

t.test("a file that is missing, a folder, or not UTF-8 is an error too", async (t) => {
  const folder = t.testdir({ "latin1.jsonl": Buffer.from('{"id":"a"}\n{"id":"\xe9"}', "latin1") });
  await t.rejects(readPassages(path.join(folder, "none.jsonl")), {
    code: "ERR_DATA_NOT_FOUND",
    message: /none\.jsonl/,
  });
  await t.rejects(readPassages(folder), { code: "ERR_DATA_UNREADABLE" });
  await t.rejects(readPassages(path.join(folder, "latin1.jsonl")), { code: "ERR_DATA_FIELD" });
  writeFileSync(path.join(folder, "bytes.jsonl"), Buffer.concat([Buffer.from("\n"), Buffer.from([0xff, 0xfe, 10])]));
  await t.rejects(readPassages(path.join(folder, "bytes.jsonl")), { code: "ERR_DATA_LINE", message: /UTF-8 at .*:2/ });
});

t.test("a character may lie across two reads", async (t) => {
  const passages = Array.from({ length: 3000 }, (_, i) => ({
    id: `${i}`,
    text: "日本語🙂".repeat(7) + "x".repeat(i % 5),
  }));
  t.strictSame(await readPassages(rows(t, passages)), passages);
});

t.test("the byte order mark is no part of the first line", async (t) => {
  t.equal((await readQuestions(rows(t, [`\ufeff${JSON.stringify(ROW)}`])))[0]!.id, "a");
});

t.test("the real data sets are read whole", needsShared("data/hotpotqa/questions.jsonl"), async (t) => {
  t.equal((await readQuestions(shared("data/hotpotqa/questions.jsonl")!)).length, 400);
  t.equal((await readQuestions(shared("data/hotpotqa/questions.jsonl")!, { split: "dev" })).length, 100);
  t.equal((await readPassages(shared("data/hotpotqa/passages.jsonl")!)).length, 3897);
});
