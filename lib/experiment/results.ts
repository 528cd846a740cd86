import { ARMS, LEAS_ARMS } from "./arms.js";
import { ExperimentDirectory, type CountsFile } from "./directory.js";
import { leasOf, type LeasResult } from "./leas.js";
import { meanShare, pairedDifference, type PairedDifference } from "./paired.js";
import { expandPlan, type Cell, type DialectSetting, type ExperimentPlan } from "./plan.js";
import { readProbe, type Probe } from "./probe.js";
import { ratesOf, type SweptRates } from "./rates.js";
import { experimentStatus } from "./runner.js";
import { trainingOf, type CellTraining } from "./training.js";

/** A measured cell, in figures. */
export interface CellResult {
  id: string;
  arm: string;
  seed: number;
  balance: number;
  dialect: DialectSetting | null;
  /** What the plan says of its rate, and what it was trained with. */
  planned: number | "tuned";
  rate: number;
  exactMatch: number;
  /** Share of answers for which a call found a passage with a right answer; null where no passage has any: of queries, and of marked answers. */
  retrieval: number | null;
  toolRate: number;
  searches: number;
  answerRate: number;
  /** Share of questions that it answers in more than a tenth and less than nine tenths of its samples. */
  between: number;
  /** Mean tokens of an answer with its prompt. */
  tokens: number;
  /** Answers, of all questions. */
  answers: number;
  training?: CellTraining;
}

/** Cells that differ in nothing but the seed. */
export interface GroupResult {
  arm: string;
  title: string;
  balance: number;
  dialect: DialectSetting | null;
  planned: number | "tuned";
  seeds: number[];
  exactMatch: { mean: number; low: number | null; high: number | null };
  retrieval: number | null;
  cells: string[];
}

/** One comparison, paired by seed. */
export interface Comparison extends PairedDifference {
  study: string;
  a: string;
  b: string;
  balance: number;
  dialect: DialectSetting | null;
  /** The endpoint that docs/experiment.md declares. */
  primary: boolean;
  /** Of the primary endpoint until all declared seeds have ended, and then it has no interval; else null. */
  interim: { seeds: number; of: number } | null;
}

export type Metric = "exact match" | "execution match";

/** results.json */
export interface ExperimentResults {
  package: "rolegrad";
  plan: string;
  /** On every output of a run that infers nothing. */
  stamp: string | null;
  /** What a right answer is: the gold answer, or, of a query, the gold query's rows. */
  metric: Metric;
  cells: { total: number; finished: number; unavailable: Record<string, string> };
  measured: CellResult[];
  groups: GroupResult[];
  comparisons: Comparison[];
  leas: LeasResult[];
  sweep: Record<string, SweptRates>;
  probes: Record<string, Probe>;
}

/** Which arms a study compares: a less b. */
const COMPARED: readonly (readonly [a: string, b: string])[] = [
  ["dart-stop", "unified"],
  ["dart-stop", "placebo"],
  ["two-agent", "dart-stop"],
  ["dart-stop", "base"],
  ["unified", "base"],
  ["dart-flow", "dart-stop"],
  ["dart-exact", "dart-stop"],
  ["shared-2m", "unified"],
  ["unified-2x", "unified"],
  ["full", "unified"],
  ["mixture", "unified"],
  ["two-agent-full", "full"],
  ["dart-stop", "full"],
  ["dart-stop", "unified-2x"],
  ["dart-stop", "shared-2m"],
  ["dart-stop", "mixture"],
  ["two-agent-full", "dart-stop"],
  ["mixture", "full"],
  ["dart-tool", "tool"],
  ["dart-reas", "reas"],
  ["dart-tool", "hybrid-tool"],
  ["dart-reas", "hybrid-reas"],
  ["keep-tool", "hybrid-tool"],
  ["keep-reas", "hybrid-reas"],
  ["replay", "unified"],
  ["replay", "dart-stop"],
  ["dart-stop", "unified-r8"],
  ["dart-stop-r4", "unified-r4"],
  ["dart-stop-r4", "unified-r8"],
  ["dart-stop-r16", "unified"],
  ["dart-stop-r16", "unified-r32"],
];
const PRIMARY = ["dart-stop unified", "dart-stop placebo"];

/** Everything that the finished cells say. It depends on nothing but their files, and on no time of day. */
export async function experimentResults(directory: string, plan: ExperimentPlan): Promise<ExperimentResults> {
  const own = new ExperimentDirectory(directory);
  const statuses = await experimentStatus(directory, plan);
  const measured: CellResult[] = [];
  const counts = new Map<string, CountsFile>();
  const probes: Record<string, Probe> = {};
  for (const { cell } of statuses) {
    const found = await own.readCounts(cell.id);
    if (found === undefined) continue;
    counts.set(cell.id, found);
    measured.push(await cellResult(own, cell, found, plan));
    const probe = await readProbe(own, cell.id);
    if (probe !== undefined) probes[cell.id] = probe;
  }
  const infer = plan.stamp === undefined;
  const groups = groupsOf(measured, infer);
  const cells = new Map(expandPlan(plan).map((cell) => [cell.id, cell]));
  return {
    package: "rolegrad",
    plan: plan.name,
    stamp: plan.stamp ?? null,
    metric: plan.world.task === "sql" ? "execution match" : "exact match",
    cells: {
      total: statuses.length,
      finished: statuses.filter(({ state }) => state === "finished").length,
      unavailable: Object.fromEntries(statuses.flatMap(({ cell, why }) => (why === undefined ? [] : [[cell.id, why]]))),
    },
    measured,
    groups,
    comparisons: comparisonsOf(plan, cells, measured, infer),
    leas: leasOf(plan, counts),
    sweep: await ratesOf(own, plan),
    probes,
  };
}

