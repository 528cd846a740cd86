import { fail } from "../errors.js";
import { Random } from "../random.js";

/**
 * Which questions each step asks: a pure function of (seed, step). An epoch is one shuffle of all questions; what is left of it at its end
 * and would not fill a step is left out of that epoch, so that no step asks a question twice.
 */
export class QuestionOrder<T> {
  readonly stepsPerEpoch: number;
  readonly #questions: readonly T[];
  readonly #count: number;
  readonly #seed: number;
  #epoch = -1;
  #shuffled: T[] = [];

  /** Fewer questions than a step asks -> ERR_RUN_QUESTIONS. */
  constructor(questions: readonly T[], count: number, seed: number) {
    if (questions.length < count) {
      fail(
        "ERR_RUN_QUESTIONS",
        `Expected at least questionsPerStep (${count}) questions but received ${questions.length}`,
      );
    }
    this.stepsPerEpoch = Math.floor(questions.length / count);
    this.#questions = questions;
    this.#count = count;
    this.#seed = seed;
  }

  /** The questions of a step; steps count from 1. */
  at(step: number): T[] {
    const epoch = Math.floor((step - 1) / this.stepsPerEpoch);
    if (epoch !== this.#epoch) {
      this.#shuffled = new Random(this.#seed, `run/questions/${epoch}`).shuffle([...this.#questions]);
      this.#epoch = epoch;
    }
    const from = ((step - 1) % this.stepsPerEpoch) * this.#count;
    return this.#shuffled.slice(from, from + this.#count);
  }
}
