// What a run.json can train beside routed adapters: two agents, the whole model, the placebo; and what `rolegrad eval` puts together from runs.
import { cpSync, existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import {
  evaluate,
  loadModel,
  loadRun,
  loadTrainedPolicy,
  readRunConfig,
  readTrajectories,
  resolveRunConfig,
  trainRun,
  trainedModels,
} from "rolegrad";
import { WORLD_CHECKPOINT, type RunConfigInput } from "rolegrad";
import { rolegrad } from "./helpers/command.js";
import { temporary, worldRunFile } from "./helpers/world.js";

const objects = (text: string) =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, never>);

/** The files of a folder by path, but for records of time and place. */
function files(folder: string): Map<string, Buffer> {
  const list = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return new Map(
    list.map((entry) => {
      const file = path.join(entry.parentPath, entry.name);
      return [path.relative(folder, file), readFileSync(file)];
    }),
  );
}

async function train(file: string, steps: number) {
  const setup = await loadRun(await readRunConfig(file, { steps }));
  try {
    return await trainRun(setup);
  } finally {
    setup.close();
  }
}

const small: Partial<RunConfigInput> = {
  questionsPerStep: 3,
  group: 3,
  evaluation: { questions: 3 },
  checkpoint: { every: 1, keep: 1 },
};
const kinds: Record<string, { change: Partial<RunConfigInput>; policy: string; trained: string[]; norms: string[] }> = {
  "two agents with an adapter each": {
    change: { variant: "agents" },
    policy: "agents",
    trained: ["adapters/reason/adapter_model.safetensors", "adapters/tool/adapter_model.safetensors"],
    norms: ["reason", "tool"],
  },
  "two agents who are models of their own": {
    change: { variant: "agents", parameters: "full" },
    policy: "agents",
    trained: ["model/reason/model.safetensors", "model/tool/model.safetensors"],
    norms: ["reason", "tool"],
  },
  "the whole model": {
    change: { variant: "shared", parameters: "full" },
    policy: "model",
    trained: ["model/model.safetensors", "model/tokenizer.json"],
    norms: ["full"],
  },
  "the placebo": {
    change: { variant: "random" },
    policy: "adapters",
    trained: ["adapters/reason/adapter_model.safetensors", "adapters/tool/adapter_model.safetensors"],
    norms: ["reason", "tool"],
  },
};

const runs = new Map<string, string>();
for (const [name, { change, policy, trained, norms }] of Object.entries(kinds)) {
  t.test(`${name}: trains on policy, stops and goes on to the same bits, and loads again`, async (t) => {
    const whole = worldRunFile({ ...small, ...change });
    const result = await train(whole, 2);
    t.equal(result.status, "finished");
    for (const { maxRatioDeviation, gradNorms, sampledTokens } of result.metrics) {
      t.equal(maxRatioDeviation, 0, "what was sampled is what is trained");
      t.strictSame(Object.keys(gradNorms), norms);
      t.ok(Object.values(sampledTokens).every((n) => n > 0));
    }
    t.ok(result.metrics.some(({ gradNorms }) => Object.values(gradNorms).every((norm) => norm > 0)));
    for (const file of trained) t.ok(existsSync(path.join(result.directory, file)), file);
    t.strictSame(
      result.evaluations.map((own) => own.policy),
      ["base", policy],
    );

    const stopped = worldRunFile({ ...small, ...change });
    await train(stopped, 1);
    const resumed = await train(stopped, 2);
    t.equal(resumed.stepsTaken, 1);
    for (const part of [`checkpoints/step-000002`, path.dirname(trained[0]!)]) {
      const [want, got] = [result, resumed].map(({ directory }) => files(path.join(directory, part)));
      t.strictSame(Array.from(got!.keys()), Array.from(want!.keys()));
      for (const [file, bytes] of want!) t.ok(got!.get(file)!.equals(bytes), `${part}/${file}`);
    }

    const { stdout, status, stderr } = await rolegrad(["eval", result.directory, "--json"]);
    t.equal(status, 0, stderr);
    t.match(objects(stdout)[0], { ...result.evaluations[1], seconds: Number }, "eval repeats the run's own figures");
    const base = await rolegrad(["eval", result.directory, "--json", "--policy", "base"]);
    t.match(objects(base.stdout)[0], { ...result.evaluations[0], seconds: Number });
    const inspected = await rolegrad(["inspect", result.checkpoint]);
    t.match(inspected, {
      status: 0,
      stdout: policy === "agents" ? /agents +reason, tool: (an adapter|every parameter) each/ : /steps +2/,
    });
    runs.set(name, result.directory);
  });
}

