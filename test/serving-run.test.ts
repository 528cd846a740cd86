// Runs whose answers a server writes: what run.json says, the same steps as with the engine, adapters under a name a step.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import {
  loadModel,
  loadRun,
  loadTrainedPolicy,
  readRunConfig,
  resolveRunConfig,
  Rollout,
  trainRun,
  World,
  WORLD_CHECKPOINT,
} from "rolegrad";
import type { RunConfigInput, Trajectory } from "rolegrad";
import { rolegrad } from "./helpers/command.js";
import { until } from "./helpers/http.js";
import { samplingStub } from "./helpers/sampling-stub.js";
import { worldRunFile } from "./helpers/world.js";

const model = await loadModel(WORLD_CHECKPOINT);
t.teardown(() => model.close());

const smallest: RunConfigInput = {
  model: "models/tiny",
  data: { questions: "questions.jsonl" },
  environment: { kind: "search", passages: "passages.jsonl" },
  variant: "shared",
};
const sampler = { kind: "vllm" as const, url: "http://127.0.0.1:8000" };

t.test("a server is for variants with one adapter, and brings importance weights with it", async (t) => {
  const resolve = (change: object) => resolveRunConfig({ ...smallest, sampler, ...change }, "/data/run.json");
  const config = resolve({ sampler: { ...sampler, adapterDirectory: "adapters" } });
  t.match(config.sampler, {
    kind: "vllm",
    adapterDirectory: "/data/adapters",
    retries: 5,
    timeout: 600_000,
    seeds: true,
  });
  t.same(config.objective.importance, { cap: 2, mode: "truncate" });
  t.same(resolveRunConfig(JSON.parse(JSON.stringify(config)), "/elsewhere/config.json"), config);
  t.same(resolve({ objective: { importance: { cap: 5, mode: "mask" } } }).objective.importance, {
    cap: 5,
    mode: "mask",
  });
  t.equal(resolveRunConfig(smallest, "/data/run.json").objective.importance, undefined);
  t.same(resolve({ variant: "shared-tool" }).objective.importance?.cap, 2);
  for (const [change, message] of [
    [{ variant: "dart" }, /sampler: Expected a variant with one adapter.*"shared-ROLE".*variant is "dart"/],
    [{ variant: "dart-tool" }, /variant is "dart-tool"/],
    [{ variant: "mixture" }, /variant is "mixture"/],
    [{ addTokens: ["<search>"] }, /sampler: Expected no addTokens/],
    [{ sampler: { ...sampler, url: "http://me:secret@host" } }, /sampler\.url: Expected an address/],
    [{ sampler: { ...sampler, kind: "tgi" } }, /sampler\.kind: Expected one of "vllm", "sglang"/],
    [{ sampler: { ...sampler, adapterName: "a/b" } }, /sampler\.adapterName/],
    [{ sampler: { ...sampler, apiKey: "k" } }, /Expected no field sampler\.apiKey/],
  ] as const)
    t.throws(() => resolve(change), { code: "ERR_CONFIG", message });
});

t.test("an API key that is not set ends the command before anything is loaded", async (t) => {
  const file = worldRunFile({ variant: "shared", sampler: { ...sampler, apiKeyFrom: "NO_SUCH_KEY" } });
  await t.rejects(loadRun(await readRunConfig(file)), { code: "ERR_CONFIG", message: /NO_SUCH_KEY to be set/ });
});

/** The random streams of a run of two steps, evaluated before and after. */
function keysOf(): string[] {
  const world = new World({ seed: 1 });
  const stream = (purpose: string, variant: string, step: number, split: "train" | "dev", samples: number) =>
    world
      .questions(split, 12, 0)
      .flatMap(({ id }) =>
        Array.from({ length: samples }, (_, k) => JSON.stringify([1, purpose, variant, step, id, k])),
      );
  return [
    ...[1, 2].flatMap((step) => stream("rollout", "", step, "train", 4)),
    ...stream("evaluation", "base", 0, "dev", 1),
    ...stream("evaluation", "adapters", 2, "dev", 1),
  ];
}

async function train(change: Partial<RunConfigInput>) {
  const config = await readRunConfig(worldRunFile({ variant: "shared", ...change }));
  const setup = await loadRun(config);
  const answers: Trajectory[] = [];
  try {
    const onStep = (_: unknown, own: readonly Trajectory[]) => void answers.push(...own);
    const { metrics, evaluations, directory } = await trainRun(setup, { onStep });
    const steps = metrics.map(({ loss, reward, gradNorms, importance }) => ({ loss, reward, gradNorms, importance }));
    return { steps, exact: evaluations.map(({ exactMatch }) => exactMatch), answers, directory };
  } finally {
    setup.close();
  }
}

