import { readFileSync } from "node:fs";
import fc from "fast-check";
import t from "tap";
import { readPassages, readQuestions, SearchEnvironment, words, type Passage } from "rolegrad";
import { needsShared, shared } from "./helpers/shared.js";

const RIVERS: Passage[] = [
  { id: "s", title: "Seine", text: "The Seine runs through Paris to the sea." },
  { id: "r", title: "Rhine", text: "The Rhine rises in the Alps." },
  { id: "d", title: "Danube", text: "The Danube runs through Vienna, and through Budapest." },
  { id: "k", text: "Kraków lies on the Vistula." },
];

/** BM25 by its formula, slowly. */
function referenceScores(passages: string[][], query: string[], k1: number, b: number): number[] {
  const n = passages.length;
  const mean = passages.reduce((sum, tokens) => sum + tokens.length, 0) / n;
  return passages.map((tokens) =>
    query.reduce((sum, token) => {
      const df = passages.filter((other) => other.includes(token)).length;
      const tf = tokens.filter((other) => other === token).length;
      const idf = Math.log(1 + (n - df + 0.5) / (df + 0.5));
      return tf === 0 ? sum : sum + (idf * tf * (k1 + 1)) / (tf + k1 * (1 - b + (b * tokens.length) / mean));
    }, 0),
  );
}

t.test("scores are BM25's, for any passages and query", async (t) => {
  const text = fc.array(fc.constantFrom("a", "b", "c", "d", "e"), { maxLength: 12 }).map((tokens) => tokens.join(" "));
  const settings = { k1: fc.double({ min: 0, max: 3, noNaN: true }), b: fc.double({ min: 0, max: 1, noNaN: true }) };
  const texts = fc.array(text, { minLength: 1, maxLength: 8 }).filter((texts) => texts.some((text) => text !== ""));
  const holds = fc.property(texts, text, fc.record(settings), (texts, query, { k1, b }) => {
    const search = SearchEnvironment.fromPassages(
      texts.map((text, i) => ({ id: `${i}`, text })),
      { k1, b },
    );
    const found = new Map(search.search(query, texts.length).map(({ passage, score }) => [passage.id, score]));
    return referenceScores(texts.map(words), words(query), k1, b).every(
      (expected, i) => Math.abs((found.get(`${i}`) ?? 0) - expected) <= 1e-12 * (1 + expected),
    );
  });
  t.doesNotThrow(() => fc.assert(holds, { seed: 1, numRuns: 300 }));
});

t.test("the best passages come first, equal ones in their order", async (t) => {
  const search = SearchEnvironment.fromPassages(RIVERS);
  const ids = (query: string, k?: number): string[] => search.search(query, k).map(({ passage }) => passage.id);
  t.strictSame(ids("Where does the Rhine rise?")[0], "r");
  t.strictSame(ids("through through", 3), ["d", "s"]);
  t.equal(ids("the", 2).length, 2);
  const twins = SearchEnvironment.fromPassages(["x y", "y x", "x x", "x y"].map((text, i) => ({ id: `${i}`, text })));
  t.strictSame(
    twins.search("y", 3).map(({ passage }) => passage.id),
    ["0", "1", "3"],
  );
});

t.test("a search does not depend on those before it", async (t) => {
  const used = SearchEnvironment.fromPassages(RIVERS);
  for (const query of ["the Seine", "through Vienna", "the the", ""]) used.search(query);
  t.strictSame(
    used.search("the Danube through Paris"),
    SearchEnvironment.fromPassages(RIVERS).search("the Danube through Paris"),
  );
});

t.test("a title counts as often as asked", async (t) => {
  const score = (titleWeight: number): number | undefined =>
    SearchEnvironment.fromPassages(RIVERS, { titleWeight }).search("Rhine")[0]?.score;
  t.equal(
    score(0),
    SearchEnvironment.fromPassages(RIVERS.map(({ id, text }) => ({ id, text }))).search("Rhine")[0]?.score,
  );
  t.ok(score(2)! > score(1)!);
});

t.test("tokens are lower-case words of any script, composed", async (t) => {
  t.strictSame(words("The U.S. in 1903; Kraków's cafe\u0301_x Ελλάδα 東京"), [
    "the", "u", "s", "in", "1903", "kraków", "s", "café", "x", "ελλάδα", "東京",
  ]); // prettier-ignore
  t.strictSame(words(" \0\ud800 ?!"), []);
  t.equal(SearchEnvironment.fromPassages(RIVERS).search("KRAKO\u0301W")[0]?.passage.id, "k");
});

