import { html, type Html } from "../report/html.js";
import type { CostsFile } from "./directory.js";
import type { ArmMemory } from "./memory.js";
import { PAPER_SAYS } from "./paper.js";
import type { ExperimentPlan } from "./plan.js";
import { alone, cost, difficulty, rank, retrieval, sweep, training } from "./report-arms.js";
import { gradients, leas } from "./report-attribution.js";
import { knobs } from "./report-dose.js";
import { summary } from "./report-summary.js";
import type { ExperimentResults, GroupResult } from "./results.js";
import { capital, comparisonTable, NOT_RUN, percent, rails, section, table } from "./sections.js";

/** Everything on the page, in its order. Parts whose cells have not ended say so. */
export function reportParts(
  results: ExperimentResults,
  plan: ExperimentPlan,
  costs: ReadonlyMap<string, CostsFile>,
  memory: ReadonlyMap<string, ArmMemory>,
): [id: string, part: Html | undefined][] {
  return [
    ["stamp", stamp(results)],
    ["summary", summary(results, plan)],
    ["main", main(results, plan)],
    ["leas", leas(results, plan)],
    ["knobs", knobs(results, plan)],
    ["gradients", gradients(results)],
    ["alone", alone(results)],
    ["rank", rank(results)],
    ["retrieval", retrieval(results)],
    ["training", training(results)],
    ["cost", cost(results, costs, memory)],
    ["sweep", sweep(results)],
    ["state", state(results, plan)],
  ];
}

function stamp({ stamp: text }: ExperimentResults): Html | undefined {
  if (text === null) return undefined;
  return html`<p class="remark">
    <b>${text}.</b> Few questions, few seeds: figures show that the study runs, not what is true.
  </p>`;
}

/** Groups of the first study, at the balance of 1. */
function mainGroups({ groups }: ExperimentResults, plan: ExperimentPlan): GroupResult[] {
  const first = plan.studies[0];
  return groups.filter(
    ({ arm, balance, dialect, planned }) =>
      first?.arms.includes(arm) === true &&
      balance === 1 &&
      dialect === null &&
      (planned === first.rate || arm === "base"),
  );
}

function main(results: ExperimentResults, plan: ExperimentPlan): Html {
  const groups = mainGroups(results, plan);
  const own = results.comparisons.filter(({ study, balance }) => study === plan.studies[0]?.name && balance === 1);
  const rest = results.comparisons.filter((one) => !own.includes(one));
  return html`${section("main-title", capital(results.metric), {
    paper: `${PAPER_SAYS.main} ${PAPER_SAYS.mixture}`,
    ours: "Every arm with the same questions in the same order for each seed; a LoRA of rank 16 for all text against rank 8 a role.",
    parts: [rails(groups), comparisonTable("Comparisons", own, results)],
    missing: NOT_RUN,
  })}
  ${
    rest.length > 0 &&
    html`<details>
      <summary>All other comparisons (exploratory)</summary>
      ${comparisonTable("Other comparisons", rest, results)}
    </details>`
  }`;
}

/** "12 steps (20 in leas, balance)". */
function stepsText({ steps, studies }: ExperimentPlan): string {
  const others = [...new Set(studies.map((own) => own.steps ?? steps))].filter((own) => own !== steps);
  const names = (own: number): string => studies.filter((one) => one.steps === own).map(({ name }) => name).join(", "); // prettier-ignore
  return [`${steps} steps`, ...others.map((own) => `(${own} in ${names(own)})`)].join(" ");
}

function state(results: ExperimentResults, plan: ExperimentPlan): Html {
  const { cells, measured } = results;
  const missing = Object.entries(cells.unavailable);
  const between = measured.filter(({ training: own }) => own !== undefined);
  const share = between.reduce((sum, own) => sum + own.between, 0) / Math.max(1, between.length);
  return html`<section aria-labelledby="state-title">
    <h2 id="state-title">The study</h2>
    <p>
      ${stepsText(plan)} of ${plan.questionsPerStep} questions x ${plan.group} answers; ${plan.questions} held-out
      questions. ${cells.finished} of ${cells.total} cells have ended.
      ${between.length > 0 && `Trained arms answer ${percent(share, 0)} of the questions in between a tenth and nine tenths of their samples, on average.`}
    </p>
    ${difficulty(results)}
    ${
      missing.length > 0 &&
      html`<details>
        <summary>${missing.length} cells without a result</summary>
        ${table("Cells without a result", [["cell"], ["why"]], missing)}
      </details>`
    }
  </section>`;
}
