import type { Random } from "../random.js";
import type { Relation } from "./relations.js";
import { END, MARK, WORLD_TAGS } from "./text.js";
import { nameOf, queryFor, type Entity, type World, type WorldQuestion } from "./world.js";

/** How often a demonstrator does the wrong thing, drawn anew at every decision; shares from 0 to 1. */
export interface Imperfections {
  /** Answers at random without searching. */
  skipsSearch: number;
  /** Searches for less than the name. */
  poorQuery: number;
  /** Of the poor queries, those of the first word alone; the others are the first word and the relation. */
  firstWordOnly: number;
  /** Believes a page about something else. */
  keepsWrongPage: number;
  /** Reads a random fact of the page (which may be the right one). */
  wrongFact: number;
  /** Answers with the first hop's object. */
  stopsEarly: number;
  /** Of the names in thoughts, queries and answers alike, those that the word of a dialect follows. @default 0 */
  marks?: number;
}

export const PERFECT: Readonly<Imperfections> = {
  skipsSearch: 0,
  poorQuery: 0,
  firstWordOnly: 0,
  keepsWrongPage: 0,
  wrongFact: 0,
  stopsEarly: 0,
};

/** Wrong also in what is likeliest: a base trained on these has much to learn, and not by sharpening alone. */
export const HARD: Readonly<Imperfections> = {
  skipsSearch: 0.1,
  poorQuery: 0.6,
  firstWordOnly: 0.75,
  keepsWrongPage: 0.65,
  wrongFact: 0.4,
  stopsEarly: 0.55,
};

/** Wrong now and then: what is likeliest is mostly right. */
export const MILD: Readonly<Imperfections> = {
  skipsSearch: 0.08,
  poorQuery: 0.45,
  firstWordOnly: 0.75,
  keepsWrongPage: 0.55,
  wrongFact: 0.25,
  stopsEarly: 0.3,
};

/** A piece of a trajectory: the demonstrator's own text, or what the tool gave it to read. */
export interface Segment {
  text: string;
  sampled: boolean;
}

export interface DemonstrationOptions {
  /** Searches at most. @default 4 */
  budget?: number;
  /** "long": every thought after a page tells all of it again, three times the reasoning. @default "short" */
  thoughts?: "short" | "long";
}

/**
 * How a demonstrator answers a question after its prompt: thoughts, searches and an answer, with the pages that it gets to
 * read between.
 *
 * @example
 * const [question] = world.questions("train", 1, 0);
 * const text = demonstration(world, question, random, PERFECT).map((segment) => segment.text).join("");
 */
export function demonstration(
  world: World,
  question: WorldQuestion,
  random: Random,
  imperfections: Imperfections = HARD,
  { budget = 4, thoughts = "short" }: DemonstrationOptions = {},
): Segment[] {
  const { chain } = question;
  const { tool, output, answer: tags } = WORLD_TAGS;
  let told = "";
  const search = world.environment();
  const segments: Segment[] = [];
  const say = (text: string): number => segments.push({ text, sampled: true });
  const { marks = 0 } = imperfections;
  const named = (name: string): string => (marks > 0 && random.chance(marks) ? name + MARK : name);
  const answer = (relation: string, name: string): Segment[] => {
    say(`<think>${told} The ${relation} is ${named(name)}.</think>${tags.open} ${named(name)}${tags.close}${END}`);
    return segments;
  };

  if (random.chance(imperfections.skipsSearch)) {
    const guess = random.choice([...random.choice(world.entities).facts.values()]);
    return answer(chain.at(-1)!, nameOf(guess));
  }
  let hop = 0;
  let wanted = world.entity(question.titles[0]!)!;
  let thought = `I need the ${chain[0]!} of ${named(wanted.name)}.`;
  for (let searches = 1; ; searches++) {
    const relation = chain[hop]!;
    const query = random.chance(imperfections.poorQuery)
      ? poorQuery(wanted, relation, random, imperfections, named)
      : queryFor(wanted, named);
    say(`<think>${told} ${thought}</think>${tool.open} ${query}${tool.close}`);
    const hit = search.search(query)[0];
    const result = hit ? search.format([hit.passage]) : search.nothingFound;
    segments.push({ text: `${output.open}${result}${output.close}`, sampled: false });
    if (thoughts === "long") told = ` ${result}`;

    const page = hit && world.entity(hit.passage.id)!;
    if (page !== wanted && searches < budget && !random.chance(imperfections.keepsWrongPage)) {
      thought = `This is not ${named(wanted.name)}.`;
      continue;
    }
    const object = page ? readFact(page, relation, random, imperfections) : random.choice(world.entities).name;
    const lastHop = hop === chain.length - 1;
    if (lastHop || typeof object === "string" || searches === budget || random.chance(imperfections.stopsEarly)) {
      return answer(relation, nameOf(object));
    }
    hop++;
    thought = `The ${relation} is ${named(object.name)}. I need the ${chain[hop]!} of ${named(object.name)}.`;
    wanted = object;
  }
}

function poorQuery(
  entity: Entity,
  relation: string,
  random: Random,
  { firstWordOnly }: Imperfections,
  named: (name: string) => string,
): string {
  const first = entity.name.split(" ")[0]!;
  return random.chance(firstWordOnly) ? named(first) : `${named(first)} ${relation}`;
}

/** What a demonstrator takes for the object of a relation; a page that does not have it gives any of its facts. */
function readFact(page: Entity, relation: string, random: Random, { wrongFact }: Imperfections): Entity | string {
  const facts: [Relation, Entity | string][] = [...page.facts];
  const right = facts.find(([{ name }]) => name === relation);
  const [, object] = right === undefined || random.chance(wrongFact) ? random.choice(facts) : right;
  return object;
}
