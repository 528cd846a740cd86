import { lineChart, type ChartOptions, type Series } from "./chart.js";
import { evaluationSeries, mainSeries, seriesName, type EvaluationSeries } from "./curves.js";
import type { Html } from "./html.js";
import { nameColors, type NameColors } from "./names.js";
import type { RunFiles } from "./run.js";

/** Charts of one matter. */
export interface ChartGroup {
  id: string;
  title: string;
  charts: Html[];
}

type Row = Record<string, unknown>;
type Value = (row: Row) => unknown;

const STEP = "optimizer step";

/** Colours of lines that are no role's. */
const OTHERS = ["main", "muted", "wrong"];

/**
 * Every chart that the run's files have numbers for, by matter. Lines of metrics.jsonl differ between versions and kinds of training: what a line
 * does not have is not drawn, and fields of roles, adapters and tools are found wherever they stand.
 */
export function chartGroups(run: RunFiles): ChartGroup[] {
  const lines = new Lines(run.metrics as unknown as Row[], nameColors(run));
  const groups: [id: string, title: string, charts: (Html | undefined)[]][] = [
    ["learning", "Learning", learning(run, lines)],
    ["policy", "Policy and adapters", [...policy(run, lines), ...adapters(lines)]],
    ["behaviour", "Answers and tools", behaviour(lines)],
    ["speed", "Speed", speed(lines)],
  ];
  return groups
    .map(([id, title, charts]) => ({ id, title, charts: charts.filter((chart) => chart !== undefined) }))
    .filter(({ charts }) => charts.length > 0);
}

/** Lines of charts, out of metrics.jsonl. */
class Lines {
  constructor(
    readonly rows: readonly Row[],
    readonly colors: NameColors,
  ) {}

  one(name: string, color: string, value: Value): Series {
    const points = this.rows.flatMap((row) => {
      const y = value(row);
      return typeof y === "number" ? [{ x: row["step"] as number, y }] : [];
    });
    return { name, color, points };
  }

  /** A line for each name that `record` has in some row. */
  by(record: (row: Row) => unknown, value: (entry: unknown, row: Row) => unknown = (entry) => entry): Series[] {
    const names = new Set<string>();
    for (const row of this.rows) for (const name of Object.keys(fieldsOf(record(row)))) names.add(name);
    return [...names].map((name) =>
      this.one(name, this.colors.of(name), (row) => value(fieldsOf(record(row))[name], row)),
    );
  }

  /** {@link by}, of the first record in which some row has a number. */
  first(...tries: Parameters<Lines["by"]>[]): Series[] {
    return tries.map((one) => this.by(...one)).find((series) => series.some(({ points }) => points.length > 0)) ?? [];
  }

  chart(options: Omit<ChartOptions, "xLabel">): Html | undefined {
    return lineChart({ xLabel: STEP, ...options });
  }
}

function fieldsOf(value: unknown): Row {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Row) : {};
}

/** row.a.b.c */
function at(row: unknown, ...names: string[]): unknown {
  return names.reduce<unknown>((value, name) => fieldsOf(value)[name], row);
}

function number(value: unknown): number {
  return typeof value === "number" ? value : NaN;
}

/** a / b where both are numbers and b is not 0. */
function ratio(a: unknown, b: unknown): number | undefined {
  return typeof a === "number" && typeof b === "number" && b !== 0 ? a / b : undefined;
}

function varies(series: readonly Series[]): boolean {
  return series.some(({ points }) => points.some(({ y }) => y !== 0));
}

