// Servers that fail, are slow or are not what they should be; log-probabilities that are of another distribution, and the weights that correct
// for another engine's.
import { createServer } from "node:net";
import { once } from "node:events";
import t, { type Test } from "tap";
import {
  loadModel,
  parseTrajectory,
  Rollout,
  serializeTrajectory,
  serverSampler,
  SglangServer,
  Trainer,
} from "rolegrad";
import { VllmServer } from "rolegrad";
import type { Objective, RolloutOptions, Trajectory } from "rolegrad";
import { randomAdapters } from "./helpers/engine.js";
import { json, serve, until } from "./helpers/http.js";
import { samplingStub, serverOf, type StubOptions } from "./helpers/sampling-stub.js";
import { environment, outcome, questions, reward, roles, router, writeToyModel } from "./helpers/toy.js";

const directory = t.testdir();
await writeToyModel(directory);
const model = await loadModel(directory);
t.teardown(() => model.close());
const adapters = randomAdapters(model, { roles, routes: { reason: "shared", tool: "shared" } });
const kinds = ["vllm", "sglang"] as const;
const group = 4;
const seed = 5;
const keys = questions.flatMap(({ id }) =>
  Array.from({ length: group }, (_, sample) => JSON.stringify([seed, "rollout", "", 0, id, sample])),
);
const request = { ids: [5, 6], maxNewTokens: 3, temperature: 1 };

const options = (more: Partial<RolloutOptions> = {}): RolloutOptions => ({
  ...{ router, environment, reward, group, seed, maxLength: 120, adapters, ...more },
  sampling: { maxNewTokens: 30, ...more.sampling },
});

async function connect(t: Test, more: Partial<StubOptions> & Pick<StubOptions, "kind">, client: object = {}) {
  const stub = await samplingStub(t, { model, streams: { seed, keys }, ...more });
  const server = serverOf(t, stub, more.kind, client);
  return { stub, server, sampler: serverSampler({ server, adapterDirectory: t.testdir() }) };
}

const collect = (more: Partial<RolloutOptions>) => new Rollout(model, options(more)).collect(questions);

function agreed(trajectory: Trajectory): Record<string, unknown> {
  const { precision: _, sampler: __, ...rest } = outcome(trajectory);
  return rest;
}

// ---- failures

for (const kind of kinds) {
  t.test(`${kind}: a server that is busy, or loses connections, changes no token`, async (t) => {
    const troubles = [
      { status: 503 },
      { status: 429, headers: { "retry-after": "0" } },
      "reset",
      { status: 500 },
    ] as const;
    let met = 0;
    // One request may meet it again and again: by chance, several times more often than a client puts up with by itself.
    const { sampler } = await connect(
      t,
      { kind, trouble: (_, count) => (count % 3 === 1 ? troubles[met++ % 4] : undefined) },
      { retries: 50 },
    );
    t.strictSame((await collect({ sampler })).map(agreed), (await collect({})).map(agreed));
    t.ok(met > 8);
  });

  t.test(`${kind}: a server that stays away ends the run, and tokens go on afterwards`, async (t) => {
    let away = true;
    const { stub, sampler, server } = await connect(
      t,
      { kind, trouble: () => (away ? "reset" : undefined) },
      { retries: 2 },
    );
    await t.rejects(collect({ sampler }), {
      code: "ERR_SERVER_UNREACHABLE",
      message: new RegExp(`from ${stub.url}/v1/models but there was none`),
    });
    t.equal(stub.asked.length, 3, "one attempt and two more");
    away = false;
    t.ok((await server.generate(request)).ids.length > 0);
    t.equal((await collect({ sampler })).length, questions.length * group);
  });

  t.test(`${kind}: an abort reaches the server, and rejects at once with its reason`, async (t) => {
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    const asks = kind === "vllm" ? "/v1/completions" : "/generate";
    const { stub, sampler } = await connect(t, { kind, before: (path) => (path === asks ? held : Promise.resolve()) });
    const controller = new AbortController();
    const running = new Rollout(model, options({ sampler })).collect(questions, { signal: controller.signal });
    const asked = (path: string) => stub.asked.filter((own) => own.path === path);
    await until(() => asked(asks).length === 12);
    const reason = new Error("no more");
    controller.abort(reason);
    await t.rejects(running, reason);
    await until(() => stub.left >= 12);
    if (kind === "sglang") {
      await until(() => asked("/abort_request").length === 12);
      const ids = (path: string) =>
        asked(path)
          .map(({ body }) => body["rid"])
          .sort();
      t.strictSame(ids("/abort_request"), ids("/generate"));
    }
    release();
    t.equal((await collect({ sampler })).length, questions.length * group, "the next run is whole");
  });
}

