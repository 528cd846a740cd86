import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import t from "tap";
import {
  demonstration,
  demonstrationStream,
  exactMatch,
  HARD,
  loadTokenizer,
  packDemonstrations,
  PERFECT,
  Random,
  World,
  WORLD_CHECKPOINT,
  loadModel,
  trainBase,
  type DemonstrationOptions,
  type Imperfections,
} from "rolegrad";
import { COUNTRIES, FIRM_KINDS, FIRST_NAMES, PRODUCTS, SEAS, STEMS } from "../lib/world/names.js";
import { nameOf, queryFor, type Entity } from "../lib/world/world.js";
import { root } from "./helpers/shared.js";
import { temporary } from "./helpers/world.js";

const world = new World({ seed: 1 });

function textOf(segments: { text: string }[]): string {
  return segments.map(({ text }) => text).join("");
}

/** Mean exact match, and mean length in tokens with the prompt, of demonstrations on 400 questions. */
async function measure(
  split: string,
  imperfections: Imperfections,
  options: DemonstrationOptions = {},
): Promise<{ match: number; length: number }> {
  const tokenizer = await loadTokenizer(WORLD_CHECKPOINT);
  const random = new Random(1, "test/world");
  const questions = world.questions(split, 400, 0);
  let match = 0;
  let length = 0;
  for (const question of questions) {
    const text = textOf(demonstration(world, question, random, imperfections, options));
    match += exactMatch(text, question.answers).score / questions.length;
    length += tokenizer.encode(world.prompt(question) + text).length / questions.length;
  }
  return { match, length };
}

t.test("a world is a function of its seed, and this one is as it was", async (t) => {
  const hash = createHash("sha256");
  hash.update(JSON.stringify([world.pages, world.questions("train", 50, 0), world.questions("dev", 50, 1)]));
  t.equal(hash.digest("hex").slice(0, 16), "95bc56a51e19b7c9");
  t.notSame(new World({ seed: 2 }).pages, world.pages);
  t.notSame(world.questions("dev", 50, 2), world.questions("dev", 50, 1));
});

t.test("it has 570 pages, of which no two share a title", async (t) => {
  t.equal(world.pages.length, 570);
  t.equal(new Set(world.pages.map(({ title }) => title)).size, 570);
  for (const [kind, count] of [["person", 300], ["town", 120], ["firm", 90], ["river", 60]] as const) {
    t.equal(world.entities.filter((entity) => entity.kind === kind).length, count);
  } // prettier-ignore
});

t.test("no entity of train occurs in a fact of dev, nor the other way round", async (t) => {
  for (const { split, title, facts } of world.entities) {
    const objects = [...facts.values()].filter((object): object is Entity => typeof object !== "string");
    t.ok(
      objects.every((object) => object.split === split),
      title,
    );
  }
});

t.test("questions differ, stay in their split, and follow their chain of facts to the answer", async (t) => {
  const questions = world.questions("dev", 400, 3);
  t.equal(new Set(questions.map(({ id }) => id)).size, 400);
  t.equal(new Set(questions.map(({ question }) => question)).size, 400);
  const twoHops = questions.filter(({ hops }) => hops === 2).length;
  t.ok(twoHops > 150 && twoHops < 250, `${twoHops} of two hops`);
  for (const { chain, titles, answers, split, hops } of questions) {
    let object: Entity | string = world.entity(titles[0]!)!;
    for (const [i, name] of chain.entries()) {
      const page = object as Entity;
      t.equal(page.title, titles[i]);
      t.equal(page.split, split);
      object = [...page.facts].find(([relation]) => relation.name === name)![1];
    }
    t.strictSame([nameOf(object)], answers);
    t.equal(chain.length, hops);
  }
});

t.test("a question's answer stands on its last page", async (t) => {
  for (const { titles, answers } of world.questions("train", 100, 4)) {
    const page = world.pages.find(({ title }) => title === titles.at(-1));
    t.ok(page!.text.includes(answers[0]!));
  }
});

