import { lineChart, type Series } from "../report/chart.js";
import { html, type Html } from "../report/html.js";
import { ARMS } from "./arms.js";
import type { CostsFile } from "./directory.js";
import type { ArmMemory } from "./memory.js";
import { PAPER_SAYS } from "./paper.js";
import type { CellResult, ExperimentResults, GroupResult } from "./results.js";
import { capital, figure, NOT_RUN, percent, rails, section, settingText, table, titleAmong } from "./sections.js";

export function alone(results: ExperimentResults): Html {
  const arms = ["tool", "dart-tool", "hybrid-tool", "keep-tool", "reas", "dart-reas", "hybrid-reas", "keep-reas"];
  const groups = results.groups.filter(({ arm }) => arms.includes(arm));
  return section("alone-title", "One role alone, and single adapters against hybrids", {
    paper: PAPER_SAYS.single,
    parts: [rails([...groups].sort((a, b) => arms.indexOf(a.arm) - arms.indexOf(b.arm)))],
    missing: NOT_RUN,
  });
}

export function rank(results: ExperimentResults): Html {
  const groups = results.groups.filter(
    ({ arm, balance, dialect }) => /-r\d+$/.test(arm) && balance === 1 && dialect === null,
  );
  const planned = groups[0]?.planned;
  const whole = results.groups.filter(
    (own) =>
      ["dart-stop", "unified"].includes(own.arm) &&
      own.balance === 1 &&
      own.dialect === null &&
      own.planned === planned,
  );
  return section("rank-title", "Rank", {
    paper: PAPER_SAYS.rank,
    ours: "Compare at equal rank a token and at equal rank in total: a claim needs both.",
    parts: [groups.length === 0 ? undefined : rails([...groups, ...whole])],
    missing: NOT_RUN,
  });
}

/** Of the search alone: a query's result has no answer to look for. */
export function retrieval({ groups, metric }: ExperimentResults): Html | undefined {
  if (metric !== "exact match") return undefined;
  return section("retrieval-title", "Retrieval, and what is read", {
    paper: `${PAPER_SAYS.retrieval} Fixed retrieval, ${PAPER_SAYS.replay}`,
    parts: [
      table(
        "Retrieval",
        [["arm"], ["setting"], ["rate"], ["a right answer was retrieved", "number"], ["exact match", "number"]],
        groups.map((own) => [
          own.title,
          settingText(own),
          own.arm === "base" ? "" : String(own.planned),
          own.retrieval === null ? "-" : percent(own.retrieval),
          percent(own.exactMatch.mean),
        ]),
      ),
    ],
    missing: NOT_RUN,
  });
}

export function training({ measured, groups, metric }: ExperimentResults): Html {
  const trained = groups.filter(({ balance, dialect }) => balance === 1 && dialect === null);
  const cellsOf = ({ cells }: GroupResult): CellResult[] => measured.filter(({ id }) => cells.includes(id));
  const series = trained.flatMap((group): Series[] => {
    const curves = cellsOf(group).flatMap(({ training: own }) => (own === undefined ? [] : [own.curve]));
    if (curves.length === 0) return [];
    const steps = [...new Set(curves.flatMap((curve) => curve.map(({ step }) => step)))].sort((a, b) => a - b);
    const points = steps.map((x) => {
      const at = curves.flatMap((curve) => curve.filter(({ step }) => step === x).map(({ exactMatch }) => exactMatch));
      return { x, y: at.reduce((sum, own) => sum + own, 0) / at.length };
    });
    return [{ name: titleAmong(group, trained), color: "muted", points }];
  });
  const charts: (Html | undefined)[] = [];
  // As many lines as can be told apart.
  for (let from = 0; from < series.length; from += 6) {
    const some = series.slice(from, from + 6).map((one, i) => ({ ...one, color: String(i) }));
    charts.push(
      lineChart({
        title: `${capital(metric)} on the way${from === 0 ? "" : ` (${from / 6 + 1})`}`,
        hint: "Few held-out questions, one answer each; means over seeds.",
        ...{ xLabel: "optimizer step", yLabel: metric, format: "percent", yMax: 1, smooth: false },
        series: some,
      }),
    );
  }
  const list = (values: Record<string, number | null>): string =>
    Object.entries(values)
      .map(([name, value]) => `${name} ${value === null ? "-" : figure(value)}`)
      .join(", ");
  const rows = measured.flatMap(({ id, training: own }) =>
    own === undefined ? [] : [[id, own.steps, list(own.path), list(own.gradNorm), list(own.kl)]],
  );
  const drawn = charts.filter((one) => one !== undefined);
  return section("training-title", "Training", {
    ours: "How far each arm moved: Adam moves every trained set of parameters about equally far, so arms with two sets have two budgets.",
    parts: [
      drawn.length === 0 ? undefined : html`<div class="charts">${drawn}</div>`,
      rows.length === 0
        ? undefined
        : html`<details>
            <summary>Way, gradient norm and KL of every cell</summary>
            ${table(
              "Training",
              [
                ["cell"],
                ["steps", "number"],
                ["sum of update norms"],
                ["mean gradient norm"],
                ["KL to the start by role"],
              ],
              rows,
            )}
          </details>`,
    ],
    missing: NOT_RUN,
  });
}

