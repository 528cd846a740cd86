import { readFile, stat } from "node:fs/promises";
import path from "node:path";
import type { AnswerReader } from "../report/answer.js";
import { html, type Html } from "../report/html.js";
import { nameColors } from "../report/names.js";
import { frame } from "../report/page.js";
import { pageParts, type PageInput } from "../report/parts.js";
import { runTokenizer } from "../report/reader.js";
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

/** Numbers without which a line is left out. */
const NEEDED = { metrics: ["step", "reward"], evaluations: ["step", "n", "exactMatch", "low", "high"] };

const has = (row: Row, numbers: readonly string[]): boolean => numbers.every((name) => typeof row[name] === "number");

/** A run's folder, read as it grows. The folder need not be there yet, and may begin anew. */
export class WatchedRun implements LivePage {
  readonly directory: string;
  readonly name: string;
  readonly indices = new AnswerIndexCache();
  readonly #tails: Record<"metrics" | "evaluations" | "examples" | "events", JsonLinesTail>;
  readonly #parts = new VersionedParts();
  readonly #back: string | undefined;
  #config: Row = {};
  #configStamp = "";
  #metrics: StepRecord[] = [];
  #evaluations: EvaluationRecord[] = [];
  #examples: RunFiles["examples"] = [];
  #events: RunFiles["events"] = [];
  #left = { metrics: 0, evaluations: 0 };
  #adapters: AdapterFacts[] = [];
  #traces: RunTraces = { adapters: false, checkpoint: undefined, lastWrite: 0 };
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
      const left = broken + (name === "metrics" || name === "evaluations" ? this.#left[name] : 0);
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
      await this.#readEvaluations(),
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

  async #readMetrics(): Promise<boolean> {
    const { reset, lines } = await this.#tails.metrics.poll();
    if (reset) [this.#metrics, this.#left.metrics] = [[], 0];
    const whole = lines.filter((row) => has(row, NEEDED.metrics)) as unknown as StepRecord[];
    this.#left.metrics += lines.length - whole.length;
    const before = this.#metrics.at(-1)?.step ?? -Infinity;
    const all = this.#metrics.length === 0 ? whole : this.#metrics;
    if (all !== whole) for (const row of whole) all.push(row);
    this.#metrics = all;
    // A step that was taken twice: the last counts.
    const ordered = whole.every((row, i) => row.step > (whole[i - 1]?.step ?? before));
    if (!ordered)
      this.#metrics = [...new Map(all.map((row) => [row.step, row])).values()].sort((a, b) => a.step - b.step);
    return reset || lines.length > 0;
  }

  async #readEvaluations(): Promise<boolean> {
    const { reset, lines } = await this.#tails.evaluations.poll();
    if (reset) [this.#evaluations, this.#left.evaluations] = [[], 0];
    const whole = lines.filter((row) => has(row, NEEDED.evaluations)) as unknown as EvaluationRecord[];
    this.#left.evaluations += lines.length - whole.length;
    this.#evaluations.push(...whole);
    return reset || lines.length > 0;
  }

  async #readRest(): Promise<boolean> {
    const examples = await this.#tails.examples.poll();
    if (examples.reset) this.#examples = [];
    const shown = examples.lines.filter((row) => Array.isArray(row["segments"]) && Array.isArray(row["roles"]));
    this.#examples.push(...(shown as unknown as RunFiles["examples"]));
    const events = await this.#tails.events.poll();
    if (events.reset) this.#events = [];
    for (const row of events.lines) this.#events.push(row);
    return [examples, events].some(({ reset, lines }) => reset || lines.length > 0);
  }

  async #readFolder(): Promise<boolean> {
    this.#traces = await readTraces(this.directory);
    const { adapters, checkpoint } = this.#traces;
    const stamp = `${adapters} ${checkpoint}`;
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
