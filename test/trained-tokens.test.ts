// Rows of the embedding and of the head that are trained beside adapters, and tokens that a checkpoint does not know.
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import {
  Adapters,
  createAdapters,
  loadModel,
  loadRun,
  loadTokenizer,
  Random,
  resolveRunConfig,
  Rollout,
  saveModel,
  Trainer,
  type Model,
} from "rolegrad";
import { bits, checkpoints, normals, onPolicy, pack, randomAdapters, trainingBatch } from "./helpers/engine.js";
import { trajectoriesOf } from "./helpers/properties.js";
import { needsPython, runPython } from "./helpers/python.js";
import { refusals } from "./helpers/refused.js";
import { nearPlainLoops, sameInAnySplit, slopeAlong } from "./helpers/steps.js";
import { relativeError } from "./helpers/tensors.js";
import { questions, roles, shortRollouts, writeToyModel } from "./helpers/toy.js";

const { model: tied, refused } = await refusals(checkpoints.tied);
const untied: Model = await loadModel(checkpoints.untied);
t.teardown(() => [tied, untied].forEach((model) => model.close()));

/** Ids that occur in the batches below. */
const ids = [3, 17, 40, 58];
const shape = { lengths: [30, 25, 40, 8], seed: 6 };

/** Random adapters whose trained rows are random too, unless told. */
function withTokens(model: Model, { rows = true, seed = 1 } = {}): Adapters {
  const made = createAdapters(model, { roles, rank: 3, alpha: 6, trainableTokens: ids });
  const random = randomAdapters(model, { roles, seed });
  for (const { name } of made.list)
    for (const module of [
      "model.layers.0.self_attn.q_proj",
      "model.layers.1.mlp.up_proj",
      "model.layers.1.mlp.down_proj",
    ])
      made.set(name, module, random.get(name, module));
  if (rows)
    for (const id of ids) {
      const { head } = made.getToken(id);
      const draw = (part: string) => normals(new Random(seed, `${part}/${id}`), model.config.hiddenSize, 0.3);
      made.setToken(id, { embedding: draw("embedding"), ...(head && { head: draw("head") }) });
    }
  return made;
}

const tokenBits = (adapters: Adapters): string =>
  bits(...adapters.trainableTokens.flatMap((id) => Object.values(adapters.getToken(id)) as Float32Array[]));

t.test("trained rows that are still the model's change no bit of a result", async (t) => {
  for (const model of [tied, untied]) {
    const trajectories = trajectoriesOf(shape, model);
    const made = withTokens(model, { rows: false });
    const plain = await model.forward(pack(trajectories), { logits: true });
    const fresh = createAdapters(model, { roles, rank: 2, alpha: 4, trainableTokens: ids });
    const same = await model.forward(pack(trajectories), { adapters: fresh, logits: true });
    t.equal(bits(same.logits!, same.logprobs), bits(plain.logits!, plain.logprobs));
    made.setToken(17, withTokens(model).getToken(17));
    const changed = await model.forward(pack(trajectories), { adapters: made, logits: true });
    t.not(bits(changed.logprobs), bits(plain.logprobs), "a row that differs does");
    t.equal((await model.forward(pack(trajectories))).logprobs.join(), plain.logprobs.join(), "not without adapters");
  }
});

t.test(
  "the logits of a trained token are its own head row times the hidden state, and no other logit moves",
  async (t) => {
    // With a head of its own a head row touches nothing but its column.
    const trajectories = trajectoriesOf(shape, untied);
    const made = createAdapters(untied, { roles, rank: 2, alpha: 4, trainableTokens: ids });
    const before = (await untied.forward(pack(trajectories), { adapters: made, logits: true })).logits!;
    const row = made.getToken(40);
    made.setToken(40, { embedding: row.embedding, head: row.head!.map((x) => 2 * x) });
    const after = (await untied.forward(pack(trajectories), { adapters: made, logits: true })).logits!;
    const { vocabSize } = untied.config;
    t.ok(
      after.every((x, i) => x === (i % vocabSize === 40 ? 2 * before[i]! : before[i])),
      "column 40 is doubled exactly",
    );
  },
);

