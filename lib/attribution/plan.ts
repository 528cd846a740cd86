// How large a study has to be, from the variance components of lambda23.
import { fail } from "../errors.js";
import { fewestQuestions, fewestSamples } from "./limits.js";
import { closedVariance, fittedVariance, informativeShare, simulated, type Spread } from "./plan-variance.js";
import { studentQuantile } from "./student.js";
import { variants } from "./types.js";
import { integerFrom, numberFrom, optionsObject, show } from "./values.js";

/** What questions are like, in logits; base and effects are normal. */
export interface QuestionSpread {
  /** Mean and standard deviation of the base model's logit of accuracy. Default -0.5 and 2.5. */
  baseMean?: number | undefined;
  baseSd?: number | undefined;
  /** What either training gains, and its standard deviation. Default 1 and 0.5. */
  gain?: number | undefined;
  gainSd?: number | undefined;
  /** Standard deviation of lambda23 over the questions. Default 0.5. */
  lambda23Sd?: number | undefined;
  /** Standard deviation of what one training seed changes in a question's lambda23. Default 0. */
  seedByQuestionSd?: number | undefined;
}

/** Options of {@link planSamples}. */
export interface SamplePlanOptions {
  /** The mean of lambda23 that the study shall see, in logits; not 0. */
  effect: number;
  /** The probability of seeing it: that the interval of mean23 leaves out 0. 0.05 to 0.99. */
  power: number;
  /** Of the interval. Default 0.95. */
  level?: number | undefined;
  /** Fixed numbers; those left out are chosen. Samples: 20 or more, since mean23 has no interval below. */
  questions?: number | undefined;
  samples?: number | undefined;
  seeds?: number | undefined;
  /** Standard deviation of what a training seed adds to the mean of lambda23. Default 0: the study speaks of its checkpoints. */
  seedSd?: number | undefined;
  between?: QuestionSpread | undefined;
  /** Of the simulated questions. Default 0. */
  seed?: number | undefined;
}

/** A study's size and what it sees. */
export interface SamplePlan {
  questions: number;
  samples: number;
  seeds: number;
  /** questions x samples x seeds x 6 variants. */
  answers: number;
  /** The probability that the interval of mean23 leaves out 0. */
  power: number;
  /** Of mean23, over questions, samples and seeds. */
  standardError: number;
  /** Its square is the sum of these: between questions, of the binomial counts, between seeds. */
  variance: { question: number; binomial: number; seed: number };
}

const sampleChoices = [20, 30, 50, 100, 200];
/** Questions that the fit of the 14 parameters costs, about: what simulated studies of 40 to 100 questions lose. */
const fitted = 7;
const mostQuestions = 1_000_000;
const mostSeeds = 50;

/**
 * Questions, samples and seeds that a study needs to see a mean lambda23 of `effect` with probability `power`; of several
 * sizes that do, the one with the fewest answers. With one seed the interval is that of the random-effects model over
 * questions; with several it is the t interval over seeds.
 *
 * A table with fewer than 30 questions off floor and ceiling has no interval: the power counts how often that happens.
 *
 * The variance of mean23 is question / Q + (seed x question + binomial(N)) / (Q S) + seed / S. What N samples tell of a
 * question, floors and ceilings among them, is searched with the model's Fisher information and found, for the numbers of samples that
 * come out best, by fitting the model to a simulated table of 1500 questions (three where that is far from the first guess).
 *
 * Throws ERR_INVALID_ARGUMENT, ERR_PLAN where no size within a million questions and 50 seeds will do, or so few samples
 * leave the model nothing to fit (it does not converge on simulated tables).
 *
 * @example
 * const plan = planSamples({ effect: -0.3, power: 0.8, samples: 50 });
 * console.log(plan.questions, plan.answers);
 */
