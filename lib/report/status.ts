import { readdir, readFile, stat } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { eventName } from "./events.js";
import { count, duration } from "./format.js";
import { html, type Html } from "./html.js";
import type { RunFiles } from "./run.js";

/** What a run's folder says of how the run stands. */
export interface RunTraces {
  /** What the run has trained is there: its final adapters, or in full training the model. */
  trained: boolean;
  /** Step of the newest checkpoint. */
  checkpoint: number | undefined;
  /** When one of the run's files was last written, in ms since 1970. */
  lastWrite: number;
  /** Whether the process that has locked the folder is there; undefined: no lock, or one of another machine. */
  alive?: boolean | undefined;
}

export type RunStatus = "waiting" | "running" | "finished" | "interrupted" | "stopped" | "stalled";

/** Seconds without a write after which a run that should go on counts as stalled, at least. */
const QUIET_SECONDS = 60;

export async function readTraces(directory: string): Promise<RunTraces> {
  const time = (name: string): Promise<number> =>
    stat(path.join(directory, name)).then(
      ({ mtimeMs }) => mtimeMs,
      () => 0,
    );
  const list = (name: string): Promise<string[]> => readdir(path.join(directory, name)).catch(() => []);
  const files = ["config.json", "metrics.jsonl", "evaluations.jsonl", "events.jsonl", "trajectories", "checkpoints"];
  const [checkpoints, adapters, model, alive, ...times] = await Promise.all([
    list("checkpoints"),
    list("adapters"),
    list("model"),
    list(".").then((names) => holderIsAlive(directory, names)),
    ...files.map(time),
  ]);
  const steps = checkpoints.flatMap((name) => Number(/^step-(\d+)$/.exec(name)?.[1] ?? NaN));
  const known = steps.filter((step) => !Number.isNaN(step));
  return {
    trained: adapters.length + model.length > 0,
    checkpoint: known.length > 0 ? Math.max(...known) : undefined,
    lastWrite: Math.max(...times),
    alive,
  };
}

/** Whether a process of this machine that has left its lock in the folder is running. */
async function holderIsAlive(directory: string, names: readonly string[]): Promise<boolean | undefined> {
  const lock = names.find((name) => name.startsWith("run.lock-"));
  if (lock === undefined) return undefined;
  try {
    const { pid, host } = JSON.parse(await readFile(path.join(directory, lock), "utf8")) as Record<string, unknown>;
    if (typeof pid !== "number" || pid < 1 || host !== os.hostname()) return undefined;
    process.kill(pid, 0);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === "ESRCH" ? false : code === "EPERM" ? true : undefined;
  }
}

/** Steps that the run is to take, where config.json says so. */
export function stepsPlanned({ config }: Pick<RunFiles, "config">): number | undefined {
  const { steps } = config;
  return typeof steps === "number" && Number.isFinite(steps) ? steps : undefined;
}

/** Seconds of a step of late. */
function stepSeconds({ metrics }: RunFiles): number | undefined {
  const late = metrics.slice(-10).flatMap(({ seconds }) => (typeof seconds === "number" ? [seconds] : []));
  return late.length === 0 ? undefined : late.reduce((sum, seconds) => sum + seconds, 0) / late.length;
}

/**
 * How a run stands, as far as its files tell: finished with its last step and what it has trained; interrupted where it is quiet and left a checkpoint of its
 * last step, which a run that is stopped writes, or where the process that locked it is gone; stalled where it is quiet for longer than five of its steps take (and a minute); stopped where its last event
 * says so.
 */
export function runStatus(run: RunFiles, traces: RunTraces, now: number): RunStatus {
  if (Object.keys(run.config).length === 0) return "waiting";
  const done = run.metrics.at(-1)?.step ?? 0;
  const planned = stepsPlanned(run);
  if (traces.trained && (planned === undefined || done >= planned)) return "finished";
  const last = run.events.at(-1);
  if (traces.alive !== true && last !== undefined && eventName(last) === "stopped" && last.step !== undefined) {
    // Not where the run has gone on since.
    if (Number(last.step) >= done) return "stopped";
  }
  if (traces.alive === false) return "interrupted";
  const quiet = (now - traces.lastWrite) / 1000;
  if (quiet < Math.max(QUIET_SECONDS, 5 * (stepSeconds(run) ?? 0))) return "running";
  return traces.alive !== true && traces.checkpoint === done && done > 0 ? "interrupted" : "stalled";
}

const WORDS: Record<RunStatus, string> = {
  waiting: "Waiting for the run to begin",
  running: "Running",
  finished: "Finished",
  interrupted: "Interrupted",
  stopped: "Stopped by one of its checks (see Warnings)",
  stalled: "Stalled",
};

/** A line of the run's state: how far it is, how long it will take. `live`: the page's clock counts on from the last write. */
export function statusLine(run: RunFiles, traces: RunTraces, now: number, live: boolean): Html {
  const status = runStatus(run, traces, now);
  // A page that stays as it is does not say "running".
  const word = live || status === "finished" ? WORDS[status] : "Not finished when this page was made";
  const done = run.metrics.at(-1)?.step ?? 0;
  const planned = stepsPlanned(run);
  const seconds = stepSeconds(run);
  const left = planned !== undefined && seconds !== undefined ? Math.max(0, planned - done) * seconds : undefined;
  return html`<p class="status ${live ? status : status === "finished" ? status : "frozen"}">
      <span class="state"><span class="dot" aria-hidden="true"></span>${word}</span>
      ${
        status !== "waiting" &&
        html`<span>step <b>${count(done)}</b>${planned !== undefined && ` of ${count(planned)}`}</span>`
      }
      ${live && status === "running" && left !== undefined && done > 0 && html`<span>about ${duration(left)} to go</span>`}
      ${
        live &&
        traces.lastWrite > 0 &&
        html`<span class="soft"
          >last write
          <time data-ago="${Math.round(traces.lastWrite)}" datetime="${new Date(traces.lastWrite).toISOString()}"
            >${new Date(traces.lastWrite).toISOString().slice(0, 19).replace("T", " ")} UTC</time
          ></span
        >`
      }
      ${
        status === "interrupted" &&
        traces.checkpoint !== undefined &&
        html`<span class="soft">the same command goes on from step ${count(traces.checkpoint)}</span>`
      }
    </p>
    ${
      planned !== undefined &&
      status !== "waiting" &&
      html`<progress
        max="${Math.max(1, planned)}"
        value="${Math.min(done, planned)}"
        aria-label="Steps done"
      ></progress>`
    }`;
}
