import { SearchEnvironment } from "../environments/search.js";
import type { Passage, Question } from "../environments/types.js";
import { fail } from "../errors.js";
import { Random } from "../random.js";
import { FIRM_KINDS, FIRST_NAMES, STEMS } from "./names.js";
import { checkDialect, dialectSearch, type Dialect, type WorldSearch } from "./dialect.js";
import { KINDS, leadsOn, RELATIONS_OF, type Kind, type Relation } from "./relations.js";
import { MARK } from "./text.js";

/** An invented person, town, firm or river. */
export interface Entity {
  kind: Kind;
  name: string;
  /** Title of its page, unique in a world: "Kai Kamfell (person)". */
  title: string;
  split: string;
  /** Relation -> object, in the order in which the page tells them. */
  facts: Map<Relation, Entity | string>;
}

export interface WorldOptions {
  seed: number;
  /** @default 300 */
  people?: number;
  /** @default 120 */
  towns?: number;
  /** @default 90 */
  firms?: number;
  /** @default 60 */
  rivers?: number;
  /** Share of the entities in each split. @default { train: 0.7, dev: 0.3 } */
  splits?: Record<string, number>;
  /** A conflict between queries and answers that is set by hand; pages and questions are the same at every dose. Without it: none. */
  dialect?: Dialect;
}

/** A question about a world; the answer is one name. */
export interface WorldQuestion extends Question {
  split: string;
  hops: number;
  /** Names of the relations to follow, first to last. */
  chain: string[];
  /** Titles of the pages that answer it, in the order of the chain. */
  titles: string[];
}

export interface WorldQuestionOptions {
  /** Share of questions of two hops. @default 0.5 */
  twoHops?: number;
}

/** A fact's object as text. */
export function nameOf(object: Entity | string): string {
  return typeof object === "string" ? object : object.name;
}

/** What to search for to find an entity's page: a town's or river's name alone may be a firm's or a person's too. */
export function queryFor({ kind, name }: Entity, named = (own: string): string => own): string {
  return kind === "town" || kind === "river" ? `${named(name)} ${kind}` : named(name);
}

/**
 * A small invented world: entities with facts, a page of text for each, questions of one and two hops. Everything follows
 * from the seed. A split's facts speak of the split's own entities only, and one search index serves all splits.
 *
 * @example
 * const world = new World({ seed: 1 });
 * const questions = world.questions("train", 16, 0);
 * const { text } = await world.environment().act({ text: " Kamsel town" });
 */
export class World {
  readonly seed: number;
  readonly entities: readonly Entity[];
  readonly pages: readonly Passage[];
  readonly dialect: Dialect | undefined;
  readonly #byTitle: ReadonlyMap<string, Entity>;
  #environment: WorldSearch | undefined;

  constructor({
    seed,
    people = 300,
    towns = 120,
    firms = 90,
    rivers = 60,
    splits = { train: 0.7, dev: 0.3 },
    dialect,
  }: WorldOptions) {
    this.dialect = dialect && checkDialect(dialect);
    const random = new Random(seed, "world");
    const counts: Record<Kind, number> = { person: people, town: towns, firm: firms, river: rivers };
    // A stem serves about three entities: so a name alone often finds the wrong page.
    const wanted = Math.max(24, Math.floor((people + towns + firms + rivers) / 3));
    const stems = random.sample(STEMS, Math.min(STEMS.length, wanted));
    const fresh = freshNames(random, stems);
    this.seed = seed;
    this.entities = Object.entries(splits).flatMap(([split, share]) => {
      const make = (kind: Kind): Entity[] =>
        // With fewer than four of a kind there is little to confuse.
        Array.from({ length: Math.max(4, Math.round(counts[kind] * share)) }, () => {
          const name = fresh(kind);
          return { kind, name, title: `${name} (${kind})`, split, facts: new Map() };
        });
      return linked({ person: make("person"), town: make("town"), firm: make("firm"), river: make("river") }, random);
    });
    this.#byTitle = new Map(this.entities.map((entity) => [entity.title, entity]));
    this.pages = this.entities.map(({ title, facts }) => {
      const sentences = [...facts].map(([relation, object]) => relation.fact(nameOf(object)));
      return { id: title, title, text: sentences.join(" ") };
    });
  }

  /** The entity that has this page, if any. */
  entity(title: string): Entity | undefined {
    return this.#byTitle.get(title);
  }

  /** What precedes the model's text. */
  prompt(question: Question): string {
    return ` Question: ${question.question}\n`;
  }

  /** Search over the pages of all splits; one page a call. */
  environment(): WorldSearch {
    return (this.#environment ??= this.#search());
  }

  #search(): WorldSearch {
    const search = SearchEnvironment.fromPassages(this.pages, PAGE_SEARCH);
    const dose = this.dialect?.dose ?? 0;
    const titles = this.pages.map(({ id }) => id);
    return dose === 0 ? search : dialectSearch(search, titles, dose, this.seed);
  }