t.test("the right query finds the right page, the first word alone often a wrong one", async (t) => {
  const search = world.environment();
  const found = (query: (entity: Entity) => string): number =>
    world.entities.filter((entity) => search.search(query(entity))[0]?.passage.title === entity.title).length / 570;
  t.ok(found(queryFor) > 0.99, `${found(queryFor)}`);
  const byFirstWord = found(({ name }) => name.split(" ")[0]!);
  t.ok(byFirstWord < 0.5, `${byFirstWord}`);
});

t.test("the tool answers with one page, title first, or with nothing when the pages are withheld", async (t) => {
  const { title, text } = world.pages[0]!;
  t.strictSame((await world.environment().act({ text: ` ${title}` })).text, `${title}. ${text}`);
  t.equal((await world.withoutPages().act({ text: ` ${title}` })).text, "nothing found");
});

t.test("a perfect demonstrator is always right and takes about 77 tokens", async (t) => {
  for (const split of ["train", "dev"]) {
    const { match, length } = await measure(split, PERFECT);
    t.equal(match.toFixed(6), "1.000000");
    t.ok(length > 73 && length < 81, `${length} tokens`);
  }
});

t.test("long thoughts tell the page again, and are as right", async (t) => {
  const { match, length } = await measure("dev", PERFECT, { thoughts: "long" });
  t.equal(match.toFixed(6), "1.000000");
  t.ok(length > 100 && length < 130, `${length} tokens`);
  const random = new Random(2, "test/world");
  const [question] = world.questions("dev", 1, 0);
  const segments = demonstration(world, question!, random, PERFECT, { thoughts: "long" });
  const page = /^<information> (.*)<\/information>$/.exec(segments[1]!.text)![1]!;
  t.ok(segments[2]!.text.startsWith(`<think> ${page} The `), segments[2]!.text);
});

t.test("a base has as many layers as were asked for", async (t) => {
  const directory = path.join(temporary(), "base");
  await trainBase({ directory, tokens: 1500, layers: 2, thoughts: "long" });
  const model = await loadModel(directory);
  t.teardown(() => model.close());
  t.equal(model.config.layers, 2);
  await t.rejects(trainBase({ directory, layers: 0 }), { code: "ERR_INVALID_ARGUMENT" });
});

t.test("a larger world shares its stems among more", (t) => {
  const large = new World({ seed: 1, people: 600, towns: 240, firms: 180, rivers: 120 });
  t.equal(large.pages.length, 1140);
  t.equal(large.questions("dev", 300, 0, { twoHops: 1 }).filter(({ hops }) => hops === 2).length > 200, true);
  t.end();
});

t.test("a hard demonstrator is right in a quarter to a third", async (t) => {
  for (const split of ["train", "dev"]) {
    const { match } = await measure(split, HARD);
    t.ok(match > 0.25 && match < 0.36, `exact match ${match} on ${split}`);
  }
});

t.test("a demonstration alternates between the demonstrator and what it reads, and ends", async (t) => {
  const random = new Random(2, "test/world");
  for (const question of world.questions("train", 200, 5)) {
    const segments = demonstration(world, question, random);
    segments.forEach(({ text, sampled }, i) => {
      t.equal(sampled, i % 2 === 0);
      t.equal(text.startsWith("<information> ") && text.endsWith("</information>"), !sampled);
    });
    t.ok(segments.length <= 9, "at most four searches");
    t.ok(segments.at(-1)!.text.endsWith("</answer><eos>"));
    t.notMatch(textOf(segments), /<(think|search|information|answer)>(?! )/, "a space follows every opening tag");
  }
});

t.test("an unknown split and too many questions are refused", async (t) => {
  t.throws(() => world.questions("test", 1, 0), { code: "ERR_WORLD_SPLIT", message: /train, dev/ });
  t.throws(() => world.questions("dev", 5000, 0), { code: "ERR_WORLD_QUESTIONS", message: /5000/ });
  const crowd = { seed: 1, people: 1, towns: 1000, firms: 1, rivers: 1, splits: { all: 1 } };
  t.throws(() => new World(crowd), { code: "ERR_WORLD_NAMES", message: /town/ });
});

