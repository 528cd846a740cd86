// The training loop: exact resume, clean aborts, what a run directory holds, evaluation.
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import t, { type Test } from "tap";
import {
  Adapters,
  evaluate,
  explainReward,
  loadModel,
  loadTrainedAdapters,
  parseTrajectory,
  RolegradError,
  trainRun,
  wilson,
  WORLD_CHECKPOINT,
  type Model,
  type RunSetup,
  type StepRecord,
  type Trajectory,
} from "rolegrad";
import { withoutTimes } from "./helpers/records.js";
import { temporary, world, worldRollout, worldSetup } from "./helpers/world.js";

let model: Model;
t.before(async () => {
  model = await loadModel(WORLD_CHECKPOINT);
});
t.after(() => model.close());

const weights = (folder: string) => readFileSync(path.join(folder, "adapter_model.safetensors"));
const lines = (file: string) =>
  readFileSync(file, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as never);
/** Without what differs between equal runs. */
const figures = (records: readonly StepRecord[]) => withoutTimes(records);

/** The same adapters, bit for bit, under the same names, and the same figures. */
function sameRun(t: Test, found: string, wanted: string): void {
  t.same(readdirSync(path.join(found, "adapters")), readdirSync(path.join(wanted, "adapters")), "the same adapters");
  for (const name of readdirSync(path.join(wanted, "adapters"))) {
    const bytes = (folder: string) => weights(path.join(folder, "adapters", name));
    t.ok(bytes(found).equals(bytes(wanted)), `${name}: the same bits`);
  }
  const metrics = (folder: string) => figures(lines(path.join(folder, "metrics.jsonl")));
  t.same(metrics(found), metrics(wanted), "the same metrics");
}

t.test("a run that stops after a step and goes on ends with the same bits as one that never stopped", async (t) => {
  for (const [variant, routes] of [
    ["one adapter a role", { reason: "reason", tool: "tool" }],
    ["one shared adapter", { reason: "shared", tool: "shared" }],
  ] as const) {
    const adapters = { rank: 4, alpha: 8, routes };
    const straight = temporary();
    const whole = await trainRun(worldSetup(model, straight, { adapters, steps: 3 }));
    t.match(whole, { status: "finished", step: 3, stepsTaken: 3 });
    t.ok(
      whole.metrics.some(({ mixedGroups }) => mixedGroups > 0),
      `${variant}: something was learned`,
    );

    const stopped = temporary();
    await trainRun(worldSetup(model, stopped, { adapters, steps: 1 }));
    t.notOk(
      weights(path.join(stopped, "adapters", whole.adapters!.names[0]!)).equals(
        weights(path.join(straight, "adapters", whole.adapters!.names[0]!)),
      ),
    );
    await trainRun(worldSetup(model, stopped, { adapters, steps: 2 }));
    const rest = await trainRun(worldSetup(model, stopped, { adapters, steps: 3, resume: true }));
    t.match(rest, { status: "finished", step: 3, stepsTaken: 1 });
    sameRun(t, stopped, straight);
  }
});

t.test("a run of several updates a step, with options of the objective, goes on to the same bits", async (t) => {
  const trainer: RunSetup["trainer"] = {
    optimizer: { learningRate: 3e-3 },
    objective: {
      advantageEstimator: "rloo",
      filterGroups: true,
      ratio: "sequence",
      klCoefficient: 0.01,
      klPlacement: "reward",
    },
  };
  const straight = temporary();
  const own = { trainer, epochs: 2, minibatches: 2 };
  const { metrics } = await trainRun(worldSetup(model, straight, own));
  t.match(metrics, [
    { step: 1, updates: 4 },
    { step: 2, updates: 4 },
  ]);
  t.ok(metrics.every(({ filteredGroups, mixedGroups }) => filteredGroups === 4 - 4 * mixedGroups));
  const stopped = temporary();
  await trainRun(worldSetup(model, stopped, { ...own, steps: 1 }));
  await trainRun(worldSetup(model, stopped, own));
  sameRun(t, stopped, straight);
});

