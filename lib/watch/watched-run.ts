import { readFile, stat } from "node:fs/promises";
import path from "node:path";
import type { AnswerReader } from "../report/answer.js";
import { html, type Html } from "../report/html.js";
import { nameColors } from "../report/names.js";
import { frame } from "../report/page.js";
import { pageParts, type PageInput } from "../report/parts.js";
import { runTokenizer } from "../report/reader.js";
import { cleaned, missingField, type LinesFile } from "../report/lines.js";
import type { RunFiles } from "../report/run.js";
import { readAdapters, type AdapterFacts } from "../report/setup.js";
import { readTraces, statusLine, type RunTraces } from "../report/status.js";
import type { TokenBytes } from "../report/text.js";
import { AnswerIndexCache, trajectorySources, type TrajectorySource } from "../report/trajectories.js";
import { viewer } from "../report/viewer.js";
import type { EvaluationRecord, StepRecord } from "../run/records.js";
import { VersionedParts, type LivePage, type Updates } from "./live-page.js";
import { JsonLinesTail } from "./tail.js";

type Row = Record<string, unknown>;

/** A run's folder, read as it grows. The folder need not be there yet, and may begin anew. */
export class WatchedRun implements LivePage {
  readonly directory: string;
  readonly name: string;
  readonly indices = new AnswerIndexCache();
  readonly #tails: Record<LinesFile, JsonLinesTail>;
  readonly #parts = new VersionedParts();
  readonly #back: string | undefined;
  #config: Row = {};
  #configStamp = "";
  #metrics: StepRecord[] = [];
  #evaluations: EvaluationRecord[] = [];
  #examples: RunFiles["examples"] = [];
  #events: RunFiles["events"] = [];
  #left: Record<LinesFile, number> = { metrics: 0, evaluations: 0, examples: 0, events: 0 };
  #adapters: AdapterFacts[] = [];
  #traces: RunTraces = { trained: false, checkpoint: undefined, lastWrite: 0 };
  #tracesStamp = "";
  #sources: TrajectorySource[] = [];
  #sourcesStamp = "";
  #tokenizer: { config: Row; found: Promise<{ tokenizer: TokenBytes | undefined; missing?: string }> } | undefined;
  #refreshing: Promise<boolean> | undefined;
  #shown = false;

