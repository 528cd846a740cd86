// Rollouts whose tokens are sampled by a vLLM or SGLang server: against stubs that follow their documented APIs and sample with this engine.
import { readdirSync } from "node:fs";
import path from "node:path";
import fc from "fast-check";
import t, { type Test } from "tap";
import { endpointSampler, loadModel, Rollout, RoleRouter, serverSampler } from "rolegrad";
import type { Adapters, RolloutOptions, RunOptions, Trajectory } from "rolegrad";
import { RoleTracker } from "../lib/roles/tracker.js";
import { randomAdapters } from "./helpers/engine.js";
import { until } from "./helpers/http.js";
import { holds } from "./helpers/properties.js";
import { samplingStub, serverOf, type StubOptions } from "./helpers/sampling-stub.js";
import { environment, outcome, questions, reward, roles, router, writeToyModel } from "./helpers/toy.js";

const directory = t.testdir();
await writeToyModel(directory);
const model = await loadModel(directory);
t.teardown(() => model.close());
const adapters = randomAdapters(model, { roles, routes: { reason: "shared", tool: "shared" } });
const kinds = ["vllm", "sglang"] as const;
const group = 3;
const seed = 5;

const options = (more: Partial<RolloutOptions> = {}): RolloutOptions => ({
  ...{ router, environment, reward, group, seed, maxLength: 120, ...more },
  sampling: { maxNewTokens: 60, ...more.sampling },
});

/** The random streams of rollouts, for a stub that draws as the engine does. */
function keysOf({ purpose = "rollout", variant = "", step = 0 }: RunOptions = {}): string[] {
  const samples = Array.from({ length: group }, (_, sample) => sample);
  return questions.flatMap(({ id }) => samples.map((k) => JSON.stringify([seed, purpose, variant, step, id, k])));
}

async function connect(t: Test, more: Partial<StubOptions> & Pick<StubOptions, "kind">, client: object = {}) {
  const stub = await samplingStub(t, { model, streams: { seed, keys: keysOf() }, ...more });
  return { stub, server: serverOf(t, stub, more.kind, client) };
}

/** What both engines must agree in: all but who it was and how long tools took. */
function agreed(trajectory: Trajectory): Record<string, unknown> {
  const { precision: _, sampler: __, ...rest } = outcome(trajectory);
  return rest;
}

const count = (list: readonly Trajectory[]) =>
  list.flatMap(({ sampled }) => [...sampled]).filter((one) => one === 1).length;

const local = await new Rollout(model, options({ adapters })).collect(questions);

for (const kind of kinds) {
  for (const temperature of [0, 1]) {
    t.test(`${kind} at temperature ${temperature}: the engine's own trajectories, token for token`, async (t) => {
      const { stub, server } = await connect(t, { kind });
      const adapterDirectory = t.testdir();
      const sampler = serverSampler({ server, adapterDirectory });
      const sampling = { temperature };
      const wanted =
        temperature === 1 ? local : await new Rollout(model, options({ adapters, sampling })).collect(questions);
      const rollout = new Rollout(model, options({ adapters, sampling, sampler }));
      const remote = await rollout.collect(questions);
      t.strictSame(remote.map(agreed), wanted.map(agreed));
      t.ok(remote.every((own) => own.sampler === kind && own.precision === undefined));
      if (temperature === 1) {
        t.ok(local.some(({ calls }) => calls.length > 1));
        t.ok(new Set(local.map(({ finish }) => finish)).size > 1, "answers end in several ways");
      }
      t.equal(rollout.stats.sampledTokens, count(remote));
      t.equal(stub.adapters.size, 1);
      await sampler.close();
      t.equal(stub.adapters.size, 0, "unloaded at the end");
      t.strictSame(readdirSync(adapterDirectory), []);
    });
  }
}

// ---- tags

t.test("the tracker is the engine's router, token by token", async (t) => {
  const tags = ["<a>", "<ab>", "<a><", "a", "ab", "<<a", "é"];
  const spans = fc.array(
    fc.record({
      role: fc.constantFrom("x", "y", "z"),
      open: fc.constantFrom(...tags),
      close: fc.constantFrom(...tags),
    }),
    { minLength: 1, maxLength: 4 },
  );
  const tokens = fc.array(fc.record({ text: fc.stringMatching(/^[<ab>é]{0,5}$/), sampled: fc.boolean() }), {
    minLength: 1,
    maxLength: 30,
  });
  await holds(t, fc.record({ spans, tokens }), 300, async ({ spans, tokens }) => {
    const router = new RoleRouter({ roles: ["x", "y", "z"], base: "x", spans });
    const bytes = tokens.map(({ text }) => new TextEncoder().encode(text));
    const expected = router.annotate(
      bytes,
      tokens.map(({ sampled }) => (sampled ? 1 : 0)),
    );
    const tracker = new RoleTracker(router);
    return tokens.every(({ sampled }, i) => {
      if (sampled) tracker.sampled(bytes[i]!);
      else tracker.given();
      return tracker.role === expected[i];
    });
  });
});

