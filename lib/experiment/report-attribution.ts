import { html, type Html } from "../report/html.js";
import type { Estimate } from "../attribution/types.js";
import { PAPER_SAYS } from "./paper.js";
import type { ExperimentPlan } from "./plan.js";
import type { ExperimentResults } from "./results.js";
import type { LeasResult } from "./leas.js";
import { cosineOverDialect } from "./report-dose.js";
import { bounded, estimate, figure, percent, section, settingText, share, signed, table } from "./sections.js";
import { leasSeeds, shareVerdict } from "./verdict.js";

/** "50 (unified 10)". */
function samplesText({ base, ...others }: LeasResult["samples"]): string {
  const own = Object.entries(others).filter(([, samples]) => samples !== base);
  return own.length === 0
    ? `${base}`
    : `${base} (${own.map(([variant, samples]) => `${variant} ${samples}`).join(", ")})`;
}

export function leas({ leas: list, stamp: text }: ExperimentResults, plan: ExperimentPlan): Html {
  const seedOf = (seed: number | null): string => (seed === null ? "all" : String(seed));
  const shares = table(
    "Interference",
    [
      ["setting"],
      ["seed"],
      ["questions x samples", "number"],
      ["lambda23 < 0, = 0, > 0", "number"],
      ["share < 0", "number"],
      ["null band of the share", "number"],
      ["true share", "number"],
      ["mean of lambda23", "number"],
      ["saturated", "number"],
    ],
    list.map((own) => [
      settingText(own),
      seedOf(own.seed),
      `${own.seed === null ? own.questions : own.kept} x ${samplesText(own.samples)}`,
      own.counts === null ? "-" : `${own.counts.negative}, ${own.counts.zero}, ${own.counts.positive}`,
      share(own.share),
      share(own.share.null),
      share(own.trueShare),
      estimate(own.mean23),
      own.seed === null ? "-" : own.saturated,
    ]),
    "The share has no null of 50 %: read each seed's against its own null band. Several seeds decide only where it lies outside in every one, on the same side. A dash: the counts do not allow the figure, or it is one of single seeds.",
  );
  const details = table(
    "Details of the share",
    [
      ["setting"],
      ["seed"],
      ["share < 0", "number"],
      ["its null", "number"],
      ["less the null", "number"],
      ["without saturated questions", "number"],
      ["its null", "number"],
      ["median of lambda23", "number"],
      ["its null", "number"],
      ["p, sign test", "number"],
      ["p, Wilcoxon", "number"],
    ],
    list.map((own) => [
      settingText(own),
      seedOf(own.seed),
      share(own.share),
      share(own.share.null),
      bounded(own.share.excess, [-1, 1], (value) => `${value >= 0 ? "+" : ""}${percent(value)}`),
      share(own.share.unsaturated),
      share(own.share.unsaturatedNull),
      estimate(own.median23, signed),
      estimate(own.median23Null, signed),
      own.pValues === null ? "-" : figure(own.pValues.sign),
      own.pValues === null ? "-" : figure(own.pValues.wilcoxon),
    ]),
    "Nulls and p-values are those of additive effects with the same floors, ceilings and ties.",
  );
  const effects = table(
    "Effects",
    [
      ["setting"],
      ["seed"],
      ["tool alone, lambda2", "number"],
      ["reasoning alone, lambda3", "number"],
      ["lambda12 (share < 0)", "number"],
      ["lambda13 (share < 0)", "number"],
      ["s_u - s_t - s_r + s_b", "number"],
      ["s_u - max(s_t, s_r)", "number"],
    ],
    list.map((own) => {
      const { l2, l3, l12, l13 } = own.effects;
      const cross = (effect: typeof l12): string => `${estimate(effect.mean, signed)} (${percent(effect.negative, 0)})`;
      const contrast = (value: (typeof own)["mean23"]): string => estimate(value, signed);
      const { additive, overBest } = own.contrasts;
      return [
        settingText(own),
        seedOf(own.seed),
        estimate(l2.mean, signed),
        estimate(l3.mean, signed),
        cross(l12),
        cross(l13),
        contrast(additive),
        contrast(overBest),
      ];
    }),
    "Means over the kept questions: effects in logits, contrasts on the scale of accuracies.",
  );
  const bins = table(
    "By accuracy",
    [["setting"], ["seed"], ["accuracy of the hybrids"], ["questions", "number"], ["lambda23 < 0", "number"]],
    list.flatMap((own) =>
      own.byAccuracy.map((bin) => [
        settingText(own),
        seedOf(own.seed),
        `${percent(bin.from, 0)} to ${percent(bin.to, 0)}`,
        bin.questions,
        bin.questions === 0 ? "-" : `${bin.negative} (${percent(bin.negative / bin.questions, 0)})`,
      ]),
    ),
    "By the hybrids' accuracy, whose counts lambda23 does not contain.",
  );
  const warnings = [...new Set(list.flatMap((own) => own.warnings))];
  return section("leas-title", "Attribution (LEAS)", {
    paper: `${PAPER_SAYS.leas} ${PAPER_SAYS.effects}`,
    ours: text === null ? "Six variants, independent samples." : `Six variants, independent samples; ${text}.`,
    parts: [
      shares,
      verdicts(list, plan),
      details &&
        html`<details>
          <summary>With and without saturated questions, the median, tests</summary>
          ${details}
        </details>`,
      effects,
      bins,
      warnings.length > 0
        ? html`<details>
            <summary>What to keep in mind</summary>
            <ul>
              ${warnings.map((line) => html`<li>${line}</li>`)}
            </ul>
          </details>`
        : undefined,
    ],
    missing: "No setting has all six variants, with a right answer, yet.",
  });
}

