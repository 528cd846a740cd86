import { checkRendered } from "./check.js";
import type { AccuracyBin } from "../accuracy-bins.js";
import type { Interference } from "../types.js";
import type { InterferenceFigure, InterferenceRenderOptions } from "./types.js";

export type { InterferenceFigure, InterferenceRenderOptions } from "./types.js";

// What draws and writes is loaded when it is asked for: computing needs none of it.

/**
 * All figures of a result as CSV, one a row: `question,figure,value,low,high,level`. Rows without a question are figures of the whole table; low and high are
 * empty where there is no interval. The others are the effects, the posterior and, with `options.table`, the accuracies of one question.
 *
 * Throws ERR_INVALID_ARGUMENT for what is no result of {@link computeInterference}.
 *
 * @example
 * await writeFile("figures.csv", await interferenceCsv(result, { table }));
 */
export async function interferenceCsv(result: Interference, options: InterferenceRenderOptions = {}): Promise<string> {
  checkRendered(result, options);
  const { toCsv } = await import("./tidy.js");
  return toCsv(result, { ...options, bins: await binsOf(result, options) });
}

/**
 * The charts of a result, each a whole SVG document, light or dark as its reader has it: the distribution of lambda23, the share with its null band, the
 * effects and, with `options.table` or `options.bins`, lambda23 by accuracy. Throws ERR_INVALID_ARGUMENT for what is no result of {@link computeInterference}.
 *
 * @example
 * for (const { name, svg } of await interferenceFigures(result, { table })) await writeFile(`${name}.svg`, svg);
 */
export async function interferenceFigures(
  result: Interference,
  options: InterferenceRenderOptions = {},
): Promise<InterferenceFigure[]> {
  checkRendered(result, options);
  const [{ chartsOf }, { alone }] = await Promise.all([import("./charts.js"), import("./svg.js")]);
  const bins = await binsOf(result, options);
  return chartsOf(result, { ...options, bins }).map((chart) => ({
    name: chart.name,
    title: chart.title,
    svg: alone(chart),
  }));
}

/**
 * A whole HTML page of a result: the sentence, the charts with their numbers, the tables, what to keep in mind. It loads nothing, runs no script, and is light or
 * dark as its reader has it. Throws ERR_INVALID_ARGUMENT for what is no result of {@link computeInterference}.
 *
 * @example
 * await writeFile("interference.html", await interferencePage(result, { table, name: "NQ, 660 questions" }));
 */
export async function interferencePage(result: Interference, options: InterferenceRenderOptions = {}): Promise<string> {
  checkRendered(result, options);
  const { toPage } = await import("./page.js");
  return toPage(result, { ...options, bins: await binsOf(result, options) });
}

/** The effects by accuracy, computed as the result was. Without a table, or with several training seeds, none. */
async function binsOf(
  { seeds, resampling, smoothing, commonRandomNumbers, model, unavailable }: Interference,
  { bins, byHalves, table }: InterferenceRenderOptions,
): Promise<readonly AccuracyBin[] | undefined> {
  if (bins !== undefined || byHalves !== undefined || table === undefined || seeds !== null) return bins;
  const { effectsByAccuracy } = await import("../accuracy-bins.js");
  const { population, draws, seed } = resampling ?? {};
  const intervals = resampling !== null;
  return effectsByAccuracy(table, {
    smoothing,
    commonRandomNumbers,
    intervals,
    population,
    draws,
    seed,
    posterior: false,
    model: unavailable.model !== "not-asked-for",
    ...(model !== null && { nullDraws: model.nullDraws }),
  });
}
