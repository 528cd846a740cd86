/* eslint-disable @typescript-eslint/no-explicit-any -- what is asked is JSON */
// Servers on loopback that speak the documented HTTP APIs of vLLM and SGLang and sample with this engine: PEFT directories are loaded by their
// path, stop texts end an answer as there, and log-probabilities are of the distribution that such a server reports.
import type { ServerResponse } from "node:http";
import type { Test } from "tap";
import { Adapters, SglangServer, VllmServer, type Model, type SamplingServer, type ServerOptions } from "rolegrad";
import { native } from "../../lib/binding.js";
import { streamOf } from "../../lib/random.js";
import { requestSeed } from "../../lib/serving/seed.js";
import { json, serve, type Asked } from "./http.js";

export interface StubOptions {
  kind: "vllm" | "sglang";
  model: Model;
  maxLength?: number;
  /** What vLLM's --logprobs-mode says; SGLang's usual is "processed". */
  logprobsMode?: "raw" | "processed";
  /** Random streams of trajectories, by their rngKey, and the rollout's seed: requests with their seeds draw as the engine would. */
  streams?: { seed: number; keys: readonly string[] };
  /** Tokens that an answer has behind the one that completes a stop text, as with speculative decoding. */
  overrun?: number;
  /** Changes a log-probability: another engine's arithmetic. */
  perturb?: (logprob: number, position: number) => number;
  /** vLLM older than 0.10.2, which knows no return_token_ids. */
  old?: boolean;
  /** Adapters cannot be loaded while it runs. */
  fixed?: boolean;
  /** Says what goes wrong with a request, by its path and number: a status (with headers), or a lost connection. */
  trouble?: (path: string, count: number) => { status: number; headers?: Record<string, string> } | "reset" | undefined;
  /** Waited for before an answer begins. */
  before?: (path: string, body: Record<string, unknown>) => Promise<void>;
}

export interface Stub {
  url: string;
  asked: { path: string; body: Record<string, unknown>; headers: Record<string, unknown> }[];
  /** Names of the adapters that it has. */
  adapters: Map<string, Adapters>;
  /** Requests whose client left before the answer. */
  left: number;
  /** As if it had been started anew. */
  restart(): void;
}

interface Wanted {
  ids: number[];
  adapter: Adapters | undefined;
  maxNewTokens: number;
  temperature: number;
  stop: string[];
  stopIds: number[];
  seed: number | undefined;
  top: number;
}

interface Answer {
  ids: number[];
  logprobs: number[];
  finish: "stop" | "length";
  /** The stop text or id. */
  matched: string | number | null;
  /** Of the first token, highest first. */
  top: [number, number][];
}

const BASE = "base-model";