async function cellResult(
  directory: ExperimentDirectory,
  cell: Cell,
  counts: CountsFile,
  { world }: ExperimentPlan,
): Promise<CellResult> {
  const { correct, retrieved, samples, rate } = counts;
  const total = samples * correct.length;
  const sum = (list: readonly number[]): number => list.reduce((all, own) => all + own, 0);
  const inside = correct.filter((k) => k > 0.1 * samples && k < 0.9 * samples).length;
  const training = await trainingOf(directory, cell);
  const { id, arm, seed, balance, dialect } = cell;
  return {
    id,
    arm,
    seed,
    balance,
    dialect,
    planned: cell.rate,
    rate,
    exactMatch: sum(correct) / total,
    retrieval: cell.dialect === "aligned" || world.task === "sql" ? null : sum(retrieved) / total,
    toolRate: counts.toolRate,
    searches: counts.searches,
    answerRate: counts.answerRate,
    between: inside / correct.length,
    tokens: counts.tokens,
    answers: total,
    ...(training && { training }),
  };
}

const keyOf = ({
  arm,
  balance,
  dialect,
  planned,
}: Pick<CellResult, "arm" | "balance" | "dialect" | "planned">): string =>
  JSON.stringify([arm, balance, dialect, planned]);

function meanOrNull(values: readonly (number | null)[]): number | null {
  return values.reduce<number | null>(
    (sum, own) => (sum === null || own === null ? null : sum + own / values.length),
    0,
  );
}

function groupsOf(measured: readonly CellResult[], infer: boolean): GroupResult[] {
  const groups = new Map<string, CellResult[]>();
  for (const cell of measured) groups.set(keyOf(cell), [...(groups.get(keyOf(cell)) ?? []), cell]);
  return [...groups.values()].map((cells) => {
    const { arm, balance, dialect, planned } = cells[0] as CellResult;
    return {
      arm,
      title: ARMS[arm]?.title ?? arm,
      balance,
      dialect,
      planned,
      seeds: cells.map(({ seed }) => seed),
      exactMatch: meanShare(cells.map(({ exactMatch }) => exactMatch), infer), // prettier-ignore
      retrieval: meanOrNull(cells.map(({ retrieval }) => retrieval)),
      cells: cells.map(({ id }) => id),
    };
  });
}

/** In every study, at every setting of its knobs, the pairs that it has. */
function comparisonsOf(
  plan: ExperimentPlan,
  cells: ReadonlyMap<string, Cell>,
  measured: readonly CellResult[],
  infer: boolean,
): Comparison[] {
  const out: Comparison[] = [];
  const declared = plan.studies[0];
  const ended = Math.min(
    ...["dart-stop", "unified", "placebo"].map((arm) => {
      const own = measured.filter((cell) => cell.arm === arm && isMain(cell, plan));
      return new Set(own.map(({ seed }) => seed)).size;
    }),
  );
  for (const [place, { name, balance: balances = [1], dialect: dialects = [null], rate }] of plan.studies.entries()) {
    for (const balance of balances)
      for (const dialect of dialects) {
        const bySeed = (arm: string): Map<number, number> => {
          // A single role's training and the base have one setting of the balance, whatever the study's.
          const own = measured.filter(
            (cell) =>
              cell.arm === arm &&
              cell.dialect === dialect &&
              (cell.planned === rate || arm === "base") &&
              cells.get(cell.id)?.studies.includes(name) === true,
          );
          const exact = own.filter((cell) => cell.balance === balance);
          return new Map(
            (exact.length > 0 ? exact : own.filter((cell) => isUnscaled(cell.arm))).map((c) => [c.seed, c.exactMatch]),
          );
        };
        for (const [a, b] of COMPARED) {
          const difference = pairedDifference(bySeed(a), bySeed(b), { infer });
          if (difference === undefined) continue;
          // Another study that has some of the same cells must not show the interval either.
          const same = infer && balance === 1 && dialect === null && rate === declared?.rate;
          const endpoint = same && PRIMARY.includes(`${a} ${b}`);
          const of = declared?.seeds.length ?? 0;
          const interim = endpoint && ended < of ? { seeds: ended, of } : null;
          const primary = endpoint && place === 0;
          const hidden = interim !== null && { low: null, high: null };
          out.push({ study: name, a, b, balance, dialect, primary, interim, ...difference, ...hidden });
        }
      }
  }
  return out;
}

/** A cell of the first study, which has the endpoint, with every knob at rest. */
function isMain({ seed, balance, dialect, planned }: CellResult, plan: ExperimentPlan): boolean {
  const first = plan.studies[0];
  return first?.seeds.includes(seed) === true && balance === 1 && dialect === null && planned === first.rate;
}

function isUnscaled(arm: string): boolean {
  return arm === LEAS_ARMS.base;
}

/** counts.csv: a row for each question of each cell. */
export async function countsCsv(directory: string, plan: ExperimentPlan): Promise<string> {
  const own = new ExperimentDirectory(directory);
  const lines = ["cell,variant,seed,balance,dialect,rate,id,correct,retrieved,samples,note"];
  const quoted = (text: string): string => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  for (const { id } of expandPlan(plan)) {
    const counts = await own.readCounts(id);
    if (counts === undefined) continue;
    const { cell, arm, seed, balance, dialect, rate, questions, correct, retrieved, samples } = counts;
    questions.forEach((question, q) =>
      lines.push(
        [
          ...[cell, arm, seed, balance, dialect ?? "", rate],
          ...[quoted(question), correct[q], retrieved[q], samples, quoted(plan.stamp ?? "")],
        ].join(","),
      ),
    );
  }
  return `${lines.join("\n")}\n`;
}
