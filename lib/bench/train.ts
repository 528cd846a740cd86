// One optimizer step on random trajectories: DART (adapters of two roles on a frozen backbone), and every parameter.
import type { Adapters } from "../adapters/adapters.js";
import { modulesOf, TARGETS } from "../adapters/modules.js";
import type { Model } from "../model/model.js";
import { Random } from "../random.js";
import { Trainer } from "../trainer/trainer.js";
import type { AccumulateResult, TrainingBatch } from "../trainer/types.js";
import { type SizeName, sizes } from "./checkpoint.js";
import { trainingFlops, weightBytes } from "./counts.js";
import { collectGarbage, peakRssMiB, resetPeak } from "./memory.js";
import { dartAdapters, type Dtype, dtypesOf, fillAdapters, peerSize, rank, sizeLabel, withModel } from "./model.js";
import { clock, race, resultLine } from "./timing.js";
import type { Bench, BenchContext, ResultLine } from "./types.js";
import { requireClose, requireSameBits, wrong } from "./verify.js";

export const T = 256;
const span = 64;
export const sequences: Record<SizeName, number> = { tiny: 16, small: 8, "qwen2.5-0.5b": 1 };
export const learningRate = 1e-5;
/** Of the step that is checked: well above f32's rounding, well below the curvature. */
const checkedChange = 2e-3;

/** B sequences of random tokens, roles in spans of 64 positions, every target sampled. */
export function randomBatch(B: number, length: number, vocabulary: number): TrainingBatch & { roles: Int8Array } {
  const random = new Random(3, "bench/batch");
  return {
    inputIds: Int32Array.from({ length: B * length }, () => random.integer(vocabulary)),
    cuSeqlens: Int32Array.from({ length: B + 1 }, (_, s) => s * length),
    roles: Int8Array.from({ length: B * length }, (_, i) => Math.floor((i % length) / span) % 2),
    lossMask: Uint8Array.from({ length: B * length }, (_, i) => (i % length === 0 ? 0 : 1)),
    advantages: Float64Array.from({ length: B }, () => 2 * random.next() - 1),
  };
}

/** Sum of |g| |c g| / (|c g| + 1e-8), c the clipping factor: what AdamW's first step takes off the loss, for each unit of its rate. */
function firstStepGain(gradient: Float32Array, clip: number): number {
  let gain = 0;
  for (const g of gradient) {
    const clipped = Math.abs(g) * clip;
    gain += (Math.abs(g) * clipped) / (clipped + 1e-8);
  }
  return gain;
}

/** The gradient and the step together: the loss after AdamW's first step is what the gradient foretells, to first order. */
async function verifyStep(
  what: string,
  trainer: Trainer,
  batch: TrainingBatch,
  before: AccumulateResult,
  gradients: () => Iterable<{ norm: number; values: Float32Array }>,
): Promise<void> {
  let gain = 0;
  for (const { norm, values } of gradients()) gain += firstStepGain(values, Math.min(1, 1 / (norm + 1e-6)));
  if (!(gain > 0)) wrong(what, `Expected a gradient that is not zero but received ${gain}`);
  await trainer.apply({ learningRate: checkedChange / gain });
  const after = await trainer.accumulate(batch);
  trainer.gradients.zero();
  requireClose(`${what}: change of the loss by the first step`, after.loss - before.loss, -checkedChange, 0.05);
}

/** Adapters off and B = 0 are the backbone; on policy every ratio is 1; the gradient foretells the step. Ends with adapters that matter. */
async function verifyAdapters(
  what: string,
  model: Model,
  adapters: Adapters,
  trainer: Trainer,
  batch: TrainingBatch & { roles: Int8Array },
): Promise<void> {
  const { inputIds, cuSeqlens, roles, lossMask, advantages } = batch;
  const backbone = await model.forward({ inputIds, cuSeqlens });
  const untrained = await model.forward({ inputIds, cuSeqlens, roles }, { adapters });
  requireSameBits(`${what}: adapters of B = 0 against the backbone`, untrained.logprobs, backbone.logprobs);
  fillAdapters(adapters);
  const { logprobs } = await model.forward({ inputIds, cuSeqlens, roles }, { adapters });
  batch.oldLogprobs = logprobs;
  const result = await trainer.accumulate(batch);
  if (!Number.isFinite(result.loss)) wrong(what, `Expected a finite loss but received ${result.loss}`);
  requireSameBits(
    `${what}: the trainer's log-probabilities against those of a forward pass`,
    result.logprobs,
    logprobs,
  );
  // Ratio 1 exactly: the surrogate is -A.
  const expected = Float32Array.from(lossMask, (on, t) =>
    on === 0 ? 0 : -(advantages?.[Math.floor(t / T)] as number),
  );
  requireSameBits(`${what}: the loss of a token on policy against -A`, result.perTokenLoss, expected);
  await verifyStep(what, trainer, batch, result, function* () {
    const norms = trainer.gradients.norms();
    for (const name of adapters.names) {
      const norm = norms[name] as number;
      for (const module of modulesOf(model.config, TARGETS)) {
        const { a, b } = trainer.gradients.get(name, module);
        yield { norm, values: a };
        yield { norm, values: b };
      }
    }
  });
}