t.test("an abort in the middle of a step leaves a directory that goes on, to the same bits", async (t) => {
  const straight = temporary();
  await trainRun(worldSetup(model, straight));
  const aborted = temporary();
  const stop = new AbortController();
  const reason = new RolegradError("ERR_ABORTED", "enough");
  const result = await trainRun(worldSetup(model, aborted), {
    signal: stop.signal,
    onProgress: ({ phase, step, done }) => {
      if (phase === "rollout" && step === 2 && done === 3) stop.abort(reason);
    },
  });
  t.match(result, { status: "interrupted", step: 1, stepsTaken: 1 });
  t.ok(existsSync(path.join(result.checkpoint, "trainer.json")), "a checkpoint of the step before");
  t.notOk(existsSync(path.join(aborted, "adapters")), "the final adapters are for the end");
  t.equal((await trainRun(worldSetup(model, aborted))).status, "finished");
  sameRun(t, aborted, straight);
});

t.test("a run that fails keeps what it has trained, and what came after the checkpoint is taken again", async (t) => {
  const straight = temporary();
  await trainRun(worldSetup(model, straight));
  const failing = temporary();
  const rollout = worldRollout();
  let answers = 0;
  const reward: typeof rollout.reward = (judged, question) => {
    if (++answers > 20) throw new Error("the judge is out");
    return rollout.reward(judged, question);
  };
  await t.rejects(trainRun(worldSetup(model, failing, { rollout: { ...rollout, reward } })), {
    message: "the judge is out",
  });
  t.same(readdirSync(path.join(failing, "checkpoints")), ["step-000001"]);
  appendFileSync(path.join(failing, "metrics.jsonl"), '{"step": 2, "reward": 9}\n{"step": 3, "rew');
  mkdirSync(path.join(failing, "checkpoints/step-000002.partial"));
  const result = await trainRun(worldSetup(model, failing));
  t.equal(result.metrics.length, 2);
  sameRun(t, failing, straight);
});

t.test("a run that is finished is left as it is, and another run never goes into its directory", async (t) => {
  const directory = temporary();
  const first = await trainRun(worldSetup(model, directory, { steps: 1 }));
  const again = await trainRun(worldSetup(model, directory, { steps: 1 }));
  t.match(again, { status: "finished", step: 1, stepsTaken: 0 });
  t.same(again.metrics, first.metrics);
  const memory = { name: "test", seed: 1, microBatchTokens: 512, gradientCheckpointing: true };
  const freely = await trainRun(worldSetup(model, directory, { steps: 1, description: memory }));
  t.equal(freely.status, "finished", "what changes no result may differ");
  const other = worldSetup(model, directory, { seed: 2, description: { name: "test", seed: 2 } });
  await t.rejects(trainRun(other), { code: "ERR_RUN_EXISTS", message: /seed was 1 there and is 2 now/ });
  const full = temporary();
  writeFileSync(path.join(full, "notes.txt"), "mine");
  await t.rejects(trainRun(worldSetup(model, full)), { code: "ERR_RUN_EXISTS", message: /holds other files/ });
  const file = path.join(directory, "config.json");
  const config = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
  writeFileSync(file, JSON.stringify({ ...config, numericsVersion: 7000 }));
  const old = trainRun(worldSetup(model, directory, { steps: 2 }));
  await t.rejects(old, { code: "ERR_NUMERICS_VERSION", message: /began with 7000/ });
  await t.rejects(trainRun(worldSetup(model, temporary(), { resume: true })), { code: "ERR_RUN_NOT_FOUND" });
});

