// A search for a setting in which shared weights lose against weights of each role's own: node scripts/experiment/settings.mjs DIRECTORY
// [--only NAME,..] [--minutes M] [--out docs/experiment-settings.md] [--tiny]. Resumable: what has ended is never done again. Run it after a build.
// --tiny: whether everything works, in seconds.
import { writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { ExperimentDirectory } from "../../dist/experiment/directory.js";
import { ARMS } from "../../dist/experiment/arms.js";
import { experimentResults } from "../../dist/experiment/results.js";
import { runExperiment } from "../../dist/experiment/runner.js";

const SHARED = ["unified", "shared-2m", "full"];
const OWN = ["dart-stop", "two-agent", "two-agent-full", "placebo"];
const SEEDS = [31, 32, 33];

/** Knobs that are natural: nothing in the loss is scaled, no search is turned against the answers. */
const SETTINGS = [
  { name: "plain", about: "as the full study", world: {}, steps: 12 },
  { name: "long", about: "every thought after a page tells all of it again", world: { base: { thoughts: "long" } }, steps: 12 },
  { name: "layers", about: "six layers in place of three", world: { base: { layers: 6 } }, steps: 12 },
  { name: "hard", about: "twice the entities, two hops in every question", world: { size: 2, twoHops: 1 }, steps: 20 },
  { name: "sql", about: "NL2SQL on generated databases", world: { task: "sql" }, steps: 12 },
]; // prettier-ignore

function planOf(setting) {
  return values.tiny ? tinyPlanOf(setting) : wholePlanOf(setting);
}

function tinyPlanOf(setting) {
  const plan = wholePlanOf(setting);
  return {
    ...plan,
    world: { ...plan.world, baseTokens: 2000 },
    ...{ steps: 1, questionsPerStep: 2, group: 2, trainQuestions: 8, questions: 4 },
    curve: { every: 1, questions: 4 },
    sweep: { rates: [1e-3], seeds: [301] },
    studies: plan.studies.map((study) => ({ ...study, seeds: [31], samples: 2 })),
  };
}

function wholePlanOf({ name, about, world, steps }) {
  return {
    name: `setting-${name}`,
    stamp: "exploratory search, no inference",
    world: { seed: 5, tuningSeed: 6, ...world },
    ...{ steps, questionsPerStep: 16, group: 8, trainQuestions: 1000, questions: 150 },
    curve: { every: 4, questions: 75 },
    sweep: { rates: [5e-4, 1e-3, 2e-3, 4e-3, 8e-3], seeds: [301] },
    studies: [{ name: "main", about, arms: ["base", ...SHARED, ...OWN], seeds: SEEDS, rate: "tuned", samples: 10 }],
  };
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    only: { type: "string" },
    minutes: { type: "string" },
    out: { type: "string" },
    tiny: { type: "boolean" },
  },
});
const [root] = positionals;
if (root === undefined) throw new Error("Expected a directory for the runs");
const chosen = SETTINGS.filter(({ name }) => values.only?.split(",").includes(name) ?? true);
const controller = new AbortController();
if (values.minutes !== undefined)
  setTimeout(() => controller.abort(new Error("out of time")), Number(values.minutes) * 60_000).unref();
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => controller.abort(new Error(signal)));

for (const setting of chosen) {
  const onCell = ({ cell, state, exactMatch }) =>
    state === "finished" && console.error(`${setting.name} ${cell.id} ${exactMatch?.toFixed(3)}`);
  const directory = path.join(root, setting.name);
  const { status } = await runExperiment({ directory, plan: planOf(setting), signal: controller.signal, onCell });
  if (status === "interrupted") break;
}

const points = (value) => `${value < 0 ? "-" : "+"}${Math.abs(100 * value).toFixed(1)}`;
const rows = [];
for (const setting of SETTINGS) {
  const directory = path.join(root, setting.name);
  if ((await new ExperimentDirectory(directory).readPlan()) === undefined) continue;
  const results = await experimentResults(directory, planOf(setting));
  const of = (arm) => results.measured.filter((cell) => cell.arm === arm);
  const mean = (arm) => of(arm).reduce((sum, { exactMatch }) => sum + exactMatch, 0) / of(arm).length;
  for (const arm of ["base", ...SHARED, ...OWN]) {
    if (of(arm).length === 0) continue;
    // Against the shared training of the same kind: of one LoRA, or of every parameter.
    const against = arm === "two-agent-full" ? "full" : "unified";
    const differences = of(arm).flatMap(({ seed, exactMatch }) => {
      const other = of(against).find((cell) => cell.seed === seed);
      return arm === against || arm === "base" || other === undefined ? [] : [exactMatch - other.exactMatch];
    });
    const average = differences.reduce((sum, own) => sum + own, 0) / differences.length;
    rows.push([
      setting.name,
      ARMS[arm].title,
      arm === "base" ? "" : String(of(arm)[0].rate),
      mean(arm).toFixed(3),
      String(of(arm).length),
      differences.length === 0 ? "" : `${points(average)} (${differences.map(points).join(", ")}) against ${against}`,
    ]);
  }
}
const table = [["setting", "arm", "rate", "exact match", "seeds", "difference in points (by seed)"], null, ...rows]
  .map((row) => `| ${(row ?? Array(6).fill("---")).join(" | ")} |`)
  .join("\n");
console.log(table);
if (values.out !== undefined)
  writeFileSync(
    values.out,
    `# Where shared weights might lose

Written by \`node scripts/experiment/settings.mjs\` (exploratory: three seeds, no inference). Each setting is natural: the loss is not scaled by role, and the search
is not turned against the answers. Every arm has the rate of its own sweep (5e-4 to 8e-3, another world, a seed that is thrown away), 150 held-out
questions x 10 answers.

${SETTINGS.map(({ name, about, steps }) => `- \`${name}\`: ${about}; ${steps} steps of 16 x 8.`).join("\n")}

A setting in which shared weights lose would have \`2-Agent\` and \`DART, stop\` above \`unified\` and \`shared, two moments\`, and the placebo not.

${table}
`,
  );