/** Log-probabilities are those of a forward pass; the gradients of neighbours agree on scalings; the gradient foretells the step. */
async function verifyFull(what: string, model: Model, trainer: Trainer, batch: TrainingBatch): Promise<void> {
  const { inputIds, cuSeqlens, lossMask } = batch;
  const { logprobs } = await model.forward({ inputIds, cuSeqlens });
  const result = await trainer.accumulate(batch);
  requireSameBits(
    `${what}: the trainer's log-probabilities against those of a forward pass`,
    result.logprobs,
    logprobs,
  );
  const targets = lossMask.reduce((sum, on) => sum + on, 0);
  const mean = logprobs.reduce((sum, x) => sum - x, 0) / targets;
  requireClose(`${what}: loss against the mean of -log p`, result.loss, mean, 1e-9);
  // y = down(silu(gate x) * up x), x = norm * w: scaling up or down is the same, and so is scaling w, or gate and up together.
  const along = (parameter: string): number => {
    const name = `model.layers.${model.config.layers - 1}.${parameter}.weight`;
    const value = trainer.parameter(name);
    return trainer.gradients.get(name).reduce((sum, g, i) => sum + g * (value[i] as number), 0);
  };
  const [gate, up, down] = [along("mlp.gate_proj"), along("mlp.up_proj"), along("mlp.down_proj")];
  requireClose(`${what}: gradient along down_proj against that along up_proj`, down, up, 1e-3);
  requireClose(
    `${what}: gradient along a norm against those along its readers`,
    along("post_attention_layernorm"),
    gate + up,
    1e-3,
  );
  await verifyStep(what, trainer, batch, result, function* () {
    const norm = trainer.gradients.norms()["full"] as number;
    for (const { name } of trainer.parameters()) yield { norm, values: trainer.gradients.get(name) };
  });
}

/** Steps of the largest take seconds. */
function repeatsOf(
  { quick, repeats: { rounds, runs } }: BenchContext,
  size: SizeName,
): { rounds: number; runs: number } {
  return size === "qwen2.5-0.5b" ? { rounds: Math.min(2, rounds), runs: 2 } : { rounds, runs: quick ? 2 : runs };
}

/** accumulate() and apply(), `runs` times. */
function timeRuns({ signal }: BenchContext, trainer: Trainer, batch: TrainingBatch, runs: number): Promise<number[]> {
  return clock(runs, async () => {
    signal.throwIfAborted();
    await trainer.accumulate(batch);
    await trainer.apply({ learningRate });
  });
}

/** Time of a step that stops gradients between roles over that of one that lets them flow. */
async function stopOverFlow(context: BenchContext, { trainer: flow, batch, size }: Steps): Promise<number> {
  const { rounds, runs } = repeatsOf(context, size);
  const adapters = flow.adapters as Adapters;
  const stop = new Trainer(flow.model, { adapters, crossRole: "stop", optimizer: { learningRate } });
  await stop.accumulate(batch);
  stop.gradients.zero();
  const best = await race(rounds, {
    flow: () => timeRuns(context, flow, batch, runs),
    stop: () => timeRuns(context, stop, batch, runs),
  });
  return (best.stop as number) / (best.flow as number);
}

/** The time of accumulate() and apply() beside the peer's, and the line of the case. */
async function timeSteps(
  context: BenchContext,
  { bench, name, size, dtype, trainer, batch }: Steps,
): Promise<ResultLine> {
  const { machine, peer } = context;
  const s = sizes[size];
  const B = sequences[size];
  const { rounds, runs } = repeatsOf(context, size);
  const request = { bench, ...peerSize(s), B, T, span, rank };
  await collectGarbage();
  resetPeak();
  const best = await race(rounds, {
    engine: () => timeRuns(context, trainer, batch, runs),
    peer: () => Promise.resolve(peer?.time(request, runs)),
  });
  // A weight is read once forward and once backward.
  const flops = trainingFlops(s, B, T, bench === "train-step" ? "adapters" : "full");
  const roofline = await machine.roofline([{ flops, bytes: 2 * weightBytes(s, dtype) }]);
  const seconds = best.engine as number;
  const outcome = { bench, name, unit: "tokens/s" as const, work: B * T, seconds, roofline };
  return resultLine({ ...outcome, peer: peer?.describe(request, best.peer) }, { peakRssMiB: peakRssMiB() });
}

interface Steps {
  bench: "train-step" | "full-train-step";
  name: string;
  size: SizeName;
  dtype: Dtype;
  trainer: Trainer;
  batch: TrainingBatch;
}

export const trainStep: Bench = async function* (context) {
  const bench = "train-step";
  for (const size of context.sizes) {
    for (const dtype of dtypesOf(size, context.precision)) {
      const B = sequences[size];
      const name = `${sizeLabel(size, dtype)} ${B}x${T}`;
      if (!context.wanted(name)) continue;
      const what = `${bench} ${name}`;
      yield* withModel(context, size, { dtype, rows: B * T, what }, async function* (model) {
        const batch = randomBatch(B, T, sizes[size].vocabulary);
        const adapters = dartAdapters(model);
        const trainer = new Trainer(model, { adapters, optimizer: { learningRate } });
        await verifyAdapters(what, model, adapters, trainer, batch);
        const steps: Steps = { bench, name, size, dtype, trainer, batch };
        const line = await timeSteps(context, steps); // before there is a second trainer: it measures memory
        yield { ...line, stop: await stopOverFlow(context, steps) };
      });
    }
  }
};

export const fullTrainStep: Bench = async function* (context) {
  const bench = "full-train-step";
  const dtype = "float32";
  for (const size of context.sizes) {
    const B = sequences[size];
    const name = `${size} ${B}x${T}`;
    if (size === "qwen2.5-0.5b" || !context.wanted(name)) continue; // 8 GB of masters, moments and f64 gradients
    const what = `${bench} ${name}`;
    yield* withModel(context, size, { dtype, rows: B * T, copies: 6, what }, async function* (model) {
      const batch = randomBatch(B, T, sizes[size].vocabulary);
      const trainer = new Trainer(model, { full: true, objective: { kind: "sft" }, optimizer: { learningRate } });
      await verifyFull(what, model, trainer, batch);
      yield await timeSteps(context, { bench, name, size, dtype, trainer, batch });
    });
  }
};
