import { ARMS } from "./arms.js";

/** d of the dialect; "aligned": d = 1 where answers must be marked too, so that both roles want the same. */
export type DialectSetting = number | "aligned";

/** Arms, knobs and seeds that are run together for one comparison. */
export interface Study {
  name: string;
  /** What it is for. */
  about: string;
  arms: readonly string[];
  seeds: readonly number[];
  /** Learning rate of every arm; "tuned": the arm's own, from the sweep. */
  rate: number | "tuned";
  /** w, by which the loss of tool tokens is scaled. @default [1] */
  balance?: readonly number[];
  /** d: the search wants marked queries (1), plain ones (-1), or takes both (0); or "aligned". @default the world without it */
  dialect?: readonly DialectSetting[];
  /** Optimizer steps; studies of one rate have the same, and tuned ones the plan's. @default the plan's */
  steps?: number;
  /** Answers a question. */
  samples: number;
}

/** Everything that decides what an experiment does. It is written to experiment.json before the first cell. */
export interface ExperimentPlan {
  name: string;
  /** On every output; absent: the study infers what it declares. */
  stamp?: string;
  /** Training seeds of the primary endpoint, which is the first study's. @default that study's seeds */
  declaredSeeds?: readonly number[];
  world: {
    /** "search": questions on invented pages. "sql": NL2SQL on generated databases. @default "search" */
    task?: "search" | "sql";
    /** Of the world that is trained and measured in. */
    seed: number;
    /** Of the one that rates are chosen in. */
    tuningSeed: number;
    /** Of the search: so many times the entities, with names that are more alike. @default 1 */
    size?: number;
    /** Of the search: share of the questions that take two hops. @default 0.5 */
    twoHops?: number;
    /** Of the search: a base that is trained from nothing, and not the one that comes with the package. */
    base?: { layers?: number; thoughts?: "short" | "long" };
    /** That a base is trained on. @default 500000 for a dialect, 1000000 for databases, 2200000 from nothing */
    baseTokens?: number;
  };
  /** Optimizer steps of a training. */
  steps: number;
  questionsPerStep: number;
  group: number;
  trainQuestions: number;
  /** Questions that every cell answers. */
  questions: number;
  /** Evaluations on the way, for the curves: every so many steps, on the first so many questions. */
  curve: { every: number; questions: number };
  /** The same rates for every arm, on seeds that are thrown away; a "tuned" study needs it. */
  sweep?: { rates: readonly number[]; seeds: readonly number[] };
  studies: readonly Study[];
}

/** One policy that is trained, measured, or both. */
export interface Cell {
  /** Also the name of its run directory. */
  id: string;
  arm: string;
  seed: number;
  rate: number | "tuned";
  balance: number;
  dialect: DialectSetting | null;
  /** 0: an inference-only arm. */
  steps: number;
  /** Answers a question; 0: a cell of the sweep, which is judged by its own last evaluation. */
  samples: number;
  /** Studies that look at it. */
  studies: string[];
  /** Cells that must have ended before. */
  needs: string[];
}

export const SMOKE = "smoke run, no inference";

/** Of the smoke runs' size, whatever their task. */
const QUICK = {
  stamp: SMOKE,
  world: { seed: 1, tuningSeed: 2 },
  questionsPerStep: 16,
  group: 8,
  trainQuestions: 1000,
  questions: 64,
} as const;

const LEAS = ["base", "reas", "tool", "unified", "hybrid-tool", "hybrid-reas"];

/** Training seeds of the full study: none of them was trained with before it was declared. */
const DECLARED = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20];
const EXPLORATORY = DECLARED.slice(0, 3);