for (const kind of ["vllm", "sglang"] as const) {
  t.test(
    `training on a ${kind} server takes the steps of training here, each with the adapter of its step`,
    async (t) => {
      const stub = await samplingStub(t, { kind, model, streams: { seed: 1, keys: keysOf() } });
      const here = await train({ objective: { importance: { cap: 2 } } });
      const there = await train({ sampler: { kind, url: stub.url } });
      t.equal(here.steps.length, 2);
      t.same(there.steps, here.steps);
      t.same(there.exact, here.exact);
      t.same(
        there.answers.map(({ ids, policyVersion }) => [[...ids], policyVersion]),
        here.answers.map(({ ids, policyVersion }) => [[...ids], policyVersion]),
      );
      t.ok(there.answers.every(({ sampler }) => sampler === kind));
      const adapters = stub.asked.flatMap(({ path, body }) =>
        /\/load_lora/.test(path) ? [String(body["lora_name"])] : [],
      );
      t.same(
        adapters.map((name) => name.replace(/[0-9a-f]{12}$/, "#")),
        ["rolegrad-v0-#", "rolegrad-v1-#", "rolegrad-v2-#"],
        "a name a step, the last for the evaluation",
      );
      await until(() => stub.adapters.size === 0 && readdirSync(path.join(there.directory, "served")).length === 0);
      const config = JSON.parse(readFileSync(path.join(there.directory, "config.json"), "utf8"));
      t.match(config, { sampler: { kind, url: stub.url }, objective: { importance: { cap: 2, mode: "truncate" } } });
    },
  );
}

t.test("an evaluation beside the run that it is of takes no adapter away from it", async (t) => {
  const stub = await samplingStub(t, { kind: "vllm", model });
  const change = { steps: 2, questionsPerStep: 2, group: 2, evaluation: { every: 0, questions: 2 } };
  const file = worldRunFile({ variant: "shared", ...change, sampler: { kind: "vllm", url: stub.url } });
  const config = await readRunConfig(file);
  const first = await loadRun({ ...config, steps: 1 });
  const { directory } = await trainRun(first).finally(() => first.close());
  await until(() => stub.adapters.size === 0);

  const [training, evaluation] = [await loadRun(config), await loadRun(config, { evaluationOnly: true })];
  const answering = async (setup: typeof training) => {
    const { model, rollout } = setup;
    const { sampling } = await loadTrainedPolicy(setup, directory);
    const own = new Rollout(model, { ...rollout, ...sampling, group: 2, seed: 1 });
    own.policyVersion = 1;
    const run = own.run(training.questions.slice(0, 2));
    await run.next();
    return run;
  };
  const held = await answering(training);
  const unloaded = () => stub.asked.filter((own) => own.path.includes("unload")).length;
  const before = unloaded();
  await (await answering(evaluation)).return();
  evaluation.close();
  const served = path.join(directory, "served");
  await until(() => unloaded() > before && readdirSync(served).length < 2);
  t.match([...stub.adapters.keys()], [/^rolegrad-v1-[0-9a-f]{12}$/], "that of the run");
  t.match(readdirSync(served), [/^rolegrad-v1-[0-9a-f]{12}$/]);
  await held.return();
  training.close();
  await until(() => stub.adapters.size === 0);
});

t.test("the command line says who samples and what corrects for it; a server that is gone ends it", async (t) => {
  const stub = await samplingStub(t, { kind: "vllm", model });
  const change = { variant: "shared", steps: 1, evaluation: { every: 0, questions: 1 }, questionsPerStep: 1, group: 2 };
  const file = worldRunFile({ ...change, sampler: { kind: "vllm", url: stub.url } });
  const done = await rolegrad(["train", file]);
  t.match(done, {
    status: 0,
    stdout: new RegExp(`sampling +vllm at ${stub.url}; importance weights: truncate, cap 2`),
  });
  t.ok(existsSync(path.join(path.dirname(file), "out/report.html")));
  const gone = worldRunFile({ ...change, sampler: { kind: "vllm", url: "http://127.0.0.1:1", retries: 0 } });
  t.match(await rolegrad(["train", gone]), { status: 1, stderr: /ERR_SERVER_UNREACHABLE.*http:\/\/127\.0\.0\.1:1/ });
});