export async function samplingStub(t: Test, options: StubOptions): Promise<Stub> {
  const { kind, model, maxLength = 256 } = options;
  const eos = [...(model.tokenizer?.eosTokenIds ?? [])];
  const stub: Omit<Stub, "url"> = { asked: [], adapters: new Map(), left: 0, restart: () => stub.adapters.clear() };

  const answer = async (response: ServerResponse, { request, body }: Asked): Promise<void> => {
    const path = request.url ?? "";
    const asked = body === "" ? {} : (JSON.parse(body) as Record<string, any>);
    stub.asked.push({ path, body: asked, headers: request.headers });
    response.on("close", () => (stub.left += response.writableFinished ? 0 : 1));
    const trouble = options.trouble?.(path, stub.asked.filter((other) => other.path === path).length);
    if (trouble === "reset") return void request.socket.destroy();
    if (trouble !== undefined) return json(response, { error: { message: "busy" } }, trouble.status, trouble.headers);
    await options.before?.(path, asked);
    const openai = (message: string, status: number) => json(response, { error: { message, code: status } }, status);
    if (path === "/v1/models") {
      const names = [...stub.adapters.keys()].map((id) => ({ id, object: "model", parent: BASE, max_model_len: null }));
      return json(response, {
        object: "list",
        data: [{ id: BASE, object: "model", max_model_len: maxLength }, ...names],
      });
    }
    if (kind === "vllm") {
      if (path === "/v1/load_lora_adapter" && !options.fixed) {
        const { lora_name: name, lora_path: directory } = asked;
        if (stub.adapters.has(name)) return openai(`The lora adapter '${name}' has already been loaded.`, 400);
        stub.adapters.set(name, await Adapters.load(model, { all: directory }));
        return void response.writeHead(200).end(`Success: LoRA adapter '${name}' added successfully.`);
      }
      if (path === "/v1/unload_lora_adapter" && !options.fixed) {
        const { lora_name: name } = asked;
        if (!stub.adapters.delete(name)) return openai(`The lora adapter '${name}' cannot be found.`, 404);
        return void response.writeHead(200).end(`Success: LoRA adapter '${name}' removed successfully.`);
      }
      if (path !== "/v1/completions") return json(response, { detail: "Not Found" }, 404);
      if (asked["model"] !== BASE && !stub.adapters.has(asked["model"]))
        return openai(`The model \`${asked["model"]}\` does not exist.`, 404);
      const found = await sample({
        ids: asked["prompt"],
        adapter: stub.adapters.get(asked["model"]),
        maxNewTokens: asked["max_tokens"] ?? 16,
        temperature: asked["temperature"] ?? 1,
        stop: asked["stop"] ?? [],
        stopIds: [...(asked["stop_token_ids"] ?? []), ...(asked["ignore_eos"] === true ? [] : eos)],
        seed: asked["seed"],
        top: asked["logprobs"] ?? 0,
      });
      const top = Object.fromEntries(found.top.map(([id, value]) => [`token_id:${id}`, value]));
      const choice = {
        index: 0,
        text: model.tokenizer?.decode(found.ids),
        finish_reason: found.finish,
        stop_reason: eos.includes(found.matched as number) ? null : found.matched,
        logprobs: {
          token_logprobs: found.logprobs,
          tokens: found.ids.map((id) => `token_id:${id}`),
          top_logprobs: found.ids.map((_, i) => (i === 0 ? top : {})),
        },
        ...(asked["return_token_ids"] === true && options.old !== true && { token_ids: found.ids }),
      };
      return json(response, { id: "cmpl-1", object: "text_completion", model: asked["model"], choices: [choice] });
    }
    if (path === "/load_lora_adapter" || path === "/unload_lora_adapter") {
      const { lora_name: name, lora_path: directory } = asked;
      const refuse = (message: string) => json(response, { success: false, error_message: message }, 400);
      if (options.fixed === true) return refuse("LoRA is not enabled. Please set `--enable-lora` to enable LoRA.");
      if (path === "/unload_lora_adapter") {
        if (!stub.adapters.delete(name)) return refuse(`LoRA adapter ${name} is not loaded.`);
      } else {
        if (stub.adapters.has(name)) return refuse(`Failed to load LoRA adapter ${name} because it is already loaded`);
        stub.adapters.set(name, await Adapters.load(model, { all: directory }));
      }
      return json(response, { success: true, error_message: "", loaded_adapters: {} });
    }
    if (path === "/abort_request") return void response.writeHead(200).end();
    if (path !== "/generate") return json(response, { detail: "Not Found" }, 404);
    const name: string | undefined = asked["lora_path"];
    if (name !== undefined && !stub.adapters.has(name))
      return openai(`The following requested LoRA adapters are not loaded: ${name}\nLoaded adapters: [].`, 400);
    const p = asked["sampling_params"] as Record<string, any>;
    const found = await sample({
      ids: asked["input_ids"],
      adapter: name === undefined ? undefined : stub.adapters.get(name),
      maxNewTokens: p["max_new_tokens"] ?? 128,
      temperature: p["temperature"] ?? 1,
      stop: p["stop"] ?? [],
      stopIds: p["ignore_eos"] === true ? [] : [...(p["stop_token_ids"] ?? []), ...eos],
      seed: p["sampling_seed"],
      top: asked["top_logprobs_num"] ?? 0,
    });
    const reason = found.finish === "stop" ? { matched: found.matched } : { length: found.ids.length };
    json(response, {
      text: model.tokenizer?.decode(found.ids),
      output_ids: found.ids,
      meta_info: {
        id: asked["rid"],
        finish_reason: { type: found.finish, ...reason },
        prompt_tokens: (asked["input_ids"] as number[]).length,
        completion_tokens: found.ids.length,
        output_token_logprobs: found.ids.map((id, i) => [found.logprobs[i], id, null]),
        output_top_logprobs: [found.top.map(([id, value]) => [value, id, null])],
      },
    });
  };

  const mode = options.logprobsMode ?? (kind === "vllm" ? "raw" : "processed");
  const streamFor = (seed: number | undefined, position: number): { seed: bigint; stream: bigint } => {
    const own = BigInt(options.streams?.seed ?? 0);
    const key = options.streams?.keys.find((each) => requestSeed(own, streamOf(each), position) === seed);
    return {
      seed: own,
      stream: key === undefined ? BigInt(seed ?? Math.floor(Math.random() * 2 ** 32)) : streamOf(key),
    };
  };

  /** One sequence, token by token. */
  const sample = async (wanted: Wanted): Promise<Answer> => {
    const { ids, adapter, maxNewTokens, temperature, stop, stopIds, seed, top } = wanted;
    const adapterOfRole = Int32Array.of(adapter === undefined ? -1 : 0);
    const generator = new native.Generator(
      [{ model: model.native, adapters: adapter?.native ?? null, adapterOfRole }],
      {
        maxSequences: 1,
        maxLength,
        tokenBytes: model.tokenizer!.tokenBytes(),
        router: { base: 0, spans: [] },
        tellTokens: true,
      },
    );
    const sampled: number[] = [];
    const logprobs: number[] = [];
    let matched: string | number | null = null;
    let left = Infinity;
    generator.add(Int32Array.from(ids), {
      ...{ temperature, topP: 1, topK: 0, maxNewTokens, stopIds: Int32Array.from(stopIds) },
      ...streamFor(seed, ids.length),
    });
    while (left > 0 && generator.runnable() > 0) {
      for (const event of await generator.run(1).promise) {
        if (event.kind === "stop") matched ??= sampled.at(-1)!;
        if (event.kind !== "token") continue;
        sampled.push(event.token);
        logprobs.push(event.logprob);
        if (left < Infinity) left--;
        else {
          const text = model.tokenizer!.decode(sampled);
          matched = stop.find((tag) => text.includes(tag)) ?? null;
          if (matched !== null) left = options.overrun ?? 0;
        }
      }
    }
    generator.close();
    const all = Int32Array.from([...ids, ...sampled]);
    const input = { inputIds: all, cuSeqlens: Int32Array.of(0, all.length), roles: new Int8Array(all.length) };
    const of = adapter === undefined ? {} : { adapters: adapter };
    const raw = mode === "raw" && temperature > 0 && temperature !== 1;
    const own = raw ? Array.from((await model.forward(input, of)).logprobs.slice(ids.length)) : logprobs;
    const perturbed = own.map((value, i) => options.perturb?.(value, ids.length + i) ?? value);
    const likeliest: [number, number][] = [];
    if (top > 0) {
      const { logits } = await model.forward(input, { ...of, logits: true });
      const width = model.config.vocabSize;
      const row = Array.from(logits!.subarray((ids.length - 1) * width, ids.length * width));
      const scaled = row.map((x) => (mode === "processed" && temperature > 0 ? x / temperature : x));
      const most = Math.max(...scaled);
      const total = most + Math.log(scaled.reduce((sum, x) => sum + Math.exp(x - most), 0));
      const order = [...row.keys()].sort((a, b) => scaled[b]! - scaled[a]!);
      likeliest.push(...order.slice(0, top).map((id): [number, number] => [id, scaled[id]! - total]));
    }
    return { ids: sampled, logprobs: perturbed, finish: matched === null ? "length" : "stop", matched, top: likeliest };
  };

  const server = await serve(t, (response, asked) => {
    answer(response, asked).catch((error: unknown) => {
      if (!response.headersSent) json(response, { error: { message: String(error) } }, 500);
    });
  });
  return Object.assign(stub, { url: server.url });
}

/** A client of a stub, which does not wait long between attempts. */
export function serverOf(
  t: Test,
  { url }: Pick<Stub, "url">,
  kind: StubOptions["kind"],
  more: Partial<ServerOptions> = {},
): SamplingServer {
  const server = new (kind === "vllm" ? VllmServer : SglangServer)({ url, retryAfter: 1, ...more });
  t.teardown(() => server.close());
  return server;
}