/** The plans that come with the package. */
export const PLANS: Readonly<Record<string, ExperimentPlan>> = {
  // For tests: whether everything works, in seconds.
  tiny: {
    name: "tiny",
    stamp: SMOKE,
    world: { seed: 1, tuningSeed: 2, baseTokens: 2000 },
    steps: 2,
    questionsPerStep: 4,
    group: 4,
    trainQuestions: 40,
    questions: 4,
    curve: { every: 1, questions: 4 },
    sweep: { rates: [1e-3, 3e-3], seeds: [101] },
    studies: [
      {
        name: "main",
        about: "Exact match by arm.",
        arms: ["base", "dart-stop"],
        seeds: [1],
        rate: "tuned",
        samples: 2,
      },
      {
        name: "dialect",
        about: "The dialect.",
        arms: ["base"],
        seeds: [1],
        rate: 1e-3,
        dialect: [1, "aligned"],
        samples: 2,
      },
      { name: "leas", about: "Attribution.", arms: LEAS, seeds: [1], rate: 1e-3, samples: 2 },
    ],
  },
  quick: {
    ...QUICK,
    name: "quick",
    steps: 40,
    curve: { every: 10, questions: 64 },
    studies: [
      {
        name: "main",
        about: "Exact match by arm, and the attribution.",
        arms: [...LEAS, "dart-stop", "placebo"],
        seeds: [1, 2],
        rate: 1e-3,
        samples: 20,
      },
      {
        name: "balance",
        about: "The tool tokens' loss scaled down.",
        arms: ["unified", "dart-stop", "placebo"],
        seeds: [1],
        rate: 1e-3,
        balance: [1, 0.03],
        samples: 20,
      },
    ],
  },
  "tiny-sql": {
    name: "tiny-sql",
    stamp: SMOKE,
    world: { task: "sql", seed: 1, tuningSeed: 2, baseTokens: 2000 },
    steps: 1,
    questionsPerStep: 4,
    group: 2,
    trainQuestions: 20,
    questions: 4,
    curve: { every: 1, questions: 4 },
    studies: [
      { name: "main", about: "Execution match.", arms: [...LEAS, "dart-stop"], seeds: [1], rate: 1e-3, samples: 2 },
    ],
  },
  "quick-sql": {
    ...QUICK,
    name: "quick-sql",
    world: { ...QUICK.world, task: "sql" },
    steps: 12,
    curve: { every: 4, questions: 64 },
    studies: [
      {
        name: "main",
        about: "Execution match (a query's rows against the gold query's) by arm, and the attribution.",
        arms: [...LEAS, "dart-stop", "placebo"],
        seeds: [1, 2],
        rate: 2e-3,
        samples: 20,
      },
    ],
  },
  full: {
    name: "full",
    // Of world 1 and seeds 1 and 2 (the quick study's), and of world 2 (difficulty, rates), figures were seen before this was declared.
    world: { seed: 3, tuningSeed: 2 },
    declaredSeeds: DECLARED,
    // Steps by which most questions lie between .1 and .9 for every variant, at the rates of the sweep and (20) at 1e-3: docs/experiment.md.
    steps: 12,
    questionsPerStep: 16,
    group: 8,
    trainQuestions: 1000,
    questions: 200,
    curve: { every: 4, questions: 100 },
    sweep: { rates: [5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2], seeds: [101, 102] },
    studies: [
      {
        name: "primary",
        about: "The endpoint that was declared: exact match of DART against unified and against the placebo.",
        arms: ["base", "unified", "dart-stop", "placebo", "two-agent"],
        seeds: DECLARED,
        rate: "tuned",
        samples: 10,
      },
      {
        name: "leas",
        about: "Attribution at three settings of balance.",
        arms: LEAS,
        seeds: EXPLORATORY,
        rate: 1e-3,
        steps: 20,
        balance: [1, 0.1, 0.03],
        samples: 50,
      },
      {
        name: "balance",
        about: "Exploratory: what the balance knob does to each way of training.",
        arms: ["unified", "shared-2m", "dart-stop", "dart-flow", "placebo"],
        seeds: EXPLORATORY,
        rate: 1e-3,
        steps: 20,
        balance: [1, 0.1, 0.03, 30],
        samples: 10,
      },
      {
        name: "alone",
        about:
          "Exploratory: one role trained alone, in shared weights and in an adapter of its own; single adapters against hybrids.",
        arms: ["tool", "reas", "dart-tool", "dart-reas", "hybrid-tool", "hybrid-reas", "keep-tool", "keep-reas"],
        seeds: EXPLORATORY,
        rate: 1e-3,
        steps: 20,
        samples: 10,
      },
      {
        name: "arms",
        about: "Exploratory: the other ways to train.",
        arms: [
          ...["unified", "dart-stop", "placebo", "unified-2x", "shared-2m", "full"],
          ...["dart-flow", "dart-exact", "mixture", "two-agent-full", "replay"],
        ],
        seeds: EXPLORATORY,
        rate: "tuned",
        samples: 10,
      },
      {
        name: "rank",
        about: "Exploratory: ranks 4, 8 and 16.",
        arms: ["dart-stop-r4", "dart-stop", "dart-stop-r16", "unified-r4", "unified-r8", "unified", "unified-r32"],
        seeds: EXPLORATORY,
        rate: 1e-3,
        steps: 20,
        samples: 10,
      },
      {
        name: "dialect",
        about:
          "Exploratory: control of the gradients' instrument; exact match at equal rank a token (unified-r8) and in total (unified), also where the roles are aligned.",
        arms: ["base", "unified-r8", "unified", "dart-stop"],
        seeds: EXPLORATORY,
        rate: 1e-3,
        steps: 20,
        dialect: [-1, 0, 1, "aligned"],
        samples: 10,
      },
    ],
  },
};

/** Seeds that the primary endpoint was declared with: until all of them are there, what is said of it is interim. */
export function declaredSeedsOf(plan: ExperimentPlan): readonly number[] {
  return plan.declaredSeeds ?? plan.studies[0]?.seeds ?? [];
}

