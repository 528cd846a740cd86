// The routed linear on plain arrays, against loops that follow the equation.
import fc from "fast-check";
import t from "tap";
import { loraLinear, Random } from "rolegrad";
import type { LoraLinearInput } from "rolegrad";
import { bits } from "./helpers/engine.js";
import { holds } from "./helpers/properties.js";
import { relativeError } from "./helpers/tensors.js";

type Input = Required<Omit<LoraLinearInput, "device">>;

const shapes = fc.record({
  rows: fc.integer({ min: 1, max: 70 }),
  k: fc.integer({ min: 1, max: 90 }),
  n: fc.integer({ min: 1, max: 90 }),
  ranks: fc.array(fc.integer({ min: 1, max: 9 }), { maxLength: 3 }),
  cut: fc.nat(),
  seed: fc.nat(),
});
type Shape = typeof shapes extends fc.Arbitrary<infer T> ? T : never;

function inputOf({ rows, k, n, ranks, cut, seed }: Shape): Input & { dy: Float32Array } {
  const random = new Random(seed, "linear");
  const values = (count: number) => Float32Array.from({ length: count }, () => 2 * random.next() - 1);
  const first = 1 + (cut % rows);
  return {
    x: values(rows * k),
    w: values(n * k),
    bias: values(n),
    roles: Int32Array.from({ length: rows }, () => random.integer(ranks.length + 1) - 1),
    adapters: ranks.map((r, v) => ({ a: values(r * k), b: values(n * r), scale: 0.5 + v })),
    cuSeqlens: first === rows ? Int32Array.of(0, rows) : Int32Array.of(0, first, rows),
    dy: values(rows * n),
  };
}

/** x [T, K] m [N, K]^T in f64. */
function times(x: ArrayLike<number>, m: ArrayLike<number>, k: number): Float64Array {
  const [rows, n] = [x.length / k, m.length / k];
  const y = new Float64Array(rows * n);
  for (let t = 0; t < rows; t++)
    for (let j = 0; j < n; j++)
      for (let i = 0; i < k; i++) y[t * n + j]! += (x[t * k + i] as number) * (m[j * k + i] as number);
  return y;
}

function transpose(m: ArrayLike<number>, columns: number): Float64Array {
  const rows = m.length / columns;
  return Float64Array.from({ length: m.length }, (_, i) => m[(i % rows) * columns + Math.floor(i / rows)] as number);
}

function sizes({ x, w, roles }: Input): { rows: number; k: number; n: number } {
  const k = x.length / roles.length;
  return { rows: roles.length, k, n: w.length / k };
}

/** y = x wT + bias + scale (x aT) bT by the row's own pair (eq. 10). */
function forward(input: Input): Float64Array {
  const { k, n } = sizes(input);
  const y = times(input.x, input.w, k);
  const low = input.adapters.map(({ a, b }) => times(times(input.x, a, k), b, a.length / k));
  return y.map((value, i) => {
    const role = input.roles[Math.floor(i / n)] as number;
    const own = role < 0 ? 0 : (low[role]![i] as number) * input.adapters[role]!.scale;
    return value + (input.bias[i % n] as number) + own;
  });
}

function backward(input: Input, dy: Float32Array): { dx: Float64Array; a: Float64Array[]; b: Float64Array[] } {
  const { k, n } = sizes(input);
  const dx = times(dy, transpose(input.w, k), n);
  const a: Float64Array[] = [];
  const b: Float64Array[] = [];
  input.adapters.forEach((pair, v) => {
    const r = pair.a.length / k;
    const mine = (x: ArrayLike<number>, columns: number) =>
      Float64Array.from(x, (value, i) => (input.roles[Math.floor(i / columns)] === v ? value : 0));
    const [x, d] = [mine(input.x, k), mine(dy, n)];
    const u = times(x, pair.a, k).map((value) => value * pair.scale);
    const du = times(d, transpose(pair.b, r), n).map((value) => value * pair.scale);
    times(du, transpose(pair.a, k), r).forEach((value, i) => (dx[i]! += value));
    a.push(times(transpose(du, r), transpose(x, k), input.roles.length));
    b.push(times(transpose(d, n), transpose(u, r), input.roles.length));
  });
  return { dx, a, b };
}

/** f32 against f64: the norm of the difference over the norm, and exactly zero where that is what it should be. */
function near(got: Float32Array, want: Float64Array): boolean {
  return want.every((x) => x === 0) ? got.every((x) => x === 0) : relativeError(got, want) < 2e-6;
}