t.test("a run directory holds what its contract says", async (t) => {
  const directory = path.join(temporary(), "new/run");
  const seen: string[] = [];
  const result = await trainRun(
    worldSetup(model, directory, {
      evaluation: { questions: world.questions("dev", 5, 0), every: 1, samples: 2 },
      checkpoint: { every: 1, keep: 1 },
      command: ["rolegrad", "train", "run.json"],
    }),
    {
      onStart: ({ step }) => void seen.push(`start ${step}`),
      onStep: ({ step }, trajectories) => void seen.push(`step ${step}: ${trajectories.length}`),
      onEvaluation: ({ step, policy }) => void seen.push(`evaluation ${step}: ${policy}`),
      onCheckpoint: (_folder, step) => void seen.push(`checkpoint ${step}`),
    },
  );
  t.same(seen, [
    ...["start 0", "evaluation 0: base", "step 1: 16", "evaluation 1: adapters", "checkpoint 1"],
    ...["step 2: 16", "evaluation 2: adapters", "checkpoint 2"],
  ]);
  t.same(readdirSync(directory).sort(), [
    "adapters",
    "checkpoints",
    "config.json",
    "evaluations.jsonl",
    "metrics.jsonl",
    "trajectories",
  ]);
  t.same(readdirSync(path.join(directory, "checkpoints")), ["best.json", "step-000002"], "the newest is kept");
  t.match(JSON.parse(readFileSync(path.join(directory, "config.json"), "utf8")), {
    name: "test",
    seed: 1,
    package: "rolegrad",
    numericsVersion: 1,
    node: process.versions.node,
    instructionSet: String,
    command: ["rolegrad", "train", "run.json"],
    startedAt: /^\d{4}-/,
  });
  t.match(lines(path.join(directory, "metrics.jsonl")), [
    { step: 1, reward: Number, seconds: Number, gradNorms: { reason: Number, tool: Number } },
    { step: 2 },
  ]);
  const shape = {
    step: 0,
    split: "dev",
    policy: "base",
    n: 5,
    samples: 2,
    temperature: 1,
    exactMatch: Number,
    low: Number,
    high: Number,
    toolRate: Number,
  };
  t.match(lines(path.join(directory, "evaluations.jsonl")), [shape, { step: 1, policy: "adapters" }, { step: 2 }]);
  const kept = [
    "eval-000000.jsonl",
    "eval-000001.jsonl",
    "eval-000002.jsonl",
    "step-000001.jsonl",
    "step-000002.jsonl",
  ];
  t.same(readdirSync(path.join(directory, "trajectories")).sort(), kept);
  const written = readFileSync(path.join(directory, "trajectories/step-000002.jsonl"), "utf8")
    .trimEnd()
    .split("\n")
    .map(parseTrajectory);
  t.same(written, result.trajectories);
  t.same(new Set(written.map(({ policyVersion }) => policyVersion)), new Set([1]), "sampled by the adapters of step 1");

  const loaded = await Adapters.load(model, {
    reason: path.join(directory, "adapters/reason"),
    tool: path.join(directory, "adapters/tool"),
  });
  const trained = await loadTrainedAdapters(model, directory);
  t.equal(trained.step, 2);
  const module = "model.layers.0.self_attn.q_proj";
  for (const name of ["reason", "tool"]) {
    t.same(loaded.get(name, module), result.adapters!.get(name, module), `${name}: PEFT directory`);
    t.same(trained.adapters.get(name, module), result.adapters!.get(name, module), `${name}: checkpoint`);
    t.ok(
      result.adapters!.get(name, module).b.some((x) => x !== 0),
      `${name} was trained`,
    );
  }
});

t.test("a step asks no question twice, an epoch asks each at most once, and seeds differ in the order", async (t) => {
  const asked = async (seed: number) => {
    const directory = temporary();
    const setup = worldSetup(model, directory, {
      seed,
      steps: 5,
      questionsPerStep: 3,
      group: 2,
      description: { seed },
    });
    const steps: string[][] = [];
    await trainRun(
      { ...setup, rollout: { ...setup.rollout, sampling: { maxNewTokens: 1 } }, trajectories: { every: 0 } },
      {
        onStep: (_record, trajectories) =>
          void steps.push(trajectories.filter((_, i) => i % 2 === 0).map(({ question }) => question)),
      },
    );
    t.notOk(existsSync(path.join(directory, "trajectories")), "no answers are kept where none are wanted");
    return steps;
  };
  const steps = await asked(1);
  for (const step of steps) t.equal(new Set(step).size, 3);
  t.equal(new Set(steps.slice(0, 3).flat()).size, 9, "3 steps of 3 of 10 questions are an epoch");
  t.same(await asked(1), steps);
  t.notSame(await asked(2), steps);
  const few = worldSetup(model, temporary(), { questionsPerStep: 11 });
  await t.rejects(trainRun(few), {
    code: "ERR_RUN_QUESTIONS",
    message: /at least questionsPerStep \(11\) questions but received 10/,
  });
});

