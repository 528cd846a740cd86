import { COUNTRIES, PRODUCTS, SEAS } from "./names.js";

/** What has a page. */
export type Kind = "person" | "town" | "firm" | "river";
export const KINDS: readonly Kind[] = ["person", "town", "firm", "river"];

export interface Relation {
  /** Its noun in questions and thoughts: "the mayor of …". */
  name: string;
  subject: Kind;
  /** Kind of the object, or the closed list that it is drawn from. */
  object: Kind | readonly string[];
  /** The sentence of a page. */
  fact: (object: string) => string;
  /** The question for the object. */
  ask: (subject: string) => string;
}

const RELATIONS: readonly Relation[] = [
  {
    name: "birthplace",
    subject: "person",
    object: "town",
    fact: (y) => `Born in ${y}.`,
    ask: (x) => `In which town was ${x} born?`,
  },
  {
    name: "home",
    subject: "person",
    object: "town",
    fact: (y) => `Lives in ${y}.`,
    ask: (x) => `In which town does ${x} live?`,
  },
  {
    name: "employer",
    subject: "person",
    object: "firm",
    fact: (y) => `Works for ${y}.`,
    ask: (x) => `For which firm does ${x} work?`,
  },
  {
    name: "country",
    subject: "town",
    object: COUNTRIES,
    fact: (y) => `Lies in ${y}.`,
    ask: (x) => `In which country is ${x}?`,
  },
  {
    name: "river",
    subject: "town",
    object: "river",
    fact: (y) => `Stands on the ${y}.`,
    ask: (x) => `On which river is ${x}?`,
  },
  {
    name: "mayor",
    subject: "town",
    object: "person",
    fact: (y) => `Mayor is ${y}.`,
    ask: (x) => `Who is the mayor of ${x}?`,
  },
  {
    name: "seat",
    subject: "firm",
    object: "town",
    fact: (y) => `Based in ${y}.`,
    ask: (x) => `In which town is ${x} based?`,
  },
  {
    name: "founder",
    subject: "firm",
    object: "person",
    fact: (y) => `Founded by ${y}.`,
    ask: (x) => `Who founded ${x}?`,
  },
  {
    name: "product",
    subject: "firm",
    object: PRODUCTS,
    fact: (y) => `Makes ${y}.`,
    ask: (x) => `What does ${x} make?`,
  },
  {
    name: "source",
    subject: "river",
    object: COUNTRIES,
    fact: (y) => `Rises in ${y}.`,
    ask: (x) => `In which country does ${x} rise?`,
  },
  {
    name: "mouth",
    subject: "river",
    object: SEAS,
    fact: (y) => `Flows into the ${y} Sea.`,
    ask: (x) => `Into which sea does ${x} flow?`,
  },
];

/** A relation whose object has a page of its own, so that a second hop can start there. */
export interface LinkingRelation extends Relation {
  object: Kind;
}

/** The relations that a kind is the subject of. */
export const RELATIONS_OF: Readonly<Record<Kind, readonly Relation[]>> = {
  person: RELATIONS.filter(({ subject }) => subject === "person"),
  town: RELATIONS.filter(({ subject }) => subject === "town"),
  firm: RELATIONS.filter(({ subject }) => subject === "firm"),
  river: RELATIONS.filter(({ subject }) => subject === "river"),
};

export function leadsOn(relation: Relation): relation is LinkingRelation {
  return typeof relation.object === "string";
}
