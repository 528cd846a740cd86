import { copyFileSync, existsSync, readdirSync, readFileSync, truncateSync, writeFileSync, mkdirSync } from "node:fs";
import path from "node:path";
import fc from "fast-check";
import t from "tap";
import {
  buildSearchIndex, inspectDirectory, Random, readPassages, readQuestions, SearchEnvironment, SearchIndex,
  type Passage, type SearchHit,
} from "rolegrad"; // prettier-ignore
import { needsShared, shared } from "./helpers/shared.js";

const RIVERS: Passage[] = [
  { id: "s", title: "Seine", text: "The Seine runs through Paris to the sea." },
  { id: "r", title: "Rhine", text: "The Rhine rises in the Alps." },
  { id: "d", title: "Danube", text: "The Danube runs through Vienna, and through Budapest." },
  { id: "k", text: "Kraków lies on the Vistula. \u{1F30A} 東京 cafe\u0301" },
];

async function inMemoryAndOnDisk(
  directory: string,
  passages: Passage[],
  options: { titleWeight?: number; k1?: number; b?: number; postingsPerRun?: number } = {},
): Promise<{ memory: SearchEnvironment; disk: SearchIndex }> {
  const { postingsPerRun: _, ...scoring } = options;
  await buildSearchIndex(directory, passages, { ...options, force: true });
  return { memory: SearchEnvironment.fromPassages(passages, scoring), disk: await SearchIndex.open(directory) };
}

/** Passages of words drawn by a law of Zipf. */
function* synthetic(count: number, words: number, vocabulary: number): Generator<Passage> {
  const random = new Random(7, "passages");
  const word = (): string => `w${Math.floor(Math.exp(random.next() * Math.log(vocabulary)))}`;
  for (let i = 0; i < count; i++) {
    const length = Math.floor(words * (0.5 + random.next()));
    yield { id: `${i}`, title: word(), text: Array.from({ length }, word).join(" ") };
  }
}

t.test("ids, order and every bit of the scores are those of the search in memory", async (t) => {
  const directory = path.join(t.testdir(), "index");
  const token = fc.constantFrom("a", "b", "c", "d", "e", "é", "東京", "a-b");
  const text = fc.array(token, { maxLength: 12 }).map((tokens) => tokens.join(" "));
  const passage = fc.record({ title: fc.option(text, { nil: undefined }), text });
  const texts = fc.array(passage, { maxLength: 40 });
  const settings = fc.record({
    k1: fc.double({ min: 0, max: 3, noNaN: true }),
    b: fc.double({ min: 0, max: 1, noNaN: true }),
    titleWeight: fc.nat(2),
    postingsPerRun: fc.integer({ min: 1, max: 30 }),
  });
  const holds = fc.asyncProperty(texts, text, fc.integer({ min: 1, max: 50 }), settings, async (texts, query, k, s) => {
    const passages = texts.map(({ title, text }, i) => ({ id: `${i}`, ...(title !== undefined && { title }), text }));
    const { memory, disk } = await inMemoryAndOnDisk(directory, passages, s);
    try {
      const same = JSON.stringify(disk.search(query, k)) === JSON.stringify(memory.search(query, k));
      return same && disk.size === passages.length;
    } finally {
      disk.close();
    }
  });
  await t.resolves(fc.assert(holds, { seed: 1, numRuns: 100 }));
  t.strictSame(readdirSync(path.dirname(directory)), ["index"], "nothing is left beside it");
});

t.test("50,000 passages: the same hits with runs on the disk, many blocks and a small cache", async (t) => {
  const passages = [...synthetic(50_000, 20, 50_000)];
  const directory = path.join(t.testdir(), "index");
  const progress: string[] = [];
  const built = await buildSearchIndex(directory, passages, {
    postingsPerRun: 200_000,
    onProgress: ({ phase, done, total }) => progress.push(`${phase} ${done} ${total}`),
  });
  t.equal(built.passages, 50_000);
  t.match(progress[0], "read 256 undefined");
  t.ok(progress.some((line) => line.startsWith("merge")));
  const memory = SearchEnvironment.fromPassages(passages);
  const disk = await SearchIndex.open(directory, { cacheBytes: 100_000 });
  const random = new Random(3, "queries");
  for (let i = 0; i < 60; i++) {
    const { text } = passages[Math.floor(random.next() * passages.length)]!;
    const query = `${text.split(" ").slice(0, 12).join(" ")} w1 w2 w2`;
    const k = [1, 3, 100][i % 3]!;
    t.strictSame(disk.search(query, k), memory.search(query, k), query);
  }
  disk.close();
});

const LEAST = { hotpotqa: 0.67, nq: 0.809 };
for (const [name, least] of Object.entries(LEAST)) {
  const files = [`data/${name}/passages.jsonl`, `data/${name}/questions.jsonl`];
  t.test(
    `${name}: every question finds what it finds in memory, and recall@3 is ${least}`,
    needsShared(...files),
    async (t) => {
      const [passages, questions] = [await readPassages(shared(files[0]!)!), await readQuestions(shared(files[1]!)!)];
      const { memory, disk } = await inMemoryAndOnDisk(path.join(t.testdir(), "index"), passages);
      const recalls: number[] = [];
      let different = 0;
      for (const { question, supporting_ids, answer_passage_ids } of questions) {
        const hits = disk.search(question, 3);
        if (!same(hits, memory.search(question, 3)) || !same(disk.search(question, 50), memory.search(question, 50)))
          different++;
        const gold = (supporting_ids ?? answer_passage_ids) as string[];
        const found = new Set(hits.map(({ passage }) => passage.id));
        if (gold.length > 0) recalls.push(gold.filter((id) => found.has(id)).length / gold.length);
      }
      t.equal(different, 0);
      const recall = recalls.reduce((sum, x) => sum + x, 0) / recalls.length;
      t.comment(`recall@3 of ${recalls.length} questions: ${recall}`);
      t.ok(Number(recall.toFixed(3)) >= least, `${recall}`);
      disk.close();
    },
  );
}

