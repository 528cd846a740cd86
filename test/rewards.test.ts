import { readFileSync } from "node:fs";
import t from "tap";
import {
  coverMatch,
  coverMatchReward,
  exactMatch,
  exactMatchReward,
  f1,
  f1Reward,
  formatFaults,
  formatReward,
  retrievalHit,
  weightedReward,
} from "rolegrad";
import type { CallRecord, Judged, Passage, Reward, WeightedPart } from "rolegrad";
import { normaliseAnswer } from "../lib/rewards/exact-match.js";
import { judge, meanParts } from "../lib/rewards/judge.js";
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

type Row = Record<string, unknown>;
const rows = (file: string): Row[] =>
  readFileSync(shared(`data/${file}`)!, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Row);

t.test(
  "published scores of agents are reproduced, row by row",
  needsShared("data/agent_runs/accuracy.jsonl"),
  async (t) => {
    const answers = new Map<string, string[]>();
    for (const dataset of ["nq", "triviaqa", "bamboogle"]) {
      for (const row of rows(`${dataset}/questions.jsonl`))
        answers.set(`${dataset}/${String(row["id"])}`, row["answers"] as string[]);
    }
    const runs = rows("agent_runs/accuracy.jsonl").map((row) => ({
      ...row,
      prediction: String(row["pred"]),
      gold: answers.get(`${String(row["dataset"])}/${String(row["id"])}`)!,
    })) as (Row & { prediction: string; gold: string[] })[];
    t.equal(runs.length, 2601);
    const differ = (score: (prediction: string, gold: string[]) => number, column: string): Row[] =>
      runs.filter((row) => score(row.prediction, row.gold) !== row[column]);
    t.strictSame(
      differ((prediction, gold) => exactMatch(`<answer>${prediction}</answer>`, gold).score, "em"),
      [],
    );
    t.strictSame(differ(f1, "f1"), [], "F1, the best over the gold answers, to the last bit");
    // Two rows have the gold answer "*", whose normal form is empty: in their count any answer contains it.
    const acc = (prediction: string, gold: string[]): number =>
      gold.some((text) => normaliseAnswer(text) === "") ? 1 : coverMatch(prediction, gold, { unit: "characters" });
    t.strictSame(differ(acc, "acc"), [], "their acc is cover match by characters");
    t.equal(differ((prediction, gold) => coverMatch(prediction, gold, { unit: "characters" }), "acc").length, 2);
    t.equal(differ(coverMatch, "acc").length, 12, "by whole words it is not");
    t.ok(
      runs.every(
        ({ prediction, gold }) => f1(prediction, gold) >= exactMatch(`<answer>${prediction}</answer>`, gold).score,
      ),
    );
  },
);

t.test("F1 is that of the words in common, the best over the gold answers", async (t) => {
  const table: [string, string[], number][] = [
    ["the river Seine", ["Seine"], 2 / 3],
    ["the river Seine", ["Rhine", "La Seine river!"], 4 / 5],
    ["Seine", ["SEINE."], 1],
    ["a a b", ["b b"], 2 / 3],
    ["x x y", ["x x z"], 2 / 3],
    ["x x", ["x y"], 1 / 2],
    ["Oslo", ["Bergen"], 0],
    ["Oslo", [], 0],
    ["the", ["an"], 1],
    ["", ["Oslo"], 0],
    ["Oslo", ["the"], 0],
  ];
  for (const [prediction, gold, score] of table) t.ok(Math.abs(f1(prediction, gold) - score) < 1e-15, prediction);
});

t.test("cover match is a gold answer's words, whole and in a row", async (t) => {
  const table: [string, string[], 0 | 1, 0 | 1][] = [
    ["It is the Seine, in Paris.", ["Seine"], 1, 1],
    ["It is in the city of New York", ["city of the New York"], 1, 1],
    ["scarce", ["car"], 0, 1],
    ["New big York", ["New York"], 0, 0],
    ["Oslo", ["Oslo, Norway"], 0, 0],
    ["Oslo", ["Bergen", "oslo"], 1, 1],
    ["Oslo", ["the"], 0, 0],
    ["an", ["the"], 1, 1],
    ["Oslo", [], 0, 0],
    ["巴黎在法国", ["法国"], 0, 1],
  ];
  for (const [text, gold, words, characters] of table) {
    t.equal(coverMatch(text, gold), words, text);
    t.equal(coverMatch(text, gold, { unit: "characters" }), characters, text);
  }
});

