// Rollouts whose tokens are sampled by a vLLM or SGLang server: against stubs that follow their documented APIs and sample with this engine.
import fc from "fast-check";
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import t, { type Test } from "tap";
import { endpointSampler, loadModel, Rollout, RoleRouter, serverSampler, SglangServer, VllmServer } from "rolegrad";
import type { Adapters, Model, RolloutOptions, RunOptions, SamplingServer, Trajectory } from "rolegrad";
import { RoleTracker } from "../lib/roles/tracker.js";
import { randomAdapters } from "./helpers/engine.js";
import { until } from "./helpers/http.js";
import { holds } from "./helpers/properties.js";
import { refusals } from "./helpers/refused.js";
import { samplingStub, type Stub, type StubOptions } from "./helpers/sampling-stub.js";
import { environment, outcome, questions, reward, roles, router, writeToyModel } from "./helpers/toy.js";

const directory = t.testdir();
await writeToyModel(directory);
const model = await loadModel(directory);
t.teardown(() => model.close());
const shared = { reason: "shared", tool: "shared" };
const adapters = randomAdapters(model, { roles, routes: shared });
const kinds = ["vllm", "sglang"] as const;
const group = 6;
const seed = 5;

const options = (more: Partial<RolloutOptions> = {}): RolloutOptions => ({
  ...{ router, environment, reward, group, seed, maxLength: 120, ...more },
  sampling: { maxNewTokens: 60, ...more.sampling },
});

/** The random streams of the rollout, for a stub that draws as the engine does. */
function streams({ purpose = "rollout", variant = "", step = 0 }: RunOptions = {}): NonNullable<
  StubOptions["streams"]
> {
  const samples = Array.from({ length: group }, (_, sample) => sample);
  const keys = questions.flatMap(({ id }) =>
    samples.map((sample) => JSON.stringify([seed, purpose, variant, step, id, sample])),
  );
  return { seed, keys };
}

async function connect(t: Test, more: Partial<StubOptions> & Pick<StubOptions, "kind">) {
  const stub = await samplingStub(t, { model, streams: streams(), ...more });
  const server = serverOf(t, stub, more.kind);
  return { stub, server };
}

function serverOf(t: Test, { url }: Pick<Stub, "url">, kind: "vllm" | "sglang", more: object = {}): SamplingServer {
  const server = new (kind === "vllm" ? VllmServer : SglangServer)({ url, retryAfter: 1, ...more });
  t.teardown(() => server.close());
  return server;
}

/** What both engines must agree in: all but who it was and how long tools took. */
function agreed(trajectory: Trajectory): Record<string, unknown> {
  const { precision: _, sampler: __, ...rest } = outcome(trajectory);
  return rest;
}

for (const kind of kinds) {
  for (const temperature of [0, 1]) {
    t.test(`${kind} at temperature ${temperature}: the engine's own trajectories, token for token`, async (t) => {
      const { stub, server } = await connect(t, { kind });
      const adapterDirectory = t.testdir();
      const sampler = serverSampler({ server, adapterDirectory });
      const sampling = { temperature };
      const local = await new Rollout(model, options({ adapters, sampling })).collect(questions);
      const rollout = new Rollout(model, options({ adapters, sampling, sampler }));
      const remote = await rollout.collect(questions);
      t.strictSame(remote.map(agreed), local.map(agreed));
      t.ok(remote.every((own) => own.sampler === kind && own.precision === undefined));
      if (temperature === 1) {
        t.ok(
          local.some(({ calls }) => calls.length > 1),
          "there are calls",
        );
        t.ok(new Set(local.map(({ finish }) => finish)).size > 1, "answers end in several ways");
      }
      t.equal(rollout.stats.sampledTokens, local.flatMap((own) => [...own.sampled]).filter((one) => one === 1).length);
      t.equal(stub.adapters.size, 1);
      await sampler.close();
      t.equal(stub.adapters.size, 0, "unloaded at the end");
      t.strictSame(readdirSync(adapterDirectory), []);
    });
  }
}
