import type { Adapters } from "../adapters/adapters.js";
import type { NativeGenerator } from "../binding.js";
import type { Model } from "../model/model.js";
import type { RoleRouter } from "../roles/router.js";
import type { Sampling } from "./options.js";

/** What samples the tokens of a run: sequences are added, wait at calls, go on, and are taken. @internal */
export type TokenGenerator = NativeGenerator;

/** What a run tells its sampler. @internal */
export interface SamplerContext {
  model: Model;
  adapters: Adapters | undefined;
  router: RoleRouter;
  tokenBytes: readonly Uint8Array[];
  sampling: Required<Sampling>;
  concurrency: number;
  maxLength: number;
  /** Optimizer steps that the adapters have taken. */
  policyVersion: number;
  tellTokens: boolean;
  signal: AbortSignal | undefined;
}

/** Samples in place of the engine: see serverSampler and endpointSampler. Its log-probabilities are not the engine's. */
export interface Sampler {
  /** Recorded in trajectories: "vllm", "sglang". */
  readonly name: string;
  /** Ready for a run; what it returns is closed when that ends. @internal */
  open(context: SamplerContext): Promise<TokenGenerator>;
  /** Ends connections, once the runs have ended; adapters that it has loaded are unloaded. */
  close(): Promise<void>;
}
