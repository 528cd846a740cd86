import { htmlDocument } from "../../report/document.js";
import { factList } from "../../report/facts.js";
import { html, type Html } from "../../report/html.js";
import { STYLE } from "../../report/style.js";
import { dataTable } from "../../report/table.js";
import { summary } from "../summary.js";
import type { Estimate, Interference } from "../types.js";
import { variants } from "../types.js";
import { chartsOf } from "./charts.js";
import { effectNames } from "./effects.js";
import { meanOf, missingBecause } from "./figures.js";
import { CHART_STYLE, inPage } from "./svg.js";
import { type ShownTable, tableOf } from "./table.js";
import { count, fixed, interval, percent, pText, quantile } from "./text.js";
import type { InterferenceRenderOptions } from "./types.js";
import { verdictOf } from "./view.js";

const MOST_QUESTIONS = 20;

const verdicts = {
  more: "more than additive effects alone would show",
  less: "less than additive effects alone would show",
  within: "no more than additive effects alone would show",
  unknown: "not compared with what additive effects alone would show",
};

/** {@link interferencePage} */
export function toPage(result: Interference, options: InterferenceRenderOptions = {}): string {
  const { name = "Interference" } = options;
  const table = tableOf(options.table);
  const charts = chartsOf(result, options);
  const body = html`<header>
      <p class="kicker">rolegrad, interference of reasoning and tool use</p>
      <h1>${name}</h1>
    </header>
    <main>
      ${headline(result, table)}
      <section aria-labelledby="charts">
        <h2 id="charts">Charts</h2>
        <div class="charts ${charts.length === 4 && "two"}">${charts.map(inPage)}</div>
      </section>
      ${remarks(result)} ${effectTable(result)} ${seedTable(result)} ${figureTable(result)} ${covarianceTable(result)}
      ${questions(result, table)}
    </main>
    <footer>
      The method is LEAS of Li et al., arXiv 2602.00994 (CEA in its second version). Made by rolegrad; this page needs
      no network.
    </footer>`;
  return htmlDocument({
    title: `${name}: interference of reasoning and tool use`,
    policy: "default-src 'none'; style-src 'unsafe-inline'",
    style: `${STYLE}${CHART_STYLE}${PAGE_STYLE}`,
    body,
  });
}

const PAGE_STYLE = `
.sentence { font-size: 17px; margin: 14px 0 0; max-width: 75ch; }
.verdict-line { color: var(--soft); margin: 0; }
.care { padding: 0 0 0 20px; margin: 0; max-width: 90ch; }
.care li { margin: 0 0 8px; }
.charts { align-items: start; }
.chart svg { max-width: 480px; }
th.id { max-width: 340px; overflow-wrap: anywhere; font-weight: 500; }
@media (max-width: 620px) { .chart .name { font-size: 15px; } .chart .value { font-size: 14px; } }
`;

function headline(result: Interference, table: ShownTable | undefined): Html {
  const { interferenceShare: share, kept, dropped, saturated, smoothing, scope } = result;
  const bounds = interval(share, "share");
  const band = share.null === null ? undefined : interval(share.null, "share");
  const samples = table?.samples;
  const { resampling, seeds } = result;
  const facts: [string, string][] = [
    ["questions kept", count(kept.length)],
    ["dropped, never answered", count(dropped.length)],
    ["at a floor or ceiling", count(saturated.length)],
  ];
  if (samples !== undefined)
    facts.push([
      "answers a question",
      samples[0] === samples[1] ? count(samples[0]) : `${count(samples[0])} to ${count(samples[1])}`,
    ]);
  facts.push(["smoothing", smoothing], ["speaks of", scope]);
  if (seeds !== null) facts.push(["training seeds", count(seeds.names.length)]);
  if (resampling !== null) {
    const what =
      resampling.population === "fixed" ? "these questions" : resampling.clustered ? "clusters" : "questions";
    facts.push([`intervals: ${count(resampling.draws)} draws of`, what]);
  }
  return html`<section class="card" aria-labelledby="result">
    <h2 id="result">Share of questions with interference</h2>
    <p class="headline"><span class="to">${percent(share.value)}</span></p>
    <p class="verdict-line">
      ${bounds !== undefined && html`95 % interval ${bounds}. `}
      ${
        band === undefined
          ? `No null band (${missingBecause(result, "null") ?? "it is not computed"}): not to be compared with one half.`
          : `Null band ${band}: ${verdicts[verdictOf(result)]}.`
      }
    </p>
    <p class="sentence">${summary(result).replaceAll(" %", "\u00a0%")}</p>
    ${factList(facts)}
  </section>`;
}

function remarks({ warnings }: Interference): Html {
  return html`<section aria-labelledby="care">
    <h2 id="care">Read with care</h2>
    <ul class="care">
      ${warnings.map((warning) => html`<li>${warning}</li>`)}
    </ul>
  </section>`;
}

function tableSection(
  id: string,
  title: string,
  head: string[],
  rows: (string | Html)[][],
  caption?: string,
  left = 1,
): Html {
  const kind = (i: number): string => (i >= left ? "number" : i === 0 ? "id" : "");
  return html`<section aria-labelledby="${id}">
    <h2 id="${id}">${title}</h2>
    ${dataTable(
      `${title}: table`,
      head.map((cell, i) => [cell, kind(i)]),
      rows,
      caption,
    )}
  </section>`;
}