function same(a: SearchHit[], b: SearchHit[]): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

t.test("as an environment it gives the model the passages to read, in any script", async (t) => {
  const { memory, disk } = await inMemoryAndOnDisk(path.join(t.testdir(), "index"), RIVERS);
  for (const text of ["through Paris", "KRAKO\u0301W", "東京 café", "Po", "", "\ud800 \0", "seine ".repeat(1e5)]) {
    t.strictSame(await disk.act({ text }), await memory.act({ text }), text.slice(0, 20));
  }
  disk.close();
  disk.close();
  await t.rejects(disk.act({ text: "Seine" }), { code: "ERR_INDEX_CLOSED" });
});

t.test("an index with a changed or cut file is refused by the file's name", async (t) => {
  const whole = path.join(t.testdir(), "whole");
  await buildSearchIndex(whole, synthetic(500, 20, 300));
  const broken = path.join(path.dirname(whole), "broken");
  mkdirSync(broken);
  const restore = (): void => {
    for (const name of readdirSync(whole)) copyFileSync(path.join(whole, name), path.join(broken, name));
  };
  for (const name of ["passages.jsonl", "documents.bin", "terms.bin", "postings.bin"]) {
    restore();
    const file = path.join(broken, name);
    const bytes = readFileSync(file);
    truncateSync(file, bytes.length - 1);
    await t.rejects(SearchIndex.open(broken), { code: "ERR_INDEX_DAMAGED", message: new RegExp(name) });
    for (let i = 0; i < bytes.length; i++) bytes[i]! ^= 1;
    writeFileSync(file, bytes);
    const use = async (): Promise<void> => {
      const index = await SearchIndex.open(broken);
      try {
        index.search("w1 w2 w3");
      } finally {
        index.close();
      }
    };
    await t.rejects(use(), { code: "ERR_INDEX_DAMAGED", message: new RegExp(name) });
  }
  restore();
  const header = path.join(broken, "index.json");
  const text = readFileSync(header, "utf8");
  for (const [content, code] of [
    [text.slice(0, 50), "ERR_INDEX_DAMAGED"],
    ["null", "ERR_INDEX_FORMAT"],
    ['{"name":"app"}', "ERR_INDEX_FORMAT"],
    [text.replace('"version": 1', '"version": 9'), "ERR_INDEX_FORMAT"],
    [text.replace('"passages": 500', '"passages": 50000'), "ERR_INDEX_DAMAGED"],
    [text.replace('"passages": 500', '"passages": 1.5'), "ERR_INDEX_DAMAGED"],
  ] as const) {
    writeFileSync(header, content);
    await t.rejects(SearchIndex.open(broken), { code }, content.slice(0, 40));
  }
  await t.rejects(SearchIndex.open(path.join(whole, "none")), { code: "ERR_INDEX_NOT_FOUND" });
});

t.test("a build that is stopped or fails leaves what was there", async (t) => {
  const parent = t.testdir({ other: { "notes.txt": "mine" } });
  const directory = path.join(parent, "index");
  const stopped = async (force: boolean, at: string): Promise<void> => {
    const stop = new AbortController();
    const build = buildSearchIndex(directory, synthetic(5000, 20, 3000), {
      force,
      signal: stop.signal,
      onProgress: ({ phase }) => phase === at && stop.abort(new Error("stopped")),
    });
    await t.rejects(build, /stopped/);
  };
  for (const phase of ["read", "merge"]) await stopped(false, phase);
  t.strictSame(readdirSync(parent), ["other"]);
  await buildSearchIndex(directory, RIVERS);
  for (const phase of ["read", "merge"]) await stopped(true, phase);
  function* failing(): Generator<Passage> {
    yield RIVERS[0]!;
    throw new Error("unreadable");
  }
  await t.rejects(buildSearchIndex(directory, failing(), { force: true }), /unreadable/);
  t.strictSame(readdirSync(parent).sort(), ["index", "other"]);
  const index = await SearchIndex.open(directory);
  t.equal(index.search("Rhine")[0]?.passage.id, "r");

  await t.rejects(buildSearchIndex(directory, RIVERS), { code: "ERR_INDEX_EXISTS", message: /--force/ });
  await t.rejects(buildSearchIndex(path.join(parent, "other"), RIVERS, { force: true }), { code: "ERR_INDEX_EXISTS" });
  t.ok(existsSync(path.join(parent, "other", "notes.txt")));
  await t.rejects(buildSearchIndex(directory, RIVERS, { force: true, b: 2 }), { code: "ERR_SEARCH_OPTIONS" });

  await buildSearchIndex(directory, [RIVERS[0]!], { force: true });
  t.equal(index.search("Rhine")[0]?.passage.id, "r", "an open index goes on with what it opened");
  index.close();
  const replaced = await SearchIndex.open(directory);
  t.strictSame([replaced.size, replaced.search("Rhine")], [1, []]);
  replaced.close();
  t.strictSame(readdirSync(parent).sort(), ["index", "other"]);
});

t.test("inspect tells what an index is", async (t) => {
  const directory = path.join(t.testdir(), "index");
  await buildSearchIndex(directory, RIVERS, { k1: 0.9 });
  const found = await inspectDirectory(directory);
  t.match(found, { kind: "index", header: { passages: 4, k1: 0.9, tokenizer: "words" } });
});
