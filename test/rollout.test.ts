// Rollouts with scripted tools, on random models with real tokenizers: groups, limits, budgets, tools, aborts, records.
import path from "node:path";
import t, { type Test } from "tap";
import { chatRenderer, loadModel, loadTokenizer, parseTrajectory, Rollout, RoleRouter, segments } from "rolegrad";
import { serializeTrajectory, tagRenderer } from "rolegrad";
import type {
  Environment,
  Model,
  Question,
  Renderer,
  RolloutOptions,
  RunOptions,
  ToolCall,
  Trajectory,
} from "rolegrad";
import { writeChatTokenizer } from "./helpers/chat.js";
import { checkpoints, randomAdapters } from "./helpers/engine.js";
import { refusals } from "./helpers/refused.js";
import { shared } from "./helpers/shared.js";
import {
  environment,
  outcome,
  questions,
  reward,
  roles,
  router,
  worldTokenizer,
  writeToyModel,
} from "./helpers/toy.js";

const directory = t.testdir();
await writeToyModel(directory);
const { model, refused } = await refusals(directory);
t.teardown(() => model.close());
const tokenizer = model.tokenizer!;
const adapters = randomAdapters(model, { roles });
const [question] = questions as [Question];

function make(options: Partial<RolloutOptions> = {}, on: Model = model): Rollout {
  const sampling = { maxNewTokens: 70, ...options.sampling };
  return new Rollout(on, { adapters, router, environment, reward, group: 12, seed: 5, ...options, sampling });
}

const collect = (options: Partial<RolloutOptions> = {}, run: RunOptions = {}) => make(options).collect(questions, run);
const sampledCount = ({ sampled }: Trajectory) => sampled.reduce((a, b) => a + b, 0);

// ---- what a trajectory holds

const tokenizers = { world: worldTokenizer, atomic: shared("fixtures/tokenizer-atomic") };
for (const [name, folder] of Object.entries(tokenizers)) {
  const skip = folder === undefined ? { skip: "no tokenizer-atomic beside this repository" } : {};
  t.test(`${name} tokenizer: prompt, sampled text and tool output, token by token`, skip, async (t) => {
    const end = name === "world" ? "<eos>" : "<|im_end|>";
    const own = path.join(t.testdir(), "model");
    await writeToyModel(own, { tokenizer: folder!, tokens: { "<search>": 4.3, "</search>": 5.2, [end]: 3.5 } });
    const toy = await loadModel(own);
    const tokenizer = toy.tokenizer!;
    const asked: ToolCall[] = [];
    const recording: Environment = {
      act: async (call) => {
        asked.push({ ...call, trajectory: { ...call.trajectory, calls: [...call.trajectory.calls] } });
        return { text: `about ${call.text.length}`, passages: [{ id: "p", text: "passage" }] };
      },
    };
    const stops = { stopIds: [tokenizer.tokenId(end)!] };
    const trajectories = await make(
      { adapters: randomAdapters(toy, { roles }), environment: recording, finalAnswer: false, ...stops },
      toy,
    ).collect(questions);
    t.equal(trajectories.length, 36);
    const tokenBytes = tokenizer.tokenBytes();
    const output = tokenizer.encode("</information>")[0]!;
    for (const x of trajectories) {
      const prompt = tokenizer.encode(questions.find(({ id }) => id === x.question)!.question);
      t.strictSame([...x.ids.subarray(0, prompt.length)], prompt, x.id);
      const first = x.sampled.indexOf(1);
      t.equal(first, prompt.length, "what follows the prompt is sampled");
      t.equal(x.response, tokenizer.decode(x.ids.subarray(first)));
      t.equal(x.reward, x.response.length % 7);
      const bytes = Array.from(x.ids, (id) => tokenBytes[id] ?? new Uint8Array(0));
      t.strictSame(x.roles, router.annotate(bytes, x.sampled), "the roles are the router's");
      t.ok(x.logprobs.every((p, i) => (x.sampled[i] === 1 ? p < 0 && p > -30 : p === 0)));
      // The calls in order: each query, then what came of it between its tags.
      const calls = asked.filter((call) => call.trajectory.id === x.id);
      t.strictSame(
        calls.map((call) => call.trajectory.calls.length),
        calls.map((_, i) => i),
      );
      t.strictSame(
        x.calls.map((call) => [call.role, call.query]),
        calls.map((call) => [call.role, call.text]),
      );
      const outputs = segments(x).filter(({ kind }) => kind === "tool-output");
      t.strictSame(
        outputs.map(({ ids }) => ids),
        x.calls.map(({ result }) => tokenizer.encode(`<information>${result}</information>`)),
      );
      for (const { query, result, latencyMs, passages } of x.calls) {
        t.equal(result, `about ${query.length}`);
        t.ok(latencyMs >= 0 && passages?.[0]?.id === "p");
      }
      t.equal(x.finish === "stop", x.ids.at(-1) === stops.stopIds[0]);
      t.notOk(
        x.ids.subarray(first).some((id, i) => id === output && x.sampled[first + i] === 0 && x.roles[first + i] !== 0),
      );
    }
    t.ok(
      trajectories.some(({ calls }) => calls.length > 1),
      "some make several calls",
    );
    t.ok(
      trajectories.some(({ finish }) => finish === "stop") && trajectories.some(({ finish }) => finish === "length"),
    );
    toy.close();
  });
}

