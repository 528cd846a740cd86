import { fail } from "../errors.js";

/** Ends the run: a wrong result is not timed. */
export function wrong(what: string, detail: string): never {
  fail("ERR_BENCH_WRONG", `${what}: ${detail}. Nothing was timed: please report it with the output of rolegrad doctor`);
}

/** ERR_BENCH_WRONG unless both have the same length and the same bits everywhere; NaN counts as wrong. */
export function requireSameBits(what: string, got: ArrayLike<number>, expected: ArrayLike<number>): void {
  if (got.length !== expected.length || got.length === 0)
    wrong(what, `Expected ${expected.length} values (at least one) but received ${got.length}`);
  let differ = 0;
  let first = -1;
  for (let i = 0; i < got.length; i++) {
    if (Object.is(got[i], expected[i]) && !Number.isNaN(got[i])) continue;
    if (differ++ === 0) first = i;
  }
  if (differ > 0) {
    wrong(
      what,
      `Expected the same bits but ${differ} of ${got.length} values differ, the first at ${first}: ` +
        `expected ${expected[first]} but received ${got[first]}`,
    );
  }
}

/** ERR_BENCH_WRONG unless |got - expected| <= tolerance * |expected|; what is not finite is wrong. */
export function requireClose(what: string, got: number, expected: number, tolerance: number): void {
  const close = Math.abs(got - expected) <= tolerance * Math.abs(expected);
  if (!close || !Number.isFinite(got) || !Number.isFinite(expected))
    wrong(what, `Expected ${expected} within ${tolerance} but received ${got}`);
}
