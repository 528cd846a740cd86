/** The class of native/bindings/generator.cc. */
import type { RolloutStats } from "../rollout/stats.js";
import type { NativeJob } from "./job.js";

export interface NativeRouter {
  base: number;
  spans: { open: string; close: string; role: number; call?: boolean }[];
}

/** What a generator tells of one of its sequences. "token" only where it was asked for. */
export type NativeGeneratorEvent =
  | { id: number; kind: "stop" | "length" }
  | { id: number; kind: "call"; span: number; text: Uint8Array }
  | { id: number; kind: "token"; token: number; role: number; logprob: number };

export interface NativeGenerator {
  add(
    inputIds: Int32Array,
    request: {
      temperature: number;
      topP: number;
      topK: number;
      seed: bigint;
      stream: bigint;
      maxNewTokens: number;
      stopIds: Int32Array;
    },
  ): number;
  append(id: number, ids: Int32Array): void;
  /**
   * Until there is something to tell, or for `steps` steps. With `tell`, which gets the events as they happen and must not throw, it goes on; the
   * promise has those that were not told. Everything else here may be called meanwhile, and counts from the next step on.
   */
  run(steps: number, tell?: (events: NativeGeneratorEvent[]) => void): NativeJob<NativeGeneratorEvent[]>;
  interrupt(): void;
  /** `routing`: with shuffleRoutes. */
  take(id: number): {
    ids: Int32Array;
    roles: Int8Array;
    sampled: Uint8Array;
    logprobs: Float32Array;
    routing?: Int8Array;
  };
  runnable(): number;
  stats(): RolloutStats;
  /** Gives the cache back, once a run that is under way has ended. */
  close(): void;
}