t.test("tags that are spelled over several tokens route and call like atomic ones", async (t) => {
  const split = new RoleRouter({ roles, base: "reason", spans: [{ role: "tool", open: "an", close: "or" }] });
  const trajectories = await collect({ router: split });
  const bytes = tokenizer.tokenBytes();
  let switches = 0;
  for (const x of trajectories) {
    t.strictSame(
      x.roles,
      split.annotate(
        Array.from(x.ids, (id) => bytes[id] ?? new Uint8Array(0)),
        x.sampled,
      ),
    );
    switches += x.roles.reduce((n, role, i) => n + Number(i > 0 && role !== x.roles[i - 1]), 0);
    for (const { query } of x.calls) t.notMatch(query, /or/);
  }
  t.ok(switches > 50, `${switches} switches`);
  t.ok(trajectories.some(({ calls }) => calls.length > 0));
});

t.test("a group is G samples of one question, each with a stream of its own", async (t) => {
  const trajectories = await collect();
  t.strictSame(
    trajectories.map(({ id }) => id),
    questions.flatMap(({ id }) => Array.from({ length: 12 }, (_, k) => `rollout/0/${id}#${k}`)),
    "in the order of questions and samples",
  );
  t.ok(trajectories.every(({ group, id }) => id.startsWith(`${group}#`)));
  t.equal(new Set(trajectories.map(({ rngKey }) => rngKey)).size, 36);
  t.equal(new Set(trajectories.map(({ ids }) => ids.join())).size, 36);
  const texts = async (options: Partial<RolloutOptions>, run: RunOptions) =>
    (await collect(options, run)).map(({ ids }) => ids.join()).join(" ");
  const all = await Promise.all([
    texts({}, {}),
    texts({ seed: 6 }, {}),
    texts({}, { purpose: "eval" }),
    texts({}, { variant: "tool" }),
    texts({}, { step: 1 }),
  ]);
  t.equal(new Set(all).size, 5, "seed, purpose, variant and step change it");
  t.equal(await texts({}, {}), all[0]);
});

t.test("greedy decoding is the same in every sample, and is top-k 1", async (t) => {
  const greedy = await collect({ sampling: { temperature: 0, maxNewTokens: 20 } });
  const one = await collect({ sampling: { topK: 1, maxNewTokens: 20 } });
  const narrow = await collect({ sampling: { topP: 1e-6, maxNewTokens: 20 } });
  for (const [i, x] of greedy.entries()) {
    t.strictSame(x.ids, greedy[i - (i % 12)]!.ids);
    t.strictSame(one[i]!.ids, x.ids);
    t.strictSame(narrow[i]!.ids, x.ids);
    t.strictSame(one[i]!.logprobs, x.logprobs, "log-probabilities are those before the cut, at temperature 1");
  }
  t.match(greedy[0], { temperature: 0, topP: 1, topK: 0 });
  t.match(one[0], { temperature: 1, topP: 1, topK: 1 });
});

// ---- limits

t.test("no trajectory samples more than maxNewTokens, a call as its last token included", async (t) => {
  const lengths = new Set<number>();
  for (const maxNewTokens of [1, 7, 19, 40]) {
    for (const x of await collect({ sampling: { maxNewTokens }, group: 30 })) {
      const count = sampledCount(x);
      lengths.add(count);
      if (count > maxNewTokens) t.fail(`${x.id} sampled ${count} of ${maxNewTokens}`);
      if (x.finish === "length" && count !== maxNewTokens) t.fail(`${x.id} ended as length after ${count}`);
    }
  }
  t.ok(lengths.has(1) && lengths.has(40));
});