/** Steps of an arm's training. */
function stepsOf(steps: number, arm: string): number {
  const { run, stepFactor = 1 } = ARMS[arm] ?? {};
  return run === undefined ? 0 : steps * stepFactor;
}

/** Cells are told apart by their rate; so what has one rate must have one number of steps. */
function checkSteps({ steps: all, studies }: ExperimentPlan): void {
  const byRate = new Map<Study["rate"], number>([["tuned", all]]);
  for (const { name, rate, steps = all } of studies) {
    const known = byRate.get(rate) ?? steps;
    if (known !== steps)
      throw new Error(`Study ${name} has ${steps} steps at rate ${rate}, where others have ${known}`);
    byRate.set(rate, steps);
  }
}

/**
 * Every cell of a plan, each once, in the order in which they run: the sweep, then seed by seed, so that what there is after a part of the time
 * compares arms with equally many seeds. A single role's loss is not scaled by the balance (Adam would undo it), and neither is what answers with
 * such cells alone: those are shared by all settings.
 */
export function expandPlan(plan: ExperimentPlan): Cell[] {
  checkSteps(plan);
  const cells = new Map<string, Cell>();
  const add = (cell: Cell): Cell => {
    const known = cells.get(cell.id);
    if (known === undefined) {
      cells.set(cell.id, cell);
      return cell;
    }
    known.studies = [...new Set([...known.studies, ...cell.studies])];
    known.samples = Math.max(known.samples, cell.samples);
    return known;
  };
  const last = Math.max(...plan.studies.flatMap(({ seeds }) => seeds.length));
  for (let place = 0; place < last; place++) {
    for (const study of plan.studies) {
      const seed = study.seeds[place];
      if (seed === undefined) continue;
      for (const arm of study.arms)
        for (const balance of study.balance ?? [1])
          for (const dialect of study.dialect ?? [null]) addCell(plan, study, { arm, seed, balance, dialect }, add);
    }
  }
  const list = [...cells.values()];
  return [...list.filter(({ samples }) => samples === 0), ...list.filter(({ samples }) => samples > 0)];
}

type Setting = Pick<Cell, "arm" | "seed" | "balance" | "dialect">;

function addCell(plan: ExperimentPlan, study: Study, setting: Setting, add: (cell: Cell) => Cell): string {
  const { arm, seed, dialect } = setting;
  const own = ARMS[arm];
  if (own === undefined) throw new Error(`No arm ${arm}`);
  const trained = own.run !== undefined;
  const single = ["shared-reason", "shared-tool", "dart-reason", "dart-tool"].includes(own.run?.variant ?? "");
  const parts = own.policy === undefined ? [] : [own.policy.of, own.policy.replay].filter((one) => one !== undefined);
  const unscaled = single || arm === "base" || (parts.length > 0 && parts.every((one) => isSingle(one)));
  const balance = unscaled ? 1 : setting.balance;
  // The base has no rate.
  const rate = arm === "base" ? 0 : study.rate;
  const needs = parts
    .filter((one) => one !== "base")
    .map((one) => addCell(plan, study, { arm: one, seed, balance, dialect }, add));
  if (trained && rate === "tuned") needs.push(...addSweep(plan, arm, add));
  const { samples, name } = study;
  const id = cellId({ arm, seed, balance, dialect, rate });
  const steps = stepsOf(study.steps ?? plan.steps, arm);
  add({ id, arm, seed, rate, balance, dialect, steps, samples, studies: [name], needs });
  return id;
}

function isSingle(arm: string): boolean {
  return arm === "base" || /-(reason|tool)$/.test(ARMS[arm]?.run?.variant ?? "");
}

/** The sweep of an arm's rate, in the tuning world. */
function addSweep(plan: ExperimentPlan, arm: string, add: (cell: Cell) => Cell): string[] {
  const { rates, seeds } = plan.sweep ?? { rates: [], seeds: [] };
  return seeds.flatMap((seed) =>
    rates.map((rate) => {
      const id = `tune-${cellId({ arm, seed, balance: 1, dialect: null, rate })}`;
      const steps = stepsOf(plan.steps, arm);
      add({ id, arm, seed, rate, balance: 1, dialect: null, steps, samples: 0, studies: ["sweep"], needs: [] });
      return id;
    }),
  );
}

function cellId({
  arm,
  seed,
  balance,
  dialect,
  rate,
}: Pick<Cell, "arm" | "seed" | "balance" | "dialect" | "rate">): string {
  const parts = [
    arm,
    ...(rate === "tuned" || rate === 0 ? [] : [`lr${rate}`]),
    ...(balance === 1 ? [] : [`w${balance}`]),
    ...(dialect === null ? [] : [dialect === "aligned" ? dialect : `d${dialect}`]),
    `s${seed}`,
  ];
  return parts.join("-");
}
