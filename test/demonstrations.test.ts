// Supervised training from JSON Lines: what each kind of line becomes, what is refused, and a run that learns it.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import {
  createAdapters,
  demonstration,
  loadModel,
  loadRun,
  PERFECT,
  Random,
  readDemonstrations,
  readRunConfig,
  resolveRunConfig,
  serializeTrajectory,
  Trainer,
  trainRun,
  WORLD_CHECKPOINT,
  WORLD_TAGS,
} from "rolegrad";
import { bits, checkpoints } from "./helpers/engine.js";
import { refusals } from "./helpers/refused.js";
import { temporary, world, worldRollout, worldRunFile, worldSetup } from "./helpers/world.js";

const { refused } = await refusals(checkpoints.tied);
const model = await loadModel(WORLD_CHECKPOINT);
t.teardown(() => model.close());
const tokenizer = model.tokenizer!;
const { router } = worldRollout();
const [end] = tokenizer.eosTokenIds as [number];

function write(...rows: (object | string)[]): string {
  const file = path.join(temporary(), "demonstrations.jsonl");
  writeFileSync(file, rows.map((row) => `${typeof row === "string" ? row : JSON.stringify(row)}\n`).join(""));
  return file;
}
const read = (...rows: object[]) => readDemonstrations(write(...rows), { tokenizer, router });

const { open, close } = WORLD_TAGS.tool;
const questions = world.questions("train", 24, 0);
const rows = questions.map((question, i) => ({
  id: `d${i}`,
  segments: [
    { text: world.prompt(question), sampled: false },
    ...demonstration(world, question, new Random(1, `demonstration/${i}`), PERFECT),
  ],
}));

t.test("what is learned is what is marked, each piece encoded by itself, with the end token", async (t) => {
  const [own] = await read({ prompt: " Question: who?\n", completion: `${open} a${close}` });
  const prompt = tokenizer.encodePrompt(" Question: who?\n");
  const completion = [...tokenizer.encode(`${open} a${close}`), end];
  t.strictSame([...own!.ids], [...prompt, ...completion]);
  t.strictSame([...own!.sampled], [...prompt.map(() => 0), ...completion.map(() => 1)]);
  t.equal(own!.id, "line-1");
  const [text] = await read({ id: 7, text: " a" });
  t.strictSame([...text!.ids], [...tokenizer.encodePrompt(""), ...tokenizer.encode(" a"), end]);
  t.equal(text!.id, "7");
});

t.test("roles are those that a rollout of the same tokens has", async (t) => {
  const [own] = await read(rows[0]!);
  const bytes = tokenizer.tokenBytes();
  const roles = router.annotate([...own!.ids].map((id) => bytes[id]!), own!.sampled); // prettier-ignore
  t.strictSame(own!.roles, roles);
  t.strictSame(new Set(roles), new Set([0, 1]), "both of them");
  t.ok(own!.sampled.includes(0, own!.sampled.indexOf(1)), "tool output is not learned");
});

t.test("a trajectory comes back by its ids, and a line says what it is not", async (t) => {
  const [own] = await read(rows[0]!);
  const [again] = await readDemonstrations(write(serializeTrajectory(own!)), { tokenizer, router });
  t.strictSame(again, { ...own, precision: "exact" });
  const cases: [string, string | RegExp, object][] = [
    ["ERR_DATA_FIELD", /demonstrations\.jsonl:1 but received question/, { question: "a" }],
    ["ERR_DATA_FIELD", "string for prompt", { completion: "a" }],
    ["ERR_DATA_FIELD", "segments[0].sampled", { segments: [{ text: "a" }] }],
    ["ERR_DATA_FIELD", "token to learn", { segments: [{ text: "a", sampled: false }] }],
    ["ERR_DATA_FIELD", "messages of role and content", { messages: [{ role: "user" }] }],
    ["ERR_TRAJECTORY", /demonstrations\.jsonl:1: .*id/, { ids: [1] }],
  ];
  for (const [code, word, row] of cases) await refused(t, read(row), code, word);
  await refused(t, read({ id: "a", text: "b" }, { id: "a", text: "c" }), "ERR_DATA_DUPLICATE");
  await refused(t, readDemonstrations(write(), { tokenizer, router }), "ERR_DATA_EMPTY");
  const short = readDemonstrations(write(rows[0]!), { tokenizer, router, maxLength: 5 });
  await refused(t, short, "ERR_DATA_FIELD", "at most 5 tokens");
});