t.test("no server there: the address is named without its password, and so is a refusal without the key", async (t) => {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as { port: number };
  await new Promise((resolve) => probe.close(resolve));
  const gone = new VllmServer({ url: `http://me:verysecret@127.0.0.1:${port}/base?x=verysecret`, retries: 0 });
  const failure: Error & { code?: string } = await gone.generate(request).then(
    () => new Error("none"),
    (error: Error) => error,
  );
  t.match(failure, { code: "ERR_SERVER_UNREACHABLE", message: `http://127.0.0.1:${port}/base/v1/models` });
  t.notMatch(failure.message, /verysecret/);
  const { url, asked } = await serve(t, (response) =>
    json(response, { error: { message: "bad key my-api-key" } }, 401),
  );
  const refusing = new SglangServer({ url, apiKey: "my-api-key" });
  t.teardown(() => refusing.close());
  await t.rejects(refusing.generate(request), {
    code: "ERR_SERVER_HTTP",
    status: 401,
    message: /401: bad key \*\*\*$/,
  });
  t.equal(asked.length, 1, "it is not asked again");
  t.equal(asked[0]!.request.headers.authorization, "Bearer my-api-key");
});

t.test("a server that does not answer in time, or asks for too long a pause, is not waited for", async (t) => {
  const silent = await serve(t, () => undefined);
  const slow = new SglangServer({ url: silent.url, timeout: 30, retries: 1, retryAfter: 1 });
  t.teardown(() => slow.close());
  await t.rejects(slow.generate(request), { code: "ERR_SERVER_UNREACHABLE", message: /none within 30 ms/ });
  t.equal(silent.asked.length, 2);
  const busy = await serve(t, (response) => json(response, {}, 503, { "retry-after": "3600" }));
  const waiting = new SglangServer({ url: busy.url });
  t.teardown(() => waiting.close());
  await t.rejects(waiting.generate(request), { code: "ERR_SERVER_HTTP", status: 503 });
  t.equal(busy.asked.length, 1);
});

const answers: [string, "vllm" | "sglang", unknown, RegExp][] = [
  ["a page", "vllm", "<html>", /Expected JSON/],
  ["nothing", "vllm", {}, /"choices"/],
  [
    "no ids",
    "vllm",
    { choices: [{ finish_reason: "stop", logprobs: { token_logprobs: [-1] } }] },
    /token_ids.*0\.10\.2/,
  ],
  ["no log-probabilities", "vllm", { choices: [{ finish_reason: "stop", token_ids: [1] }] }, /token_logprobs/],
  [
    "fewer of them",
    "vllm",
    { choices: [{ finish_reason: "stop", token_ids: [1, 2], logprobs: { token_logprobs: [-1] } }] },
    /token_logprobs/,
  ],
  [
    "another end",
    "vllm",
    { choices: [{ finish_reason: "error", token_ids: [1], logprobs: { token_logprobs: [-1] } }] },
    /finish_reason "stop" or "length".*"error"/,
  ],
  ["no record", "sglang", { text: "a" }, /"meta_info"/],
  ["no log-probabilities", "sglang", { meta_info: { finish_reason: { type: "stop" } } }, /output_token_logprobs/],
  [
    "other ids",
    "sglang",
    { output_ids: [4], meta_info: { finish_reason: { type: "stop" }, output_token_logprobs: [[-1, 5, null]] } },
    /"output_ids" to be/,
  ],
  [
    "no end",
    "sglang",
    { meta_info: { finish_reason: null, output_token_logprobs: [[-1, 5, null]] } },
    /finish_reason\.type/,
  ],
];
for (const [name, kind, answer, message] of answers) {
  t.test(`${kind} that answers with ${name} is told what is missing`, async (t) => {
    const { url } = await serve(t, (response, { request }) => {
      if (request.url === "/v1/models") return json(response, { data: [{ id: "m" }] });
      if (typeof answer === "string") response.writeHead(200).end(answer);
      else json(response, answer);
    });
    await t.rejects(serverOf(t, { url }, kind).generate(request), { code: "ERR_SERVER_PROTOCOL", message });
  });
}