t.test("no trajectory is longer than maxLength, long tool output included", async (t) => {
  const wordy: Environment = { act: async () => ({ text: "a long answer ".repeat(30) }) };
  const trajectories = await collect({ environment: wordy, maxLength: 90, sampling: { maxNewTokens: 200 } });
  t.ok(trajectories.every(({ ids }) => ids.length <= 90));
  const cut = trajectories.filter((x) => x.sampled.at(-1) === 0);
  t.ok(cut.length > 0, "some end within a tool's output");
  t.ok(cut.every(({ finish, calls }) => finish === "length" && calls.length > 0));
  t.ok(trajectories.filter(({ finish }) => finish === "length").every(({ ids }) => ids.length === 90));
});

t.test("a call beyond the action budget ends a trajectory", async (t) => {
  for (const actionBudget of [0, 1, 2]) {
    const calls: string[] = [];
    const counting: Environment = { act: async (call) => (calls.push(call.trajectory.id), { text: "x" }) };
    const trajectories = await collect({ actionBudget, environment: counting });
    t.ok(trajectories.every((x) => x.calls.length <= actionBudget));
    const over = trajectories.filter(({ finish }) => finish === "budget");
    t.ok(over.length > 0 && over.every((x) => x.calls.length === actionBudget && x.sampled.at(-1) === 1));
    t.equal(
      calls.length,
      trajectories.reduce((n, x) => n + x.calls.length, 0),
      "no tool is called beyond it",
    );
  }
});

t.test("the ids that end a trajectory can be chosen", async (t) => {
  const comma = tokenizer.tokenId("</answer>")!;
  const trajectories = await collect({ stopIds: [comma] });
  const ended = trajectories.filter(({ finish }) => finish === "stop");
  t.ok(ended.length > 0 && ended.every(({ ids }) => ids.indexOf(comma) === ids.length - 1));
  t.ok(
    trajectories.some(({ ids }) => ids.includes(tokenizer.eosTokenId!)),
    "the tokenizer's own no longer does",
  );
  t.ok((await collect({ stopIds: [] })).every(({ finish }) => finish !== "stop"));
});

// ---- tools

t.test("a tool that takes long holds up nobody else", async (t) => {
  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => (release = resolve));
  const slow: Environment = {
    async act({ question }) {
      if (question.id === "q0") await held;
      return { text: "answer" };
    },
  };
  const order: string[] = [];
  for await (const { question } of make({ environment: slow, concurrency: 36 }).run(questions)) {
    order.push(question);
    // All 24 of the others end while the calls of q0 are out.
    if (order.filter((id) => id !== "q0").length === 24) release();
  }
  t.equal(order.length, 36);
  t.ok(order.lastIndexOf("q0") > order.lastIndexOf("q1") && order.lastIndexOf("q0") > order.lastIndexOf("q2"));
});

const failing: [string, string, RegExp, Environment["act"]][] = [
  [
    "throws at once",
    "ERR_TOOL_FAILED",
    /no such index/,
    () => {
      throw new Error("no such index");
    },
  ],
  ["rejects", "ERR_TOOL_FAILED", /refused/, async () => Promise.reject(new Error("refused"))],
  ["rejects with a word", "ERR_TOOL_FAILED", /just so/, async () => Promise.reject("just so")],
  ["answers nothing", "ERR_TOOL_FAILED", /without a text/, async () => undefined as never],
  ["answers a number", "ERR_TOOL_FAILED", /without a text/, async () => ({ text: 7 }) as never],
  ["never answers", "ERR_TOOL_TIMEOUT", /within 15 ms/, () => new Promise(() => undefined)],
];
for (const [how, code, message, act] of failing) {
  t.test(`a tool that ${how} is recorded, and told, ends the trajectory or the run`, async (t) => {
    const options = { environment: { act }, toolTimeout: 15, actionBudget: 2 };
    const observed = await collect(options);
    const made = observed.flatMap((x) => x.calls);
    t.ok(made.length > 0);
    for (const call of made) {
      t.equal(call.error?.code, code);
      t.match(call.error?.message, message);
      t.match(call.error?.message, /The tool of role tool for question q\d/);
      t.equal(call.result, `Error: ${call.error?.message}`);
    }
    t.ok(
      observed.some((x) => x.calls.length === 2),
      "the model reads the error and goes on",
    );
    t.ok(observed.every((x) => x.finish !== "error"));

    const finished = await collect({ ...options, onToolError: "finish" });
    t.ok(finished.every((x) => (x.finish === "error") === x.calls.length > 0 && x.calls.length < 2));
    t.ok(finished.some((x) => x.finish === "error" && x.calls[0]?.error?.code === code && x.sampled.at(-1) === 1));
    await refused(t, collect({ ...options, onToolError: "throw" }), code, message);
  });
}