  /** `back`: where the list of runs is, from this run's page. */
  constructor(directory: string, name = path.basename(path.resolve(directory)), back?: string) {
    this.directory = path.resolve(directory);
    this.name = name;
    this.#back = back;
    const tail = (file: string): JsonLinesTail => new JsonLinesTail(path.join(this.directory, `${file}.jsonl`));
    this.#tails = {
      metrics: tail("metrics"),
      evaluations: tail("evaluations"),
      examples: tail("examples"),
      events: tail("events"),
    };
  }

  /** The run's files as last read. */
  get files(): RunFiles {
    const remarks = Object.entries(this.#tails).flatMap(([name, { broken }]) => {
      const left = broken + this.#left[name as LinesFile];
      return left === 0
        ? []
        : [`${left} ${left === 1 ? "line" : "lines"} of ${name}.jsonl cannot be read and are left out.`];
    });
    return {
      directory: this.directory,
      config: this.#config,
      metrics: this.#metrics,
      evaluations: this.#evaluations,
      examples: this.#examples,
      events: this.#events,
      remarks,
    };
  }

  get traces(): RunTraces {
    return this.#traces;
  }

  get sources(): readonly TrajectorySource[] {
    return this.#sources;
  }

  /** Calls at the same time are one. */
  refresh(): Promise<boolean> {
    this.#refreshing ??= this.#refresh().finally(() => (this.#refreshing = undefined));
    return this.#refreshing;
  }

  document(): string {
    return frame({
      title: `${this.name}: rolegrad watch`,
      kicker: this.#kicker(),
      heading: this.name,
      parts: pageParts(this.#input()),
      footer: `rolegrad watch, ${this.directory}`,
      live: this.#parts.version,
    });
  }

  updates(since: string | null): Updates {
    return this.#parts.since(since);
  }

  /** What shows answers; a tokenizer that was not there is looked for again. */
  async reader(): Promise<AnswerReader> {
    if (this.#tokenizer?.config !== this.#config)
      this.#tokenizer = { config: this.#config, found: runTokenizer(this.#config) };
    const found = await this.#tokenizer.found;
    if (found.tokenizer === undefined) this.#tokenizer = undefined;
    return { colors: nameColors(this.files), ...found };
  }

  /** Reads what is new, without making the page of it: for a list of runs. */
  async read(): Promise<boolean> {
    const changes = [
      await this.#readConfig(),
      await this.#readMetrics(),
      await this.#readRest(),
      await this.#readFolder(),
    ];
    return changes.includes(true);
  }

  async #refresh(): Promise<boolean> {
    const changed = (await this.read()) || !this.#shown;
    this.#shown = true;
    if (changed) return this.#parts.put(pageParts(this.#input()));
    return this.#parts.put([["status", statusLine(this.files, this.#traces, Date.now(), true)]]);
  }

  #input(): PageInput {
    const run = this.files;
    return {
      run,
      adapters: this.#adapters,
      traces: this.#traces,
      now: Date.now(),
      viewer: viewer(this.#sources, nameColors(run)),
      live: true,
    };
  }

  #kicker(): Html {
    return this.#back === undefined ? html`rolegrad watch` : html`rolegrad watch, <a href="${this.#back}">all runs</a>`;
  }

  async #readConfig(): Promise<boolean> {
    const file = path.join(this.directory, "config.json");
    const found = await stat(file).catch(() => undefined);
    const stamp = found === undefined ? "" : `${found.ino} ${found.size} ${found.mtimeMs}`;
    if (stamp === this.#configStamp) return false;
    let config: unknown = {};
    try {
      if (found !== undefined) config = JSON.parse(await readFile(file, "utf8"));
    } catch {
      return false; // half written: the next look finds it whole
    }
    this.#configStamp = stamp;
    this.#config = typeof config === "object" && config !== null && !Array.isArray(config) ? (config as Row) : {};
    return true;
  }

  /** New lines of a file that can be shown. */
  async #readLines<T>(file: LinesFile): Promise<{ reset: boolean; whole: T[]; news: boolean }> {
    const { reset, lines } = await this.#tails[file].poll();
    if (reset) this.#left[file] = 0;
    const whole = lines.filter((row) => missingField(file, row) === undefined).map((row) => cleaned(file, row));
    this.#left[file] += lines.length - whole.length;
    return { reset, whole: whole as T[], news: reset || lines.length > 0 };
  }

  async #readMetrics(): Promise<boolean> {
    const { reset, whole, news } = await this.#readLines<StepRecord>("metrics");
    if (reset) this.#metrics = [];
    const all = this.#metrics;
    let ordered = true;
    for (const row of whole) {
      ordered &&= row.step > (all.at(-1)?.step ?? -Infinity);
      all.push(row);
    }
    // A step that was taken twice: the last counts.
    if (!ordered)
      this.#metrics = [...new Map(all.map((row) => [row.step, row])).values()].sort((a, b) => a.step - b.step);
    return news;
  }

  async #readRest(): Promise<boolean> {
    const evaluations = await this.#readLines<EvaluationRecord>("evaluations");
    this.#evaluations = [...(evaluations.reset ? [] : this.#evaluations), ...evaluations.whole];
    const examples = await this.#readLines<RunFiles["examples"][0]>("examples");
    this.#examples = [...(examples.reset ? [] : this.#examples), ...examples.whole];
    const events = await this.#readLines<RunFiles["events"][0]>("events");
    this.#events = [...(events.reset ? [] : this.#events), ...events.whole];
    return evaluations.news || examples.news || events.news;
  }

  async #readFolder(): Promise<boolean> {
    this.#traces = await readTraces(this.directory);
    const { trained, checkpoint } = this.#traces;
    const stamp = `${trained} ${checkpoint}`;
    const other = stamp !== this.#tracesStamp;
    if (other) this.#adapters = await readAdapters(this.directory);
    this.#tracesStamp = stamp;
    const folder = await stat(path.join(this.directory, "trajectories")).catch(() => undefined);
    const sourcesStamp = folder === undefined ? "" : `${folder.ino} ${folder.mtimeMs}`;
    if (sourcesStamp === this.#sourcesStamp) return other;
    this.#sourcesStamp = sourcesStamp;
    this.#sources = await trajectorySources(this.directory);
    return true;
  }
}