t.test("every name is one token, so are the tags", async (t) => {
  const tokenizer = await loadTokenizer(WORLD_CHECKPOINT);
  const names = [...STEMS, ...COUNTRIES, ...FIRST_NAMES, ...FIRM_KINDS, ...SEAS, ...PRODUCTS];
  t.strictSame(
    names.filter((name) => tokenizer.encode(` ${name}`).length !== 1),
    [],
  );
  for (const tag of ["think", "search", "information", "answer"]) {
    t.equal(tokenizer.encode(`<${tag}> Seine</${tag}>`)[0], tokenizer.tokenId(`<${tag}>`));
    t.equal(tokenizer.encode(` Seine</${tag}>`).at(-1), tokenizer.tokenId(`</${tag}>`));
  }
  const config = JSON.parse(readFileSync(path.join(WORLD_CHECKPOINT, "config.json"), "utf8")) as Record<
    string,
    unknown
  >;
  t.equal(config["vocab_size"], tokenizer.vocabularySize);
  t.equal(config["eos_token_id"], tokenizer.eosTokenId);
  t.equal(config["pad_token_id"], tokenizer.padTokenId);
});

t.test("the script makes the committed tokenizer again, byte for byte", async (t) => {
  const script = path.join(root, "scripts/world/make-tokenizer.mjs");
  await t.resolves(promisify(execFile)(process.execPath, [script, "--check"]));
});

t.test("the stream is endless worlds, weighted by who wrote a token", async (t) => {
  const tokenizer = await loadTokenizer(WORLD_CHECKPOINT);
  const stream = demonstrationStream({ tokenizer, seed: 3, imperfections: PERFECT });
  const again = demonstrationStream({ tokenizer, seed: 3, imperfections: PERFECT });
  const other = demonstrationStream({ tokenizer, seed: 4, imperfections: PERFECT });
  const prompts = new Set<string>();
  for (let i = 0; i < 200; i++) {
    const { ids, weight } = stream.next().value;
    t.strictSame(again.next().value, { ids, weight });
    t.notSame(other.next().value.ids, ids);
    const text = tokenizer.decode(ids);
    prompts.add(text.slice(0, text.indexOf("\n")));
    t.equal(ids.length, weight.length);
    t.equal(weight[0], 0);
    t.ok(ids.length < 512);
    const isRead = tokenizer.decode(ids.filter((_, t) => weight[t]! < 1));
    t.match(isRead, /^ Question: [^<]*\n(<information>[^<]*<\/information>)+$/);
    const isWritten = tokenizer.decode(ids.filter((_, t) => weight[t] === 1));
    t.match(
      isWritten,
      /^(<think>[^<]*<\/think><search>[^<]*<\/search>)+<think>[^<]*<\/think><answer>[^<]*<\/answer><eos>$/,
    );
    t.ok(weight.every((w, t) => t === 0 || w === 1 || w === Math.fround(0.1)));
  }
  t.ok(prompts.size > 195, "hardly a question comes twice");
});

t.test("a batch lays sequences end to end", async (t) => {
  const tokenizer = await loadTokenizer(WORLD_CHECKPOINT);
  const stream = demonstrationStream({ tokenizer, seed: 3 });
  const single = [stream.next().value, stream.next().value];
  const { inputIds, cuSeqlens, weight } = packDemonstrations(demonstrationStream({ tokenizer, seed: 3 }), 2);
  const [first, second] = single;
  t.strictSame([...cuSeqlens], [0, first!.ids.length, first!.ids.length + second!.ids.length]);
  t.strictSame([...inputIds], [...first!.ids, ...second!.ids]);
  t.strictSame([...weight], [...first!.weight, ...second!.weight]);
});
