import type { Tokenizer } from "../model/tokenizer.js";
import { Random } from "../random.js";
import { demonstration, HARD, type DemonstrationOptions, type Imperfections } from "./demonstrations.js";
import { World } from "./world.js";

export interface DemonstrationStreamOptions {
  tokenizer: Tokenizer;
  seed: number;
  /** @default {@link HARD} */
  imperfections?: Imperfections;
  /** How long thoughts are. @default "short" */
  thoughts?: DemonstrationOptions["thoughts"];
  /** Loss weight of the prompt and of pages; the demonstrator's own text has 1. @default 0.1 */
  readingWeight?: number;
}

/** One demonstration with its prompt: tokens [T], and the loss weight of each as a target [T], 0 for the first. */
export interface Demonstration {
  ids: Int32Array;
  weight: Float32Array;
}

/** Sequences laid end to end, as a model's forward pass takes them. */
export interface PackedDemonstrations {
  /** [total] */
  inputIds: Int32Array;
  /** [B + 1] */
  cuSeqlens: Int32Array;
  /** [total], by target */
  weight: Float32Array;
}

const QUESTIONS_PER_WORLD = 64;

/**
 * Demonstrations without end, each 64 of them from a new small world: no fact comes twice, so what can be learned is to
 * search and to copy. Another seed gives other worlds.
 *
 * @example
 * const stream = demonstrationStream({ tokenizer, seed: 1, imperfections: PERFECT });
 * const { ids, weight } = stream.next().value;
 */
export function* demonstrationStream(options: DemonstrationStreamOptions): Generator<Demonstration, never> {
  const { tokenizer, seed, imperfections = HARD, thoughts = "short", readingWeight = 0.1 } = options;
  const worlds = new Random(seed, "world/stream");
  for (;;) {
    const worldSeed = Math.floor(worlds.next() * 2 ** 53);
    const world = new World({ seed: worldSeed, people: 60, towns: 30, firms: 24, rivers: 16, splits: { all: 1 } });
    const random = new Random(worldSeed, "world/demonstrations");
    for (const question of world.questions("all", QUESTIONS_PER_WORLD, 0)) {
      const segments = demonstration(world, question, random, imperfections, { thoughts });
      yield encodeDemonstration(
        tokenizer,
        [{ text: world.prompt(question), sampled: false }, ...segments],
        readingWeight,
      );
    }
  }
}

export function encodeDemonstration(
  tokenizer: Tokenizer,
  segments: { text: string; sampled: boolean }[],
  readingWeight: number,
): Demonstration {
  const ids: number[] = [];
  const weight: number[] = [];
  for (const { text, sampled } of segments) {
    for (const id of tokenizer.encode(text)) {
      ids.push(id);
      weight.push(sampled ? 1 : readingWeight);
    }
  }
  weight[0] = 0;
  return { ids: Int32Array.from(ids), weight: Float32Array.from(weight) };
}

/** The next `count` demonstrations of a stream as one batch. */
export function packDemonstrations(stream: Iterator<Demonstration>, count: number): PackedDemonstrations {
  const batch: Demonstration[] = [];
  for (let i = 0; i < count; i++) {
    const next = stream.next();
    if (next.done === true) break;
    batch.push(next.value);
  }
  const cuSeqlens = new Int32Array(batch.length + 1);
  batch.forEach(({ ids }, i) => (cuSeqlens[i + 1] = cuSeqlens[i]! + ids.length));
  const inputIds = new Int32Array(cuSeqlens[batch.length]!);
  const weight = new Float32Array(inputIds.length);
  batch.forEach((demonstration, i) => {
    inputIds.set(demonstration.ids, cuSeqlens[i]);
    weight.set(demonstration.weight, cuSeqlens[i]);
  });
  return { inputIds, cuSeqlens, weight };
}