t.test("an older vLLM, which returns no ids, is refused by a rollout; so is another model's id", async (t) => {
  const { sampler } = await connect(t, { kind: "vllm", old: true });
  await t.rejects(collect({ sampler }), {
    code: "ERR_SERVER_PROTOCOL",
    message: /"token_ids" in each choice \(vLLM 0\.10\.2/,
  });
  const pairs = [[-1, model.config.vocabSize, null]];
  const { url } = await serve(t, (response, { request }) =>
    request.url === "/v1/models"
      ? json(response, { data: [] })
      : json(response, { meta_info: { finish_reason: { type: "stop" }, output_token_logprobs: pairs } }),
  );
  const other = serverSampler({ server: serverOf(t, { url }, "sglang"), adapterDirectory: t.testdir() });
  const alone = { router, environment, reward, sampler: other };
  await t.rejects(new Rollout(model, alone).collect(questions), {
    code: "ERR_SERVER_PROTOCOL",
    message: /does it serve the same model/,
  });
});

t.test("options that make no sense are refused", async (t) => {
  const refused =
    (url: unknown, more: object = {}) =>
    () =>
      new VllmServer({ url: url as string, ...more });
  for (const url of [undefined, 3, "", "localhost:8000", "ftp://x"])
    t.throws(refused(url), { code: "ERR_SERVER_OPTIONS" });
  t.throws(refused("http://x", { apiKey: "a b" }), { code: "ERR_SERVER_OPTIONS" });
  t.throws(refused("http://x", { retries: -1 }), { code: "ERR_INVALID_ARGUMENT" });
  t.throws(() => new SglangServer(undefined as never), { code: "ERR_SERVER_OPTIONS" });
  const server = new SglangServer({ url: "http://127.0.0.1:1" });
  for (const wrong of [
    {},
    { server: {} },
    { server },
    { server, adapterDirectory: "" },
    { server, adapterDirectory: "a", adapterName: "a/b" },
  ])
    t.throws(() => serverSampler(wrong as never), { code: "ERR_INVALID_ARGUMENT" });
});

// ---- log-probabilities

t.test("another temperature is for servers that report log-probabilities at it, which they are asked", async (t) => {
  const sampling = { temperature: 0.7 };
  const wanted = (await collect({ sampling })).map(agreed);
  for (const kind of kinds) {
    const good = await connect(t, { kind, logprobsMode: "processed" });
    t.strictSame((await collect({ sampling, sampler: good.sampler })).map(agreed), wanted, kind);
    const asked = good.stub.asked.length;
    await collect({ sampling, sampler: good.sampler });
    t.ok(
      good.stub.asked
        .slice(asked)
        .every(({ body }) => body["logprobs"] !== 5 && body["top_logprobs_num"] === undefined),
      "asked once",
    );
    const raw = await connect(t, { kind, logprobsMode: "raw" });
    const code = "ERR_SERVER_LOGPROBS";
    await t.rejects(collect({ sampling, sampler: raw.sampler }), {
      code,
      message: /--logprobs-mode processed_logprobs/,
    });
    for (const temperature of [0, 1])
      t.ok((await collect({ sampling: { temperature }, sampler: raw.sampler })).length > 0, `${temperature}`);
  }
});

const objective = (importance?: Objective["importance"]): Objective => ({
  standardize: false,
  ...(importance && { importance }),
});

async function gradientOf(
  trajectories: readonly Trajectory[],
  importance?: Objective["importance"],
  klCoefficient = 0,
) {
  const own = randomAdapters(model, { roles, routes: { reason: "shared", tool: "shared" } });
  const optimizer = { learningRate: 0 };
  const trainer = new Trainer(model, {
    adapters: own,
    objective: { ...objective(importance), klCoefficient },
    optimizer,
  });
  const metrics = await trainer.step(trajectories);
  return { metrics, norm: metrics.gradNorms["shared"]! };
}

t.test("a step on a server's trajectories needs importance weights", async (t) => {
  const { sampler } = await connect(t, { kind: "vllm" });
  const own = await collect({});
  const remote = await collect({ sampler });
  const code = "ERR_IMPORTANCE";
  await t.rejects(gradientOf(remote), { code, message: /another engine sampled.*"vllm"/ });
  const read = remote.map((each) => parseTrajectory(serializeTrajectory(each)));
  t.strictSame(
    read.map(({ sampler }) => sampler),
    remote.map(({ sampler }) => sampler),
  );
  await t.rejects(gradientOf(read), { code });
  const plain = await gradientOf(own);
  const weighted = await gradientOf(remote, { cap: 2 });
  t.ok(Math.abs(weighted.metrics.importance! - 1) < 1e-12, "the same arithmetic: every weight is 1");
  t.equal(weighted.metrics.importanceBounded, 0);
  t.equal(weighted.norm, plain.norm);
});

t.test("weights are p_old / p_behaviour by the server's own count, bounded or masked", async (t) => {
  const moves = [-1, -0.2, 0, 0.3, 1.2];
  const perturb = (logprob: number, position: number) => logprob + moves[position % 5]!;
  const { sampler } = await connect(t, { kind: "sglang", perturb });
  const own = await collect({});
  const remote = await collect({ sampler });
  t.strictSame(
    remote.map(({ ids }) => ids),
    own.map(({ ids }) => ids),
  );
  const weights = own.flatMap(({ sampled, logprobs }, i) =>
    [...sampled.keys()].filter((k) => sampled[k] === 1).map((k) => Math.exp(logprobs[k]! - remote[i]!.logprobs[k]!)),
  );
  const mean = (list: number[]) => list.reduce((a, b) => a + b, 0) / list.length;
  const truncated = await gradientOf(remote, { cap: 2 }, 0.01);
  t.ok(Math.abs(truncated.metrics.importance! - mean(weights.map((w) => Math.min(w, 2)))) < 1e-6);
  t.ok(Math.abs(truncated.metrics.importanceBounded! - mean(weights.map((w) => (w > 2 ? 1 : 0)))) < 1e-9);
  const masked = await gradientOf(remote, { cap: 2, mode: "mask" }, 0.01);
  t.ok(Math.abs(masked.metrics.importance! - mean(weights.map((w) => (w > 2 || w < 0.5 ? 0 : w)))) < 1e-6);
  t.not(masked.norm, truncated.norm);
});