const letters = {
  "tags that end within tokens": [{ role: "tool", open: "th", close: "e" }],
  "tags that overlap, a longer one that takes over, a span that calls nothing": [
    { role: "think", open: "o", close: "a", call: false },
    { role: "tool", open: "t", close: "e" },
    { role: "think", open: "th", close: "s" },
  ],
};
for (const [name, spans] of Object.entries(letters)) {
  for (const kind of kinds) {
    t.test(`${kind}: ${name}`, async (t) => {
      const three = ["reason", "tool", "think"];
      const own = new RoleRouter({ roles: three, base: "reason", spans });
      const single = randomAdapters(model, { roles: three, routes: { reason: "all", tool: "all", think: "all" } });
      const { server } = await connect(t, { kind, overrun: kind === "vllm" ? 3 : 0 });
      const sampler = serverSampler({ server, adapterDirectory: t.testdir() });
      const more = { adapters: single, router: own };
      const wanted = await new Rollout(model, options(more)).collect(questions);
      t.ok(wanted.some(({ calls }) => calls.length > 1));
      const remote = await new Rollout(model, options({ ...more, sampler })).collect(questions);
      t.strictSame(remote.map(agreed), wanted.map(agreed));
    });
  }
}

// ---- two endpoints

/** The engine's hybrid of the same two, each of which reads everything with a cache of its own. */
async function hybrid(t: Test, router: RoleRouter, overrun: number) {
  const { roles } = router;
  const other = randomAdapters(model, {
    roles: [...roles],
    routes: Object.fromEntries(roles.map((r) => [r, "own"])),
    seed: 9,
  });
  const folder = path.join(t.testdir(), "other");
  await other.save(folder, "own");
  const streams = { seed, keys: keysOf() };
  const reason = await samplingStub(t, { kind: "vllm", model, streams, overrun });
  const tool = await samplingStub(t, { kind: "sglang", model, streams, overrun });
  const [first, second] = [serverOf(t, reason, "vllm"), serverOf(t, tool, "sglang")];
  await second.loadAdapter("other", folder);
  const endpoint = { server: second, adapter: "other" };
  const sampler = endpointSampler({ roles: { reason: { server: first }, tool: endpoint, think: { ...endpoint } } });
  const writer = { model, adapters: other };
  const writers = Object.fromEntries(roles.filter((role) => role !== "reason").map((role) => [role, writer]));
  const more = { router, actionBudget: 2 };
  const wanted = await new Rollout(model, options({ ...more, writers })).collect(questions);
  const remote = await new Rollout(model, options({ ...more, sampler })).collect(questions);
  t.ok(wanted.some(({ calls }) => calls.length > 0));
  t.strictSame(remote.map(agreed), wanted.map(agreed));
  t.ok(remote.every((own) => own.sampler === "vllm,sglang"));
  const asked = (stub: typeof tool, path: string) =>
    stub.asked.filter((own) => own.path === path).map(({ body }) => body);
  return {
    first: asked(reason, "/v1/completions").map(({ stop }) => stop),
    second: asked(tool, "/generate").map((body) => (body["sampling_params"] as { stop: unknown }).stop),
  };
}

t.test("two endpoints alternate at the tags, as the engine's hybrid of the two does", async (t) => {
  for (const overrun of [0, 2]) {
    const stops = await hybrid(t, router, overrun);
    t.ok(
      stops.first.every((stop) => JSON.stringify(stop) === '["<search>"]'),
      "the one stops at the opening tag",
    );
    t.ok(
      stops.second.length > 0 && stops.second.every((stop) => JSON.stringify(stop) === '["</search>"]'),
      "the other at the closing tag",
    );
  }
});

t.test("two endpoints alternate at tags that end within tokens and take over", async (t) => {
  for (const spans of Object.values(letters))
    await hybrid(t, new RoleRouter({ roles: ["reason", "tool", "think"], base: "reason", spans }), 1);
});

t.test("two roles on one endpoint are one policy: nothing is handed over", async (t) => {
  const { stub, server } = await connect(t, { kind: "vllm" });
  const sampler = endpointSampler({ roles: { reason: { server }, tool: { server, adapter: null } } });
  const wanted = await new Rollout(model, options()).collect(questions);
  t.strictSame((await new Rollout(model, options({ sampler })).collect(questions)).map(agreed), wanted.map(agreed));
  t.ok(stub.asked.every(({ body }) => body["stop"] === undefined || JSON.stringify(body["stop"]) === '["</search>"]'));
});