t.test("prompts that do not fit are refused before the first step, by the question's id", async (t) => {
  const rollout = { ...worldRollout(), maxLength: 24 };
  const questions = world.questions("train", 9, 0);
  questions[5] = { ...questions[5]!, id: "long", question: "x y ".repeat(30) };
  const directory = path.join(temporary(), "run");
  const error = { code: "ERR_PROMPT_TOO_LONG", message: /fewer than 24 tokens .* question long has \d+/ };
  await t.rejects(trainRun(worldSetup(model, directory, { rollout, questions })), error);
  t.notOk(existsSync(directory), "nothing was written");
  const beyond = { ...worldRollout(), maxLength: 513 };
  await t.rejects(trainRun(worldSetup(model, directory, { rollout: beyond })), {
    code: "ERR_CONFIG",
    message: /agent\.maxLength of at most 512/,
  });
});

t.test("an evaluation is a function of its seed and step, and says what the answers did", async (t) => {
  const questions = world.questions("dev", 40, 0);
  const options = { model, rollout: worldRollout(), questions, seed: 3 };
  const one = await evaluate(options);
  t.same(
    (await evaluate({ ...options, rollout: { ...worldRollout(), concurrency: 7 } })).trajectories.map(({ ids }) => ids),
    one.trajectories.map(({ ids }) => ids),
  );
  t.notSame(
    (await evaluate({ ...options, step: 1 })).trajectories.map(({ ids }) => ids),
    one.trajectories.map(({ ids }) => ids),
  );
  const { record, trajectories } = one;
  t.same(
    trajectories.map(({ question }) => question),
    questions.map(({ id }) => id),
  );
  const right = trajectories.filter(({ reward }) => reward === 1).length;
  t.ok(right > 0 && right < 40, `${right} of 40 right`);
  t.same({ low: record.low, high: record.high }, wilson(right, 40));
  t.equal(record.exactMatch, right / 40);
  t.equal(record.toolRate, trajectories.filter(({ calls }) => calls.length > 0).length / 40);
  t.equal(
    Object.values(record.finish).reduce((sum, count) => sum + count, 0),
    40,
  );
  const many = await evaluate({ ...options, questions: questions.slice(0, 10), samples: 4 });
  t.equal(many.trajectories.length, 40);
  t.ok(many.record.low <= many.record.exactMatch && many.record.exactMatch <= many.record.high);
  await t.rejects(evaluate({ ...options, questions: [] }), { code: "ERR_RUN_QUESTIONS" });
});

t.test("Wilson's interval is the published one", async (t) => {
  // Newcombe (1998), table I, method 3.
  for (const [k, n, low, high] of [
    [81, 263, 0.2553, 0.3662],
    [15, 148, 0.0624, 0.1605],
    [0, 20, 0, 0.1611],
    [1, 29, 0.0061, 0.1718],
  ] as const) {
    const found = wilson(k, n);
    t.same([found.low.toFixed(4), found.high.toFixed(4)], [low.toFixed(4), high.toFixed(4)], `${k} of ${n}`);
  }
});

t.test("a reward of zero is explained, another is not", async (t) => {
  const agent = { spans: [{ role: "tool", open: "<s>", close: "</s>" }], answer: { open: "<a>", close: "</a>" } };
  const make = (id: string, change: Partial<Trajectory>) =>
    ({
      id,
      reward: 0,
      answer: null,
      calls: [],
      finish: "length",
      ids: new Int32Array(9),
      ...change,
    }) as unknown as Trajectory;
  const mute = [
    make("a", {}),
    make("b", {}),
    make("c", { finish: "stop" }),
    make("d", { answer: "Rome", finish: "stop" }),
  ];
  const why = explainReward(mute, agent);
  t.match(why, { withoutCall: 1, withoutAnswer: 0.75, cut: 0.5, example: { id: "d" } });
  t.match(
    why?.findings.join("\n"),
    /4 of 4 \(100 %\) made no parsable tool call: no <s>…<\/s>.*\n3 of 4 \(75 %\) gave no answer: no <a>…<\/a>/,
  );
  t.match(why?.findings.at(-1), /does not write the format/);
  t.equal(explainReward([...mute, make("e", { reward: 1 })], agent), undefined);
  t.equal(explainReward([], agent), undefined);
});
