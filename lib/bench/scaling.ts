// How time grows: with the threads of the machine, and with the tokens of a packed batch.
import type { Model } from "../model/model.js";
import { Trainer } from "../trainer/trainer.js";
import type { TrainingBatch } from "../trainer/types.js";
import { abortable } from "../arguments.js";
import { type SizeName, sizes } from "./checkpoint.js";
import { trainingFlops, weightBytes } from "./counts.js";
import { verifyLinear } from "./linear.js";
import { collectGarbage } from "./memory.js";
import { dartAdapters, fillAdapters, withModel } from "./model.js";
import { clock, race, resultLine } from "./timing.js";
import { learningRate, randomBatch, sequences, T } from "./train.js";
import type { Bench, BenchContext, ResultLine } from "./types.js";

const dtype = "float32";
/** Of the sequences in a packed batch. */
const longest = 1024;
const packed = [1, 4, 16, 32];

/** Random trajectories with the log-probabilities of the backbone, which sampled none of them. */
async function policyBatch(model: Model, B: number, length: number): Promise<TrainingBatch> {
  const batch = randomBatch(B, length, model.config.vocabSize);
  const { logprobs } = await model.forward(batch);
  return { ...batch, oldLogprobs: logprobs };
}

/** The same work with one thread and with all, in turns. */
async function speedup(
  context: BenchContext,
  outcome: { name: string; unit: ResultLine["unit"]; work: number; flops: number; bytes: number },
  time: () => Promise<ArrayLike<number>>,
): Promise<ResultLine> {
  const { native, machine, repeats } = context;
  const { name, unit, work, flops, bytes } = outcome;
  const withThreads = (n: number) => async () => {
    native.limitThreads(n);
    try {
      return await time();
    } finally {
      native.limitThreads(machine.line.threads);
    }
  };
  const best = await race(repeats.rounds, { engine: withThreads(machine.line.threads), one: withThreads(1) });
  const seconds = best.engine as number;
  const roofline = await machine.roofline([{ flops, bytes }]);
  return resultLine(
    { bench: "threads", name, unit, work, seconds, roofline },
    { speedup: (best.one as number) / seconds },
  );
}

async function linearSpeedup(context: BenchContext, name: string): Promise<ResultLine> {
  const { native, repeats, signal } = context;
  const [t, k, n] = [2048, 896, 9728];
  const linear = new native.LinearMeasurement({
    t,
    k,
    n,
    span: 64,
    rank: 8,
    roles: 2,
    bf16: false,
    precision: "exact",
  });
  try {
    await verifyLinear(`threads ${name}`, linear, signal);
    const flops = 2 * t * k * n;
    const outcome = { name, unit: "GFLOP/s" as const, work: flops / 1e9, flops, bytes: 4 * (k * n + t * (k + n)) };
    return await speedup(context, outcome, () => abortable(linear.time("plain", repeats.runs, repeats.least), signal));
  } finally {
    linear.close();
  }
}

async function* trainingSpeedup(context: BenchContext, size: SizeName, full: boolean): AsyncGenerator<ResultLine> {
  const { repeats, signal } = context;
  const B = sequences[size];
  const name = `${full ? "full-train-step" : "train-step"} ${size} ${B}x${T}`;
  if (!context.wanted(name)) return;
  const what = `threads ${name}`;
  yield* withModel(context, size, { dtype, rows: B * T, copies: full ? 6 : 1, what }, async function* (model) {
    const batch = await policyBatch(model, B, T);
    const adapters = full ? undefined : dartAdapters(model);
    if (adapters !== undefined) fillAdapters(adapters);
    const trainer = new Trainer(model, {
      ...(adapters === undefined ? { full: true, objective: { kind: "sft" } } : { adapters }),
      optimizer: { learningRate },
    });
    const flops = trainingFlops(sizes[size], B, T, full ? "full" : "adapters");
    const outcome = {
      name,
      unit: "tokens/s" as const,
      work: B * T,
      flops,
      bytes: 2 * weightBytes(sizes[size], dtype),
    };
    const step = async (): Promise<void> => {
      signal.throwIfAborted();
      await trainer.accumulate(batch);
      await trainer.apply({ learningRate });
    };
    await step(); // allocates
    yield await speedup(context, outcome, () => clock(repeats.runs, step));
  });
}

/** speedup: time with one thread over the time with all. */
export const threads: Bench = async function* (context) {
  if (context.machine.line.threads < 2) return context.remark("threads: skipped, there is one");
  const gemm = "gemm 2048x896x9728 f32";
  if (context.wanted(gemm)) {
    context.status(`threads ${gemm}`);
    yield await linearSpeedup(context, gemm);
  }
  for (const size of context.sizes)
    if (size !== "qwen2.5-0.5b") for (const full of [false, true]) yield* trainingSpeedup(context, size, full);
};

/** Steps on 1, 4, 16 and 32 sequences of 1,024 tokens in one micro-batch; growth: of the time for a token. */
export const packedTokens: Bench = async function* (context) {
  const bench = "packed-tokens";
  const { machine, repeats, quick, signal } = context;
  for (const size of context.sizes) {
    const counts = quick ? packed.slice(0, 2) : packed;
    const name = (B: number): string => `${size} ${B}x${longest}`;
    if (size !== "tiny" || !counts.some((B) => context.wanted(name(B)))) continue;
    const rows = Math.max(...counts) * longest;
    yield* withModel(context, size, { dtype, rows, what: `${bench} ${size}` }, async function* (model) {
      const adapters = dartAdapters(model);
      fillAdapters(adapters);
      const trainer = new Trainer(model, { adapters, optimizer: { learningRate } });
      const batches: TrainingBatch[] = [];
      for (const B of counts) batches.push(await policyBatch(model, B, longest));
      await trainer.accumulate(batches.at(-1) as TrainingBatch); // allocates
      trainer.gradients.zero();
      const times = Object.fromEntries(
        counts.map((B, i) => [
          String(B),
          () =>
            clock(B > 4 ? 1 : repeats.runs, async () => {
              signal.throwIfAborted();
              await trainer.accumulate(batches[i] as TrainingBatch);
              await trainer.apply({ learningRate });
            }),
        ]),
      );
      const best = await race(repeats.rounds, times);
      const each = (B: number): number => (best[String(B)] as number) / B;
      for (const B of counts.filter((B) => context.wanted(name(B)))) {
        const seconds = best[String(B)] as number;
        const flops = trainingFlops(sizes[size], B, longest, "adapters");
        const roofline = await machine.roofline([{ flops, bytes: 2 * weightBytes(sizes[size], dtype) }]);
        const outcome = { bench, name: name(B), unit: "tokens/s", work: B * longest, seconds, roofline } as const;
        yield resultLine(outcome, { growth: each(B) / each(counts[0] as number) });
      }
      await collectGarbage();
    });
  }
};