export function cost(
  { groups, measured }: ExperimentResults,
  costs: ReadonlyMap<string, CostsFile>,
  memory: ReadonlyMap<string, ArmMemory> = new Map(),
): Html {
  const plain = groups.filter(({ balance, dialect }) => balance === 1 && dialect === null);
  const rows = plain.flatMap((group) => {
    const cell = measured.find(({ id }) => id === group.cells[0]);
    const spent = costs.get(cell?.id ?? "");
    if (cell === undefined || spent === undefined) return [];
    const { computedTokens, peakCacheTokens } = spent.decoding;
    const encoded = computedTokens / (cell.tokens * cell.answers);
    return [
      [
        titleAmong(group, plain),
        cell.tokens.toFixed(1),
        encoded.toFixed(2),
        figure(peakCacheTokens),
        cell.searches.toFixed(2),
        mebibytes(memory.get(group.arm)?.total),
      ],
    ];
  });
  return section("cost-title", "Memory and tokens that are encoded again", {
    paper: PAPER_SAYS.cost,
    ours: "Of answering the questions: one cache for DART, as for one LoRA; hybrids and 2-Agent have a cache for each writer, and encode what the other wrote again. Memory of training is planned from the arm's run.json, without the process itself; hybrids and kept adapters are not trained.",
    parts: [
      table(
        "Cost",
        [
          ["arm"],
          ["tokens of an answer", "number"],
          ["encoded, for each of them", "number"],
          ["cache at its fullest, positions", "number"],
          ["searches of an answer", "number"],
          ["memory of training, MiB", "number"],
        ],
        rows,
      ),
      memoryTable(memory),
    ],
    missing: NOT_RUN,
  });
}

function mebibytes(bytes: number | undefined): string {
  return bytes === undefined ? "-" : (bytes / 2 ** 20).toFixed(1);
}

/** What stays of an arm while it trains, and what a step adds. */
function memoryTable(memory: ReadonlyMap<string, ArmMemory>): Html | undefined {
  const parts: readonly [title: string, names: readonly (keyof ArmMemory["bytes"])[]][] = [
    ["weights, and the reference", ["weights", "reference"]],
    ["adapters", ["adapters"]],
    ["optimizer, with gradients", ["optimizer"]],
    ["activations", ["activations", "scoring"]],
    ["cache", ["cache", "decoding"]],
    ["rest", ["scratch", "checkpoint"]],
  ];
  const rows = [...memory].map(([arm, { parameters, bytes, total }]) => [
    ARMS[arm]?.title ?? arm,
    parameters.toLocaleString("en-US"),
    ...parts.map(([, names]) => mebibytes(names.reduce((sum, name) => sum + (bytes[name] ?? 0), 0))),
    mebibytes(total),
  ]);
  const found = table(
    "Memory of training",
    [
      ["arm"],
      ["trained parameters", "number"],
      ...parts.map(([title]) => [title, "number"] as const),
      ["in all", "number"],
    ],
    rows,
    "In MiB, planned for answers as long as the limits allow. Weights, adapters and optimizer stay throughout; activations are those of one micro-batch.",
  );
  return (
    found &&
    html`<details open>
      <summary>Memory of training by arm</summary>
      ${found}
    </details>`
  );
}

export function sweep({ sweep: found, groups, metric }: ExperimentResults): Html | undefined {
  const rows = Object.entries(found).map(([arm, { exactMatch, chosen }]) => [
    groups.find((own) => own.arm === arm)?.title ?? arm,
    Object.entries(exactMatch)
      .map(([rate, value]) => `${rate}: ${percent(value)}`)
      .join(", "),
    String(chosen),
    edgeOf(exactMatch, chosen),
  ]);
  if (rows.length === 0) return undefined;
  return section("sweep-title", "Learning rates", {
    ours: "The same rates for every arm, in another world, on seeds that are thrown away; the best at the end is the arm's.",
    parts: [table("Learning rates", [["arm"], [`${metric} by rate`], ["chosen", "number"], ["remark"]], rows)],
    missing: NOT_RUN,
  });
}

/** A rate at the end of the grid: a better one may lie beyond it. */
function edgeOf(exactMatch: Record<string, number>, chosen: number): string {
  const rates = Object.keys(exactMatch).map(Number);
  if (rates.length < 2) return "";
  if (chosen === Math.min(...rates)) return "the lowest of the grid: a lower one might be better";
  return chosen === Math.max(...rates) ? "the highest of the grid: a higher one might be better" : "";
}

/** How many questions can tell arms apart. */
export function difficulty({ groups, measured }: ExperimentResults): Html | undefined {
  const rows = groups.map((group) => {
    const own = measured.filter(({ id }) => group.cells.includes(id)).map(({ between }) => between);
    const mean = own.reduce((sum, one) => sum + one, 0) / own.length;
    const each = own.map((one) => percent(one, 0)).join(", ");
    return [titleAmong(group, groups), percent(mean, 0), each];
  });
  return table(
    "Difficulty",
    [["arm"], ["questions between a tenth and nine tenths", "number"], ["by seed", "number"]],
    rows,
    "Share of the questions that an arm answers in more than a tenth and less than nine tenths of its samples.",
  );
}