t.test("one tool's failure touches no other trajectory", async (t) => {
  const want = (await collect()).map(outcome);
  const flaky: Environment = {
    act: (call, options) => {
      if (call.question.id === "q1") throw new Error("down");
      return environment.act(call, options);
    },
  };
  const got = (await collect({ environment: flaky })).map(outcome);
  t.strictSame(got.slice(0, 12), want.slice(0, 12));
  t.strictSame(got.slice(24), want.slice(24));
});

// ---- ends

/** `begin` aborts the controller at some time and gives the rollout's options. */
async function aborts(t: Test, begin: (controller: AbortController) => Partial<RolloutOptions>): Promise<void> {
  const controller = new AbortController();
  const rollout = make(begin(controller));
  await t.rejects(rollout.collect(questions, { signal: controller.signal }), { message: "enough" });
  t.ok(controller.signal.aborted);
}

t.test("an abort ends a run with its own reason, in decoding or while tools are out", async (t) => {
  const reason = new Error("enough");
  await aborts(t, (controller) => {
    controller.abort(reason);
    return {};
  });
  await aborts(t, (controller) => {
    setImmediate(() => controller.abort(reason));
    return {};
  });
  const told: unknown[] = [];
  await aborts(t, (controller) => {
    const act: Environment["act"] = (_, { signal }) =>
      new Promise((_resolve, reject) => {
        setTimeout(() => controller.abort(reason), 5);
        signal.addEventListener("abort", () => {
          told.push(signal.reason);
          reject(new Error("stopped"));
        });
      });
    return { environment: { act } };
  });
  t.ok(told.length > 0, "tools that are out are told");
  t.equal((await collect()).length, 36, "the model works as before");
});

t.test("a consumer that stops early ends the run, and the tools that are out", async (t) => {
  let out = 0;
  const waiting: Environment = {
    act: ({ question }, { signal }) =>
      question.id === "q0"
        ? Promise.resolve({ text: "x" })
        : new Promise((_, reject) => {
            out++;
            signal.addEventListener("abort", () => reject(new Error(`stopped ${out--}`)));
          }),
  };
  for await (const trajectory of make({ environment: waiting, concurrency: 36 }).run(questions)) {
    t.ok(trajectory.ids.length > 0);
    if (out > 0) break;
  }
  await new Promise((resolve) => setTimeout(resolve, 5));
  t.equal(out, 0);
  t.equal((await collect()).length, 36);
});

t.test("a reward must be a finite number; it may take its time", async (t) => {
  const slow = await collect({
    reward: async ({ response, finish, calls }, { id }) => {
      await new Promise((resolve) => setTimeout(resolve, 1));
      return response.length + (finish === "stop" ? 0.5 : 0) + calls.length / 4 + Number(id.slice(1)) * 1000;
    },
  });
  t.ok(
    slow.every(
      (x) =>
        x.reward ===
        x.response.length + (x.finish === "stop" ? 0.5 : 0) + x.calls.length / 4 + Number(x.question.slice(1)) * 1000,
    ),
  );
  for (const wrong of [NaN, Infinity, undefined, "1"]) {
    await refused(t, collect({ reward: () => wrong as number }), "ERR_REWARD", /question q\d/, String(wrong));
  }
  await t.rejects(
    collect({
      reward: () => {
        throw new TypeError("my own");
      },
    }),
    { code: "ERR_REWARD", message: /question q\d but it failed: my own/, cause: { name: "TypeError" } },
  );
});

t.test("the last answer is recorded with its text", async (t) => {
  const tags = { open: "<answer>", close: "</answer>" };
  const trajectories = await collect({ answer: tags, group: 40 });
  const answered = trajectories.filter(({ answer }) => answer !== null);
  t.ok(answered.length > 0);
  for (const { response, answer } of answered) t.ok(response.includes(`<answer>${answer}</answer>`));
});

