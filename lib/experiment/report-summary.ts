import { html, type Html } from "../report/html.js";
import type { LeasResult } from "./leas.js";
import type { ExperimentPlan } from "./plan.js";
import type { Comparison, ExperimentResults } from "./results.js";
import { estimate, percent, points, share, signed, table } from "./sections.js";
import { leasSeeds, shareVerdict } from "./verdict.js";

/** The paper's result and this one, a line each. What either is compared with stands in the row, for it is not the same. */
export function summary(results: ExperimentResults, plan: ExperimentPlan): Html {
  const rows: [string, string, string][] = [
    [
      `DART less full fine-tuning, ${results.metric}`,
      "+6.35 points (mean of four models; Search-R1)",
      difference(results, plan, "dart-stop", "full"),
    ],
    [
      "DART less one LoRA of rank 16 (unified)",
      "+8.9 (3B-Base: 40.5 less 31.6), +3.3 (3B-Instruct: 39.9 less 36.6) points",
      difference(results, plan, "dart-stop", "unified"),
    ],
    ["DART less the placebo (random routing)", "not run", difference(results, plan, "dart-stop", "placebo")],
    [
      "2-Agent of two full models less DART",
      "+0.1 (3B-Base), +0.5 (3B-Instruct) points",
      difference(results, plan, "two-agent-full", "dart-stop"),
    ],
    ["2-Agent of two LoRAs of rank 16 less DART", "not run", difference(results, plan, "two-agent", "dart-stop")],
    ["share of lambda23 < 0", "42.3 % to 67.2 %, no null", shares(results, plan)],
    ["mean of lambda23, logits", "not reported", each(results, (own) => estimate(own.mean23))],
    [
      "lambda12, lambda13: means in logits",
      "mostly positive",
      each(results, ({ effects: { l12, l13 } }) => `${estimate(l12.mean, signed)}, ${estimate(l13.mean, signed)}`),
    ],
    [
      "DART's reasoning adapter alone less hybrid-reas",
      "+1.3 points (3B, NQ: 0.448 less 0.435)",
      difference(results, plan, "keep-reas", "hybrid-reas"),
    ],
    [
      "DART's tool adapter alone less hybrid-tool",
      "+12.4 points (3B, NQ: 0.372 less 0.248)",
      difference(results, plan, "keep-tool", "hybrid-tool"),
    ],
    ...(results.metric === "exact match" ? retrievalRows(results, plan) : []),
    [
      "DART on the other's passages, less the other (the paper: full fine-tuning; here: unified, one LoRA of rank 16)",
      "+17.5 (NQ), +7.0 (HotpotQA) points, 3B-Base on Search-R1's",
      difference(results, plan, "replay", "unified"),
    ],
    [
      "MixLoRA less full fine-tuning",
      "+2.6 (3B-Instruct: 36.2 less 33.6), +2.2 (3B-Base: 32.5 less 30.3) points; Search-R1",
      difference(results, plan, "mixture", "full"),
    ],
    [
      "MixLoRA less one LoRA of rank 16 (unified)",
      "-0.4 (3B-Instruct: 36.2 less 36.6), +0.9 (3B-Base: 32.5 less 31.6) points",
      difference(results, plan, "mixture", "unified"),
    ],
  ];
  return html`<section class="card" aria-labelledby="summary-title">
    <h2 id="summary-title">The paper and this study</h2>
    ${table("The paper and this study", [["what"], ["the paper"], ["here"]], rows, "A dash: not run yet, or not in this plan. Models, tasks and sizes differ by orders of magnitude.")}
  </section>`;
}

/** Of the first study where it has both arms, else of the first that has. */
function difference({ comparisons }: ExperimentResults, plan: ExperimentPlan, a: string, b: string): string {
  const found = comparisons.filter((one) => one.a === a && one.b === b && one.balance === 1 && one.dialect === null);
  const own: Comparison | undefined = found.find(({ study }) => study === plan.studies[0]?.name) ?? found[0];
  if (own === undefined) return "-";
  const seeds = Object.keys(own.bySeed).length;
  return `${points(own)} points${own.interim === null ? `, ${seeds} ${seeds === 1 ? "seed" : "seeds"}` : ""}`;
}

function retrievalRows(results: ExperimentResults, plan: ExperimentPlan): [string, string, string][] {
  return [
    [
      "retrieval, full fine-tuning to DART",
      "45.6 % to 64.1 % (3B, NQ; Search-R1)",
      retrieved(results, plan, "full", "dart-stop"),
    ],
    [
      "retrieval, one LoRA of rank 16 (unified) to DART",
      "not reported",
      retrieved(results, plan, "unified", "dart-stop"),
    ],
  ];
}

/** Of the seeds that both have, at the first study's rate where both have it there, else at the first rate that both have. */
function retrieved({ groups, measured }: ExperimentResults, plan: ExperimentPlan, a: string, b: string): string {
  const plain = groups.filter(({ balance, dialect }) => balance === 1 && dialect === null);
  const rates = [...new Set([plan.studies[0]?.rate, ...plain.map(({ planned }) => planned)])];
  for (const rate of rates) {
    const [one, other] = [a, b].map((arm) => plain.find((own) => own.arm === arm && own.planned === rate));
    if (one === undefined || other === undefined) continue;
    const seeds = one.seeds.filter((seed) => other.seeds.includes(seed));
    if (seeds.length === 0) continue;
    const mean = ({ cells }: { cells: string[] }): number =>
      measured
        .filter(({ id, seed }) => cells.includes(id) && seeds.includes(seed))
        .reduce((sum, { retrieval }) => sum + (retrieval ?? NaN) / seeds.length, 0);
    return `${percent(mean(one))} to ${percent(mean(other))}`;
  }
  return "-";
}

/** Attributions with every knob at rest. */
function plainLeas({ leas }: ExperimentResults): LeasResult[] {
  return leas.filter(({ balance, dialect }) => balance === 1 && dialect === null);
}

/** Each seed's share beside its null band, and what the seeds decide together. */
function shares(results: ExperimentResults, plan: ExperimentPlan): string {
  const seeds = plainLeas(results).filter(({ seed }) => seed !== null);
  const [first] = seeds;
  if (first === undefined) return "-";
  const list = seeds.map(
    (own) => `seed ${own.seed}: ${share(own.share)}${own.share.null === null ? "" : `, null ${share(own.share.null)}`}`,
  );
  const same = seeds.filter(({ rate }) => rate === first.rate);
  if (results.stamp === null) list.push(`together: ${shareVerdict(same, leasSeeds(plan, first))}`);
  return list.join("; ");
}

/** All seeds together where there are several, else each. */
function each(results: ExperimentResults, text: (own: LeasResult) => string): string {
  const list = plainLeas(results);
  const pooled = list.filter(({ seed }) => seed === null);
  const shown = pooled.length > 0 ? pooled : list;
  if (shown.length === 0) return "-";
  return shown.map((own) => (own.seed === null ? text(own) : `seed ${own.seed}: ${text(own)}`)).join("; ");
}
