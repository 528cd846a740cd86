// computeInterferenceSync on tables of random counts, without posteriors and intervals, which the peer does not compute
// either; and with everything, beside the peer's bootstrap alone.
import { computeInterferenceSync } from "../attribution/interference.js";
import { type DenseAccuracy, type Interference, type Variant, variants } from "../attribution/types.js";
import { Random } from "../random.js";
import { clock, race, resultLine } from "./timing.js";
import type { Bench, BenchContext, ResultLine } from "./types.js";
import { requireClose, requireSameBits, wrong } from "./verify.js";

const samples = 50;

export function randomTable(questions: number): DenseAccuracy {
  const correct = {} as Record<Variant, Int32Array>;
  for (const variant of variants) {
    const random = new Random(6, `bench/${variant}`);
    correct[variant] = Int32Array.from({ length: questions }, () => random.integer(samples + 1));
  }
  return { samples, correct };
}

/** The signs of lambda23 in integers and the closed forms in doubles, question by question. */
export function verifyInterference(what: string, table: DenseAccuracy, result: Interference): void {
  const { correct } = table;
  const counts = { negative: 0, zero: 0, positive: 0 };
  const kept: number[] = [];
  let worst = 0;
  for (let q = 0; q < correct.base.length; q++) {
    const k = Object.fromEntries(variants.map((v) => [v, correct[v][q] as number])) as Record<Variant, number>;
    if (variants.every((v) => k[v] === 0)) continue;
    const right = (v: Variant): number => 2 * k[v] + 1;
    const missed = (v: Variant): number => 2 * (samples - k[v]) + 1;
    // At most 101^4: exact.
    const difference =
      right("unified") * right("base") * missed("tool") * missed("reas") -
      missed("unified") * missed("base") * right("tool") * right("reas");
    counts[difference < 0 ? "negative" : difference > 0 ? "positive" : "zero"]++;
    const z = (v: Variant): number => Math.log(right(v) / missed(v));
    const l23 = z("unified") - z("tool") - z("reas") + z("base");
    const l12 = z("tool") - z("hybridTool");
    const at = kept.push(q) - 1;
    worst = Math.max(
      worst,
      Math.abs(l23 - (result.lambda.l23[at] as number)),
      Math.abs(l12 - (result.lambda.l12[at] as number)),
    );
  }
  requireSameBits(`${what}: questions kept`, result.kept, kept);
  for (const sign of ["negative", "zero", "positive"] as const) {
    if (result.counts[sign] !== counts[sign])
      wrong(what, `Expected ${counts[sign]} questions of ${sign} lambda23 but received ${result.counts[sign]}`);
  }
  if (!(worst < 1e-12))
    wrong(what, `Expected the effects of the closed form within 1e-12 but the largest difference is ${worst}`);
  const mean = result.lambda.l23.reduce((sum, x) => sum + x, 0) / kept.length;
  requireClose(`${what}: mean of lambda23`, result.smoothedMean23.value, mean, 1e-6);
}

/** The intervals of a million questions are those of normal means and a normal share, to what a thousand draws leave open. */
export function verifyIntervals(what: string, result: Interference): void {
  const { lambda, smoothedMean23, interferenceShare } = result;
  const n = lambda.l23.length;
  const variance = lambda.l23.reduce((sum, x) => sum + (x - smoothedMean23.value) ** 2, 0) / n;
  const half = ({ low, high }: { low: number | null; high: number | null }): number =>
    ((high ?? NaN) - (low ?? NaN)) / 2;
  requireClose(`${what}: interval of the mean`, half(smoothedMean23), 1.96 * Math.sqrt(variance / n), 0.15);
  const p = interferenceShare.value;
  requireClose(`${what}: interval of the share`, half(interferenceShare), 1.96 * Math.sqrt((p * (1 - p)) / n), 0.01);
}