function learning({ evaluations, metrics }: RunFiles, lines: Lines): (Html | undefined)[] {
  const main = mainSeries(evaluations);
  const steps = (one: EvaluationSeries): boolean => one.lines.length > 1 || one === main;
  const series = evaluationSeries(evaluations)
    .map((one) => (one.split === main?.split && one.note === main?.note ? (main ?? one) : one))
    .filter((one) => steps(one) || one.note !== undefined);
  const look = (one: EvaluationSeries, i: number): string =>
    one === main ? "main" : (["output", "muted", "wrong"][(i - 1) % 3] as string);
  const parts = lines.by((row) => row["rewardParts"]);
  const rewards = [lines.one("reward", "main", (row) => row["reward"]), ...parts];
  const shares = metrics.every(({ reward }) => reward >= 0 && reward <= 1);
  return [
    lines.chart({
      title: "Exact match",
      hint: "Share of held-out answers that are right, with 95 % intervals.",
      yLabel: "exact match",
      format: "percent",
      yMax: 1,
      series: series.map((one, i) => ({
        name: seriesName(one),
        color: look(one, i),
        points: one.lines.map(({ step, exactMatch, low, high }) => ({ x: step, y: exactMatch, low, high })),
      })),
    }),
    lines.chart({
      title: "Mean reward",
      hint: parts.length > 0 ? "Of each step's samples, with what it is made of." : "Of each step's samples.",
      yLabel: "reward",
      ...(shares ? { yMax: 1 } : {}),
      series: rewards,
    }),
    lines.chart({
      title: "Retrieval",
      hint: "Share of held-out answers for which some call found a passage with a right answer.",
      yLabel: "share of answers",
      format: "percent",
      yMax: 1,
      series: series.map((one, i) => ({
        name: seriesName(one),
        color: look(one, i),
        points: one.lines.flatMap(({ step, retrieval }) =>
          retrieval === undefined ? [] : [{ x: step, y: retrieval }],
        ),
      })),
    }),
    lines.chart({
      title: "Groups that teach",
      hint: "Groups whose samples differ in reward; in the others every advantage is 0.",
      yLabel: "share of groups",
      format: "percent",
      yMax: 1,
      series: [lines.one("groups", "muted", (row) => row["mixedGroups"])],
    }),
    lines.chart({ title: "Loss", yLabel: "loss", series: [lines.one("loss", "muted", (row) => row["loss"])] }),
  ];
}

function policy({ config }: RunFiles, lines: Lines): (Html | undefined)[] {
  const kl = [lines.one("KL", "main", (row) => row["kl"])];
  const klRoles = lines.by(
    (row) => row["roles"],
    (role) => at(role, "kl"),
  );
  const clips = [
    lines.one("from above", "main", (row) => row["clipHigh"]),
    lines.one("from below", "muted", (row) => row["clipLow"]),
    lines.one("dual clip", "output", (row) => row["dualClip"]),
  ];
  const clipRoles = lines.by(
    (row) => row["roles"],
    (role) => at(role, "clip"),
  );
  const ratios = [
    lines.one("ratio", "main", (row) => row["maxRatioDeviation"]),
    lines.one("first update", "muted", (row) => row["firstRatioMax"]),
  ];
  const importance = [
    lines.one("mean weight", "main", (row) => row["importance"]),
    lines.one("share bounded", "muted", (row) => row["importanceBounded"]),
  ];
  const penalised = number(at(config, "objective", "klCoefficient")) > 0;
  return [
    varies(kl) || penalised
      ? lines.chart({ title: "KL to the reference", hint: "Estimate of the loss.", yLabel: "nats a token", series: kl })
      : undefined,
    lines.chart({
      title: "KL to the start, by role",
      hint: "How far each role's tokens have moved.",
      yLabel: "nats a token",
      series: [...klRoles, lines.one("all", "muted", (row) => row["klToStart"])],
    }),
    lines.chart({
      title: "Entropy, by role",
      hint: "Of the distributions that tokens were drawn from; near 0 nothing is explored.",
      yLabel: "nats a token",
      series: lines.first([(row) => row["entropy"]], [(row) => row["roles"], (role) => at(role, "entropy")]),
    }),
    varies(ratios)
      ? lines.chart({
          title: "Probability ratio",
          hint: "Largest distance of a trained token's ratio from 1.",
          yLabel: "|ratio - 1|",
          series: ratios,
        })
      : undefined,
    varies(clips)
      ? lines.chart({ title: "Clipped tokens", yLabel: "share of tokens", format: "percent", series: clips })
      : undefined,
    varies(clipRoles)
      ? lines.chart({
          title: "Clipped tokens, by role",
          yLabel: "share of tokens",
          format: "percent",
          series: clipRoles,
        })
      : undefined,
    lines.chart({
      title: "Share of the loss, by role",
      hint: "Of the sum of the tokens' absolute losses.",
      yLabel: "share",
      format: "percent",
      yMax: 1,
      series: lines.by(
        (row) => row["roles"],
        (role) => at(role, "lossShare"),
      ),
    }),
    lines.chart({ title: "Importance weights", yLabel: "weight, share", series: importance }),
  ];
}