// ---- records

t.test("a trajectory is the same after a round trip through one line of JSON", async (t) => {
  const trajectories = await collect({ sampling: { temperature: 0.7 } });
  for (const trajectory of trajectories) {
    const line = serializeTrajectory(trajectory);
    t.notMatch(line, /\n/);
    const back = parseTrajectory(line);
    t.strictSame(back, trajectory);
    t.equal(serializeTrajectory(back), line);
  }
  const line = serializeTrajectory(trajectories[0]!);
  for (const [bad, word] of [
    [line.slice(0, -20), "JSON"],
    ["null", "object"],
    ["[]", "object"],
    [line.replace('"ids":[', '"ids":["a",'), "ids"],
    [line.replace('"ids":[', '"ids":[0.5,'), "ids"],
    [line.replace('"ids":[', '"ids":[2147483648,'), "ids"],
    [line.replace('"ids":[', '"ids":[-1,'), "ids"],
    [line.replace('"roles":[', '"roles":[128,'), "roles"],
    [line.replace('"sampled":[', '"sampled":[2,'), "sampled"],
    [line.replace(/"logprobs":\[[^\]]*\]/, '"logprobs":[null]'), "logprobs"],
    [line.replace(/"roles":\[/, '"roles":[0,'), "length"],
    [line.replace('"reward":', '"other":'), "reward"],
  ] as const) {
    await refused(t, () => parseTrajectory(bad), "ERR_TRAJECTORY", word);
  }
});

// ---- what is refused

t.test("options that make no sense are refused by field", async (t) => {
  const cases: [string, string | RegExp, object][] = [
    ["ERR_INVALID_ARGUMENT", "group", { group: 0 }],
    ["ERR_INVALID_ARGUMENT", "concurrency", { concurrency: 0 }],
    ["ERR_INVALID_ARGUMENT", "concurrency", { concurrency: 1e9 }],
    ["ERR_INVALID_ARGUMENT", "seed", { seed: -1 }],
    ["ERR_INVALID_ARGUMENT", "actionBudget", { actionBudget: 1.5 }],
    ["ERR_INVALID_ARGUMENT", "maxLength", { maxLength: 1 }],
    ["ERR_INVALID_ARGUMENT", "maxLength", { maxLength: 1025 }],
    ["ERR_INVALID_ARGUMENT", "temperature", { sampling: { temperature: -1 } }],
    ["ERR_INVALID_ARGUMENT", "temperature", { sampling: { temperature: NaN } }],
    ["ERR_INVALID_ARGUMENT", "topP", { sampling: { topP: 0 } }],
    ["ERR_INVALID_ARGUMENT", "topP", { sampling: { topP: 1.1 } }],
    ["ERR_INVALID_ARGUMENT", "topK", { sampling: { topK: -1 } }],
    ["ERR_INVALID_ARGUMENT", "maxNewTokens", { sampling: { maxNewTokens: 0 } }],
    [
      "ERR_NO_ROLE",
      /router's roles \(plan\).* \(reason, tool\)/,
      { router: new RoleRouter({ roles: ["plan"], base: "plan", spans: [] }) },
    ],
  ];
  for (const [code, word, options] of cases) await refused(t, () => collect(options), code, word);
});

t.test("a prompt that cannot be run is refused by its question", async (t) => {
  const run = (prompt: string, options = {}) => make({ prompt: () => prompt, ...options }).collect([question]);
  await refused(t, run(""), "ERR_EMPTY_PROMPT", "Question q0");
  await refused(t, run("Where? ".repeat(100), { maxLength: 50 }), "ERR_PROMPT_TOO_LONG", "Question q0", "50");
  t.strictSame(await make().collect([]), [], "no question, no trajectory");
  const small = await loadModel(checkpoints.tied);
  const alone = { adapters: undefined, tokenizer } as unknown as Partial<RolloutOptions>;
  await refused(
    t,
    make({ ...alone, prompt: () => "</answer> Standsbro" }, small).collect([question]),
    "ERR_TOKEN_RANGE",
    "Question q0",
  );
  await refused(t, () => make({ adapters: undefined } as never, small), "ERR_TOKENIZER_NOT_FOUND", checkpoints.tied);
  await refused(t, make({ tokenizer }, small).collect([question]), "ERR_INVALID_ARGUMENT", "another model");
  small.close();
  await refused(t, make({ ...alone }, small).collect([question]), "ERR_MODEL_CLOSED");
});

