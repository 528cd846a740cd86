import { checkInteger, checkObject, describe } from "../arguments.js";
import { words, type SearchEnvironment, type SearchHit } from "../environments/search.js";
import type { Environment, ToolCall, ToolResult } from "../environments/types.js";
import { fail } from "../errors.js";
import { Random } from "../random.js";
import { MILD } from "./demonstrations.js";
import { demonstrationStream } from "./stream.js";
import { MARK, WORLD_CHECKPOINT, WORLD_TAGS } from "./text.js";
import { type BaseTrainingOptions, trainOnDemonstrations } from "./train.js";

/** A conflict between roles that is set by hand: what the index wants of a query against what an answer must be. */
export interface Dialect {
  /**
   * From -1 to 1. Above 0: this share of the entities is found only by a query with the word `vo` in it, below 0 only by one without; another query gets the
   * next best page. 0: the word changes nothing.
   */
  dose: number;
  /** Answers must have the word behind the name too: with dose 1 both roles then want the same. @default false: answers are plain names */
  aligned?: boolean;
}

/** The search of a world. */
export type WorldSearch = Environment &
  Pick<SearchEnvironment, "size" | "topK" | "search" | "format" | "nothingFound"> & {
    act(call: Pick<ToolCall, "text">): Promise<ToolResult>;
  };

/** ERR_WORLD_DIALECT unless it is one. */
export function checkDialect(dialect: Dialect): Dialect {
  checkObject(dialect, "dialect");
  const { dose, aligned = false } = dialect;
  if (typeof dose !== "number" || !(Math.abs(dose) <= 1) || typeof aligned !== "boolean")
    fail(
      "ERR_WORLD_DIALECT",
      `Expected a dose from -1 to 1 (and a boolean aligned) for dialect but received ${describe(dose)} and ${describe(aligned)}`,
    );
  return { dose, aligned };
}

/** Whether a text has the word. */
export function isMarked(text: string): boolean {
  return words(text).includes(MARK.trim());
}

/**
 * A search that listens to the word. Whether an entity does is drawn by the world's seed; those who do at one dose do at every larger one. `titles`: of all
 * pages, in their order.
 */
export function dialectSearch(
  search: SearchEnvironment,
  titles: readonly string[],
  dose: number,
  seed: number,
): WorldSearch {
  const random = new Random(seed, "world/dialect");
  const draw = new Map(titles.map((title) => [title, random.next()]));
  const wrong = (query: string): boolean => isMarked(query) === dose < 0;
  const found = (query: string, k: number = search.topK): SearchHit[] => {
    const hits = search.search(query, k + 1);
    const [best] = hits;
    const deaf = best !== undefined && wrong(query) && draw.get(best.passage.id)! < Math.abs(dose);
    return deaf ? hits.slice(1) : hits.slice(0, k);
  };
  return {
    size: search.size,
    topK: search.topK,
    format: search.format,
    nothingFound: search.nothingFound,
    search: found,
    act({ text }) {
      const passages = found(text).map(({ passage }) => passage);
      return Promise.resolve({ text: passages.length === 0 ? search.nothingFound : search.format(passages), passages });
    },
  };
}

/** Shares of queries, sentences of thought and answers with the word in them; null: there are none. */
export interface MarkRates {
  queries: number | null;
  thoughts: number | null;
  answers: number | null;
}

/**
 * How often the word stands where: of what a model wrote about a world with a dialect.
 *
 * @example
 * markRates(["<think> I need the home of Kai Kamfell vo.</think><search> Kai Kamfell</search>"]); // { queries: 0, thoughts: 1, answers: null }
 */
export function markRates(responses: readonly string[]): MarkRates {
  if (!Array.isArray(responses) || !responses.every((text) => typeof text === "string"))
    fail("ERR_INVALID_ARGUMENT", `Expected a list of texts for responses but received ${describe(responses)}`);
  const rate = (open: string, close: string, split = false): number | null => {
    const texts = responses.flatMap((text) =>
      text
        .split(open)
        .slice(1)
        .map((rest) => rest.split(close)[0]!),
    );
    const all = split ? texts.flatMap((text) => text.split(". ")) : texts;
    return all.length === 0 ? null : all.filter(isMarked).length / all.length;
  };
  const { tool, answer } = WORLD_TAGS;
  return {
    queries: rate(tool.open, tool.close),
    thoughts: rate("<think>", "</think>", true),
    answers: rate(answer.open, answer.close),
  };
}

export interface TrainDialectBaseOptions extends BaseTrainingOptions {
  /** Tokens to train on. @default 500000 */
  tokens?: number;
  /** Share of the names that the word follows, in thoughts, queries and answers alike. @default 0.3 */
  marks?: number;
}

/**
 * Teaches the world's base the word ` vo`, one token, behind names of every role alike: the one base for every dose, so that only the environment turns. It goes
 * on from the shipped base, on demonstrations with errors ({@link MILD}) of worlds that are never seen again.
 *
 * @example
 * await trainDialectBase({ directory: "bases/dialect" });
 * const world = new World({ seed: 1, dialect: { dose: 1 } });
 */
export async function trainDialectBase(options: TrainDialectBaseOptions): Promise<void> {
  const { directory, seed = 1, tokens = 500_000, marks = 0.3, signal, onProgress } = options;
  checkInteger(tokens, "tokens", 1);
  if (!(typeof marks === "number" && marks >= 0 && marks <= 1))
    fail("ERR_INVALID_ARGUMENT", `Expected marks from 0 to 1 but received ${describe(marks)}`);
  await trainOnDemonstrations({
    from: WORLD_CHECKPOINT,
    directory,
    addTokens: [MARK],
    streams: (tokenizer) => {
      const flawed = demonstrationStream({ tokenizer, seed: seed * 2 + 1, imperfections: { ...MILD, marks } });
      return { perfect: flawed, flawed };
    },
    seed,
    tokens,
    perfectShare: 0,
    learningRate: 1e-3,
    warmupSteps: 20,
    signal,
    onProgress,
  });
}