const question = { id: "q7", question: "Where?", answers: ["Oslo"] };
const judged = (response: string, calls: CallRecord[] = []): Judged => ({ response, calls, finish: "stop" });

t.test("F1 and cover match as rewards read the last answer, and nothing else", async (t) => {
  const response = "Oslo <answer>Oslo</answer> or <answer>in Oslo</answer>";
  t.equal(await f1Reward()(judged(response), question), 2 / 3);
  t.equal(await coverMatchReward()(judged(response), question), 1);
  t.equal(await coverMatchReward({ unit: "characters" })(judged("<answer>Oslofjord</answer>"), question), 1);
  for (const reward of [f1Reward(), coverMatchReward(), f1Reward({ open: "[", close: "]" })])
    t.equal(await reward(judged("Oslo <answer>Oslo"), question), 0);
  t.equal(await f1Reward({ open: "[", close: "]" })(judged("[oslo]"), question), 1);
});

const call: CallRecord = { role: "tool", query: "q", result: "p", latencyMs: 1 };

t.test("the format is right when spans are closed and apart, and one answer comes last", async (t) => {
  const table: [string, CallRecord[], string[]][] = [
    ["<think>hm</think> <answer>Oslo</answer>\n", [], []],
    ["<answer>Oslo</answer>", [], []],
    ["<think>a</think><search>q</search><information>p <think></information><answer>Oslo</answer>", [call], []],
    ["", [], ["there is no answer"]],
    [
      "<think>hm<answer>Oslo</answer>",
      [],
      [
        "<think> is not closed",
        "<answer> stands inside <think>",
        "</answer> stands inside <think>",
        "there is no answer",
      ],
    ],
    ["hm</think><answer>Oslo</answer>", [], ["</think> stands alone"]],
    ["<answer>Oslo", [], ["<answer> is not closed"]],
    ["<answer>Oslo</answer> I think", [], ["the answer does not come last"]],
    ["<answer>Oslo</answer><answer>Rome</answer>", [], ["there are several answers"]],
    [
      "<answer><search>q</search></answer>",
      [],
      ["<search> stands inside <answer>", "</search> stands inside <answer>"],
    ],
    ["<information>p</information><answer>Oslo</answer>", [], ["a tool's output is made up"]],
    ["<search>q<information>p</information><answer>Oslo</answer>", [call], ["<search> is not closed"]],
  ];
  for (const [response, calls, faults] of table) {
    t.strictSame(formatFaults(response, { calls }), faults, response);
    t.equal(await formatReward()(judged(response, calls), question), faults.length === 0 ? 1 : 0);
  }
  t.strictSame(
    formatFaults("<information>p</information><answer>x</answer>"),
    [],
    "without calls they are not counted",
  );
  const own = { tags: [{ open: "[", close: "]" }], answer: { open: "{", close: "}" }, output: null };
  t.strictSame(formatFaults("[a] <think> {b}", own), [], "other tags are text");
  t.strictSame(formatFaults("[a {b}", own).length, 4);
});

t.test("a weighted sum keeps what it was made of, before the weights", async (t) => {
  const reward = weightedReward([
    { name: "f1", reward: f1Reward() },
    { name: "format", reward: formatReward(), weight: 0.25 },
    { name: "own", reward: async () => ({ score: -3, parts: { length: 3 } }), weight: -1 },
  ]);
  t.strictSame(await judge(reward, judged("<answer>in Oslo</answer>"), question), {
    reward: 2 / 3 + 0.25 + 3,
    rewardParts: { f1: 2 / 3, format: 1, own: -3, "own.length": 3 },
  });
  t.strictSame(await judge(exactMatchReward(), judged("<answer>Oslo</answer>"), question), { reward: 1 });
  t.strictSame(meanParts([{ rewardParts: { a: 1, b: 4 } }, { rewardParts: { a: 2 } }, {}]), {
    rewardParts: { a: 1.5, b: 4 },
  });
  t.strictSame(meanParts([{}]), {});
});

