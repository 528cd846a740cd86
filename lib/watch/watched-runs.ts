import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import path from "node:path";
import { lineChart } from "../report/chart.js";
import { mainSeries } from "../report/curves.js";
import { count, percent } from "../report/format.js";
import { html, type Html } from "../report/html.js";
import { COLORS } from "../report/names.js";
import { frame } from "../report/page.js";
import { runStatus, stepsPlanned } from "../report/status.js";
import { VersionedParts, type LivePage, type Updates } from "./live-page.js";
import { WatchedRun } from "./watched-run.js";

/** Lines of one chart, at most: more cannot be told apart. */
const MOST_LINES = 12;
/** Runs of a folder, at most. */
const MOST_RUNS = 500;

/** Several runs: a list, with their rewards and exact matches side by side. */
export class WatchedRuns implements LivePage {
  /** By the name in their addresses. */
  readonly runs = new Map<string, WatchedRun>();
  readonly #parts = new VersionedParts();
  readonly #folder: string | undefined;
  #refreshing: Promise<boolean> | undefined;

  /** A folder whose runs are listed as they come, or the runs themselves. */
  constructor(from: string | readonly string[]) {
    this.#folder = typeof from === "string" ? path.resolve(from) : undefined;
    if (typeof from !== "string") for (const directory of from) this.#add(directory);
  }

  refresh(): Promise<boolean> {
    this.#refreshing ??= this.#refresh().finally(() => (this.#refreshing = undefined));
    return this.#refreshing;
  }

  /** Looks for new runs in the folder. */
  async find(): Promise<void> {
    const folder = this.#folder;
    if (folder === undefined) return;
    for (const name of await runsIn(folder)) if (!this.runs.has(name)) this.#add(path.join(folder, name));
  }

  document(): string {
    return frame({
      title: "rolegrad watch",
      kicker: html`rolegrad watch`,
      heading: this.#folder === undefined ? "Runs" : path.basename(this.#folder),
      parts: this.#render(),
      footer: `rolegrad watch${this.#folder === undefined ? "" : `, ${this.#folder}`}`,
      live: this.#parts.version,
    });
  }

  updates(since: string | null): Updates {
    return this.#parts.since(since);
  }

  #add(directory: string): void {
    const base = path.basename(path.resolve(directory));
    let name = base;
    for (let i = 2; this.runs.has(name); i++) name = `${base}-${i}`;
    this.runs.set(name, new WatchedRun(directory, name, "../../"));
  }

  async #refresh(): Promise<boolean> {
    await this.find();
    for (const run of this.runs.values()) await run.read();
    return this.#parts.put(this.#render());
  }

  #render(): [string, Html | undefined][] {
    // The one that was written last comes first.
    const runs = [...this.runs.values()].sort((a, b) => b.traces.lastWrite - a.traces.lastWrite);
    return [
      ["runs-part", this.#table(runs)],
      ["compare-part", this.#charts(runs.slice(0, MOST_LINES))],
    ];
  }

  #table(runs: readonly WatchedRun[]): Html {
    if (runs.length === 0) return html`<p class="soft">No run yet: a run is a folder with a config.json in it.</p>`;
    const now = Date.now();
    return html`<section aria-labelledby="runs">
      <h2 id="runs">${count(runs.length)} ${runs.length === 1 ? "run" : "runs"}</h2>
      <div class="wide" tabindex="0" role="region" aria-label="Runs">
        <table class="data">
          <thead>
            <tr>
              <th scope="col">run</th>
              <th scope="col">state</th>
              <th scope="col" class="number">step</th>
              <th scope="col" class="number">reward</th>
              <th scope="col" class="number">exact match</th>
              <th scope="col">variant</th>
              <th scope="col">last write</th>
            </tr>
          </thead>
          <tbody>
            ${runs.map(({ name, files, traces }) => {
              const last = files.metrics.at(-1);
              const planned = stepsPlanned(files);
              const match = mainSeries(files.evaluations)?.lines.at(-1);
              const { variant } = files.config;
              return html`<tr>
                <th scope="row"><a href="runs/${encodeURIComponent(name)}/">${name}</a></th>
                <td>${runStatus(files, traces, now)}</td>
                <td class="number">${last?.step ?? 0}${planned !== undefined && ` of ${planned}`}</td>
                <td class="number">${last === undefined ? "-" : last.reward.toFixed(3)}</td>
                <td class="number">${match === undefined ? "-" : percent(match.exactMatch)}</td>
                <td>${typeof variant === "string" ? variant : "-"}</td>
                <td>
                  ${
                    traces.lastWrite > 0 &&
                    html`<time data-ago="${Math.round(traces.lastWrite)}"
                      >${new Date(traces.lastWrite).toISOString().slice(0, 19).replace("T", " ")} UTC</time
                    >`
                  }
                </td>
              </tr>`;
            })}
          </tbody>
        </table>
      </div>
    </section>`;
  }

  #charts(runs: readonly WatchedRun[]): Html | undefined {
    const names = [...this.runs.keys()];
    const color = ({ name }: WatchedRun): string => String(names.indexOf(name) % COLORS);
    const charts = [
      lineChart({
        title: "Exact match by run",
        hint: "Of each run's main evaluation, with 95 % intervals.",
        xLabel: "optimizer step",
        yLabel: "exact match",
        format: "percent",
        yMax: 1,
        legend: true,
        series: runs.map((run) => ({
          name: run.name,
          color: color(run),
          points: (mainSeries(run.files.evaluations)?.lines ?? []).map(({ step, exactMatch, low, high }) => {
            return { x: step, y: exactMatch, low, high };
          }),
        })),
      }),
      lineChart({
        title: "Mean reward by run",
        xLabel: "optimizer step",
        yLabel: "reward",
        legend: true,
        series: runs.map((run) => ({
          name: run.name,
          color: color(run),
          points: run.files.metrics.map(({ step, reward }) => ({ x: step, y: reward })),
        })),
      }),
    ].filter((chart) => chart !== undefined);
    if (charts.length === 0) return undefined;
    return html`<section aria-labelledby="compare">
      <div class="heading">
        <h2 id="compare">Side by side</h2>
        <label class="smoothing"><input type="checkbox" id="smooth" autocomplete="off" /> smooth lines</label>
      </div>
      <div class="charts two">${charts}</div>
    </section>`;
  }
}

/** Names of the folders in a folder that are runs. */
export async function runsIn(folder: string): Promise<string[]> {
  const found = await readdir(folder, { withFileTypes: true }).catch(() => []);
  return found
    .filter((entry) => entry.isDirectory() && existsSync(path.join(folder, entry.name, "config.json")))
    .map(({ name }) => name)
    .sort()
    .slice(0, MOST_RUNS);
}
