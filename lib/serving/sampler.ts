import path from "node:path";
import type { Adapters } from "../adapters/adapters.js";
import { checkInstance, checkObject, checkPath, describe } from "../arguments.js";
import { fail } from "../errors.js";
import type { Sampler, SamplerContext, TokenGenerator } from "../rollout/sampler.js";
import { makeEndpoint, type Endpoint } from "./endpoint.js";
import { RemoteGenerator } from "./generator.js";
import { checkTemperature } from "./temperature.js";
import type { SamplingServer } from "./types.js";
import { AdapterVersions } from "./versions.js";

/** Options of {@link serverSampler}. */
export interface ServerSamplerOptions {
  server: SamplingServer;
  /** A directory that the server reads too: adapters are saved there, each version in a PEFT directory of its own. */
  adapterDirectory: string;
  /** The same directory as the server sees it, e.g. in its container. Default: as it is here. */
  serverAdapterDirectory?: string;
  /** What the names of adapters on the server begin with: letters, digits, "_", "." and "-". @default "rolegrad" */
  adapterName?: string;
}

/** Options of {@link endpointSampler}. */
export interface EndpointSamplerOptions {
  /** Who writes each role: a server, with the name of an adapter that it has, or (`null`, or none) its model alone. */
  roles: Record<string, { server: SamplingServer; adapter?: string | null }>;
}

const SERVER_METHODS = ["generate", "topLogprobs", "loadAdapter", "unloadAdapter", "models"];

/**
 * Samples a rollout's tokens by a server: of the model alone, or of one adapter for all roles, which is saved and loaded anew under a name of its
 * own where it has changed. Adapters that route roles apart -> ERR_SERVER_ROUTES. Close it when done; the server stays the caller's to close.
 *
 * @example
 * const sampler = serverSampler({ server: new VllmServer({ url: "http://127.0.0.1:8000" }), adapterDirectory: "/shared/adapters" });
 * const rollout = new Rollout(model, { adapters, router, environment, reward, sampler });
 */
export function serverSampler(options: ServerSamplerOptions): Sampler {
  checkObject(options, "options");
  const { server, adapterDirectory, adapterName: prefix = "rolegrad" } = options;
  checkInstance(server, SERVER_METHODS, "a server", "server");
  checkPath(adapterDirectory, "adapterDirectory");
  const directory = path.resolve(adapterDirectory);
  const { serverAdapterDirectory: serverDirectory = directory } = options;
  checkPath(serverDirectory, "serverAdapterDirectory");
  if (typeof prefix !== "string" || !/^[\w][\w.-]*$/.test(prefix))
    fail(
      "ERR_INVALID_ARGUMENT",
      `Expected letters, digits, "_", "." and "-" for adapterName but received ${describe(prefix)}`,
    );
  const versions = new AdapterVersions({ server, directory, serverDirectory, prefix });
  return {
    name: server.kind,
    async open(context) {
      const { adapters, policyVersion, signal, router } = context;
      const adapter = adapters === undefined ? undefined : onlyAdapter(adapters);
      await checkServer(server, context);
      const lease =
        adapters === undefined || adapter === undefined
          ? undefined
          : await versions.acquire(adapters, adapter, policyVersion, signal);
      const endpoint = makeEndpoint(server, lease?.name, lease?.reload);
      return generatorOf(
        context,
        router.roles.map(() => endpoint),
        () => lease?.release(),
      );
    },
    close: () => versions.close(),
  };
}

/**
 * A policy of several models, each on an endpoint that holds the whole text: the role of a position decides who predicts the token behind it, as
 * in the engine. Endpoints alternate at the tags, with prompts of token ids. For rollouts without `adapters`; a role without an entry ->
 * ERR_NO_ROLE.
 *
 * @example
 * const reason = new VllmServer({ url: "http://127.0.0.1:8000" });
 * const tool = new VllmServer({ url: "http://127.0.0.1:8001" });
 * const sampler = endpointSampler({ roles: { reason: { server: reason }, tool: { server: tool, adapter: "tool" } } });
 */
