// `rolegrad train`, killed by SIGKILL twenty times, from its first milliseconds to its last, ends with the files of a run that nothing disturbed.
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import t from "tap";
import { Random } from "rolegrad";
import { contents, sameFiles } from "./helpers/run-files.js";
import { root } from "./helpers/shared.js";
import { temporary, worldRunFile } from "./helpers/world.js";

const SEED = 11;
const STEPS = 16;

type Event = { event: string; step?: number };
/** When a run is killed: a while after something was seen of it. */
type Moment = "start" | "step" | "evaluation" | "checkpoint" | "writing" | "end";

const file = worldRunFile({
  steps: STEPS,
  questionsPerStep: 3,
  group: 2,
  rank: 2,
  evaluation: { every: 3, questions: 4 },
  checkpoint: { every: 2, keep: 2 },
});

/** Starts the run and ends when it has; `onEvent` sees what it says. */
async function train(
  directory: string,
  watch: (child: ChildProcess) => (event: Event) => void,
): Promise<{ status: number | null; events: Event[]; seconds: number }> {
  const begin = performance.now();
  const args = [path.join(root, "bin/rolegrad.js"), "train", file, "--out", directory, "--json"];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  const onEvent = watch(child);
  const events: Event[] = [];
  const closed = once(child, "close") as Promise<[number | null]>;
  for await (const line of createInterface({ input: child.stdout })) {
    if (!line.endsWith("}")) continue; // cut by the kill
    events.push(JSON.parse(line) as Event);
    onEvent(events.at(-1)!);
  }
  const [status] = await closed;
  return { status, events, seconds: (performance.now() - begin) / 1000 };
}

/** Where a run was, by what it had said and what lay in its directory when it was gone. */
function phase(directory: string, events: readonly Event[]): string {
  const names = (folder: string): string[] => (existsSync(folder) ? readdirSync(folder) : []);
  if (names(directory).some((name) => name.startsWith("adapters.")) || events.at(-1)?.step === STEPS) return "the end";
  if (names(path.join(directory, "checkpoints")).some((name) => name.endsWith(".partial")))
    return "writing or removing a checkpoint";
  if (events.length === 0) return "before training";
  const last = events.at(-1)?.event;
  return last === "step" ? "after a step" : `after ${last === "start" ? "the start" : `a ${String(last)}`}`;
}

/** What counts: not the report, which says how long things took, nor config.json, which says where it is. */
function trained(directory: string): Map<string, string> {
  const kept = [...contents(directory)].filter(([name]) => !/^(config\.json|report\.html|examples\.jsonl)$/.test(name));
  return new Map(kept);
}

t.test("a run that is killed 20 times ends with the same bits and the same records", async (t) => {
  const [straight, killed] = [path.join(temporary(), "a"), path.join(temporary(), "b")];
  const whole = await train(straight, () => () => undefined);
  t.equal(whole.status, 0);
  const random = new Random(SEED, "kills");
  const middle = (["start", "step", "evaluation", "checkpoint", "writing"] as const).flatMap((moment) =>
    Array<Moment>(moment === "start" ? 5 : 3).fill(moment),
  );
  const moments: Moment[] = [...random.shuffle(middle), "end", "end", "end"];
  const phases: Record<string, number> = {};
  let kills = 0;
  while (kills < 20) {
    const moment = moments[kills] as Moment;
    const share = random.next();
    const after = 1 + Math.floor(random.next() * 2); // which of such events
    const { status, events } = await train(killed, (child) => {
      const kill = (milliseconds: number): unknown => setTimeout(() => child.kill("SIGKILL"), milliseconds);
      if (moment === "start") kill(share * 1000 * Math.min(1, whole.seconds / 2));
      const poll = setInterval(() => {
        if (moment !== "writing" || !existsSync(path.join(killed, "checkpoints"))) return;
        if (!readdirSync(path.join(killed, "checkpoints")).some((name) => /^step-.*\.partial$/.test(name))) return;
        clearInterval(poll);
        kill(share * 8);
      }, 1);
      child.once("close", () => clearInterval(poll));
      let seen = 0;
      return ({ event, step }) => {
        const wanted =
          moment === "end" ? event === "checkpoint" && step === STEPS : event === moment && ++seen === after;
        if (wanted || (moment === "end" && event === "start" && step === STEPS)) kill(share * 60);
      };
    });
    if (status === null) {
      kills++;
      const where = phase(killed, events);
      phases[where] = (phases[where] ?? 0) + 1;
    } else if (status !== 0) t.fail(`exit code ${status}: ${JSON.stringify(events.at(-1))}`);
    else if (moment !== "end") moments.splice(kills, 1, "start"); // it was faster than the kill: the rest while it begins
  }
  const last = await train(killed, () => () => undefined);
  t.match(last, { status: 0 });
  t.match(last.events.at(-1), { event: "finished", step: STEPS });
  sameFiles(t, trained(killed), trained(straight), "adapters, optimizer, metrics, evaluations, trajectories");
  t.comment(
    `killed: ${Object.entries(phases)
      .map(([name, count]) => `${count} ${name}`)
      .join(", ")}`,
  );
});
