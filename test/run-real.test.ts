// A training run on real questions and passages, with a real tokenizer that knows no tags, on random weights.
import path from "node:path";
import t from "tap";
import { Adapters, loadRun, resolveRunConfig, trainRun } from "rolegrad";
import { needsShared, shared } from "./helpers/shared.js";
import { temporary } from "./helpers/world.js";

t.test(
  "real passages, real questions and a real tokenizer go the whole way",
  needsShared("data/hotpotqa", "fixtures/qwen2-tiny"),
  async (t) => {
    const data = shared("data/hotpotqa") as string;
    const directory = temporary();
    // Letters as tags: random weights write those, in tokens that hold them and their neighbours.
    const spans = [{ role: "tool", open: "e", close: "o" }];
    const config = resolveRunConfig(
      {
        model: shared("fixtures/qwen2-tiny") as string,
        data: { questions: path.join(data, "questions.jsonl"), split: "train", evalSplit: "dev" },
        environment: { kind: "search", passages: path.join(data, "passages.jsonl") },
        agent: { prompt: "{question}\n", spans, answer: { open: "e", close: "t" }, sampling: { maxNewTokens: 48 } },
        optimizer: { learningRate: 1e-2 },
        steps: 2,
        questionsPerStep: 4,
        group: 4,
        evaluation: { questions: 4 },
      },
      path.join(directory, "run.json"),
    );
    const setup = await loadRun(config);
    try {
      t.equal("size" in setup.environment && setup.environment.size, 3897);
      t.equal(setup.questions.length, 300);
      const calls = (trajectory: { calls: readonly unknown[] }) => trajectory.calls.length;
      const { metrics, trajectories, adapters } = await trainRun({
        ...setup,
        rollout: { ...setup.rollout, reward: calls },
      });
      t.equal(metrics.length, 2);
      t.ok(
        metrics.every(
          ({ reward, mixedGroups, maxRatioDeviation }) => reward > 0 && mixedGroups > 0 && maxRatioDeviation === 0,
        ),
      );
      const found = trajectories.flatMap(({ calls }) => calls.flatMap(({ passages = [] }) => passages));
      t.ok(
        found.length > 0 && found.every(({ title, text }) => title !== undefined && text !== ""),
        `${found.length} passages read`,
      );
      for (const name of ["reason", "tool"])
        t.ok(adapters!.norm(name) > 0 && metrics[1]!.gradNorms[name]! > 0, `${name} was trained`);
      const folders = {
        reason: path.join(config.output, "adapters/reason"),
        tool: path.join(config.output, "adapters/tool"),
      };
      t.same((await Adapters.load(setup.model, folders)).names, ["reason", "tool"]);
    } finally {
      setup.close();
    }
    const long = resolveRunConfig(
      { ...config, agent: { ...config.agent, prompt: `${"Think hard. ".repeat(60)}{question}` } },
      "run.json",
      { output: `${directory}/b` },
    );
    const refused = await loadRun(long);
    await t.rejects(trainRun(refused), {
      code: "ERR_PROMPT_TOO_LONG",
      message: /256 tokens \(agent\.maxLength; the model has 256 positions\)/,
    });
    refused.close();
  },
);
