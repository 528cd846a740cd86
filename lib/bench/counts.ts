// What a step must compute and read, for rooflines: what the method needs, not what an implementation happens to do.
import { parameterCount, type Size } from "./checkpoint.js";

/** Parameters of the seven linears of all layers, biases not counted. */
export function linearParameters(s: Size): number {
  const kv = (s.kvHeads * s.hidden) / s.heads;
  return s.layers * (2 * s.hidden * s.hidden + 2 * s.hidden * kv + 3 * s.hidden * s.intermediate);
}

/** Parameters of one adapter of this rank on every linear. */
export function adapterParameters(s: Size, rank: number): number {
  const kv = (s.kvHeads * s.hidden) / s.heads;
  return rank * s.layers * (2 * 2 * s.hidden + 2 * (s.hidden + kv) + 3 * (s.hidden + s.intermediate));
}

/**
 * A training step on B sequences of T tokens. `adapters`: 4 N a token (forward and dx; no dW, no recomputation; the
 * adapters' own products are left out), `full`: 6 N. The head on the B (T - 1) rows that predict a token; attention's six
 * products (two forward, four backward) of a pair of positions.
 */
export function trainingFlops(s: Size, B: number, T: number, kind: "adapters" | "full"): number {
  const each = kind === "full" ? 6 : 4;
  const pairs = (B * T * (T + 1)) / 2;
  return (
    each * linearParameters(s) * B * T + each * s.hidden * s.vocabulary * B * (T - 1) + 12 * s.hidden * s.layers * pairs
  );
}

/** One forward pass of `rows` new positions of which `sampled` need logits; `pairs`: of a new position and one it attends to. */
export function forwardFlops(s: Size, rows: number, sampled: number, pairs: number, rank: number): number {
  const linear = linearParameters(s) + (rank > 0 ? adapterParameters(s, rank) : 0);
  return 2 * linear * rows + 2 * s.hidden * s.vocabulary * sampled + 4 * s.hidden * s.layers * pairs;
}

/** Bytes of the weights that every decoding step reads once: linears and head. */
export function weightBytes(s: Size, dtype: "float32" | "bfloat16"): number {
  return (linearParameters(s) + s.hidden * s.vocabulary) * (dtype === "float32" ? 4 : 2);
}

/** Bytes of keys and values (f32) of one position. */
export function cacheBytes(s: Size): number {
  return s.layers * 2 * ((s.kvHeads * s.hidden) / s.heads) * 4;
}

/** Memory that loading and running a size takes, roughly: weights while they are packed, and a step's tensors. */
export function memoryNeeded(s: Size, dtype: "float32" | "bfloat16", rows: number, copies = 1): number {
  const stored = parameterCount(s) * (s.dtype === "F32" ? 4 : 2);
  const packed = parameterCount(s) * (dtype === "float32" ? 4 : 2) * copies;
  const saved = rows * s.layers * (6 * s.hidden + 4 * s.intermediate) * 4;
  return stored + packed + saved + 5e8;
}