t.test("the placebo's answers say which routes they took", async (t) => {
  const directory = runs.get("the placebo")!;
  const answers = objects(readFileSync(path.join(directory, "trajectories/step-000001.jsonl"), "utf8"));
  const moved = answers.filter(({ roles, routing }) => JSON.stringify(roles) !== JSON.stringify(routing));
  t.ok(moved.length > 0 && moved.length < answers.length);
});

t.test("agents begin with those of another run's checkpoint, also before it has ended", async (t) => {
  const other = runs.get("two agents with an adapter each")!;
  const unfinished = temporary();
  cpSync(path.join(other, "checkpoints"), path.join(unfinished, "checkpoints"), { recursive: true });
  const checkpoint = path.join(other, "checkpoints/step-000002");
  for (const initialAdapters of [other, unfinished, checkpoint]) {
    const setup = await loadRun(
      await readRunConfig(
        worldRunFile({ ...small, variant: "agents", initialAdapters, optimizer: { learningRate: 0 } }),
      ),
    );
    const { directory } = await trainRun({ ...setup, steps: 1 }).finally(() => setup.close());
    for (const name of ["reason", "tool"]) {
      const file = `adapters/${name}/adapter_model.safetensors`;
      t.ok(readFileSync(path.join(directory, file)).equals(readFileSync(path.join(other, file))), `${name}`);
    }
  }
});