t.test("gradients of trained rows are those of central differences and of the plain loops", async (t) => {
  for (const directory of [checkpoints.tied, checkpoints.untied]) {
    await nearPlainLoops(t, directory, async (model, device) => {
      const adapters = withTokens(model);
      const trainer = new Trainer(model, { adapters, optimizer: { learningRate: 0 }, objective: { kind: "sft" } });
      const batch = { ...trainingBatch(trajectoriesOf(shape, model)) };
      await trainer.accumulate(batch);
      const rows = ids.map((id) => trainer.gradients.token(id));
      const all = rows.flatMap(({ embedding, head }) => (head === undefined ? [embedding] : [embedding, head]));
      if (device === "cpu") return all;
      const loss = async () => (await trainer.accumulate(batch)).loss;
      let checked = 0;
      for (const [i, id] of ids.entries()) {
        for (const part of ["embedding", "head"] as const) {
          const start = adapters.getToken(id);
          const gradient = rows[i]![part];
          // A row that does not occur, or that nothing that counts follows, has none.
          if (gradient === undefined || gradient.every((x) => x === 0)) continue;
          checked++;
          const { slope, norm } = await slopeAlong(loss, 2e-2, [start[part]!], [gradient], (x) =>
            adapters.setToken(id, { ...start, [part]: x }),
          );
          t.ok(Math.abs(slope - norm) < 0.01 * norm + 1e-6, `${part} of ${id}: ${slope} is near ${norm}`);
        }
      }
      t.ok(checked >= 3, `${checked} of them`);
      return all;
    });
  }
});

t.test("the split into micro-batches and the order of trajectories change no bit of trained rows", async (t) => {
  for (const model of [tied, untied]) {
    const untrained = tokenBits(withTokens(model));
    const options = { optimizer: { learningRate: 0.01 }, objective: { klCoefficient: 0.1 } };
    await sameInAnySplit(
      t,
      model,
      (microBatchTokens) => new Trainer(model, { ...options, adapters: withTokens(model), microBatchTokens }),
      ({ adapters }, gradNorms) => {
        t.same(Object.keys(gradNorms), ["reason", "tool", "tokens"]);
        const trained = tokenBits(adapters!);
        t.not(trained, untrained, "they moved");
        return trained;
      },
    );
  }
});

t.test("trained rows are clipped by themselves", async (t) => {
  const run = async (maxGradNorm: number) => {
    const adapters = withTokens(untied);
    const trainer = new Trainer(untied, { adapters, optimizer: { learningRate: 0.01, epsilon: 1, maxGradNorm } });
    const { gradNorms } = await trainer.step(trajectoriesOf(shape, untied));
    const moved = ids.map((id) => adapters.getToken(id).embedding);
    const start = ids.map((id) => withTokens(untied).getToken(id).embedding);
    return {
      norm: gradNorms["tokens"]!,
      step: Math.hypot(...moved.flatMap((x, i) => [...x].map((y, k) => y - start[i]![k]!))),
    };
  };
  const free = await run(0);
  const bound = await run(free.norm / 10);
  t.equal(bound.norm, free.norm, "the norm is that before clipping");
  // With epsilon 1 a first Adam step is near proportional to the gradient.
  t.ok(bound.step < 0.2 * free.step, `${bound.step} against ${free.step}`);
});