// ---- what goes over the wire

t.test("vLLM is asked by its completions API, for ids", async (t) => {
  const { stub, server } = await connect(t, { kind: "vllm" }, { apiKey: "key-of-vllm" });
  const request = { ids: [5, 6], maxNewTokens: 3, temperature: 1, stop: ["</search>"], stopIds: [2], seed: 2 ** 40 };
  const { ids, logprobs, finish } = await server.generate(request);
  t.equal(ids.length, logprobs.length);
  t.match(finish, /^(stop|length)$/);
  await server.loadAdapter("a-v1", path.join(directory, "nothing")).catch(() => undefined);
  await server.unloadAdapter("a-v1");
  t.strictSame(
    stub.asked.map(({ path, body }) => ({ path, body })),
    [
      { path: "/v1/models", body: {} },
      {
        path: "/v1/completions",
        body: {
          model: "base-model",
          prompt: [5, 6],
          max_tokens: 3,
          n: 1,
          temperature: 1,
          top_p: 1,
          top_k: -1,
          min_p: 0,
          repetition_penalty: 1,
          presence_penalty: 0,
          frequency_penalty: 0,
          seed: 2 ** 40,
          logprobs: 0,
          stop: ["</search>"],
          include_stop_str_in_output: true,
          ignore_eos: true,
          stop_token_ids: [2],
          skip_special_tokens: false,
          spaces_between_special_tokens: false,
          add_special_tokens: false,
          return_token_ids: true,
          stream: false,
        },
      },
      ...Array.from({ length: 6 }, () => ({
        path: "/v1/load_lora_adapter",
        body: { lora_name: "a-v1", lora_path: path.join(directory, "nothing") },
      })),
      { path: "/v1/unload_lora_adapter", body: { lora_name: "a-v1" } },
    ],
  );
  t.ok(stub.asked.every(({ headers }) => headers["authorization"] === "Bearer key-of-vllm"));
});

t.test("SGLang is asked by its native API, for ids", async (t) => {
  const { stub, server } = await connect(t, { kind: "sglang" });
  const folder = path.join(t.testdir(), "a");
  await randomAdapters(model, { roles: ["all"] }).save(folder, "all");
  await server.loadAdapter("a-v1", folder);
  await server.loadAdapter("a-v1", folder);
  const request = { ids: [5, 6], maxNewTokens: 3, temperature: 0.5, stop: ["</search>"], stopIds: [2], seed: 7 };
  await server.generate({ ...request, adapter: "a-v1" });
  await server.unloadAdapter("a-v1");
  await server.unloadAdapter("a-v1");
  const load = { path: "/load_lora_adapter", body: { lora_name: "a-v1", lora_path: folder } };
  const unload = { path: "/unload_lora_adapter", body: { lora_name: "a-v1" } };
  const { rid, ...asked } = stub.asked[2]!.body;
  t.match(rid, /^[0-9a-f-]{36}$/);
  t.strictSame(
    stub.asked.map(({ path, body }, i) => ({ path, body: i === 2 ? asked : body })),
    [
      load,
      load,
      {
        path: "/generate",
        body: {
          input_ids: [5, 6],
          lora_path: "a-v1",
          sampling_params: {
            max_new_tokens: 3,
            temperature: 0.5,
            top_p: 1,
            top_k: -1,
            min_p: 0,
            repetition_penalty: 1,
            presence_penalty: 0,
            frequency_penalty: 0,
            sampling_seed: 7,
            stop: ["</search>"],
            ignore_eos: false,
            stop_token_ids: [2],
            no_stop_trim: true,
            skip_special_tokens: false,
            spaces_between_special_tokens: false,
          },
          return_logprob: true,
          stream: false,
        },
      },
      unload,
      unload,
    ],
  );
});

// ---- adapters

/** The toy's shared adapter with another module. */
function change(own: Adapters, seed: number): void {
  const module = "model.layers.0.mlp.up_proj";
  own.set("shared", module, randomAdapters(model, { roles: ["shared"], seed }).get("shared", module));
}