export function endpointSampler(options: EndpointSamplerOptions): Sampler {
  checkObject(options, "options");
  checkObject(options.roles, "roles");
  const entries = Object.entries(options.roles).map(([role, entry]): [string, Endpoint] => {
    checkObject(entry, `roles.${role}`);
    const { server, adapter } = entry;
    checkInstance(server, SERVER_METHODS, "a server", `roles.${role}.server`);
    if (adapter !== undefined && adapter !== null && typeof adapter !== "string")
      fail(
        "ERR_INVALID_ARGUMENT",
        `Expected a name or null for roles.${role}.adapter but received ${describe(adapter)}`,
      );
    return [role, makeEndpoint(server, adapter ?? undefined)];
  });
  // Equal ones are one: nothing is handed over between them.
  const endpoints = new Map(
    entries.map(([role, own]) => [
      role,
      entries.find(([, other]) => other.server === own.server && other.adapter === own.adapter)?.[1] as Endpoint,
    ]),
  );
  const servers = [...new Set([...endpoints.values()].map(({ server }) => server))];
  return {
    name: [...new Set(servers.map(({ kind }) => kind))].join(","),
    async open(context) {
      const { adapters, router } = context;
      if (adapters !== undefined)
        fail("ERR_SERVER_ROUTES", "Expected a rollout without adapters where each role has an endpoint of its own");
      const list = router.roles.map(
        (role) =>
          endpoints.get(role) ?? fail("ERR_NO_ROLE", `Expected an endpoint for the role ${role} but there is none`),
      );
      for (const server of servers) await checkServer(server, context);
      return generatorOf(context, list, () => undefined);
    },
    close: () => Promise.resolve(),
  };
}

/** The adapter of all roles; undefined where all run the model alone. */
function onlyAdapter(adapters: Adapters): string | undefined {
  const names = [...new Set(adapters.roles.map((role) => adapters.routes[role] ?? null))];
  const [name] = names;
  const routed = Object.entries(adapters.routes).map(([role, own]) => `${role}: ${own ?? "none"}`);
  if (names.length > 1)
    fail(
      "ERR_SERVER_ROUTES",
      `Expected one adapter for all roles, as a server runs a whole sequence with one, but received ${routed.join(", ")}`,
    );
  const info = adapters.list.find((own) => own.name === name);
  if ((info?.experts ?? 0) > 0)
    fail("ERR_SERVER_ROUTES", `Expected a LoRA adapter but ${name} is a mixture of experts, which servers cannot run`);
  if (adapters.trainableTokens.length > 0)
    fail("ERR_SERVER_ROUTES", "Expected adapters without trained tokens, which servers cannot run");
  if (Object.keys({ ...info?.rankPattern, ...info?.alphaPattern }).length > 0)
    fail(
      "ERR_SERVER_ROUTES",
      `Expected one rank and alpha in all modules of ${name}: servers read no rank_pattern or alpha_pattern`,
    );
  return name ?? undefined;
}

async function checkServer(server: SamplingServer, { sampling, maxLength, signal }: SamplerContext): Promise<void> {
  const { temperature, topP, topK } = sampling;
  if (topP < 1 || topK > 0)
    fail(
      "ERR_INVALID_ARGUMENT",
      `Expected no truncation (topP 1, topK 0) where a server samples but received topP ${topP}, topK ${topK}: servers do not all report ` +
        "log-probabilities before it",
    );
  const models = await server.models(signal && { signal });
  // Not all say it: adapters do not.
  const lengths = models.flatMap((model) => model.maxLength ?? []);
  const room = lengths.length === 0 ? Infinity : Math.max(...lengths);
  if (room < maxLength)
    fail(
      "ERR_SERVER_LENGTH",
      `Expected ${server.label} to serve sequences of maxLength ${maxLength} tokens but it serves ${room}: start it with more, or set maxLength`,
    );
  await checkTemperature(server, temperature, signal);
}

function generatorOf(context: SamplerContext, endpoints: readonly Endpoint[], onClose: () => void): TokenGenerator {
  const { router, tokenBytes, concurrency, maxLength, tellTokens, model } = context;
  const { vocabSize: vocabularySize } = model.config;
  return new RemoteGenerator({
    router,
    endpoints,
    tokenBytes,
    vocabularySize,
    concurrency,
    maxLength,
    tellTokens,
    onClose,
  });
}
