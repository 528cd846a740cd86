// What the embedded world promises: a base that is mediocre, and a quickstart that teaches it to search.
import { readFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { evaluate, loadModel, WORLD_CHECKPOINT } from "rolegrad";
import { rolegrad } from "./helpers/command.js";
import { root } from "./helpers/shared.js";
import { temporary, world, worldRollout } from "./helpers/world.js";

t.test(
  "the base is mediocre on held-out questions: it uses the tool and is wrong in most, also in what is likeliest",
  async (t) => {
    const model = await loadModel(WORLD_CHECKPOINT);
    try {
      const parts = { model, rollout: worldRollout(), questions: world.questions("dev", 512, 5), seed: 1 };
      const { record: sampled } = await evaluate(parts);
      t.ok(sampled.exactMatch > 0.1 && sampled.exactMatch < 0.4, `exact match ${sampled.exactMatch} at temperature 1`);
      t.ok(sampled.toolRate > 0.5, `the tool is used in ${sampled.toolRate} of the answers`);
      const { record: greedy } = await evaluate({ ...parts, temperature: 0 });
      t.ok(greedy.exactMatch < 0.5, `exact match ${greedy.exactMatch} greedily`);
    } finally {
      model.close();
    }
  },
);

t.test("the quickstart as it comes reaches .7 on held-out questions, and under .05 without the pages", async (t) => {
  const out = path.join(temporary(), "run");
  const { status, stderr } = await rolegrad(["quickstart", "--out", out, "--json"]);
  t.equal(status, 0, stderr);
  const evaluations = readFileSync(path.join(out, "evaluations.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { step: number; exactMatch: number; n: number; note?: string });
  const last = Math.max(...evaluations.map(({ step }) => step));
  const withheld = evaluations.find(({ note }) => note !== undefined);
  const trained = evaluations.find(({ step, note }) => step === last && note === undefined);
  t.ok(
    (trained?.exactMatch ?? 0) >= 0.7,
    `exact match ${trained?.exactMatch} on ${trained?.n} questions after ${last} steps`,
  );
  t.ok((withheld?.exactMatch ?? 1) < 0.05, `${withheld?.exactMatch} with "${withheld?.note}"`);
  const readme = readFileSync(path.join(root, "README.md"), "utf8");
  const percent = (share = NaN): string => `${(100 * share).toFixed(1)} %`;
  t.match(
    readme,
    `  after ${last} steps  ${percent(trained?.exactMatch)} `,
    "the README shows this run: the same bits on every CPU",
  );
  const metrics = readFileSync(path.join(out, "metrics.jsonl"), "utf8").trim().split("\n");
  const deviations = metrics.map((line) => (JSON.parse(line) as { maxRatioDeviation: number }).maxRatioDeviation);
  t.ok(
    deviations.every((deviation) => deviation === 0),
    "on policy is exactly on policy in every step",
  );
});