export function planSamples(options: SamplePlanOptions): SamplePlan {
  optionsObject(options, "options");
  const number = (name: string, value: unknown, low: number, high: number): number =>
    numberFrom(low, high, value, `options.${name}`);
  const whole = (name: "questions" | "samples" | "seeds", low: number, high: number): number | undefined =>
    options[name] === undefined ? undefined : integerFrom(low, high, options[name], `options.${name}`);
  const effect = Math.abs(number("effect", options.effect, -10, 10));
  if (!(effect >= 0.001))
    fail(
      "ERR_INVALID_ARGUMENT",
      `Expected an effect of 0.001 or more for options.effect but received ${show(options.effect)}`,
    );
  const power = number("power", options.power, 0.05, 0.99);
  const level = number("level", options.level ?? 0.95, 0.5, 0.999);
  const seedSd = number("seedSd", options.seedSd ?? 0, 0, 10);
  const seed = integerFrom(0, Number.MAX_SAFE_INTEGER, options.seed ?? 0, "options.seed");
  const questions = whole("questions", 30, mostQuestions);
  const samples = whole("samples", fewestSamples, 10_000);
  const seeds = whole("seeds", 1, mostSeeds);
  optionsObject(options.between ?? {}, "options.between");
  const given = options.between ?? {};
  const between: Spread = {
    baseMean: number("between.baseMean", given.baseMean ?? -0.5, -10, 10),
    baseSd: number("between.baseSd", given.baseSd ?? 2.5, 0, 10),
    gain: number("between.gain", given.gain ?? 1, -10, 10),
    gainSd: number("between.gainSd", given.gainSd ?? 0.5, 0, 10),
    lambda23Sd: number("between.lambda23Sd", given.lambda23Sd ?? 0.5, 0, 10),
    seedByQuestionSd: number("between.seedByQuestionSd", given.seedByQuestionSd ?? 0, 0, 10),
  };

  const towards = Math.sign(options.effect) * effect;
  /** The plan with the fewest answers of studies of n samples that leave `perQuestion` of a question open; null where none will do. */
  const planOf = (n: number, perQuestion: number): SamplePlan | null => {
    let best: SamplePlan | null = null;
    const informative = informativeShare(n, towards, between, seed);
    const own = between.seedByQuestionSd ** 2 + perQuestion;
    const sizes = seeds === undefined ? range(seedSd > 0 ? 2 : 1, seedSd > 0 ? mostSeeds : 1) : [seeds];
    for (const s of sizes) {
      const at = (q: number): SamplePlan => {
        const variance = {
          question: between.lambda23Sd ** 2 / q,
          binomial: own / ((q - fitted) * s),
          seed: seedSd ** 2 / s,
        };
        const total = variance.question + variance.binomial + variance.seed;
        const seen = powerOf(effect, total, total - variance.question, level, s, q) * fitChance(q, informative);
        return {
          questions: q,
          samples: n,
          seeds: s,
          answers: q * n * s * variants.length,
          power: seen,
          standardError: Math.sqrt(total),
          variance,
        };
      };
      const plan = questions === undefined ? fewest(at, power) : at(questions);
      if (plan !== null && plan.power >= power && (best === null || plan.answers < best.answers)) best = plan;
    }
    return best;
  };

  // The closed form finds the number of samples, a fit says what it leaves open, and how far off the closed form is elsewhere.
  const sizes = (samples === undefined ? sampleChoices : [samples]).map((n): Size => {
    const closed = closedVariance(n, towards, between, seed);
    return { n, closed, known: null, plan: closed === null ? null : planOf(n, closed), refused: false };
  });
  let best: SamplePlan | null = null;
  for (;;) {
    const open = sizes.filter(({ refused }) => !refused);
    const found = open.filter(({ plan }) => plan !== null);
    const next =
      found.length > 0
        ? found.reduce((a, b) => ((b.plan as SamplePlan).answers < (a.plan as SamplePlan).answers ? b : a))
        : open.at(-1);
    if (next === undefined) break;
    if (next.known !== null) {
      best = next.plan;
      break;
    }
    next.known = fittedVariance(next.n, towards, between, seed, next.closed);
    next.refused = next.known === null;
    if (next.known === null) continue;
    const ratio = next.closed === null ? 1 : next.known / next.closed;
    for (const size of open) {
      const variance = size.known ?? (size.closed === null ? null : size.closed * ratio);
      if (variance !== null) size.plan = planOf(size.n, variance);
    }
  }
  const fits = sizes.some(({ known }) => known !== null);
  if (!fits)
    fail(
      "ERR_PLAN",
      `Expected counts that the random-effects model can be fitted to but it does not converge on ${simulated} simulated ` +
        `questions of ${samples ?? sampleChoices.join(", ")} samples. Take more samples, or questions nearer to one half`,
    );
  if (best === null)
    fail(
      "ERR_PLAN",
      `Expected a study that sees an effect of ${effect} with probability ${power} but none does ` +
        `${questions === undefined ? `with up to ${mostQuestions} questions` : `with ${questions} questions`} and ` +
        `${seeds === undefined ? `up to ${seedSd > 0 ? mostSeeds : 1}` : seeds} training seeds. Allow more of either`,
    );
  return best;
}

