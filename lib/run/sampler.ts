import { randomUUID } from "node:crypto";
import path from "node:path";
import { fail } from "../errors.js";
import type { Sampler } from "../rollout/sampler.js";
import { serverSampler } from "../serving/sampler.js";
import { SglangServer } from "../serving/sglang.js";
import { VllmServer } from "../serving/vllm.js";
import type { RunConfig } from "./schema.js";
import type { VariantPlan } from "./variants.js";

/** Why a server cannot sample what a variant trains; undefined where it can. */
export function whyNotServed(variant: string, { routes, routing }: VariantPlan): string | undefined {
  const adapters = new Set(Object.values(routes));
  if (adapters.size === 1 && routing === undefined) return undefined;
  const ones =
    'Expected a variant with one adapter for all roles ("shared", "shared-ROLE"), as a server runs a whole answer with one,';
  return `${ones} but variant is "${variant}"`;
}

/**
 * The server that a configuration names; without one, the engine samples. An evaluation's adapters have names of its own: it unloads them at its end,
 * and the run may be training with the same ones.
 */
export function loadSampler({ sampler: named, output }: RunConfig, evaluationOnly = false): Sampler | undefined {
  if (named === undefined) return undefined;
  const { kind, url, model, apiKeyFrom, timeout, retries, seeds } = named;
  const apiKey = apiKeyFrom === undefined ? undefined : process.env[apiKeyFrom];
  if (apiKeyFrom !== undefined && (apiKey === undefined || apiKey === ""))
    fail("ERR_CONFIG", `sampler.apiKeyFrom: Expected the environment variable ${apiKeyFrom} to be set but it is not`);
  const Server = kind === "vllm" ? VllmServer : SglangServer;
  const server = new Server({
    ...{ url, timeout, retries, seeds },
    ...(model !== undefined && { model }),
    ...(apiKey !== undefined && { apiKey }),
  });
  const { adapterDirectory = path.join(output, "served"), serverAdapterDirectory, adapterName = "rolegrad" } = named;
  const sampler = serverSampler({
    server,
    adapterDirectory,
    ...(serverAdapterDirectory !== undefined && { serverAdapterDirectory }),
    adapterName: evaluationOnly ? `${adapterName}-eval-${randomUUID().slice(0, 8)}` : adapterName,
  });
  return {
    name: sampler.name,
    open: (context) => sampler.open(context),
    close: () => sampler.close().finally(() => server.close()),
  };
}

/** What samples, in words. */
export function samplerText({ sampler, objective }: RunConfig): string {
  if (sampler === undefined) return "this engine";
  const { importance } = objective;
  const weights = importance === undefined ? "" : `; importance weights: ${importance.mode}, cap ${importance.cap}`;
  return `${sampler.kind} at ${sampler.url}${weights}`;
}