// ---- renderers

t.test("a rollout by a renderer of tags is the rollout without one", async (t) => {
  const prompt = ({ question }: Question): string => `Question: ${question}`;
  const renderer = tagRenderer(tokenizer, { roles, base: router.base, spans: router.spans, prompt });
  const by = await collect({ renderer, router: renderer.router });
  t.ok(by.some(({ calls }) => calls.length > 1));
  t.strictSame(by.map(outcome), (await collect({ prompt })).map(outcome));
});

t.test("by a chat template: a malformed call is answered by a correction, which costs a call", async (t) => {
  const own = t.testdir();
  const folder = writeChatTokenizer(path.join(own, "tokenizer"), "chatml");
  const toyTokenizer = await writeToyModel(own, {
    tokenizer: folder,
    tokens: { "<tool_call>": 4.5, "</tool_call>": 5.2, "<|im_end|>": 3.5 },
  });
  const toy = await loadModel(own);
  const tools = [{ name: "search", parameters: { properties: { query: { type: "string" } } } }];
  const renderer = chatRenderer(await loadTokenizer(folder), { system: "Be brief.", tools });
  const asked: ToolCall[] = [];
  const recording: Environment = { act: async (call) => (asked.push(call), { text: "found" }) };
  const parts = { adapters: randomAdapters(toy, { roles }), environment: recording, renderer, router: renderer.router };
  const trajectories = await make({ ...parts, actionBudget: 2, finalAnswer: false, maxLength: 600 }, toy).collect(
    questions,
  );
  t.ok(trajectories.some(({ finish }) => finish === "budget"));
  t.ok(trajectories.some(({ finish }) => finish === "stop"));
  t.equal(asked.length, 0, "no call of a random model is JSON");
  for (const x of trajectories) {
    t.strictSame(
      segments(x)
        .filter(({ kind }) => kind === "prompt" || kind === "tool-output")
        .map(({ ids }) => toyTokenizer.decode(ids)),
      [
        toyTokenizer.decode(renderer.prompt(questions.find(({ id }) => id === x.question)!)),
        ...x.calls.map(({ result }) => toyTokenizer.decode(renderer.toolResult({ span: 0, text: "" }, result))),
      ],
    );
    t.ok(x.calls.every(({ error }) => error?.code === "ERR_TOOL_CALL"));
  }
  // The same, with a reader of calls that takes them: the tool gets what it read.
  const parseCall: Renderer["parseCall"] = ({ text }) => ({ name: "n", arguments: { k: 1 }, text: `${text.length}` });
  await make({ ...parts, renderer: { ...renderer, parseCall } }, toy).collect(questions);
  t.ok(asked.length > 0);
  t.ok(
    asked.every(
      ({ role, name, text, arguments: args }) => role === "tool" && name === "n" && +text >= 0 && args?.["k"] === 1,
    ),
  );
  t.throws(() => make({ ...parts, router }, toy), { code: "ERR_INVALID_ARGUMENT", message: /renderer\.router/ });
  toy.close();
});

t.test("a span that calls nothing says its role and goes on", async (t) => {
  const [span] = router.spans as [RoleRouter["spans"][0]];
  const silent = new RoleRouter({ roles, base: "reason", spans: [{ ...span, call: false }] });
  const trajectories = await collect({ router: silent });
  t.ok(trajectories.every(({ calls }) => calls.length === 0));
  const closed = tokenizer.tokenId(span.close)!;
  t.ok(
    trajectories.some(({ ids, roles }) =>
      ids.some((id, i) => id === closed && roles[i - 1] === 1 && i < ids.length - 1),
    ),
  );
});

t.test("a call that ends with a stop token is a call; outside a call the token stops", async (t) => {
  const [end] = tokenizer.eosTokenIds as [number];
  const spans = [{ role: "tool", open: "<search>", close: "<eos>" }];
  const trajectories = await collect({ router: new RoleRouter({ roles, base: "reason", spans }) });
  const calls = trajectories.flatMap(({ calls }) => calls);
  t.ok(calls.length > 0);
  t.equal(
    trajectories.reduce((n, x) => n + x.ids.filter((id, i) => id === end && x.sampled[i] === 1).length, 0),
    calls.length + trajectories.filter(({ finish }) => finish === "stop" || finish === "budget").length,
  );
});
