// Arguments as no caller should give them, and what they are given to.
import path from "node:path";
import type { Test } from "tap";
import { createAdapters, loadModel, Random, Trainer } from "rolegrad";
import type { Adapters, Model, Trajectory } from "rolegrad";
import { checkpoints, randomAdapters, randomRow, randomTrajectory } from "./engine.js";
import { roles, writeToyModel } from "./toy.js";

export const optimizer = { learningRate: 0.01 };
export const row = { inputIds: Int32Array.of(1, 2, 3), cuSeqlens: Int32Array.of(0, 3) };

export interface Subjects {
  model: Model;
  toy: Model;
  /** Loaded with float32, for full training. */
  wide: Model;
  adapters: Adapters;
  /** With dropout, trained tokens and the gradients of each role's loss. */
  many: Adapters;
  mixture: Adapters;
  trainer: Trainer;
  manyTrainer: Trainer;
  mixtureTrainer: Trainer;
  fullTrainer: Trainer;
  /** Of the calls that write; its subfolders: an adapter, a mixture, a checkpoint. */
  folder: string;
  trajectories: Trajectory[];
}

/** Two models, and all that can be made of them; closed when the tests of `t` have ended. */
export async function subjects(t: Test): Promise<Subjects> {
  const model = await loadModel(checkpoints.tied);
  const directory = t.testdir();
  await writeToyModel(directory);
  const toy = await loadModel(directory);
  const wide = await loadModel(checkpoints.untied, { dtype: "float32" });
  t.teardown(() => [model, toy, wide].forEach((each) => each.close()));
  const adapters = randomAdapters(model, { roles });
  const trainer = new Trainer(model, { adapters, optimizer });
  const base = { roles, rank: 2, alpha: 4 };
  const many = createAdapters(toy, { ...base, dropout: 0.1, trainableTokens: ["<search>", 5] });
  const mixture = createAdapters(toy, { ...base, routing: "soft" });
  const manyTrainer = new Trainer(toy, { adapters: many, optimizer, trackLossRoles: true });
  const mixtureTrainer = new Trainer(toy, { adapters: mixture, optimizer });
  const fullTrainer = new Trainer(wide, { full: true, optimizer, roles });
  const folder = path.join(directory, "written");
  await many.save(path.join(folder, "tool"), "tool");
  await mixture.save(path.join(folder, "mixture"), "mixture");
  await manyTrainer.save(path.join(folder, "checkpoint"));
  const random = new Random(1, "hostile");
  const trajectories = [8, 9].map((length, i) =>
    randomTrajectory(random, `q#${i}`, "q", randomRow(random, 60, length, 2)),
  );
  return {
    model,
    toy,
    wide,
    adapters,
    many,
    mixture,
    trainer,
    manyTrainer,
    mixtureTrainer,
    fullTrainer,
    folder,
    trajectories,
  };
}

export const linear = {
  x: new Float32Array(6).fill(1),
  w: new Float32Array(12).fill(0.5),
  bias: new Float32Array(4),
  roles: Int32Array.of(0, -1),
  adapters: [{ a: new Float32Array(3), b: new Float32Array(4), scale: 1 }],
  cuSeqlens: Int32Array.of(0, 2),
  device: "cpu",
  dy: new Float32Array(8),
};

export type Numbers = Int32Array | Int8Array | Uint8Array | Float32Array | Float64Array;
export const isNumbers = (x: unknown): x is Numbers => ArrayBuffer.isView(x) && !(x instanceof DataView) && "fill" in x;

export function detached<T extends ArrayBufferView>(array: T): T {
  structuredClone(array.buffer, { transfer: [array.buffer as ArrayBuffer] });
  return array;
}
const resizable = (bytes: number): ArrayBuffer =>
  Reflect.construct(ArrayBuffer, [bytes, { maxByteLength: 2 * bytes }]) as ArrayBuffer;

/** Things that are not numbers, arrays or names, and numbers that are none of the usual. */
export const values: unknown[] = [
  undefined,
  null,
  true,
  "",
  "x",
  "__proto__",
  -1,
  -0.5,
  0.5,
  NaN,
  Infinity,
  -Infinity,
  2 ** 31,
  2 ** 53,
  1e308,
  1n,
  Symbol("s"),
  () => 1,
  {},
  [],
  [null],
  [NaN, {}],
  new Map(),
  new Date(NaN),
  Object.create(null),
  { length: -1 },
  { length: 1e9 },
  { toString: 1, valueOf: 1 },
  { constructor: { name: {} } },
  new DataView(new ArrayBuffer(8)),
  new ArrayBuffer(8),
];

/** Arrays of the right kind and of others, on buffers of every kind, of wrong lengths and values. */
export function arrays(good: Numbers): unknown[] {
  const Kind = good.constructor as new (x?: unknown) => typeof good;
  const { length, BYTES_PER_ELEMENT: width } = good;
  const shared = new Kind(new SharedArrayBuffer(length * width));
  const moving = new Kind(resizable(length * width));
  const filled = (x: number) => new Kind(length).fill(x);
  return [
    shared,
    moving,
    detached(new Kind(length)),
    new Kind(0),
    new Kind(length + 1),
    new Kind(Math.max(0, length - 1)),
    ...[NaN, Infinity, -1, -(2 ** 31), 2 ** 31 - 1, 127, 1e30].map(filled),
    new BigInt64Array(length),
    new Float64Array(length).fill(NaN),
    new Int16Array(length),
    Array.from(good),
  ];
}

export interface Case {
  /** Begins with the function, the class or one's own name for them. */
  name: string;
  /** Every field in turn is replaced by every hostile value. */
  good: Record<string, unknown>;
  // The fields are of any kind: that is the point.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  call: (fields: any) => unknown;
  /** Fields whose bad values are nobody's business: they are passed on as they are. */
  free?: string[];
}