t.test("eval answers with hybrids, with one adapter kept, and with what was retrieved before", async (t) => {
  const run = worldRunFile({ ...small, optimizer: { learningRate: 3e-2 } });
  const dart = (await train(run, 2)).directory;
  const full = runs.get("the whole model")!;
  const ask = async (...options: string[]) => {
    const { status, stdout, stderr } = await rolegrad(["eval", dart, "--json", ...options]);
    t.equal(status, 0, stderr);
    return objects(stdout)[0]!;
  };
  t.match(await ask("--keep", "tool"), { policy: "adapters", note: "tool's adapter alone", step: 2, n: 3 });
  t.match(await ask("--policy", "base", "--writer", `tool=${dart}`), {
    policy: "hybrid",
    note: `tool by ${dart}`,
    step: 0,
  });
  t.match(await ask("--writer", "reason=base", "--kv", "shared"), {
    policy: "hybrid",
    note: "reason by base; one cache",
    step: 2,
  });
  t.match(await ask("--writer", `reason=${full}`), { policy: "hybrid", note: `reason by ${full}` });
  const replay = path.join(temporary(), "deep/answers.jsonl");
  await ask("--out", replay);
  const kept = await readTrajectories(replay);
  t.equal(kept.length, 3, "--out writes the answers");
  const own = await readTrajectories(path.join(dart, "trajectories/eval-000002.jsonl"));
  t.strictSame(
    kept.map(({ response }) => response),
    own.map(({ response }) => response),
  );
  t.match(await ask("--replay", replay), { policy: "adapters", note: "fixed retrieval" });
  const text = await rolegrad(["eval", dart, "--writer", "tool=base"]);
  t.match(text.stdout, /\(a hybrid with what step 2 left; tool by base, temperature 1/);

  const agents = runs.get("two agents with an adapter each")!;
  for (const [options, code, message] of [
    [["--keep", "plan"], 1, /ERR_NO_ROLE.*reason, tool.*plan/],
    [["--keep", "tool", "--policy", "base"], 2, /ERR_USAGE.*--keep/],
    [["--writer", "tool"], 2, /ERR_USAGE.*--writer.*tool/],
    [["--writer", "plan=base"], 1, /ERR_NO_ROLE.*plan/],
    [["--writer", `tool=${agents}`], 1, /ERR_VARIANT.*agent a role/],
    [["--writer", `tool=${temporary()}`], 1, /ERR_RUN_DIRECTORY/],
    [["--kv", "shared"], 2, /ERR_USAGE.*--writer with --kv/],
    [["--keep", "tool", "--writer", "reason=base"], 2, /ERR_USAGE.*--keep or --writer/],
    [["--writer", "tool=base", "--kv", "both"], 2, /ERR_USAGE.*--kv/],
    [["--replay", "no/file.jsonl"], 1, /ERR_FILE.*no\/file\.jsonl/],
    [["--replay", path.join(dart, "config.json")], 1, /ERR_TRAJECTORY.*config\.json:1/],
  ] as [string[], number, RegExp][]) {
    const { status, stderr } = await rolegrad(["eval", dart, ...options]);
    t.match({ status, stderr }, { status: code, stderr: message }, options.join(" "));
  }
});

t.test("hybrids put together by hand are those of eval: what was trained loads on its models", async (t) => {
  const directory = runs.get("two agents who are models of their own")!;
  const trained = await trainedModels(directory, "reason");
  t.strictSame(Object.keys(trained).sort(), ["reason", "tool"]);
  const config = await readRunConfig(path.join(directory, "../run.json"));
  const setup = await loadRun(config, { trained, evaluationOnly: true });
  t.teardown(() => setup.close());
  const { sampling, policy, step } = await loadTrainedPolicy(setup, directory);
  t.match({ policy, step }, { policy: "agents", step: 2 });
  const options = { model: setup.model, rollout: { ...setup.rollout, ...sampling }, policy, step };
  const { record } = await evaluate({ ...options, questions: setup.evaluation!.questions, seed: setup.seed });
  const recorded = objects(readFileSync(path.join(directory, "evaluations.jsonl"), "utf8"))[1]!;
  t.match(
    { ...recorded, seconds: 0 },
    { exactMatch: record.exactMatch, finish: record.finish, searches: record.searches },
  );
  const model = await loadModel(path.join(directory, "model/tool"));
  t.equal(model.config.vocabSize, setup.model.config.vocabSize, "its folder is a model's");
  model.close();
});

t.test("what cannot be trained so is refused by field", (t) => {
  const resolve = (change: object) => () =>
    resolveRunConfig(
      { ...JSON.parse(readFileSync(worldRunFile(), "utf8")), model: WORLD_CHECKPOINT, ...change },
      "run.json",
    );
  for (const [change, message] of [
    [{ parameters: "full" }, /parameters: Expected "adapters" for the variant dart/],
    [{ parameters: "full", variant: "mixture" }, /parameters.*mixture/],
    [{ parameters: "full", variant: "shared", rank: 4 }, /rank: Expected none/],
    [{ parameters: "full", variant: "shared", addTokens: ["<x>"] }, /addTokens/],
    [{ variant: "agents", addTokens: ["<x>"] }, /addTokens: Expected none with the variant "agents"/],
    [{ parameters: "full", variant: "shared", crossRole: "exact" }, /crossRole/],
    [{ parameters: "some" }, /parameters.*adapters.*full/],
    [{ variant: "agent" }, /variant.*agents, random/],
  ] as [object, RegExp][])
    t.throws(resolve(change), { code: "ERR_CONFIG", message }, JSON.stringify(change));
  t.end();
});
