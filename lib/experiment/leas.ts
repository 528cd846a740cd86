import { computeInterferenceSync } from "../attribution/interference.js";
import { type AccuracyRow, type Estimate, type Interference, type Variant, variants } from "../attribution/types.js";
import { RolegradError } from "../errors.js";
import { LEAS_ARMS } from "./arms.js";
import type { CountsFile } from "./directory.js";
import { expandPlan, type Cell, type DialectSetting, type ExperimentPlan } from "./plan.js";

/** The attribution of one training of each variant. */
export interface LeasResult {
  balance: number;
  dialect: DialectSetting | null;
  rate: number | "tuned";
  /** Of the trainings; null: all seeds of the study together. */
  seed: number | null;
  questions: number;
  /** Answers a question, by variant: a setting that is attributed beyond the study's own may have fewer of unified. */
  samples: Record<Variant, number>;
  /** Accuracy by variant. */
  accuracy: Record<Variant, number>;
  kept: number;
  dropped: number;
  saturated: number;
  /** Signs of lambda23; null of all seeds together, whose questions have a sign in each. */
  counts: Interference["counts"] | null;
  /** Share of lambda23 < 0, with its null band where it is computed. */
  share: Interference["interferenceShare"];
  trueShare: Interference["trueShare"];
  mean23: Estimate;
  median23: Estimate;
  /** Under additive effects alone. */
  median23Null: Estimate | null;
  /** Of the sign test and of Wilcoxon's at the null of additive effects; null where they are not computed or nothing is inferred. */
  pValues: { sign: number; wilcoxon: number } | null;
  contrasts: Interference["contrasts"];
  /** Means over the kept questions, in logits, and shares below 0 (of several seeds: the mean of their shares). */
  effects: Record<"l2" | "l3" | "l12" | "l13" | "l23", { mean: Estimate; negative: number }>;
  /** Share of lambda23 < 0 by the hybrids' accuracy, which lambda23 does not contain. */
  byAccuracy: { from: number; to: number; questions: number; negative: number }[];
  warnings: string[];
}

const EDGES = [0, 1 / 3, 2 / 3, 1];

/** One result for each setting and seed that has all six, and one of all seeds where there are several. */
export function leasOf(plan: ExperimentPlan, counts: ReadonlyMap<string, CountsFile>): LeasResult[] {
  const cells = expandPlan(plan).filter(({ id }) => counts.has(id));
  const settings = new Map<string, Pick<Cell, "balance" | "dialect" | "rate">>();
  for (const { arm, balance, dialect, rate } of cells)
    if (arm === LEAS_ARMS.unified) settings.set(JSON.stringify([balance, dialect, rate]), { balance, dialect, rate });
  const out: LeasResult[] = [];
  const infer = plan.stamp === undefined;
  for (const setting of settings.values()) {
    const tables = new Map<number, Record<Variant, CountsFile>>();
    for (const seed of new Set(cells.map((cell) => cell.seed))) {
      const table = tableOf(cells, counts, setting, seed);
      if (table !== undefined) tables.set(seed, table);
    }
    for (const [seed, table] of tables) out.push(...attempt(() => resultOf(setting, seed, [table], infer)));
    if (tables.size > 1) out.push(...attempt(() => resultOf(setting, null, [...tables.values()], infer)));
  }
  return out;
}

/** The six cells of a setting and seed. What a role's training alone makes has one setting of the balance. */
function tableOf(
  cells: readonly Cell[],
  counts: ReadonlyMap<string, CountsFile>,
  { balance, dialect, rate }: Pick<Cell, "balance" | "dialect" | "rate">,
  seed: number,
): Record<Variant, CountsFile> | undefined {
  const found = variants.map((variant) => {
    const arm = LEAS_ARMS[variant];
    const wanted = arm === LEAS_ARMS.unified ? balance : 1;
    const cell = cells.find(
      (own) =>
        own.arm === arm &&
        own.seed === seed &&
        own.dialect === dialect &&
        own.balance === wanted &&
        (own.rate === rate || variant === "base"),
    );
    return [variant, cell === undefined ? undefined : counts.get(cell.id)] as const;
  });
  if (found.some(([, own]) => own === undefined)) return undefined;
  return Object.fromEntries(found) as Record<Variant, CountsFile>;
}

