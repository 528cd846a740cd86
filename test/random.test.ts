import t from "tap";
import { philox, Random } from "../lib/random.js";

t.test("philox gives the published known answers", async (t) => {
  // Random123's kat_vectors for philox4x32-10: counter, key, words.
  const cases: [number[], number[], number[]][] = [
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ];
  for (const [c, key, expected] of cases) {
    const words = new Uint32Array(4);
    philox(words, c[0]!, c[1]!, c[2]!, c[3]!, key[0]!, key[1]!);
    t.strictSame([...words], expected);
  }
});

// (Salmon et al.'s function in Python integers gives the same.)
const FIRST_DRAWS = [0.7882327081351546, 0.003010803144788521, 234, 895];

t.test("a stream is a function of seed and purpose, and these are its first draws", async (t) => {
  const random = new Random(42, "test");
  t.strictSame([random.next(), random.next(), random.integer(1000), random.integer(1000)], FIRST_DRAWS);
  t.strictSame(new Random(42, "test").next(), FIRST_DRAWS[0]);
  t.not(new Random(43, "test").next(), FIRST_DRAWS[0]);
  t.not(new Random(42 + 2 ** 32, "test").next(), FIRST_DRAWS[0]);
  t.not(new Random(42, "tess").next(), FIRST_DRAWS[0]);
});

t.test("a draw does not depend on those before it", async (t) => {
  const walked = new Random(5, "a");
  for (let i = 0; i < 9; i++) walked.next();
  const jumped = new Random(5, "a");
  jumped.position = 9;
  t.equal(jumped.next(), walked.next());
});

t.test("next is uniform in [0, 1)", async (t) => {
  const random = new Random(1, "uniform");
  const draws = Array.from({ length: 20_000 }, () => random.next());
  t.ok(draws.every((x) => x >= 0 && x < 1));
  const mean = draws.reduce((sum, x) => sum + x, 0) / draws.length;
  // Five standard errors: 5 sqrt(1 / 12 / 20000).
  t.ok(Math.abs(mean - 0.5) < 0.0102, `mean ${mean}`);
});

t.test("integer gives every value equally often and stays in range", async (t) => {
  const random = new Random(1, "integer");
  const counts = new Array<number>(7).fill(0);
  for (let i = 0; i < 14_000; i++) counts[random.integer(7)]!++;
  // Five standard deviations of a count around 2,000.
  for (const count of counts) t.ok(Math.abs(count - 2000) < 207, `${count} of about 2000`);
  t.equal(random.integer(1), 0);
  t.ok(random.integer(2 ** 32) < 2 ** 32);
});

t.test("shuffle and sample keep the elements", async (t) => {
  const random = new Random(1, "shuffle");
  const array = Array.from({ length: 50 }, (_, i) => i);
  const shuffled = random.shuffle([...array]);
  t.notSame(shuffled, array);
  t.same(
    shuffled.toSorted((a, b) => a - b),
    array,
  );
  t.equal(new Set(random.sample(array, 20)).size, 20);
  t.equal(random.sample(array, 80).length, 50);
});

t.test("a bad seed, an empty choice and a bad range are refused", async (t) => {
  for (const seed of [-1, 0.5, NaN, 2 ** 53]) {
    t.throws(() => new Random(seed, "x"), { code: "ERR_INVALID_SEED" });
  }
  const random = new Random(0, "x");
  t.throws(() => random.choice([]), { code: "ERR_INVALID_RANGE" });
  for (const n of [0, -1, 1.5, 2 ** 33]) t.throws(() => random.integer(n), { code: "ERR_INVALID_RANGE" });
});