/** Points, posteriors under two priors and 1,000 draws of eight means, beside numpy's bootstrap of share, mean and median. */
async function* everything(context: BenchContext, questions: number, draws: number): AsyncGenerator<ResultLine> {
  const { machine, peer } = context;
  const bench = "interference";
  const name = `${questions} questions, ${draws} draws`;
  if (!context.wanted(name)) return;
  context.status(`${bench} ${name}`);
  const table = randomTable(questions);
  const first = computeInterferenceSync(table, { draws, model: false });
  verifyInterference(`${bench} ${name}`, table, first);
  verifyIntervals(`${bench} ${name}`, first);
  const request = { bench, questions, samples, calls: 1, draws };
  let asked = false;
  const best = await race(context.repeats.rounds, {
    engine: async () => {
      context.signal.throwIfAborted();
      return clock(context.repeats.runs, () =>
        Promise.resolve(computeInterferenceSync(table, { draws, model: false })),
      );
    },
    // Once: it takes most of a minute.
    peer: async () => {
      if (asked) return undefined;
      asked = true;
      return peer?.time(request, 1);
    },
  });
  // A draw of a question adds eight numbers to eight sums.
  const roofline = await machine.roofline([{ flops: questions * draws * 8, bytes: questions * 8 * 4 }]);
  yield resultLine({
    bench,
    name,
    unit: "questions/s",
    work: questions,
    seconds: best.engine as number,
    roofline,
    peer: peer?.describe(request, best.peer),
  });
}

/** A small table with all options at their defaults: intervals, posteriors, both fits of the model and its null. No peer has these. */
async function* defaults(context: BenchContext): AsyncGenerator<ResultLine> {
  const { machine, repeats } = context;
  const bench = "interference";
  const questions = 100;
  const name = `${questions} questions, all defaults`;
  if (!context.wanted(name)) return;
  context.status(`${bench} ${name}`);
  const table = randomTable(questions);
  const first = computeInterferenceSync(table);
  verifyInterference(`${bench} ${name}`, table, first);
  if (first.model === null) wrong(`${bench} ${name}`, "Expected a random-effects model but there is none");
  const calls = 20;
  const best = await race(repeats.rounds, {
    engine: async () => {
      context.signal.throwIfAborted();
      return clock(repeats.runs, async () => {
        for (let i = 0; i < calls; i++) computeInterferenceSync(table);
      });
    },
  });
  const roofline = await machine.roofline([{ flops: 0, bytes: questions * (6 * 4 + 6 * 8 + 4) }]);
  const seconds = (best.engine as number) / calls;
  yield resultLine({ bench, name, unit: "questions/s", work: questions, seconds, roofline, peer: undefined });
}

export const interference: Bench = async function* (context) {
  const bench = "interference";
  const { machine, peer, repeats } = context;
  for (const questions of [100, 10_000, 1_000_000]) {
    const name = `${questions} questions`;
    if (!context.wanted(name)) continue;
    context.status(`${bench} ${name}`);
    const table = randomTable(questions);
    const compute = (): Interference =>
      computeInterferenceSync(table, { posterior: false, intervals: false, model: false });
    verifyInterference(`${bench} ${name}`, table, compute());
    // A run of a small table repeats it: a tenth of a millisecond is too short for a clock.
    const calls = Math.max(1, 20_000 / questions);
    const request = { bench, questions, samples, calls };
    const best = await race(repeats.rounds, {
      engine: async () => {
        context.signal.throwIfAborted();
        return clock(repeats.runs, async () => {
          for (let i = 0; i < calls; i++) compute();
        });
      },
      peer: () => Promise.resolve(peer?.time(request, repeats.runs)),
    });
    // Six counts in, six effects and an index out; the arithmetic is small beside it.
    const roofline = await machine.roofline([{ flops: 0, bytes: questions * (6 * 4 + 6 * 8 + 4) }]);
    const seconds = (best.engine as number) / calls;
    yield resultLine({
      bench,
      name,
      unit: "questions/s",
      work: questions,
      seconds,
      roofline,
      peer: peer?.describe(request, best.peer),
    });
  }
  yield* everything(context, 1_000_000, 1000);
  yield* defaults(context);
};