t.test("a rollout samples with trained rows, keeps the version it began with, and is on policy exactly", async (t) => {
  const directory = path.join(t.testdir(), "toy");
  await writeToyModel(directory);
  const model = await loadModel(directory);
  t.teardown(() => model.close());
  const adapters = createAdapters(model, {
    roles,
    rank: 2,
    alpha: 4,
    trainableTokens: ["<search>", "</search>", "<answer>"],
  });
  const trainer = new Trainer(model, { adapters, optimizer: { learningRate: 0.05 } });
  const collect = async (between?: () => Promise<unknown>) => {
    const found = [];
    const rollout = new Rollout(model, { ...shortRollouts, adapters, concurrency: 4 });
    for await (const trajectory of rollout.run(questions)) {
      found.push(trajectory);
      if (found.length === 1) await between?.();
    }
    return found.sort((a, b) => (a.id < b.id ? -1 : 1));
  };
  const first = await collect();
  const before = tokenBits(adapters);
  t.equal((await trainer.step(first)).maxRatioDeviation, 0, "the first step");
  t.not(tokenBits(adapters), before);
  const second = await collect();
  t.not(second.map((x) => x.ids.join()).join(" "), first.map((x) => x.ids.join()).join(" "));
  t.equal((await trainer.step(second)).maxRatioDeviation, 0, "after the rows have moved");
  const quiet = await collect();
  const stepped = await collect(() => trainer.step(second));
  t.same(
    stepped.map((x) => x.ids.join()),
    quiet.map((x) => x.ids.join()),
    "a step in between changes no running rollout",
  );
});

t.test("saved, loaded and resumed rows are the same bits", async (t) => {
  for (const [name, model] of Object.entries({ tied, untied })) {
    const trajectories = await onPolicy(model, withTokens(model), trajectoriesOf(shape, model));
    const directory = path.join(t.testdir(), name);
    const options = { optimizer: { learningRate: 0.01 } };
    const trainer = new Trainer(model, { ...options, adapters: withTokens(model) });
    await trainer.step(trajectories);
    await trainer.save(directory);
    await trainer.step(trajectories);
    const resumed = await Trainer.resume(directory, model, options);
    t.same(resumed.adapters!.trainableTokens, ids);
    await resumed.step(trajectories);
    t.equal(tokenBits(resumed.adapters!), tokenBits(trainer.adapters!));
    t.equal(bits(...resumed.native.state().first), bits(...trainer.native.state().first));

    const adapters = path.join(directory, "adapters");
    const config = JSON.parse(readFileSync(path.join(adapters, "tool/adapter_config.json"), "utf8")) as object;
    const wanted = model === tied ? ids : { embed_tokens: ids, lm_head: ids };
    t.same((config as Record<string, unknown>)["trainable_token_indices"], wanted, "as PEFT says it");
    const one = await Adapters.load(model, { reason: null, tool: path.join(adapters, "tool") });
    t.same(one.trainableTokens, ids, "one of the adapters brings the rows along");
  }
});

t.test("adapters with different rows are refused together, and tokens that the model does not have", async (t) => {
  const at = (name: string) => path.join(t.testdirName, name);
  t.testdir();
  await withTokens(tied, { seed: 1 }).save(at("one"), "reason");
  await withTokens(tied, { seed: 2 }).save(at("two"), "tool");
  await refused(
    t,
    Adapters.load(tied, { reason: at("one"), tool: at("two") }),
    "ERR_ADAPTER_INVALID",
    at("one"),
    at("two"),
  );
  const make = (options: object) => () => createAdapters(tied, { roles, rank: 2, alpha: 4, ...options });
  await refused(t, make({ trainableTokens: [101] }), "ERR_TOKEN_RANGE", "101");
  await refused(t, make({ trainableTokens: ["<search>"] }), "ERR_NO_TOKEN", "<search>", "addTokens");
  await refused(
    t,
    make({ trainableTokens: [1], routes: { reason: "tokens", tool: "tokens" } }),
    "ERR_INVALID_ARGUMENT",
    "tokens",
  );
  const adapters = withTokens(tied);
  await refused(t, () => adapters.getToken(4), "ERR_NO_TOKEN", "4");
  const { embedding } = adapters.getToken(3);
  await refused(t, () => adapters.setToken(3, { embedding: embedding.fill(NaN) }), "ERR_NOT_FINITE");
  await refused(t, () => adapters.setToken(3, { embedding, head: embedding }), "ERR_SHAPE", "head");
  await refused(t, loadModel(checkpoints.tied, { addTokens: ["<search>"] }), "ERR_TOKENIZER_NOT_FOUND");
});

