import type { ServerConnectionOptions } from "./connection.js";

/** What is asked of a server: so many tokens after these. */
export interface GenerateRequest {
  /** [T] the whole sequence so far, as ids. */
  ids: readonly number[];
  /** Name of a loaded adapter. Without it: the model alone. */
  adapter?: string | undefined;
  maxNewTokens: number;
  /** 0: greedy. */
  temperature: number;
  /** Texts behind which the server may stop; the tokens that complete them are part of the answer. */
  stop?: readonly string[] | undefined;
  /** Tokens with which it stops; they are part of the answer. */
  stopIds?: readonly number[] | undefined;
  /** From 0 to 2^48 - 1. Without it: chance. */
  seed?: number | undefined;
}

/** What a server has sampled. */
export interface Generated {
  /** [N] the ids as they were sampled: never text that was encoded again. */
  ids: number[];
  /** [N] their log-probabilities, by the server's own count. */
  logprobs: number[];
  finish: "stop" | "length";
}

/** A model that a server has, or an adapter on one. */
export interface ServedModel {
  name: string;
  /** The model that it is an adapter of. */
  parent?: string;
  /** Tokens of a sequence at most. */
  maxLength?: number;
}

/**
 * A server that samples: {@link VllmServer}, {@link SglangServer}, or one of your own. Methods reject with ERR_SERVER_UNREACHABLE (no answer),
 * ERR_SERVER_HTTP (a refusal) and ERR_SERVER_PROTOCOL (an answer that is not as documented), all naming the address without what may be secret;
 * an abort rejects with the signal's reason.
 */
export interface SamplingServer {
  /** What kind of server it is, for the record: "vllm", "sglang". */
  readonly kind: string;
  /** Its address in messages. */
  readonly label: string;
  generate(request: GenerateRequest, options?: { signal?: AbortSignal }): Promise<Generated>;
  /**
   * The `count` highest log-probabilities of the token after `ids`, highest first, as the server reports them where it samples at `temperature`:
   * by this a rollout finds out whether they are those of the tempered distribution.
   */
  topLogprobs(
    request: { ids: readonly number[]; temperature: number; count: number },
    options?: { signal?: AbortSignal },
  ): Promise<number[]>;
  /**
   * Loads a PEFT directory, by a path that the server can read, under a name; one that is there already is left as it is.
   * Refused -> ERR_SERVER_ADAPTER, which says what the server must be started with.
   */
  loadAdapter(name: string, directory: string, options?: { signal?: AbortSignal }): Promise<void>;
  /** Forgets an adapter; one that is not there is fine. */
  unloadAdapter(name: string, options?: { signal?: AbortSignal }): Promise<void>;
  /** What it serves, adapters included. */
  models(options?: { signal?: AbortSignal }): Promise<ServedModel[]>;
  /** Ends the connections. */
  close(): void;
}

/** Options of {@link VllmServer} and {@link SglangServer}. */
export interface ServerOptions extends ServerConnectionOptions {
  /** The model's name on the server. Default: the first that it lists. */
  model?: string;
  /**
   * Send a seed with each request, so that a server that heeds it (vLLM; SGLang with --enable-deterministic-inference) samples the same again.
   * false: chance decides, which servers do faster. @default true
   */
  seeds?: boolean;
}
