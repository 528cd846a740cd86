// The best checkpoint is kept beside the newest, named, and can be evaluated; and a run goes on only with what it began with.
import { appendFileSync, cpSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import {
  loadModel,
  loadTrainedAdapters,
  trainRun,
  WORLD_CHECKPOINT,
  type Model,
  type Question,
  type RunSetup,
} from "rolegrad";
import { rolegrad } from "./helpers/command.js";
import { checkpointNames } from "./helpers/run-files.js";
import { temporary, world, worldRollout, worldRunFile, worldSetup } from "./helpers/world.js";

let model: Model;
t.before(async () => {
  model = await loadModel(WORLD_CHECKPOINT);
});
t.after(() => model.close());

const rollout = worldRollout();

/** A run whose evaluation at step i gives `scores[i]`. */
function scored(directory: string, scores: readonly number[], change: Partial<RunSetup> = {}): RunSetup {
  let evaluations = 0;
  const judged = world.questions("dev", 1, 0)[0] as Question;
  return worldSetup(model, directory, {
    rollout: {
      ...rollout,
      sampling: { maxNewTokens: 4 },
      evaluateBy: "reward",
      reward: (_answer, { id }) => (id === judged.id ? (scores[evaluations++] ?? 0) : 0),
    },
    adapters: { rank: 1, alpha: 2 },
    steps: scores.length - 1,
    questionsPerStep: 1,
    group: 2,
    evaluation: { questions: [judged], every: 1 },
    checkpoint: { every: 0, keep: 1 },
    trajectories: { every: 0 },
    ...change,
  });
}

const named = (directory: string): unknown => {
  const file = path.join(directory, "checkpoints/best.json");
  return existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : undefined;
};

t.test("the best evaluation's checkpoint is written where none is due, and stays until a better one", async (t) => {
  for (const [what, scores, best] of [
    ["in the middle", [0.9, 0.1, 0.7, 0.3, 0.2], 2],
    ["of equals the earlier", [0, 0.5, 0.5, 0.2, 0.5], 1],
    ["the last", [0, 0.1, 0.2, 0.3, 0.4], 4],
    ["the base has no checkpoint, however good it is", [1, 0.5, 0, 0, 0], 1],
  ] as const) {
    const directory = temporary();
    const result = await trainRun(scored(directory, scores));
    const step = `step-00000${best}`;
    t.same(checkpointNames(directory), [...new Set([step, "step-000004"])], what);
    t.same(named(directory), { step: best, metric: "exactMatch", value: scores[best] }, what);
    t.match(
      result.best,
      { step: best, value: scores[best], checkpoint: path.join(directory, "checkpoints", step) },
      what,
    );
    t.equal((await loadTrainedAdapters(model, directory, { checkpoint: "best" })).step, best);
    t.equal((await loadTrainedAdapters(model, directory)).step, 4);
  }
});

t.test("without keepBest only the newest are kept, and turning it off later forgets the best", async (t) => {
  const directory = temporary();
  const scores = [0, 0.5, 0.1];
  const off = { checkpoint: { every: 1, keep: 1, keepBest: false } };
  t.equal((await trainRun(scored(directory, scores, off))).best, undefined);
  t.same(checkpointNames(directory), ["step-000002"]);
  t.equal(named(directory), undefined);
  await t.rejects(loadTrainedAdapters(model, directory, { checkpoint: "best" }), {
    code: "ERR_RUN_DIRECTORY",
    message: /a best checkpoint.*steps 2/,
  });
  await t.rejects(loadTrainedAdapters(model, directory, { checkpoint: 1 }), { message: /a checkpoint of step 1/ });
  const other = temporary();
  await trainRun(scored(other, scores));
  t.same(checkpointNames(other), ["step-000001", "step-000002"]);
  await trainRun(scored(other, scores, off));
  t.same(checkpointNames(other), ["step-000002"]);
  t.equal(named(other), undefined);
});

t.test("a best.json that is lost or wrong is made again from the evaluations", async (t) => {
  const directory = temporary();
  const scores = [0, 0.1, 0.6, 0.3];
  await trainRun(scored(directory, scores));
  const wanted = named(directory);
  for (const content of ["{", '{"step":77,"metric":"exactMatch","value":1}', undefined]) {
    const file = path.join(directory, "checkpoints/best.json");
    if (content === undefined) rmSync(file);
    else writeFileSync(file, content);
    t.match(await trainRun(scored(directory, scores)), { best: { step: 2 } });
    t.same(named(directory), wanted);
  }
});

t.test("eval takes the best checkpoint, the newest, or one of a step; train --json names the best", async (t) => {
  const file = worldRunFile({ evaluation: { every: 1, questions: 4 }, checkpoint: { every: 1, keep: 0 }, rank: 2 });
  const out = path.join(path.dirname(file), "out");
  const trained = await rolegrad(["train", file, "--json"]);
  const { best } = JSON.parse(trained.stdout.trimEnd().split("\n").at(-1)!) as {
    best: { step: number; value: number };
  };
  t.match(best, named(out));
  const evaluated = async (which: string) =>
    JSON.parse((await rolegrad(["eval", out, "--checkpoint", which, "--json"])).stdout) as Record<string, unknown>;
  t.match(await evaluated("best"), { step: best.step, exactMatch: best.value });
  t.match(await evaluated("1"), { step: 1 });
  t.match(await evaluated("9"), { error: { code: "ERR_RUN_DIRECTORY", message: /step 9.*steps 1, 2/ } });
  t.match(await evaluated("worst"), { error: { code: "ERR_USAGE" } });
});

t.test(
  "a run goes on only with the data and the model that it began with, which are told apart by what is in them",
  async (t) => {
    const checkpoint = path.join(temporary(), "model");
    cpSync(WORLD_CHECKPOINT, checkpoint, { recursive: true });
    const file = worldRunFile({ model: checkpoint, rank: 2, steps: 1 });
    const folder = path.dirname(file);
    t.equal((await rolegrad(["train", file])).status, 0);
    for (const [name, changed] of [
      ["questions", path.join(folder, "questions.jsonl")],
      ["passages", path.join(folder, "passages.jsonl")],
      ["model", path.join(checkpoint, "model.safetensors")],
    ] as const) {
      const before = readFileSync(changed);
      if (name === "model") {
        const bytes = Buffer.from(before);
        bytes[bytes.length - 3]! ^= 1; // one bit of one weight
        writeFileSync(changed, bytes);
      } else appendFileSync(changed, "\n");
      const refused = await rolegrad(["train", file, "--steps", "2"]);
      t.match(refused, { status: 1, stderr: new RegExp(`ERR_RUN_EXISTS.*hashes\\.${name} was`) }, name);
      writeFileSync(changed, before);
    }
    t.equal((await rolegrad(["train", file, "--steps", "2"])).status, 0, "with all as it was it goes on");
  },
);
