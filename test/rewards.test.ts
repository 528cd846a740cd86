import { readFileSync } from "node:fs";
import t from "tap";
import { exactMatch, exactMatchReward } from "rolegrad";
import { normaliseAnswer } from "../lib/rewards/exact-match.js";
import { needsShared, shared } from "./helpers/shared.js";

// [response, gold, score, answer, prediction]
const TABLE: [string, string[], 0 | 1, string | null, string | null][] = [
  ["<answer> The Seine </answer>", ["Seine"], 1, " The Seine ", "seine"],
  ["<answer>U.S.A.</answer>", ["USA"], 1, "U.S.A.", "usa"],
  ["<answer>Oslo</answer>", ["Bergen", "OSLO!"], 1, "Oslo", "oslo"],
  ["<answer>Oslo</answer>", ["Bergen"], 0, "Oslo", "oslo"],
  ["<answer>Oslo</answer>", [], 0, "Oslo", "oslo"],
  ["Oslo", ["Oslo"], 0, null, null],
  ["<answer>Oslo", ["Oslo"], 0, null, null],
  ["</answer>Oslo<answer>", ["Oslo"], 0, null, null],
  ["<answer></answer>", [""], 1, "", ""],
  ["<answer>the</answer>", ["A"], 1, "the", ""],
  ["<answer>Rome</answer> no, <answer>Oslo</answer>", ["Oslo"], 1, "Oslo", "oslo"],
  ["<answer>Oslo</answer> or <answer>Rome", ["Oslo"], 1, "Oslo", "oslo"],
  ["<answer>x <answer>Oslo</answer></answer>", ["Oslo"], 0, "x <answer>Oslo", "x answeroslo"],
  [
    "<answer>New\u00a0York\n\u2003City\u0085</answer>",
    ["new york city"],
    1,
    "New\u00a0York\n\u2003City\u0085",
    "new york city",
  ],
  ["<answer>\ufeffOslo</answer>", ["Oslo"], 0, "\ufeffOslo", "\ufeffoslo"],
  ["<answer>éa b</answer>", ["é b"], 0, "éa b", "éa b"],
  ["<answer>é a b</answer>", ["é b"], 1, "é a b", "é b"],
  ["<answer>theatre an anthem</answer>", ["theatre anthem"], 1, "theatre an anthem", "theatre anthem"],
  ["<answer>the_king</answer>", ["king"], 0, "the_king", "theking"],
  ["<answer>“Oslo”</answer>", ["Oslo"], 0, "“Oslo”", "“oslo”"],
  ["<answer>ΑΘΗΝΑΣ</answer>", ["αθηνας"], 1, "ΑΘΗΝΑΣ", "αθηνας"],
];

t.test("exact match is that of the last closed answer, normalised as SQuAD does", async (t) => {
  for (const [response, gold, score, answer, prediction] of TABLE) {
    t.strictSame(exactMatch(response, gold), { score, answer, prediction }, response);
  }
});

t.test("every ASCII punctuation mark is dropped", async (t) => {
  t.equal(normaliseAnswer("x!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~y"), "xy");
});

t.test("other tags may stand around an answer", async (t) => {
  t.equal(exactMatch("[[Oslo]]", ["oslo"], { open: "[[", close: "]]" }).score, 1);
  t.equal(exactMatch("<answer>Oslo</answer>", ["oslo"], { open: "[[", close: "]]" }).score, 0);
});

t.test("as a reward it reads the response and the question's answers", async (t) => {
  const question = { id: "q", question: "Where?", answers: ["Oslo"] };
  const judged = { response: "<answer> oslo</answer>", calls: [], finish: "stop" };
  t.equal(await exactMatchReward()(judged, question), 1);
  t.equal(await exactMatchReward({ open: "<a>", close: "</a>" })(judged, question), 0);
});

t.test("a response full of opening tags takes linear time", async (t) => {
  const response = "<answer>".repeat(200_000);
  t.equal(exactMatch(response, ["x"]).answer, null);
});

interface Case {
  response: string;
  gold: string[];
  gold_normalised: string[];
  answer: string | null;
  prediction: string | null;
  em: 0 | 1;
}

t.test("all reference cases agree", needsShared("fixtures/em.json"), async (t) => {
  const { cases } = JSON.parse(readFileSync(shared("fixtures/em.json")!, "utf8")) as { cases: Case[] };
  t.ok(cases.length > 0);
  for (const [i, { response, gold, gold_normalised, answer, prediction, em }] of cases.entries()) {
    t.strictSame(exactMatch(response, gold), { score: em, answer, prediction }, `case ${i}`);
    t.strictSame(gold.map(normaliseAnswer), gold_normalised);
  }
});

t.test(
  "published scores of agents are reproduced, row by row",
  needsShared("data/agent_runs/accuracy.jsonl"),
  async (t) => {
    type Row = Record<string, unknown>;
    const rows = (file: string): Row[] =>
      readFileSync(shared(`data/${file}`)!, "utf8")
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as Row);
    const answers = new Map<string, string[]>();
    for (const dataset of ["nq", "triviaqa", "bamboogle"]) {
      for (const row of rows(`${dataset}/questions.jsonl`))
        answers.set(`${dataset}/${String(row["id"])}`, row["answers"] as string[]);
    }
    const runs = rows("agent_runs/accuracy.jsonl");
    t.equal(runs.length, 2601);
    const wrong = runs.filter((row) => {
      const gold = answers.get(`${String(row["dataset"])}/${String(row["id"])}`)!;
      return exactMatch(`<answer>${String(row["pred"])}</answer>`, gold).score !== row["em"];
    });
    t.strictSame(wrong, []);
  },
);