for (const kind of kinds) {
  t.test(
    `${kind}: an adapter that has changed has another name, and the older one goes with its last request`,
    async (t) => {
      let release = (): void => undefined;
      const held = new Promise<void>((resolve) => (release = resolve));
      /** The adapter that a request for tokens names. */
      const asksFor = (path: string, body: Record<string, unknown>) =>
        /completions|generate/.test(path) ? (body["model"] ?? body["lora_path"]) : undefined;
      const before = (path: string, body: Record<string, unknown>) =>
        /-v1-/.test(String(asksFor(path, body))) ? held : Promise.resolve();
      const { stub, server } = await connect(t, { kind, before });
      const adapterDirectory = t.testdir();
      const own = randomAdapters(model, { roles, routes: { reason: "shared", tool: "shared" }, seed: 3 });
      const sampler = serverSampler({ server, adapterDirectory, adapterName: "mine" });
      const rollout = new Rollout(model, options({ adapters: own, sampler, group: 1 }));
      const names = () => [...stub.adapters.keys()].map((name) => name.replace(/[0-9a-f]{12}$/, "#"));
      const one = questions.slice(0, 1);
      await rollout.collect(one);
      await rollout.collect(one);
      t.strictSame(names(), ["mine-v0-#"]);
      t.equal(stub.asked.filter(({ path }) => /\/load_lora_adapter/.test(path)).length, 1, "unchanged: loaded once");

      rollout.policyVersion = 1;
      change(own, 4);
      const running = rollout.collect(one);
      await until(() => stub.asked.some(({ path, body }) => /-v1-/.test(String(asksFor(path, body)))));
      t.strictSame(names(), ["mine-v1-#"]);
      rollout.policyVersion = 2;
      change(own, 6);
      t.strictSame(
        (await rollout.collect(one)).map(({ policyVersion }) => policyVersion),
        [2],
      );
      t.strictSame(names(), ["mine-v1-#", "mine-v2-#"], "the older one is in use");
      release();
      t.strictSame(
        (await running).map(({ policyVersion }) => policyVersion),
        [1],
      );
      await until(() => stub.adapters.size === 1 && readdirSync(adapterDirectory).length === 1);
      t.strictSame(names(), ["mine-v2-#"]);
      await sampler.close();
      t.strictSame([...names(), ...readdirSync(adapterDirectory)], []);
    },
  );

  t.test(`${kind}: a server that was started anew gets its adapter again`, async (t) => {
    let restarts = 0;
    const { stub, server } = await connect(t, {
      kind,
      trouble: (path, count) => {
        if (/completions|generate/.test(path) && count % 15 === 8) {
          stub.restart();
          restarts++;
        }
        return undefined;
      },
    });
    const sampler = serverSampler({ server, adapterDirectory: t.testdir() });
    const remote = await new Rollout(model, options({ adapters, sampler })).collect(questions);
    t.strictSame(remote.map(agreed), local.map(agreed));
    t.ok(restarts > 1);
    await sampler.close();
  });
}

t.test("what a server cannot run is refused", async (t) => {
  const { server } = await connect(t, { kind: "vllm" });
  const sampler = serverSampler({ server, adapterDirectory: t.testdir() });
  const collect = (more: Partial<RolloutOptions>) =>
    new Rollout(model, options({ sampler, ...more })).collect(questions);
  const code = (code: string, message: RegExp) => ({ code, message });
  await t.rejects(
    collect({ adapters: randomAdapters(model, { roles }) }),
    code("ERR_SERVER_ROUTES", /reason: reason, tool: tool/),
  );
  const kept = randomAdapters(model, { roles, routes: { reason: null, tool: "tool" } });
  await t.rejects(collect({ adapters: kept }), code("ERR_SERVER_ROUTES", /reason: none, tool: tool/));
  await t.rejects(collect({ sampling: { topP: 0.9 } }), code("ERR_INVALID_ARGUMENT", /topP 0.9/));
  await t.rejects(collect({ maxLength: 300 }), code("ERR_SERVER_LENGTH", /maxLength 300 tokens but it serves 256/));
  await collect({ adapters });
  await t.rejects(
    collect({ maxLength: 300 }),
    code("ERR_SERVER_LENGTH", /300/),
    "also with an adapter, which does not say it",
  );
  const roleless = endpointSampler({ roles: { reason: { server } } });
  await t.rejects(collect({ sampler: roleless }), code("ERR_NO_ROLE", /role tool/));
  await t.rejects(collect({ sampler: endpointSampler({ roles: { reason: { server } } }), adapters }), {
    code: "ERR_SERVER_ROUTES",
  });
  const fixed = await connect(t, { kind: "vllm", fixed: true });
  const without = serverSampler({ server: fixed.server, adapterDirectory: t.testdir() });
  await t.rejects(
    collect({ sampler: without, adapters }),
    code("ERR_SERVER_ADAPTER", /VLLM_ALLOW_RUNTIME_LORA_UPDATING/),
  );
  const none = await connect(t, { kind: "sglang", fixed: true });
  const disabled = serverSampler({ server: none.server, adapterDirectory: t.testdir() });
  await t.rejects(collect({ sampler: disabled, adapters }), code("ERR_SERVER_ADAPTER", /--enable-lora/));
});
