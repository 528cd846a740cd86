import { describe } from "./arguments.js";
import { fail } from "./errors.js";

/** High 32 bits of a 32 x 32 bit product, in 16-bit limbs: every partial product and sum stays below 2^32. */
function multiplyHigh(a: number, b: number): number {
  const a0 = a & 0xffff;
  const a1 = a >>> 16;
  const b0 = b & 0xffff;
  const b1 = b >>> 16;
  const middle = a1 * b0 + ((a0 * b0) >>> 16);
  const cross = a0 * b1 + (middle & 0xffff);
  return (a1 * b1 + (middle >>> 16) + (cross >>> 16)) >>> 0;
}

/**
 * Philox4x32-10 (Salmon et al., 2011) into `out` [4]: four random words as a pure function of a 128-bit counter
 * (c0..c3) and a 64-bit key, in 32-bit integer arithmetic, so equal on every machine. native/core/random.h is its twin.
 */
export function philox(
  out: Uint32Array,
  c0: number,
  c1: number,
  c2: number,
  c3: number,
  key0: number,
  key1: number,
): void {
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(0xd2511f53, c0);
    const low0 = Math.imul(0xd2511f53, c0);
    const high1 = multiplyHigh(0xcd9e8d57, c2);
    const low1 = Math.imul(0xcd9e8d57, c2);
    c0 = high1 ^ c1 ^ key0;
    c1 = low1;
    c2 = high0 ^ c3 ^ key1;
    c3 = low0;
    key0 = (key0 + 0x9e3779b9) | 0;
    key1 = (key1 + 0xbb67ae85) | 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** 64-bit FNV-1a of a purpose: the number of its stream. */
export function streamOf(purpose: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(purpose)) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  }
  return hash;
}

/**
 * Random numbers keyed by a seed and a purpose: two purposes never share a stream, and a draw is a pure function of
 * (seed, purpose, position).
 *
 * @example
 * const random = new Random(1, "questions");
 * random.choice(["a", "b", "c"]);
 */
export class Random {
  readonly seed: number;
  readonly purpose: string;
  /** Draws so far. */
  position = 0;
  readonly #seed0: number;
  readonly #seed1: number;
  readonly #stream0: number;
  readonly #stream1: number;
  readonly #words = new Uint32Array(4);

  /** `seed`: an integer from 0 to 2^53 - 1 (else ERR_INVALID_SEED). */
  constructor(seed: number, purpose: string) {
    if (!Number.isSafeInteger(seed) || seed < 0) {
      fail("ERR_INVALID_SEED", `Expected an integer from 0 to 2^53 - 1 for seed but received ${describe(seed)}`);
    }
    const stream = streamOf(purpose);
    this.seed = seed;
    this.purpose = purpose;
    this.#seed0 = seed >>> 0;
    this.#seed1 = Math.floor(seed / 0x100000000);
    this.#stream0 = Number(stream & 0xffffffffn);
    this.#stream1 = Number(stream >> 32n);
  }

  #draw(): Uint32Array {
    const position = this.position++;
    const high = Math.floor(position / 0x100000000);
    philox(this.#words, position >>> 0, high, this.#stream0, this.#stream1, this.#seed0, this.#seed1);
    return this.#words;
  }

  /** Uniform in [0, 1), 53 bits. */
  next(): number {
    const words = this.#draw();
    return (words[0]! * 0x200000 + (words[1]! >>> 11)) * 2 ** -53;
  }

  /** Uniform in 0 .. n - 1, without bias. `n`: an integer from 1 to 2^32 (else ERR_INVALID_RANGE). */
  integer(n: number): number {
    if (!Number.isInteger(n) || n < 1 || n > 0x100000000) {
      fail("ERR_INVALID_RANGE", `Expected an integer from 1 to 2^32 for n but received ${n}`);
    }
    const limit = 0x100000000 - (0x100000000 % n);
    for (;;) {
      const word = this.#draw()[0]!;
      if (word < limit) return word % n;
    }
  }

  /** True with probability `p`. */
  chance(p: number): boolean {
    return this.next() < p;
  }

  /** One element of a non-empty array (else ERR_INVALID_RANGE). */
  choice<T>(array: readonly T[]): T {
    return array[this.integer(array.length)]!;
  }

  /** Shuffles the array in place (Fisher-Yates) and returns it. */
  shuffle<T>(array: T[]): T[] {
    for (let i = array.length - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      [array[i], array[j]] = [array[j]!, array[i]!];
    }
    return array;
  }

  /** `count` different elements, in random order; all of them where the array is shorter. */
  sample<T>(array: readonly T[], count: number): T[] {
    return this.shuffle([...array]).slice(0, count);
  }
}