t.test("a tag takes an unused row of the checkpoint, or one that is added, and begins as the mean", async (t) => {
  const directory = path.join(t.testdir(), "toy");
  const before = await writeToyModel(directory); // three rows more than tokens
  const size = before.vocabularySize;
  const tags = ["<sql>", "</sql>", "<a>", "<search>", "</a>"];
  const model = await loadModel(directory, { addTokens: tags });
  const plain = await loadModel(directory);
  t.teardown(() => [model, plain].forEach((each) => each.close()));
  t.equal(model.config.vocabSize, size + 4, "one row more than the checkpoint's");
  t.equal(plain.config.vocabSize, size + 3);
  t.same(
    tags.map((tag) => model.tokenizer!.tokenId(tag)),
    [size, size + 1, size + 2, before.tokenId("<search>"), size + 3],
  );
  t.same(model.tokenizer!.encode("<sql>x</a>"), [size, ...before.encode("x"), size + 3], "each is one token");
  t.equal(model.tokenizer!.decode([size, size + 3], { skipSpecialTokens: true }), "<sql></a>");
  t.equal(Buffer.from(model.tokenizer!.tokenBytes()[size + 3]!).toString(), "</a>");

  const row = (owner: Model, id: number) =>
    createAdapters(owner, { roles, rank: 1, alpha: 1, trainableTokens: [id] }).getToken(id);
  t.same(
    row(model, before.tokenId("<search>")!),
    row(plain, before.tokenId("<search>")!),
    "a known token keeps its row",
  );
  for (const part of ["embedding", "head"] as const) {
    const all = Array.from({ length: size }, (_, id) => row(plain, id)[part]!);
    const mean = all[0]!.map((_, k) => all.reduce((sum, x) => sum + x[k]!, 0) / size);
    for (const id of [size, size + 3]) t.same(row(model, id)[part], mean, `${part} of ${id}`);
    const made = createAdapters(plain, { roles, rank: 1, alpha: 1, trainableTokens: [5], tokenInit: "mean" });
    t.same(made.getToken(5)[part], mean, 'tokenInit: "mean"');
  }
  const batch = { inputIds: Int32Array.of(1, 2, 3), cuSeqlens: Int32Array.of(0, 3) };
  const logits = async (owner: Model) => (await owner.forward(batch, { logits: true })).logits!;
  const [grown, old] = [await logits(model), await logits(plain)];
  t.equal(bits(grown.slice(0, size)), bits(old.slice(0, size)), "no other logit changes");

  const adapters = createAdapters(model, { roles, rank: 1, alpha: 1, trainableTokens: tags });
  await adapters.save(path.join(directory, "adapter"), "tool");
  await refused(
    t,
    Adapters.load(plain, { tool: path.join(directory, "adapter") }),
    "ERR_ADAPTER_INVALID",
    "<sql>",
    "addTokens",
  );
  t.same(
    (await Adapters.load(model, { tool: path.join(directory, "adapter") })).trainableTokens,
    adapters.trainableTokens,
  );
  t.equal((await loadTokenizer(directory, { addTokens: tags })).tokenId("</a>"), size + 3);
  await refused(t, loadModel(directory, { addTokens: ["<b>", "<b>"] }), "ERR_INVALID_ARGUMENT", "<b>");
});

