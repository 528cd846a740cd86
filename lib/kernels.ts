import { native } from "./binding.js";

/** A routed linear on plain arrays: T rows, K inputs, N outputs. */
export interface LoraLinearInput {
  /** [T, K] */
  x: Float32Array;
  /** [N, K] */
  w: Float32Array;
  /** [N] */
  bias?: Float32Array;
  /** [T] index of the adapter that runs each row; -1: none. */
  roles: Int32Array;
  /** Pairs a [r, K], b [N, r]; ranks may differ. */
  adapters: { a: Float32Array; b: Float32Array; scale: number }[];
  /** Where sequences begin [B + 1]: gradients are one chain within each. Default: one sequence. */
  cuSeqlens?: Int32Array;
  /** "cpu" (default), one instruction set ("avx2", "avx512", "neon"), or "cpu-reference". */
  device?: string;
}

/**
 * The kernels below the model, on typed arrays (method.md, eq. 10).
 *
 * @example
 * const y = await loraLinear.forward({ x, w, roles: Int32Array.of(0, 1, -1), adapters: [reason, tool] });
 */
export const loraLinear = {
  /** y [T, N] = x wT + bias + scale * (x aT) bT, each row by the pair of its own adapter. */
  async forward(input: LoraLinearInput): Promise<Float32Array> {
    return native.loraLinearForward({ device: "cpu", ...input }).promise;
  },
  /** From dy [T, N]: dx [T, K] and each pair's gradients. The weight is frozen. */
  async backward(
    input: LoraLinearInput & { dy: Float32Array },
  ): Promise<{ dx: Float32Array; adapters: { a: Float32Array; b: Float32Array }[] }> {
    return native.loraLinearBackward({ device: "cpu", ...input }).promise;
  },
};