t.test("a supervised step is the mean of -log p of what is learned, and its derivative", async (t) => {
  const demonstrations = await read(...rows.slice(0, 4));
  const make = () => {
    const adapters = createAdapters(model, { roles: ["reason", "tool"], rank: 4, alpha: 8 });
    const optimizer = { learningRate: 3e-3 };
    return new Trainer(model, { adapters, objective: { kind: "sft" }, optimizer, microBatchTokens: 100 });
  };
  let sum = 0;
  let count = 0;
  for (const { ids, sampled } of demonstrations) {
    const { logprobs } = await model.forward({ inputIds: ids, cuSeqlens: Int32Array.of(0, ids.length) });
    sampled.forEach((learned, i) => {
      if (learned === 0 || i === 0) return;
      sum -= logprobs[i]!;
      count++;
    });
  }
  const trainer = make();
  const { loss, maxRatioDeviation, sampledTokens } = await trainer.step(demonstrations);
  t.ok(Math.abs(loss - sum / count) < 1e-6, `${loss}, ${sum / count}`);
  t.equal(maxRatioDeviation, 0);
  t.equal(sampledTokens["reason"]! + sampledTokens["tool"]!, count);
  const slow = make();
  for (const { ids, roles, sampled } of [...demonstrations].sort((a, b) => (a.id < b.id ? -1 : 1))) {
    const one = { inputIds: ids, roles, cuSeqlens: Int32Array.of(0, ids.length), lossMask: sampled };
    await slow.accumulate(one, { normalizer: count });
  }
  await slow.apply();
  const weights = (own: Trainer) => own.adapters!.list.map(({ name }) => own.adapters!.get(name, "model.layers.0.mlp.up_proj").b); // prettier-ignore
  t.equal(bits(...weights(trainer)), bits(...weights(slow)));
});

t.test("a run learns a file, goes on to the same bits, and keeps no answers", async (t) => {
  const demonstrations = await read(...rows);
  const trainer = { optimizer: { learningRate: 3e-3 }, objective: { kind: "sft" as const } };
  const own = { demonstrations, trainer, questionsPerStep: 4, group: 2, steps: 6 };
  const straight = temporary();
  const whole = await trainRun(worldSetup(model, straight, own));
  const losses = whole.metrics.map(({ loss }) => loss);
  t.ok(losses.at(-1)! < 0.8 * losses[0]!, losses.join(" "));
  t.equal(whole.metrics[0]!.trajectories, 8);
  t.notOk(existsSync(path.join(straight, "trajectories/step-000001.jsonl")));
  const stopped = temporary();
  await trainRun(worldSetup(model, stopped, { ...own, steps: 2 }));
  const rest = await trainRun(worldSetup(model, stopped, own));
  t.match(rest, { step: 6, stepsTaken: 4 });
  const file = "adapters/tool/adapter_model.safetensors";
  t.ok(readFileSync(path.join(stopped, file)).equals(readFileSync(path.join(straight, file))));
  const neither = worldSetup(model, temporary(), { demonstrations });
  await refused(t, trainRun(neither), "ERR_INVALID_ARGUMENT", "demonstrations with objective.kind");
});

t.test("run.json names the file", async (t) => {
  const data = { questions: "questions.jsonl", split: "train", evalSplit: "dev", demonstrations: write(...rows) };
  const file = worldRunFile({ data, objective: { kind: "sft" }, evaluation: { questions: 2, every: 0 }, steps: 1 });
  const setup = await loadRun(await readRunConfig(file));
  try {
    const { metrics, evaluations } = await trainRun(setup);
    t.match(metrics, [{ step: 1, trajectories: 16, reward: 0 }]);
    t.equal(evaluations.length, 2, "evaluated on questions");
  } finally {
    setup.close();
  }
  const missing = { ...(JSON.parse(readFileSync(file, "utf8")) as object), data: { questions: "questions.jsonl" } };
  const said = (message: RegExp) => ({ code: "ERR_CONFIG", message });
  t.throws(
    () => resolveRunConfig(missing, file),
    said(/data\.demonstrations: Expected a file for objective\.kind "sft"/),
  );
  const policy = { ...missing, data, objective: {} };
  t.throws(
    () => resolveRunConfig(policy, file),
    said(/data\.demonstrations: Expected it with objective\.kind "sft" alone/),
  );
});