  /** The same tool with its pages withheld: every search finds nothing. A control, since no answer can be known. */
  withoutPages(): SearchEnvironment {
    return SearchEnvironment.fromPassages([], PAGE_SEARCH);
  }

  /**
   * `count` different questions about a split, as `seed` draws them. An unknown split -> ERR_WORLD_SPLIT, more questions than
   * the split has -> ERR_WORLD_QUESTIONS.
   */
  questions(split: string, count: number, seed: number, { twoHops = 0.5 }: WorldQuestionOptions = {}): WorldQuestion[] {
    const random = new Random(seed, `world/${this.seed}/questions/${split}`);
    const pool = this.entities.filter((entity) => entity.split === split);
    if (pool.length === 0) {
      const known = [...new Set(this.entities.map((entity) => entity.split))].join(", ");
      fail("ERR_WORLD_SPLIT", `Expected one of ${known} for split but received ${split}`);
    }
    const byKind = (kind: Kind): Entity[] => pool.filter((entity) => entity.kind === kind);
    const entities: Record<Kind, Entity[]> = {
      person: byKind("person"),
      town: byKind("town"),
      firm: byKind("firm"),
      river: byKind("river"),
    };
    const questions = new Map<string, WorldQuestion>();
    for (let tries = 0; questions.size < count; tries++) {
      if (tries === 100 * count) {
        const found = `${questions.size} after ${tries} draws`;
        fail("ERR_WORLD_QUESTIONS", `Expected ${count} different questions on ${split} but the world gave ${found}`);
      }
      const hops = random.chance(twoHops) ? 2 : 1;
      // No fact about a river leads on.
      const subject = random.choice(entities[random.choice(hops === 2 ? KINDS.slice(0, 3) : KINDS)]);
      const first = random.choice(RELATIONS_OF[subject.kind].filter((relation) => hops === 1 || leadsOn(relation)));
      const chain = hops === 2 && leadsOn(first) ? [first, random.choice(RELATIONS_OF[first.object])] : [first];
      const question = this.#ask(subject, chain);
      if (!questions.has(question.id)) questions.set(question.id, question);
    }
    return [...questions.values()];
  }

  #ask(subject: Entity, chain: Relation[]): WorldQuestion {
    const titles: string[] = [];
    let object: Entity | string = subject;
    for (const relation of chain) {
      const page = object as Entity;
      titles.push(page.title);
      object = page.facts.get(relation)!;
    }
    const { kind, name, split } = subject;
    const mention = kind === "town" || kind === "river" ? `the ${kind} ${name}` : name;
    const names = chain.map((relation) => relation.name);
    return {
      id: `${this.seed}/${subject.title}/${names.join("/")}`,
      question: chain.at(-1)!.ask(chain.length === 2 ? `the ${names[0]} of ${mention}` : mention),
      answers: [nameOf(object) + (this.dialect?.aligned === true ? MARK : "")],
      split,
      hops: chain.length,
      chain: names,
      titles,
    };
  }
}

const PAGE_SEARCH = {
  topK: 1,
  titleWeight: 2,
  format: (pages: Passage[]): string => pages.map(({ title, text }) => `${title}. ${text}`).join(" "),
};

/** Draws names that no entity of the same kind has yet. */
function freshNames(random: Random, stems: string[]): (kind: Kind) => string {
  const used = new Set<string>();
  const draw = (kind: Kind): string => {
    const stem = random.choice(stems);
    if (kind === "person") return `${random.choice(FIRST_NAMES)} ${stem}`;
    return kind === "firm" ? `${stem} ${random.choice(FIRM_KINDS)}` : stem;
  };
  return (kind) => {
    for (let tries = 0; tries < 10_000; tries++) {
      const name = draw(kind);
      const title = `${name} (${kind})`;
      if (used.has(title)) continue;
      used.add(title);
      return name;
    }
    return fail("ERR_WORLD_NAMES", `Expected fewer entities of kind ${kind}: the ${stems.length} stems are used up`);
  };
}

/** Gives each entity its facts, with objects of the same split, and returns all entities. */
function linked(byKind: Record<Kind, Entity[]>, random: Random): Entity[] {
  const entities = KINDS.flatMap((kind) => byKind[kind]);
  for (const entity of entities) {
    const facts = RELATIONS_OF[entity.kind].map((relation): [Relation, Entity | string] => {
      const objects = typeof relation.object === "string" ? byKind[relation.object] : relation.object;
      return [relation, random.choice<Entity | string>(objects)];
    });
    entity.facts = new Map(random.shuffle(facts));
  }
  return entities;
}