/** What the seeds of each setting say together, as it is declared; a smoke run decides nothing. */
function verdicts(list: readonly LeasResult[], plan: ExperimentPlan): Html | undefined {
  const seeds = list.filter(({ seed }) => seed !== null);
  const settings = seeds.filter((own, i) => seeds.findIndex((one) => sameSetting(one, own)) === i);
  if (plan.stamp !== undefined || settings.length === 0) return undefined;
  const lines = settings.map((own) => {
    const same = seeds.filter((one) => sameSetting(one, own));
    return html`<li><b>${settingText(own)}</b>: the share is ${shareVerdict(same, leasSeeds(plan, own))}.</li>`;
  });
  return html`<ul>
    ${lines}
  </ul>`;
}

function sameSetting(a: LeasResult, b: LeasResult): boolean {
  return a.balance === b.balance && a.dialect === b.dialect && a.rate === b.rate;
}

export function gradients(results: ExperimentResults): Html {
  const { probes } = results;
  const chart = cosineOverDialect(results);
  const leaks = Object.entries(probes).flatMap(([cell, { leak }]) =>
    leak === undefined ? [] : [[cell, leak] as const],
  );
  const rows = leaks.flatMap(([cell, leak]) =>
    [leak.flow, ...(leak.trained.crossRole === "flow" ? [] : [leak.trained])].flatMap((one) =>
      Object.entries(one.norms).map(([role, norms]) => [
        cell,
        one.crossRole,
        role,
        ...Object.keys(one.norms).map((adapter) => figure(norms[adapter] ?? 0)),
        ...Object.keys(one.norms).map((adapter) => {
          const cosine = one.cosines[role]?.[adapter];
          return typeof cosine === "number" ? cosine.toFixed(2) : "-";
        }),
      ]),
    ),
  );
  const roles = Object.keys(leaks[0]?.[1].flow.norms ?? {});
  const warnings = [...new Set(Object.values(probes).flatMap(({ angles }) => angles?.warnings ?? []))];
  return section("gradients-title", "Gradients", {
    paper: `${PAPER_SAYS.leak} ${PAPER_SAYS.angles}`,
    ours: "Angles between the roles' gradients on the base's weights, beside their null (the same with the roles laid over the tokens anew) and their reliability. Leak: the norm of what each role's loss gives each adapter, and its cosine to that adapter's own gradient.",
    parts: [
      angleTable(probes),
      chart && html`<div class="charts">${chart}</div>`,
      table(
        "Leak",
        [
          ["cell"],
          ["gradient"],
          ["loss of"],
          ...roles.map((role): [string, "number"] => [`norm on ${role}`, "number"]),
          ...roles.map((role): [string, "number"] => [`cosine on ${role}`, "number"]),
        ],
        rows,
      ),
      warnings.length > 0
        ? html`<details>
            <summary>What to keep in mind of the angles</summary>
            <ul>
              ${warnings.map((line) => html`<li>${line}</li>`)}
            </ul>
          </details>`
        : undefined,
    ],
    missing: "No cell has been probed.",
  });
}

function angleTable(probes: ExperimentResults["probes"]): Html | undefined {
  const degrees = (own: Estimate | null | undefined): string => bounded(own, [0, 180], (value) => value.toFixed(1));
  const rows = Object.entries(probes).flatMap(([cell, { angles }]) =>
    angles === undefined
      ? []
      : (["advantage", "score"] as const).map((kind) => {
          const { different, differentRollouts, same, split, shifted, batch } = angles.whole[kind];
          const [first] = batch;
          return [
            cell,
            kind === "advantage" ? "advantage-weighted" : "score",
            degrees(different[0]?.angle),
            degrees(shifted?.different.angle),
            degrees(differentRollouts[0]?.angle),
            Object.values(same)
              .map(({ angle }) => degrees(angle))
              .join("; "),
            degrees(shifted?.same.angle),
            Object.values(split ?? {})
              .map(({ angle }) => degrees(angle))
              .join("; ") || "-",
            bounded(first?.cosine, [-1, 1], (value) => value.toFixed(2)),
            (first?.reliability ?? []).map((own) => estimate(own, (value) => value.toFixed(2))).join("; "),
            estimate(first?.corrected ?? null),
          ];
        }),
  );
  return table(
    "Angles",
    [
      ["cell"],
      ["gradient"],
      ["between roles, one rollout", "number"],
      ["its null", "number"],
      ["between roles, two rollouts", "number"],
      ["within each role, two rollouts", "number"],
      ["its null", "number"],
      ["within each role, halves of a rollout's tokens", "number"],
      ["cosine of the sums", "number"],
      ["reliability of each side", "number"],
      ["cosine without noise", "number"],
    ],
    rows,
    "Angles in degrees; intervals by query. A cosine whose reliability cannot be told from 0 means nothing.",
  );
}
