// A run that is stopped at any change that it makes to its directory, by a kill or by a power failure, goes on to the same directory.
import { rmSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { loadModel, Random, trainRun, WORLD_CHECKPOINT, type Model, type RunSetup } from "rolegrad";
import { withCrash } from "./helpers/crash.js";
import { checkpointNames, contents, sameFiles } from "./helpers/run-files.js";
import { temporary, world, worldRollout, worldSetup } from "./helpers/world.js";

let model: Model;
t.before(async () => {
  model = await loadModel(WORLD_CHECKPOINT);
});
t.after(() => model.close());

const rollout = { ...worldRollout(), sampling: { maxNewTokens: 6 } };

/** Three steps of a question each, everything that a run writes: of its checkpoints 1 is removed, 2 stays as the best, 3 is the newest. */
function small(directory: string, change: Partial<RunSetup> = {}): RunSetup {
  return worldSetup(model, directory, {
    rollout,
    adapters: { rank: 1, alpha: 2, routes: { reason: "shared", tool: "shared" } },
    steps: 3,
    questionsPerStep: 1,
    group: 2,
    evaluation: { questions: world.questions("dev", 1, 0), every: 2 },
    checkpoint: { every: 1, keep: 1 },
    ...change,
  });
}

t.test("a stop at any moment leaves whole checkpoints and a run that goes on to the same files", async (t) => {
  const [straight, all] = [temporary(), temporary()];
  const { moments } = await withCrash(Infinity, () => trainRun(small(straight)));
  await trainRun(small(all, { checkpoint: { every: 1, keep: 0 } }));
  const wanted = contents(straight);
  let newest = "";
  // Neighbours are much alike, so the two kinds of stop take turns; ROLEGRAD_CRASHES=all makes both at each moment.
  for (let n = 1; n <= moments; n++) {
    for (const power of process.env["ROLEGRAD_CRASHES"] === "all" ? [false, true] : [n % 2 === 0]) {
      const directory = path.join(temporary(), "run");
      const { stopped } = await withCrash(n, () => trainRun(small(directory)), { power });
      const what = `${power ? "power failure" : "kill"} at ${n} of ${moments}: ${stopped.replace(directory, ".")}`;
      if (stopped === "") t.fail(`${what}: it did not stop`);
      const kept = checkpointNames(directory);
      for (const name of kept) {
        const whole = contents(path.join(all, "checkpoints", name));
        sameFiles(t, contents(path.join(directory, "checkpoints", name)), whole, `${what}: ${name} is whole`);
      }
      if ((kept.at(-1) ?? "") < newest) t.fail(`${what}: ${newest} was lost`);
      if (!power) newest = kept.at(-1) ?? newest;
      await withCrash(Infinity, () => trainRun(small(directory)));
      sameFiles(t, contents(directory), wanted, what);
      rmSync(directory, { recursive: true });
    }
  }
  t.comment(`${moments} moments`);
});

t.test("a run that is stopped again and again, at moments of a seed, ends with the same files", async (t) => {
  const straight = temporary();
  const { moments } = await withCrash(Infinity, () => trainRun(small(straight)));
  const random = new Random(7, "crashes");
  for (let run = 0; run < 6; run++) {
    const directory = path.join(temporary(), "run");
    const stops: string[] = [];
    for (let end = false; !end;) {
      const n = 1 + Math.floor(random.next() * moments);
      const { stopped } = await withCrash(n, () => trainRun(small(directory)), { power: random.next() < 0.5 });
      if (stopped === "") end = true;
      else stops.push(stopped.replace(directory, "."));
    }
    sameFiles(t, contents(directory), contents(straight), `after ${stops.length} stops: ${stops.join("; ")}`);
  }
});