t.test("as an environment it gives the model the passages to read", async (t) => {
  const act = async (text: string, options = {}): Promise<unknown> =>
    SearchEnvironment.fromPassages(RIVERS, options).act({ text });
  t.strictSame(await act(" Vistula or Alps "), {
    text: 'Passage 1: Kraków lies on the Vistula.\nPassage 2 (Title: "Rhine") The Rhine rises in the Alps.',
    passages: [RIVERS[3], RIVERS[1]],
  });
  t.strictSame(await act("Po"), { text: "nothing found", passages: [] });
  const format = (passages: Passage[]): string => passages.map(({ id }) => id).join("+");
  t.strictSame(await act("the sea", { topK: 1, format }), { text: "s", passages: [RIVERS[0]] });
  t.strictSame(await act("Po", { nothingFound: "-" }), { text: "-", passages: [] });
});

t.test("a hostile query finds what it can and is quick", async (t) => {
  const search = SearchEnvironment.fromPassages(RIVERS);
  const queries = ["", "   ", "?!.,;", "\0\x01\x1b[2J", "\ud800", "__proto__ constructor toString", "x".repeat(1e6)];
  for (const query of queries) t.strictSame(search.search(query), [], JSON.stringify(query.slice(0, 40)));
  const start = performance.now();
  t.equal(search.search("seine ".repeat(1e6))[0]?.passage.id, "s");
  t.ok(performance.now() - start < 2000);
});

t.test("without passages nothing is found", async (t) => {
  t.strictSame(SearchEnvironment.fromPassages([]).search("anything"), []);
  t.strictSame(SearchEnvironment.fromPassages([{ id: "1", text: "" }]).search("anything"), []);
});

t.test("options that make no sense are refused by name", async (t) => {
  const cases: [object, RegExp][] = [
    [{ topK: 0 }, /topK/],
    [{ topK: 1.5 }, /topK/],
    [{ titleWeight: -1 }, /titleWeight/],
    [{ k1: NaN }, /k1/],
    [{ b: 1.1 }, /for b/],
  ];
  for (const [options, message] of cases) {
    t.throws(() => SearchEnvironment.fromPassages(RIVERS, options), { code: "ERR_SEARCH_OPTIONS", message });
  }
  t.throws(() => SearchEnvironment.fromPassages(RIVERS).search("x", 0), { code: "ERR_SEARCH_OPTIONS" });
});

interface Retrieval {
  k1: number;
  b: number;
  top: number;
  passages: { id: number; text: string }[];
  queries: { query: string; ids: number[]; scores: number[]; matched: number }[];
}

t.test("the reference ranking and scores are met", needsShared("fixtures/retrieval.json"), async (t) => {
  const reference = JSON.parse(readFileSync(shared("fixtures/retrieval.json")!, "utf8")) as Retrieval;
  const passages = reference.passages.map(({ id, text }) => ({ id: `${id}`, text }));
  const { k1, b, top, queries } = reference;
  const ascii = (text: string): string[] => text.toLowerCase().match(/[a-z0-9]+/g) ?? [];
  const exact = SearchEnvironment.fromPassages(passages, { k1, b, tokenize: ascii });
  const unicode = SearchEnvironment.fromPassages(passages, { k1, b });
  for (const { query, ids, scores, matched } of queries) {
    const hits = exact.search(query, passages.length);
    t.equal(hits.length, matched);
    t.strictSame(
      hits.slice(0, top).map(({ passage }) => Number(passage.id)),
      ids,
      query,
    );
    scores.forEach((score, i) => t.ok(Math.abs(hits[i]!.score - score) < 1e-12, `${hits[i]!.score} ${score}`));
    // Our own tokens differ from the reference's (ASCII) on two passages, which moves scores but no rank here.
    t.strictSame(
      unicode.search(query, top).map(({ passage }) => Number(passage.id)),
      ids,
      query,
    );
  }
});

t.test(
  "two thirds of the supporting passages are in the top 3",
  needsShared("data/hotpotqa/questions.jsonl"),
  async (t) => {
    const search = SearchEnvironment.fromPassages(await readPassages(shared("data/hotpotqa/passages.jsonl")!));
    const questions = await readQuestions(shared("data/hotpotqa/questions.jsonl")!);
    t.equal(search.size, 3897);
    const recalls = questions.map(({ question, supporting_ids }) => {
      const found = new Set(search.search(question, 3).map(({ passage }) => passage.id));
      const gold = supporting_ids as string[];
      return gold.filter((id) => found.has(id)).length / gold.length;
    });
    const recall = recalls.reduce((sum, x) => sum + x, 0) / recalls.length;
    t.ok(recall >= 0.66, `recall@3 ${recall}`);
  },
);