t.test("an empty addTokens makes the embedding as large as the tokenizer", async (t) => {
  const directory = path.join(t.testdir(), "toy");
  const { vocabularySize } = await writeToyModel(directory);
  const file = path.join(directory, "tokenizer.json");
  const json = JSON.parse(readFileSync(file, "utf8")) as { added_tokens: object[] };
  const id = vocabularySize + 5;
  json.added_tokens.push({ id, content: "<sql>", special: false });
  writeFileSync(file, JSON.stringify(json));
  const model = await loadModel(directory, { addTokens: [] });
  t.teardown(() => model.close());
  t.equal(model.config.vocabSize, id + 1);
});

t.test("full training of a model with added tokens saves a checkpoint that has them", async (t) => {
  const directory = path.join(t.testdir(), "toy");
  const { vocabularySize } = await writeToyModel(directory);
  const tags = ["<sql>", "</sql>", "<a>", "</a>"];
  const model = await loadModel(directory, { addTokens: tags, dtype: "float32" });
  const trainer = new Trainer(model, { full: true, optimizer: { learningRate: 0.01 }, objective: { kind: "sft" } });
  const inputIds = Int32Array.of(1, vocabularySize, vocabularySize + 3, 2);
  const batch = { inputIds, cuSeqlens: Int32Array.of(0, 4), lossMask: Uint8Array.of(0, 1, 1, 1) };
  await trainer.accumulate(batch);
  await trainer.apply();
  const to = path.join(t.testdirName, "saved");
  await saveModel(trainer, to);
  const saved = await loadModel(to);
  t.teardown(() => [model, saved].forEach((each) => each.close()));
  t.equal(saved.config.vocabSize, vocabularySize + 4);
  t.equal(saved.tokenizer!.tokenId("</a>"), vocabularySize + 3);
  t.equal(bits((await saved.forward(batch)).logprobs), bits((await model.forward(batch)).logprobs));
});

const PEFT_LOGITS = `
import json, sys, torch
from transformers import AutoModelForCausalLM
from peft import PeftModel
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
model = PeftModel.from_pretrained(model, sys.argv[2]).eval()
print(json.dumps(model(torch.tensor([json.loads(sys.argv[3])])).logits[0].flatten().tolist()))
`;

t.test("peft reads trained rows and gives the same logits", needsPython("peft", "transformers"), async (t) => {
  for (const [name, model] of Object.entries({ tied, untied })) {
    const adapters = withTokens(model);
    const directory = path.join(t.testdir(), name);
    await adapters.save(directory, "tool");
    const inputIds = Int32Array.of(1, 17, 40, 9, 3, 58, 58, 22);
    const batch = { inputIds, cuSeqlens: Int32Array.of(0, 8), roles: new Int8Array(8).fill(1) };
    const { logits } = await model.forward(batch, { adapters, logits: true });
    const want = runPython(PEFT_LOGITS, model.directory, directory, JSON.stringify([...inputIds])) as number[];
    const error = relativeError(logits!, want);
    t.ok(error < 1e-4, `${name}: ${error}`);
  }
});

t.test("a run.json with addTokens loads a model that has them, and trains their rows", async (t) => {
  const directory = t.testdir({
    "questions.jsonl": '{"id": "1", "question": "Who?", "answers": ["me"]}\n',
    "passages.jsonl": '{"id": "1", "text": "me"}\n',
  });
  const { vocabularySize } = await writeToyModel(path.join(directory, "model"));
  const config = resolveRunConfig(
    {
      model: "./model",
      addTokens: ["<search>", "<sql>"],
      data: { questions: "questions.jsonl" },
      environment: { kind: "search", passages: "passages.jsonl" },
    },
    path.join(directory, "run.json"),
  );
  const setup = await loadRun(config);
  t.teardown(() => setup.close());
  const made = createAdapters(setup.model, { ...setup.adapters, roles: [...setup.rollout.router.roles] });
  t.same(made.trainableTokens, [setup.model.tokenizer!.tokenId("<search>"), vocabularySize]);
});