/** Nothing where no variant ever answers. */
function attempt(make: () => LeasResult): LeasResult[] {
  try {
    return [make()];
  } catch (error) {
    if (error instanceof RolegradError && error.code === "ERR_TABLE_ALL_DROPPED") return [];
    throw error;
  }
}

function resultOf(
  { balance, dialect, rate }: Pick<Cell, "balance" | "dialect" | "rate">,
  seed: number | null,
  tables: readonly Record<Variant, CountsFile>[],
  infer: boolean,
): LeasResult {
  const rows: AccuracyRow[] = tables.flatMap((table) =>
    variants.flatMap((variant) => {
      const { questions, correct, samples, seed: own } = table[variant];
      return questions.map((id, q) => ({
        variant,
        id,
        correct: correct[q] as number,
        samples,
        ...(seed === null && { seed: own }),
      }));
    }),
  );
  const found = computeInterferenceSync({ rows }, { intervals: infer });
  // A smoke run has no intervals; the null's band is no statement about the run.
  const shown = ({ value, low, high, level }: Estimate): Estimate =>
    infer ? { value, low, high, level } : { value, low: null, high: null, level };
  const [first] = tables as [Record<Variant, CountsFile>];
  const accuracy = variants.map((variant) => {
    const shares = tables.map(({ [variant]: { correct, samples } }) => mean(correct) / samples);
    return [variant, mean(shares)];
  });
  const of = (name: keyof Interference["lambda"]): { mean: Estimate; negative: number } => {
    const shares = (found.seeds?.results ?? [found]).map(({ lambda: { [name]: list } }) => {
      return list.filter((value) => value < 0).length / list.length;
    });
    return { mean: shown(found.means[name]), negative: mean(shares) };
  };
  return {
    balance,
    dialect,
    rate,
    seed,
    questions: first.base.questions.length,
    samples: Object.fromEntries(variants.map((variant) => [variant, first[variant].samples])) as Record<
      Variant,
      number
    >,
    accuracy: Object.fromEntries(accuracy) as Record<Variant, number>,
    kept: found.kept.length,
    dropped: found.dropped.length,
    saturated: found.saturated.length,
    counts: seed === null ? null : found.counts,
    share: {
      ...found.interferenceShare,
      ...shown(found.interferenceShare),
      excess: found.interferenceShare.excess && shown(found.interferenceShare.excess),
      unsaturated: found.interferenceShare.unsaturated && shown(found.interferenceShare.unsaturated),
    },
    trueShare: found.trueShare && shown(found.trueShare),
    mean23: shown(found.mean23),
    median23: shown(found.median23),
    median23Null: found.median23Null,
    pValues:
      infer && found.calibratedTests !== null
        ? { sign: found.calibratedTests.sign.pValue, wilcoxon: found.calibratedTests.wilcoxon.pValue }
        : null,
    contrasts: { additive: shown(found.contrasts.additive), overBest: shown(found.contrasts.overBest) },
    effects: { l2: of("l2"), l3: of("l3"), l12: of("l12"), l13: of("l13"), l23: of("l23") },
    byAccuracy: seed === null ? [] : binsOf(first, found),
    warnings: found.warnings,
  };
}

function binsOf(table: Record<Variant, CountsFile>, { kept, lambda }: Interference): LeasResult["byAccuracy"] {
  const accuracy = [...kept].map((q) => {
    const { hybridTool, hybridReas } = table;
    return ((hybridTool.correct[q] ?? 0) / hybridTool.samples + (hybridReas.correct[q] ?? 0) / hybridReas.samples) / 2;
  });
  return EDGES.slice(0, -1).map((from, i) => {
    const to = EDGES[i + 1] as number;
    const inside = accuracy.flatMap((own, k) =>
      own >= from && (own < to || to === 1) ? [lambda.l23[k] as number] : [],
    );
    const negative = inside.filter((value) => value < 0).length;
    return { from, to, questions: inside.length, negative };
  });
}

function mean(list: ArrayLike<number>): number {
  return Array.from(list).reduce((sum, own) => sum + own, 0) / list.length;
}
