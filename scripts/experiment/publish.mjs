// What a study came to, for the repository: node scripts/experiment/publish.mjs EXPERIMENT docs/experiment-full writes
// README.md (the figures as tables), counts.jsonl (each cell's right answers by question) and report.html. Run it after a build.
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { format } from "prettier";
import { ARMS } from "../../dist/experiment/arms.js";
import { ExperimentDirectory } from "../../dist/experiment/directory.js";
import { expandPlan } from "../../dist/experiment/plan.js";
import { writeExperimentReport } from "../../dist/experiment/report.js";
import { experimentResults } from "../../dist/experiment/results.js";
import { leasSeeds, shareVerdict } from "../../dist/experiment/verdict.js";

const [folder, out] = process.argv.slice(2);
if (out === undefined) throw new Error("Expected the folder of an experiment and one to write to");
const directory = new ExperimentDirectory(folder);
const plan = await directory.readPlan();
if (plan === undefined) throw new Error(`Expected an experiment in ${folder}`);
const results = await experimentResults(folder, plan);
const { measured, groups, comparisons, leas, sweep, probes, cells } = results;
mkdirSync(out, { recursive: true });

const table = (head, rows) =>
  rows.length === 0
    ? "Not run yet.\n"
    : [head, head.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");
const between = (low, high, show) => (low === null || high === null ? "" : ` (${show(low)} to ${show(high)})`);
const share = (value) => value.toFixed(3);
const signed = (value) => `${value < 0 ? "-" : "+"}${Math.abs(value).toFixed(2)}`;
const points = (value) => `${value < 0 ? "-" : "+"}${Math.abs(100 * value).toFixed(1)}`;
const estimate = (own, show) => (own === null ? "-" : `${show(own.value)}${between(own.low, own.high, show)}`);
const knobs = ({ balance, dialect }) =>
  dialect === null ? `w ${balance}` : dialect === "aligned" ? "d 1, aligned" : `d ${dialect}`;

/** Exact match of the groups of a study, arms as rows. */
function groupsOf(name) {
  const study = plan.studies.find((own) => own.name === name);
  const ids = new Set(expandPlan(plan).flatMap((cell) => (cell.studies.includes(name) ? [cell.id] : [])));
  const rows = groups.flatMap((group) => {
    // A study with fewer seeds than others has fewer of a group's cells.
    const own = measured.filter(({ id }) => group.cells.includes(id) && ids.has(id));
    if (own.length === 0 || !study.arms.includes(group.arm)) return [];
    const values = own.map(({ exactMatch }) => exactMatch);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return [[group, own, mean]];
  });
  return rows.map(([group, own, mean]) => [
    group.title,
    knobs(group),
    group.arm === "base" ? "" : String(own[0].rate),
    share(mean),
    own.map(({ exactMatch }) => share(exactMatch)).join(", "),
    group.retrieval === null ? "-" : share(own.reduce((sum, { retrieval }) => sum + retrieval, 0) / own.length),
    share(own.reduce((sum, cell) => sum + cell.between, 0) / own.length),
  ]);
}
const GROUPS = ["arm", "setting", "rate", results.metric, "by seed", "retrieved", "questions between .1 and .9"];

function differencesOf(name) {
  return comparisons
    .filter(({ study }) => study === name)
    .map((own) => [
      `${ARMS[own.a].title} less ${ARMS[own.b].title}${own.primary ? " **(primary)**" : ""}`,
      knobs(own),
      `${points(own.mean)}${between(own.low, own.high, points)}${own.interim ? ` (interim: ${own.interim.seeds} of ${own.interim.of} seeds)` : ""}`,
      Object.values(own.bySeed).map(points).join(", "),
    ]);
}
const DIFFERENCES = ["difference", "setting", "points, 95 % t interval over seeds", "by seed"];

const parts = [];
for (const { name, about, seeds, samples } of plan.studies) {
  parts.push(
    `## ${name}\n\n${about} Seeds ${seeds.join(", ")}; ${plan.questions} questions x ${samples} answers or more.`,
  );
  parts.push(table(GROUPS, groupsOf(name)), table(DIFFERENCES, differencesOf(name)));
}

const LEAS = ["setting", "seed", "answers", "share of lambda23 < 0", "null band", "p (sign, Wilcoxon)", "mean23, logits", "lambda12", "lambda13", "s_u - max(s_t, s_r)"]; // prettier-ignore
const attribution = leas.map((own) => [
  knobs(own),
  own.seed ?? "all",
  `${own.samples.base}${own.samples.unified === own.samples.base ? "" : ` (unified ${own.samples.unified})`}`,
  estimate(own.share, share),
  own.share.null === null ? "-" : estimate(own.share.null, share),
  own.pValues === null ? "-" : `${own.pValues.sign.toPrecision(2)}, ${own.pValues.wilcoxon.toPrecision(2)}`,
  estimate(own.mean23, signed),
  estimate(own.effects.l12.mean, signed),
  estimate(own.effects.l13.mean, signed),
  estimate(own.contrasts.overBest, points),
]);
const verdicts = [...new Set(leas.map(knobs))].map((setting) => {
  const own = leas.filter((one) => knobs(one) === setting && one.seed !== null);
  return `- ${setting}: ${shareVerdict(own, leasSeeds(plan, own[0]))}`;
});

const cosine = (own) => (own === null || own === undefined ? "-" : `${own.value.toFixed(3)}${between(own.low, own.high, (x) => x.toFixed(3))}`); // prettier-ignore
const angles = measured.flatMap(({ id, dialect, seed }) => {
  const found = probes[id]?.angles;
  const batch = found?.whole.advantage.batch[0];
  if (batch === undefined) return [];
  return [[dialect === null ? "no dialect" : knobs({ dialect }), seed, cosine(batch.cosine), cosine(batch.corrected)]];
});
const leaks = measured.flatMap(({ id, arm, seed, balance, dialect, planned }) => {
  const leak = probes[id]?.leak;
  if (leak === undefined || balance !== 1 || dialect !== null) return [];
  const ratio = ({ norms }, from, to) => (norms[from][to] / norms[from][from]).toFixed(3);
  const both = (own) => `${ratio(own, "reason", "tool")}, ${ratio(own, "tool", "reason")}`;
  return [[ARMS[arm].title, planned, seed, both(leak.flow), both(leak.trained)]];
});
const swept = Object.entries(sweep).map(([arm, own]) => [
  ARMS[arm].title,
  ...plan.sweep.rates.map((rate) => (own.exactMatch[rate] ?? NaN).toFixed(3)),
  own.chosen,
]);

const text = `# The study "${plan.name}": what came out

${results.stamp === null ? "" : `**${results.stamp}.**\n\n`}Written by \`node scripts/experiment/publish.mjs\` from ${cells.finished} of ${cells.total} cells. World ${plan.world.seed}; ${plan.steps} steps (where a study has no other number) of
${plan.questionsPerStep} questions x ${plan.group} answers. What was declared beforehand is in [experiment.md](../experiment.md). \`counts.jsonl\` has the right answers of every cell by question,
\`report.html\` the same figures with charts, costs and training curves.

${parts.join("\n\n")}

## Attribution

${table(LEAS, attribution)}

Several seeds decide together only where the share lies outside its null band in every seed, on the same side:

${verdicts.join("\n")}

## Angles

Cosine between the roles' advantage-weighted gradients on the base, summed over ${Math.max(2, plan.questions >> 2)} queries, and corrected for noise by split halves.

${table(["setting", "seed", "cosine", "corrected"], angles)}

## Leak

Norm of a role's gradient in the other's adapter against that in its own (reasoning to tool, tool to reasoning), under plain autograd and as it was trained.

${table(["arm", "rate", "seed", "flow", "as trained"], leaks)}

${
  plan.sweep === undefined
    ? "The rate was given, so there was no sweep of rates."
    : `## Rates

${results.metric === "exact match" ? "Exact match" : "Execution match"} at the end of the sweep in world ${plan.world.tuningSeed}, seeds ${plan.sweep.seeds.join(", ")} (thrown away).

${table(["arm", ...plan.sweep.rates, "chosen"], swept)}`
}
`;
writeFileSync(path.join(out, "README.md"), await format(text, { parser: "markdown", printWidth: 160 }));

const lines = [];
let questions;
for (const { id } of expandPlan(plan)) {
  const counts = await directory.readCounts(id);
  if (counts === undefined) continue;
  // Most cells have the same questions; those of other worlds say their own.
  const ids = JSON.stringify(counts.questions);
  const { cell, arm, seed, balance, dialect, rate, samples, correct, retrieved } = counts;
  const own = { cell, arm, seed, balance, dialect, rate, samples, correct, retrieved };
  lines.push(JSON.stringify(ids === questions ? own : { ...own, questions: counts.questions }));
  questions ??= ids;
}
writeFileSync(path.join(out, "counts.jsonl"), `${lines.join("\n")}\n`);
copyFileSync(await writeExperimentReport(folder, plan), path.join(out, "report.html"));
console.log(`${cells.finished} of ${cells.total} cells: ${out}`);
