import { answerBody, answerLegend, answerRow, type AnswerReader } from "./answer.js";
import { spread } from "./downsample.js";
import { html, type Html } from "./html.js";
import type { NameColors } from "./names.js";
import {
  AnswerIndexCache,
  readAnswer,
  trajectoryFile,
  trajectorySources,
  type TrajectorySource,
} from "./trajectories.js";

/** Kinds of files as a reader knows them. */
const KINDS: Record<string, string> = { step: "training", eval: "evaluation" };

/** Steps of each kind that there are answers of. */
export interface SourceRange {
  kind: string;
  label: string;
  first: number;
  last: number;
  files: number;
}

export function sourceRanges(sources: readonly TrajectorySource[]): SourceRange[] {
  const ranges = new Map<string, SourceRange>();
  for (const { kind, step } of sources) {
    const range = ranges.get(kind);
    if (range === undefined)
      ranges.set(kind, { kind, label: KINDS[kind] ?? kind.replaceAll("-", " "), first: step, last: step, files: 1 });
    else {
      range.first = Math.min(range.first, step);
      range.last = Math.max(range.last, step);
      range.files++;
    }
  }
  // Training first, then evaluations, then the rest.
  const rank = ({ kind }: SourceRange): number => ["step", "eval"].indexOf(kind) >>> 0;
  return [...ranges.values()].sort((a, b) => rank(a) - rank(b));
}

/** The trajectory viewer. `entries`: answers that are in the page itself; without, the page's script asks the server for them. */
export function viewer(
  sources: readonly TrajectorySource[],
  colors: NameColors,
  frozen?: { entries: readonly Html[]; shown: readonly TrajectorySource[]; total: number },
): Html | undefined {
  const ranges = sourceRanges(frozen?.shown ?? sources);
  if (ranges.length === 0) return undefined;
  const option = (value: string, text: string): Html => html`<option value="${value}">${text}</option>`;
  return html`<section aria-labelledby="viewer" id="viewer-part" data-sources="${JSON.stringify(ranges)}">
    <h2 id="viewer">Answers, token by token</h2>
    ${
      frozen !== undefined &&
      html`<p class="soft">
        ${frozen.entries.length} answers of ${frozen.total} files of the run's trajectories/;
        <code>rolegrad watch</code> shows all.
      </p>`
    }
    <form class="controls" data-keep="all" aria-label="Which answers" autocomplete="off">
      <label
        >Of
        <select name="kind">
          ${ranges.map(({ kind, label }) => option(kind, label))}
        </select></label
      >
      <span class="stepper">
        <button type="button" name="earlier" aria-label="Earlier step">‹</button>
        <label>step <input name="step" type="number" min="0" inputmode="numeric" value="${ranges[0]?.last}" /></label>
        <button type="button" name="later" aria-label="Later step">›</button>
      </span>
      <label
        >Order
        <select name="sort">
          ${option("made", "as made")} ${option("best", "highest reward")} ${option("worst", "lowest reward")}
          ${option("longest", "longest")} ${option("calls", "most calls")} ${option("question", "question")}
        </select></label
      >
      <label
        >Reward
        <select name="reward">
          ${option("", "any")} ${option("some", "above 0")} ${option("none", "0 or less")}
        </select></label
      >
      <label
        >Ended by
        <select name="finish">
          ${option("", "any")} ${["stop", "length", "budget", "error"].map((why) => option(why, why))}
        </select></label
      >
      <label class="grow">Text <input name="text" type="search" placeholder="question, query, answer" /></label>
    </form>
    <p class="controls found" data-keep="all">
      <span role="status"></span>
      <span class="pager">
        <button type="button" name="previous">Previous answer <kbd>k</kbd></button>
        <button type="button" name="next">Next answer <kbd>j</kbd></button>
      </span>
    </p>
    ${answerLegend(colors)}
    <div id="entries" data-keep="all">${frozen?.entries}</div>
    <p class="controls pages" data-keep="all" hidden>
      <button type="button" name="back">Earlier in the list</button>
      <span></span>
      <button type="button" name="forth">Further in the list</button>
    </p>
  </section>`;
}

/** Bytes of answers that a frozen page holds, at most, and answers of each file. */
const MOST_BYTES = 1_200_000;
const MOST_ANSWERS = 12;

/** A sample of a run's answers for a page that has no server: of the first, a middle and the last step, and of evaluations; of each the worst to the best. */
export async function frozenViewer(directory: string, reader: AnswerReader): Promise<Html | undefined> {
  const sources = await trajectorySources(directory);
  const kinds = [...new Set(sources.map(({ kind }) => kind))];
  const chosen = kinds.flatMap((kind) => {
    const own = sources.filter((source) => source.kind === kind);
    return spread(own, kind === "step" ? 3 : 2);
  });
  const cache = new AnswerIndexCache();
  const shown: TrajectorySource[] = [];
  const entries: Html[] = [];
  let room = MOST_BYTES;
  for (const source of chosen) {
    const file = trajectoryFile(directory, source);
    const index = await cache.get(file);
    if (index === undefined) continue;
    const places = new Map(index.answers.map((answer, i) => [answer, i]));
    const byReward = [...index.answers].sort((a, b) => a.reward - b.reward);
    // By reward a share of every sort; then as they were made.
    const sample = [...spread(byReward, MOST_ANSWERS)].sort((a, b) => a.offset - b.offset);
    let any = false;
    for (const answer of sample) {
      const trajectory = await readAnswer(file, answer).catch(() => undefined);
      if (trajectory === undefined) continue;
      const entry = answerRow(source, answer, places.get(answer) ?? 0, answerBody(trajectory, answer, reader));
      if (entry.text.length > room) continue;
      room -= entry.text.length;
      entries.push(entry);
      any = true;
    }
    if (any) shown.push(source);
  }
  return viewer(sources, reader.colors, { entries, shown, total: sources.length });
}