/** A number of samples that is tried: what it leaves open by the closed form and by a fit, and the plan by the better of them. */
interface Size {
  n: number;
  closed: number | null;
  known: number | null;
  plan: SamplePlan | null;
  /** The model does not converge on its tables. */
  refused: boolean;
}

/** The probability that of q questions, of which each is off floor and ceiling with probability `share`, enough are so for the model. */
function fitChance(q: number, share: number): number {
  if (share >= 1) return 1;
  let term = q * Math.log1p(-share);
  let below = 0;
  for (let k = 0; k < Math.min(fewestQuestions, q + 1); k++) {
    below += Math.exp(term);
    term += Math.log((q - k) / (k + 1)) + Math.log(share / (1 - share));
  }
  return Math.max(0, 1 - below);
}

const range = (low: number, high: number): number[] => Array.from({ length: high - low + 1 }, (_, i) => low + i);

/** The smallest plan with this power, by bisection over the questions; null where there is none. */
function fewest(at: (questions: number) => SamplePlan, power: number): SamplePlan | null {
  if (at(mostQuestions).power < power) return null;
  let low = 29;
  let high = mostQuestions;
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (at(middle).power >= power) high = middle;
    else low = middle;
  }
  return at(high);
}

const parts = 400;
/** Middles of `parts` equal parts of chi^2 over its degrees of freedom, by degrees. */
const spreads = new Map<number, Float64Array>();

function spreadOf(degrees: number): Float64Array {
  let found = spreads.get(degrees);
  if (found === undefined) {
    found = Float64Array.from({ length: parts }, (_, i) => {
      const p = (i + 0.5) / parts;
      // Wilson and Hilferty's cube; one degree of freedom is the square of a normal number.
      const cube = 1 - 2 / (9 * degrees) + normalQuantile(p) * Math.sqrt(2 / (9 * degrees));
      return degrees === 1 ? normalQuantile((1 + p) / 2) ** 2 : Math.max(0, cube) ** 3;
    });
    spreads.set(degrees, found);
  }
  return found;
}

/**
 * P(the interval leaves out 0, on the effect's side): the estimate is N(effect, total). One seed: the interval's error is
 * known. Several: it is estimated from the seeds, s^2 = seen chi^2 / (S - 1), in 400 equal parts of its distribution.
 */
function powerOf(effect: number, total: number, seen: number, level: number, seeds: number, questions: number): number {
  const sd = Math.sqrt(total);
  if (seeds === 1) return normalBelow(effect / sd - quantile((1 + level) / 2, Math.ceil(questions / 2)));
  const degrees = seeds - 1;
  const t = studentQuantile((1 + level) / 2, degrees);
  let sum = 0;
  for (const chi2 of spreadOf(degrees)) sum += normalBelow((effect - t * Math.sqrt(seen * chi2)) / sd);
  return sum / parts;
}

const quantile = (p: number, degrees: number): number => studentQuantile(p, Math.min(degrees, 20_000));

/** The quantile of the standard normal distribution to 1e-7, by bisection of {@link normalBelow}. */
function normalQuantile(p: number): number {
  let low = -9;
  let high = 9;
  for (let i = 0; i < 40; i++) {
    const middle = (low + high) / 2;
    if (normalBelow(middle) < p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** P(Z <= z), to 1e-7 (Abramowitz and Stegun 26.2.17). */
function normalBelow(z: number): number {
  const x = Math.abs(z);
  const k = 1 / (1 + 0.2316419 * x);
  const series = k * (0.31938153 + k * (-0.356563782 + k * (1.781477937 + k * (-1.821255978 + k * 1.330274429))));
  const tail = (Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI)) * series;
  return z < 0 ? tail : 1 - tail;
}