function adapters(lines: Lines): (Html | undefined)[] {
  const norm = (name: string) =>
    lines.by(
      (row) => row["adapters"],
      (adapter) => at(adapter, name),
    );
  return [
    lines.chart({
      title: "Gradient norm, by adapter",
      hint: "Before clipping.",
      yLabel: "Euclidean norm",
      series: lines.first(
        [(row) => row["gradNorms"]],
        [(row) => row["adapters"], (adapter) => at(adapter, "gradNorm")],
      ),
    }),
    lines.chart({
      title: "Gradient norm, by role of the loss",
      hint: "What a role's tokens teach all adapters, before clipping.",
      yLabel: "Euclidean norm",
      series: lines.by(
        (row) => row["roles"],
        (role) => at(role, "gradNorm"),
      ),
    }),
    lines.chart({
      title: "Update norm, by adapter",
      hint: "How far a step moved the weights.",
      yLabel: "Euclidean norm",
      series: lines.first(
        [(row) => row["adapters"], (adapter) => at(adapter, "updateNorm")],
        [(row) => row["updateNorms"]],
      ),
    }),
    lines.chart({ title: "Weight norm, by adapter", yLabel: "Euclidean norm", series: norm("norm") }),
    lines.chart({
      title: "Learning rate",
      yLabel: "learning rate",
      series: [lines.one("learning rate", "muted", (row) => row["learningRate"])],
    }),
  ];
}

function behaviour(lines: Lines): (Html | undefined)[] {
  const tools = (value: (tool: unknown) => unknown) => lines.by((row) => row["tools"], value);
  const failures = ["errors", "timeouts", "retries"].map((name, i) =>
    lines.one(name, OTHERS[i] as string, (row) =>
      row["tools"] === undefined
        ? undefined
        : Object.values(fieldsOf(row["tools"])).reduce<number>((sum, tool) => sum + (number(at(tool, name)) || 0), 0),
    ),
  );
  const ends = ["length", "budget", "error"].map((why, i) =>
    lines.one(why, OTHERS[i] as string, (row) => ratio(at(row, "finish", why), row["trajectories"])),
  );
  return [
    lines.chart({
      title: "Answer length, by role",
      hint: "Tokens that the model wrote.",
      yLabel: "tokens an answer",
      series: lines.by(
        (row) => row["sampledTokens"],
        (tokens, row) => ratio(tokens, row["trajectories"]),
      ),
    }),
    lines.chart({
      title: "Tool calls",
      yLabel: "calls an answer",
      series: [lines.one("calls", "main", (row) => row["searches"])],
    }),
    lines.chart({
      title: "Answers with a call, with an answer",
      yLabel: "share of answers",
      format: "percent",
      yMax: 1,
      series: [
        lines.one("called a tool", "main", (row) => row["toolRate"]),
        lines.one("gave an answer", "output", (row) => row["answerRate"]),
      ],
    }),
    varies(ends)
      ? lines.chart({
          title: "Answers cut short",
          hint: "By the token limit, by the budget of calls, by a failed tool.",
          yLabel: "share of answers",
          format: "percent",
          series: ends,
        })
      : undefined,
    lines.chart({ title: "Calls, by tool", yLabel: "calls a step", series: tools((tool) => at(tool, "calls")) }),
    varies(failures) ? lines.chart({ title: "Failed calls", yLabel: "calls a step", series: failures }) : undefined,
    lines.chart({
      title: "Seconds a call, by tool",
      yLabel: "seconds",
      series: tools((tool) => ratio(at(tool, "seconds"), at(tool, "calls"))),
    }),
  ];
}

function speed(lines: Lines): (Html | undefined)[] {
  const update = (row: Row): number => number(row["seconds"]) - number(row["rolloutSeconds"]);
  const sampled = (row: Row): number =>
    Object.values(fieldsOf(row["sampledTokens"])).reduce<number>((sum, tokens) => sum + (number(tokens) || 0), 0);
  return [
    lines.chart({
      title: "Tokens a second",
      hint: "Tokens written, a second of the rollout; tokens learned from, a second of the update.",
      yLabel: "tokens/s",
      series: [
        lines.one("rollout", "main", (row) => ratio(sampled(row), row["rolloutSeconds"])),
        lines.one("update", "muted", (row) => ratio(row["tokens"], update(row))),
      ],
    }),
    lines.chart({
      title: "Seconds a step",
      yLabel: "seconds",
      series: [lines.one("rollout", "main", (row) => row["rolloutSeconds"]), lines.one("update", "muted", update)],
    }),
  ];
}
