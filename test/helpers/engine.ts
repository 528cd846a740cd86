// Models, adapters and batches for tests of the engine: small, random, the same on every machine.
import { createHash } from "node:crypto";
import path from "node:path";
import { createAdapters, Random } from "rolegrad";
import type { Adapters, Model, PackedInput, Routes, Trainer, TrainingBatch, Trajectory } from "rolegrad";
import { root } from "./shared.js";

/** The checkpoints of test/fixtures/engine: of Qwen2 "tied" is bf16, "untied" f32 with a head of its own; "qwen3", "llama3". */
export const checkpoints = {
  tied: fixture("tied"),
  untied: fixture("untied"),
  qwen3: fixture("qwen3"),
  llama3: fixture("llama3"),
};

function fixture(name: string): string {
  return path.join(root, "test/fixtures/engine", name);
}

/** Standard normal, near enough for weights. */
function normal(random: Random): number {
  let sum = -6;
  for (let i = 0; i < 12; i++) sum += random.next();
  return sum;
}

/** So many of them, times `deviation`. */
export function normals(random: Random, count: number, deviation: number): Float32Array {
  return Float32Array.from({ length: count }, () => normal(random) * deviation);
}

/** Adapters whose B is random as well, so that they change every result. Rank 3 unless told. */
export function randomAdapters(
  model: Model,
  options: {
    roles: string[];
    routes?: Routes;
    rank?: number | Record<string, number>;
    seed?: number;
    targets?: string[];
  },
): Adapters {
  const { rank = 3, seed = 1 } = options;
  const adapters = createAdapters(model, { ...options, rank, alpha: typeof rank === "number" ? 2 * rank : 16 });
  for (const { name, targets } of adapters.list) {
    for (const module of modulesOf(model, targets)) {
      const { a, b } = adapters.get(name, module);
      adapters.set(name, module, { a, b: normals(new Random(seed, `b/${name}/${module}`), b.length, 0.1) });
    }
  }
  return adapters;
}

/** Names of the linears of a model, of all seven kinds or of some. */
export function modulesOf(model: Model, targets?: readonly string[]): string[] {
  const all = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
  const kinds = all.filter((kind) => targets?.includes(kind) ?? true);
  return Array.from({ length: model.config.layers }, (_, layer) =>
    kinds.map((kind) => `model.layers.${layer}.${all.indexOf(kind) < 4 ? "self_attn" : "mlp"}.${kind}`),
  ).flat();
}

/** One sequence of a packed batch. */
export interface Row {
  ids: ArrayLike<number>;
  roles: ArrayLike<number>;
}

export function pack(rows: readonly Row[]): Required<PackedInput> {
  const cuSeqlens = Int32Array.of(0, ...rows.map(() => 0));
  rows.forEach(({ ids }, s) => (cuSeqlens[s + 1] = (cuSeqlens[s] as number) + ids.length));
  return {
    inputIds: Int32Array.from(rows.flatMap(({ ids }) => Array.from(ids))),
    roles: Int8Array.from(rows.flatMap(({ roles }) => Array.from(roles))),
    cuSeqlens,
  };
}

/** A sequence of random ids whose roles, -1 .. roles - 1, change now and then. */
export function randomRow(random: Random, vocabulary: number, length: number, roles: number): Row {
  let role = random.integer(roles + 1) - 1;
  const ids: number[] = [];
  const own: number[] = [];
  for (let t = 0; t < length; t++) {
    if (random.chance(0.25)) role = random.integer(roles + 1) - 1;
    ids.push(random.integer(vocabulary));
    own.push(role);
  }
  return { ids, roles: own };
}

/** A trajectory made up of random tokens; its log-probabilities are near 0, so far off policy. */
export function randomTrajectory(random: Random, id: string, group: string, row: Row): Trajectory {
  const length = row.ids.length;
  return {
    id,
    group,
    question: group,
    ids: Int32Array.from(row.ids),
    roles: Int8Array.from(row.roles, (role) => Math.max(role, 0)),
    sampled: Uint8Array.from({ length }, (_, t) => (t > 1 && random.chance(0.8) ? 1 : 0)),
    logprobs: Float32Array.from({ length }, () => -4 - random.next()),
    temperature: 1,
    topP: 1,
    topK: 0,
    policyVersion: 0,
    rngKey: id,
    response: "",
    reward: random.integer(5),
    answer: null,
    calls: [],
    finish: "stop",
  };
}

/** Trajectories with the log-probabilities that the adapters give them: on policy. */
export async function onPolicy(model: Model, adapters: Adapters, trajectories: Trajectory[]): Promise<Trajectory[]> {
  const { logprobs } = await model.forward(pack(trajectories), { adapters });
  let at = 0;
  return trajectories.map((trajectory) => {
    const own = logprobs.slice(at, (at += trajectory.ids.length));
    return { ...trajectory, logprobs: own.map((x, t) => (trajectory.sampled[t] === 1 ? x : 0)) };
  });
}

/** Trajectories as one batch for accumulate(), with random advantages. */
export function trainingBatch(
  trajectories: Trajectory[],
): Required<Omit<TrainingBatch, "lossWeights" | "refLogprobs" | "behaviourLogprobs" | "keys" | "routing">> {
  const join = (pick: (x: Trajectory) => ArrayLike<number>) => trajectories.flatMap((x) => Array.from(pick(x)));
  return {
    ...pack(trajectories),
    lossMask: Uint8Array.from(join((x) => x.sampled)),
    advantages: Float64Array.from(trajectories, ({ reward }) => reward - 1.7),
    oldLogprobs: Float32Array.from(join((x) => x.logprobs)),
  };
}

/** A hash of arrays of any kind: two results are the same bit for bit where these are equal. */
export function bits(...arrays: ArrayBufferView[]): string {
  const hash = createHash("sha1");
  for (const { buffer, byteOffset, byteLength } of arrays) hash.update(new Uint8Array(buffer, byteOffset, byteLength));
  return hash.digest("hex");
}

/** Every A and B of every adapter. */
export function adapterBits(adapters: Adapters): string {
  const pairs = adapters.list.flatMap(({ name, targets }) =>
    modulesOf(adapters.model, targets).map((module) => adapters.get(name, module)),
  );
  return bits(...pairs.flatMap(({ a, b }) => [a, b]));
}

/** Every gradient in the trainer's buffers, by adapter. */
export function gradients(trainer: Trainer): Record<string, Float32Array> {
  const { adapters } = trainer;
  const list = adapters?.list ?? [];
  return Object.fromEntries(
    list.map(({ name, targets }) => {
      const parts = modulesOf(trainer.model, targets).flatMap((module) => {
        const { a, b } = trainer.gradients.get(name, module);
        return [...a, ...b];
      });
      return [name, Float32Array.from(parts)];
    }),
  );
}

/** Moments and step counts. */
export function momentBits(trainer: Trainer): string {
  const { steps, first, second } = trainer.native.state();
  return [steps.join(), bits(...first), bits(...second)].join(" ");
}