for (const device of ["cpu", "cpu-reference"]) {
  t.test(`${device}: forward and backward are the equation's, in any shape`, async (t) => {
    await holds(t, shapes, 60, async (shape) => {
      const { dy, ...input } = inputOf(shape);
      if (!near(await loraLinear.forward({ ...input, device }), forward(input))) return false;
      const got = await loraLinear.backward({ ...input, dy, device });
      const want = backward(input, dy);
      return (
        near(got.dx, want.dx) &&
        got.adapters.length === input.adapters.length &&
        got.adapters.every(({ a, b }, v) => near(a, want.a[v]!) && near(b, want.b[v]!))
      );
    });
  });
}

t.test("a row reads its own pair alone: NaN in another changes no bit", async (t) => {
  const { dy, ...input } = inputOf({ rows: 40, k: 33, n: 50, ranks: [4, 4], cut: 11, seed: 6 });
  const broken = {
    ...input,
    adapters: [input.adapters[0]!, { ...input.adapters[1]!, a: new Float32Array(4 * 33).fill(NaN) }],
  };
  const [y, z] = [await loraLinear.forward(input), await loraLinear.forward(broken)];
  const rows = (values: Float32Array, size: number) =>
    bits(...[...input.roles].flatMap((role, t) => (role === 1 ? [] : [values.subarray(t * size, (t + 1) * size)])));
  t.equal(rows(z, 50), rows(y, 50));
  t.ok(z.some(Number.isNaN), "its own rows have it");
  const [d, e] = [await loraLinear.backward({ ...input, dy }), await loraLinear.backward({ ...broken, dy })];
  t.equal(rows(e.dx, 33), rows(d.dx, 33));
  t.equal(bits(e.adapters[0]!.a, e.adapters[0]!.b), bits(d.adapters[0]!.a, d.adapters[0]!.b));
});

t.test("a row gets the same bits alone", async (t) => {
  const { dy: _, ...input } = inputOf({ rows: 37, k: 61, n: 45, ranks: [3, 8], cut: 5, seed: 7 });
  const y = await loraLinear.forward(input);
  for (const t0 of [0, 12, 36]) {
    const alone = { ...input, x: input.x.slice(t0 * 61, (t0 + 1) * 61), roles: input.roles.slice(t0, t0 + 1) };
    const one = await loraLinear.forward({ ...alone, cuSeqlens: Int32Array.of(0, 1) });
    t.equal(bits(one), bits(y.slice(t0 * 45, (t0 + 1) * 45)), `row ${t0}`);
  }
});

t.test("arrays that do not fit are refused by name", async (t) => {
  const { dy, ...input } = inputOf({ rows: 6, k: 4, n: 5, ranks: [2], cut: 2, seed: 8 });
  const cases: [string, RegExp, Partial<Record<keyof LoraLinearInput | "dy", unknown>>][] = [
    ["ERR_EMPTY_BATCH", /empty/, { roles: new Int32Array(0) }],
    ["ERR_SHAPE", /x \[T, K\]/, { x: input.x.slice(1) }],
    ["ERR_SHAPE", /w \[N, K\]/, { w: input.w.slice(1) }],
    ["ERR_SHAPE", /bias \[N\]/, { bias: new Float32Array(4) }],
    ["ERR_SHAPE", /dy \[T, N\]/, { dy: dy.slice(1) }],
    ["ERR_SHAPE", /adapter 0/, { adapters: [{ a: new Float32Array(8), b: new Float32Array(9), scale: 1 }] }],
    ["ERR_ROLE_RANGE", /roles\[5\] is 1/, { roles: Int32Array.of(0, 0, -1, 0, 0, 1) }],
    ["ERR_ROLE_RANGE", /roles\[0\] is -2/, { roles: Int32Array.of(-2, 0, -1, 0, 0, 0) }],
    ["ERR_INVALID_ARGUMENT", /Float32Array for x/, { x: new Float64Array(24) }],
    ["ERR_INVALID_ARGUMENT", /shared/, { x: new Float32Array(new SharedArrayBuffer(96)) }],
    ["ERR_INVALID_ARGUMENT", /adapters/, { adapters: undefined }],
    ["ERR_INVALID_ARGUMENT", /cuSeqlens/, { cuSeqlens: Int32Array.of(0, 7) }],
    ["ERR_INVALID_ARGUMENT", /cuSeqlens .* entry 2/, { cuSeqlens: Int32Array.of(0, 9, 6) }],
    ["ERR_INVALID_ARGUMENT", /cuSeqlens .* entry 1/, { cuSeqlens: Int32Array.of(0, -5, 6) }],
    ["ERR_DEVICE", /"tpu"/, { device: "tpu" }],
  ];
  for (const [code, message, change] of cases) {
    const work = loraLinear.backward.bind(undefined, { ...input, dy, ...change } as never);
    await t.rejects(work(), { name: "RolegradError", code, message });
  }
  t.ok(near(await loraLinear.forward(input), forward(input)), "it works as before");
});
