import { frame } from "../report/page.js";
import { html } from "../report/html.js";
import { ExperimentDirectory, type CostsFile } from "./directory.js";
import { trainingMemory, type ArmMemory } from "./memory.js";
import type { ExperimentPlan } from "./plan.js";
import { countsCsv, experimentResults, type ExperimentResults } from "./results.js";
import { reportParts } from "./report-parts.js";

/**
 * Makes results.json, counts.csv and report.html of what an experiment's folder holds, finished or not, and returns the page's path. The same files give
 * the same bytes; results.json and counts.csv do not depend on when and how fast they were made. A folder of another plan -> ERR_EXPERIMENT_EXISTS.
 *
 * @example
 * await writeExperimentReport("runs/experiment-quick", PLANS.quick); // runs/experiment-quick/report.html
 */
export async function writeExperimentReport(directory: string, plan: ExperimentPlan): Promise<string> {
  const own = new ExperimentDirectory(directory);
  await own.checkPlan(plan);
  const results = await experimentResults(directory, plan);
  await own.write("results.json", `${JSON.stringify(results, null, 2)}\n`);
  await own.write("counts.csv", await countsCsv(directory, plan));
  const costs = new Map<string, CostsFile>();
  for (const { id } of results.measured) {
    const found = await own.readCosts(id);
    if (found !== undefined) costs.set(id, found);
  }
  return own.write("report.html", experimentPage(results, plan, costs, await trainingMemory(own, plan)));
}

/** The page of an experiment's results. */
export function experimentPage(
  results: ExperimentResults,
  plan: ExperimentPlan,
  costs: ReadonlyMap<string, CostsFile>,
  memory: ReadonlyMap<string, ArmMemory>,
): string {
  const { stamp, cells } = results;
  const state = `${cells.finished} of ${cells.total} cells finished`;
  return frame({
    title: `${plan.name} experiment: rolegrad report`,
    kicker: html`rolegrad experiment, ${plan.name}; ${state}`,
    heading: "Do reasoning and tool use compete? The study in the embedded world",
    parts: reportParts(results, plan, costs, memory),
    footer: `${stamp === null ? "" : `${stamp}. `}Made from the files of this experiment's folder by rolegrad. What comes out is reported as it came out.`,
  });
}
