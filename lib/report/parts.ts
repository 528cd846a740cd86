import { chartGroups } from "./charts.js";
import { stepsTable } from "./curves.js";
import { eventList } from "./events.js";
import { figure } from "./format.js";
import { html, type Html } from "./html.js";
import type { RunFiles } from "./run.js";
import { answers, evaluationTable, headline } from "./sections.js";
import { reproduce, setup, type AdapterFacts } from "./setup.js";
import { statusLine, type RunTraces } from "./status.js";

/** Everything that a page shows of a run. */
export interface PageInput {
  run: RunFiles;
  adapters: readonly AdapterFacts[];
  traces: RunTraces;
  /** ms since 1970 */
  now: number;
  viewer: Html | undefined;
  /** Served by a program that will send what changes; else the page stays as it is. */
  live: boolean;
}

/** The page's parts in their order; an empty one may fill later. The report and the live page are made of the same. */
export function pageParts(input: PageInput): [id: string, part: Html | undefined][] {
  const { run, adapters, traces, now, live } = input;
  const groups = new Map(chartGroups(run).map((group) => [group.id, group]));
  const charts = (id: string, before?: Html, after?: Html): [string, Html | undefined] => {
    const group = groups.get(id);
    const section =
      group &&
      html`<section aria-labelledby="${id}">
        <div class="heading">
          <h2 id="${id}">${group.title}</h2>
          ${before}
        </div>
        <div class="charts">${group.charts}</div>
        ${after}
      </section>`;
    return [`${id}-part`, section];
  };
  const calm = html`<label class="smoothing"
    ><input type="checkbox" id="smooth" autocomplete="off" /> smooth lines</label
  >`;
  const begun = !live || Object.keys(run.config).length > 0;
  return [
    ["status", statusLine(run, traces, now, live)],
    [
      "remarks",
      run.remarks.length > 0 ? html`${run.remarks.map((remark) => html`<p class="remark">${remark}</p>`)}` : undefined,
    ],
    ["result-part", begun ? headline(run) : undefined],
    ["events-part", eventList(run.events)],
    ["answers-part", answers(run.examples)],
    charts(
      "learning",
      calm,
      stepsTable(run.metrics, (value) => (typeof value === "number" ? figure(value) : "-")),
    ),
    charts("policy"),
    charts("behaviour"),
    charts("speed"),
    ["viewer-frame", input.viewer],
    ["evaluations-part", evaluationTable(run)],
    ["setup-part", begun ? setup(run, adapters) : undefined],
    ["reproduce-part", begun ? reproduce(run) : undefined],
  ];
}