function effectTable(result: Interference): Html {
  const rows = effectNames.map(({ key, name, meaning }) => {
    const estimate = meanOf(result, key);
    const median = key === "l23" ? fixed(result.median23.value) : fixed(middle(result.lambda[key]));
    return [name, meaning, fixed(estimate.value), interval(estimate, "number") ?? "-", median];
  });
  const { model } = result;
  const caption =
    model === undefined || model === null
      ? undefined
      : "The mean of lambda23 is that of the random-effects model; the others are means of the smoothed logits.";
  return tableSection(
    "effects",
    "Effects",
    ["effect", "of what", "mean, logits", "95 % interval", "median"],
    rows,
    caption,
    2,
  );
}

function middle(values: Float64Array): number {
  return quantile(Float64Array.from(values).sort(), 0.5);
}

/** How the effects go together over the questions, and how noise alone would have it. */
function covarianceTable(result: Interference): Html {
  const { questionsCorrelation, noiseCorrelation } = result.covariance;
  const size = effectNames.length;
  const rows = effectNames.slice(1).map(({ name }, i) => [
    name,
    ...effectNames.slice(1).map((_, j) => {
      const at = (i + 1) * size + j + 1;
      return i === j ? "" : `${fixed(questionsCorrelation[at] as number)} (${fixed(noiseCorrelation[at] as number)})`;
    }),
  ]);
  const caption =
    "Correlations of the effects over the questions; in brackets those of the samples' noise alone, which effects share where they are made of the same variant.";
  return tableSection(
    "covariance",
    "How effects go together",
    ["effect", ...effectNames.slice(1).map(({ name }) => name)],
    rows,
    caption,
  );
}

/** Each training seed on its own. */
function seedTable(result: Interference): Html | undefined {
  const { seeds } = result;
  if (seeds === null) return undefined;
  const rows = seeds.results.map(({ interferenceShare, mean23 }, s) => [
    seeds.names[s] ?? String(s + 1),
    percent(interferenceShare.value),
    interval(interferenceShare, "share") ?? "-",
    fixed(mean23.value),
    interval(mean23, "number") ?? "-",
  ]);
  const head = ["training seed", "share", "95 % interval", "mean lambda23", "95 % interval"];
  const { components } = seeds;
  const caption =
    components === null
      ? "Each seed's checkpoints on their own."
      : `Each seed's checkpoints on their own. The variance of one question's lambda23 is ${fixed(components.seed)} from the seed, ${fixed(components.question)} from ` +
        `the question, ${fixed(components.seedByQuestion)} from both together and ${fixed(components.binomial)} from the samples.`;
  return tableSection("seeds", "Training seeds", head, rows, caption);
}

function figureTable(result: Interference): Html {
  const { contrasts, naiveTests, calibratedTests, counts } = result;
  const row = (name: string, of: Estimate): string[] => [name, fixed(of.value, 3), interval(of, "number", 3) ?? "-"];
  const rows: string[][] = [
    row("unified - tool - reas + base, of accuracies", contrasts.additive),
    row("unified - max(tool, reas), of accuracies", contrasts.overBest),
    ["naive sign test (against one half), p", pText(naiveTests.sign.pValue), ""],
    ["naive Wilcoxon test (symmetry about 0), p", pText(naiveTests.wilcoxon.pValue), ""],
    ...(calibratedTests === null
      ? []
      : [
          ["sign test against additive effects, p", pText(calibratedTests.sign.pValue), ""],
          ["Wilcoxon test against additive effects, p", pText(calibratedTests.wilcoxon.pValue), ""],
        ]),
    ["lambda23 below, at, above 0", `${count(counts.negative)}, ${count(counts.zero)}, ${count(counts.positive)}`, ""],
  ];
  return tableSection("figures", "Contrasts and tests", ["figure", "value", "95 % interval"], rows);
}

/** The questions with the lowest lambda23, and how the variants answered them. */
function questions({ kept, lambda, posteriorNegative }: Interference, table: ShownTable | undefined): Html | undefined {
  if (table === undefined) return undefined;
  const order = [...kept.keys()]
    .sort((a, b) => (lambda.l23[a] as number) - (lambda.l23[b] as number))
    .slice(0, MOST_QUESTIONS);
  const rows = order.map((i) => {
    const q = kept[i] as number;
    const id = table.ids[q] ?? String(q);
    const accuracies = new Map(table.accuracies[q]);
    return [
      id.length > 160 ? `${id.slice(0, 157)}...` : id,
      fixed(lambda.l23[i] as number),
      posteriorNegative === null ? "-" : (posteriorNegative[i] as number).toFixed(3),
      ...variants.map((variant) => percent(accuracies.get(variant) ?? NaN, 0)),
    ];
  });
  const head = [
    "question",
    "lambda23",
    "P(lambda23 < 0)",
    "base",
    "reas",
    "tool",
    "unified",
    "hybrid tool",
    "hybrid reas",
  ];
  const caption = `The ${rows.length} lowest of ${count(kept.length)}, with each variant's share of right answers. The lowest of many are low by chance too.`;
  return tableSection("questions", "Questions that interfere most", head, rows, caption);
}