t.test("a reward that fails or is no number is refused by question and name", async (t) => {
  const broken = (): never => {
    throw new TypeError("no gold");
  };
  const refused = (reward: unknown, message: RegExp) =>
    t.rejects(judge(reward as Reward, judged(""), question), { name: "RolegradError", code: "ERR_REWARD", message });
  const sum = (reward: unknown) => weightedReward([{ name: "mine", reward: reward as Reward }]);
  await refused(broken, /reward broken for question q7 but it failed: no gold/);
  await refused(sum(broken), /reward mine for question q7 but it failed: no gold/);
  await refused(
    sum(async () => Promise.reject(new Error("later"))),
    /reward mine for question q7 .*later/,
  );
  for (const wrong of [NaN, Infinity, undefined, null, "1", [1], {}, { score: NaN }, { score: "1" }]) {
    await refused(() => wrong, /finite reward for question q7/);
    await refused(
      sum(() => wrong),
      /finite reward from reward mine for question q7/,
    );
  }
  await refused(() => ({ score: 1, parts: { a: NaN } }), /finite part a for question q7 but received NaN/);
  await refused(() => ({ score: 1, parts: 3 }), /parts by name for question q7/);
  await refused(weightedReward([{ name: "a", reward: () => 1e308, weight: 1e308 }]), /finite reward for question q7/);
});

t.test("sums that make no sense are refused", async (t) => {
  const refused = (parts: unknown, message: RegExp) =>
    t.throws(() => weightedReward(parts as WeightedPart[]), { code: "ERR_INVALID_ARGUMENT", message });
  const part = { name: "a", reward: () => 1 };
  refused([], /list of rewards/);
  refused({}, /list of rewards/);
  refused([null], /rewards\[0\]/);
  refused([part, { ...part, name: "" }], /rewards\[1\].name/);
  refused([part, part], /distinct names .* a twice/);
  refused([{ ...part, reward: "f1" }], /rewards\[0\].reward but received "f1"/);
  refused([{ ...part, weight: NaN }], /weight of reward a but received NaN/);
});

t.test("a gold answer is retrieved where a passage of any call holds it in whole words", async (t) => {
  const hit = (...passages: Passage[][]): boolean =>
    retrievalHit({ calls: [{}, ...passages.map((own) => ({ passages: own }))] }, { answers: ["Oslo fjord"] });
  t.equal(hit(), false);
  t.equal(hit([{ id: "1", text: "The Oslo-Fjord." }]), false);
  t.equal(
    hit(
      [{ id: "1", text: "no" }],
      [
        { id: "2", text: "no" },
        { id: "3", text: "At the Oslo fjord." },
      ],
    ),
    true,
  );
  t.equal(hit([{ id: "1", text: "Oslo fjords" }]), false);
  t.equal(hit([{ id: "1", title: "Oslo Fjord", text: "water" }]), true);
  t.equal(
    hit([
      { id: "1", text: "Oslo" },
      { id: "2", text: "fjord" },
    ]),
    false,
    "one passage holds it all",
  );
});

t.test(
  "retrieval agrees with the labels of real passages",
  needsShared("data/nq/passages.jsonl", "data/hotpotqa/passages.jsonl", "data/musique/passages.jsonl"),
  async (t) => {
    const hits = (dataset: string, idsOf: string): { row: Row; hits: string[] }[] => {
      const passages = new Map(rows(`${dataset}/passages.jsonl`).map((row) => [row["id"], row as unknown as Passage]));
      return rows(`${dataset}/questions.jsonl`).map((row) => {
        const retrieved = (row[idsOf] as string[]).map((id) => passages.get(id)!);
        // The labels of nq look at the text alone.
        const seen = dataset === "nq" ? retrieved.map(({ id, text }) => ({ id, text })) : retrieved;
        const found = seen.filter((passage) =>
          retrievalHit({ calls: [{ passages: [passage] }] }, { answers: row["answers"] as string[] }),
        );
        return { row, hits: found.map(({ id }) => id) };
      });
    };
    for (const { row, hits: found } of hits("nq", "retrieved_ids"))
      t.strictSame(found.sort(), [...(row["answer_passage_ids"] as string[])].sort());
    const isSpan = ({ row }: { row: Row }): boolean => !/^(yes|no)$/i.test((row["answers"] as string[])[0]!);
    const hotpot = hits("hotpotqa", "supporting_ids").filter(isSpan);
    t.strictSame([hotpot.length, hotpot.filter((own) => own.hits.length > 0).length], [345, 344]);
    const musique = hits("musique", "supporting_ids");
    t.strictSame([musique.length, musique.filter((own) => own.hits.length > 0).length], [60, 59]);
  },
);
