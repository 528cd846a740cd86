// One linear: the plain product, and the routed one with adapters of rank 8 whose roles alternate in spans of rows.
import { abortable } from "../arguments.js";
import type { LinearMeasurementOptions, NativeLinearMeasurement } from "../binding.js";
import { race, resultLine } from "./timing.js";
import type { Bench, BenchContext } from "./types.js";
import { requireSameBits } from "./verify.js";

/** T rows, K inputs, N outputs: the linears of Qwen2.5-0.5B, q k v and gate up fused, in training; then few rows. */
const shapes: readonly (readonly [t: number, k: number, n: number])[] = [
  ...[2048, 512].flatMap((t) =>
    [
      [896, 1152],
      [896, 896],
      [896, 9728],
      [4864, 896],
    ].map(([k, n]) => [t, k, n] as [number, number, number]),
  ),
  [64, 896, 9728],
  [1, 896, 9728],
];
/** With --quick, of all but the plain product in f32. */
const quickShapes = new Set(["512x896x9728", "64x896x9728", "1x896x9728"]);
const rank = 8;
/** How roles lie in the routed cases: their number, and the rows of a span. */
const layouts = [
  { roles: 2, span: 4 },
  { roles: 2, span: 64 },
  { roles: 8, span: 4 },
] as const;
const plainLayout = { roles: 2, span: 64 } as const;

interface LinearCase {
  t: number;
  k: number;
  n: number;
  dtype: "float32" | "bfloat16";
  span: number;
  roles: number;
}

function cases({ quick, precision }: BenchContext, routed: boolean): LinearCase[] {
  const both = quick && routed ? (["float32"] as const) : (["float32", "bfloat16"] as const);
  const dtypes = precision === "bf16-multiply" ? (["bfloat16"] as const) : both;
  return dtypes.flatMap((dtype) =>
    shapes
      .filter((shape) => !quick || (!routed && dtype === "float32") || quickShapes.has(shape.join("x")))
      .flatMap(([t, k, n]) =>
        (routed && t > 1 ? layouts : [plainLayout]).map((layout) => ({ t, k, n, dtype, ...layout })),
      ),
  );
}

function caseName({ t, k, n, dtype, span, roles }: LinearCase, routed: boolean): string {
  const plain = `${t}x${k}x${n} ${dtype === "float32" ? "f32" : "bf16"}`;
  return routed && t > 1 ? `${plain} span ${span}${roles === 2 ? "" : `, ${roles} roles`}` : plain;
}

/** Sampled outputs against scalar chains, bit for bit: ERR_BENCH_WRONG names the first that differs. */
export async function verifyLinear(
  name: string,
  linear: Pick<NativeLinearMeasurement, "verify">,
  signal: AbortSignal,
): Promise<void> {
  for (const { name: what, got, expected } of await abortable(linear.verify(), signal))
    requireSameBits(`${name}: ${what} against a scalar chain`, got, expected);
}

type What = Parameters<NativeLinearMeasurement["time"]>[0];

function linearBench(bench: "gemm" | "routed-forward" | "routed-backward"): Bench {
  const routed = bench !== "gemm";
  const passes = bench === "routed-backward" ? 2 : 1;
  const what: What = ({ gemm: "plain", "routed-forward": "forward", "routed-backward": "forwardBackward" } as const)[
    bench
  ];
  return async function* (context) {
    const { native, machine, peer, repeats, precision, signal } = context;
    for (const shape of cases(context, routed)) {
      const name = caseName(shape, routed);
      if (!context.wanted(name)) continue;
      context.status(`${bench} ${name}`);
      const { t, k, n, span, roles, dtype } = shape;
      const options: LinearMeasurementOptions = { t, k, n, span, rank, roles, bf16: dtype === "bfloat16", precision };
      const linear = new native.LinearMeasurement(options);
      try {
        await verifyLinear(`${bench} ${name}`, linear, signal);
        const time = (work: What) => () => abortable(linear.time(work, repeats.runs, repeats.least), signal);
        const request = { bench, ...shape, rank, least: repeats.least };
        const best = await race(repeats.rounds, {
          engine: time(what),
          plain: routed ? time("plain") : () => Promise.resolve(undefined),
          peer: () => Promise.resolve(peer?.time(request, repeats.runs)),
        });
        const seconds = best.engine as number;
        // dA, dB, du and du A are as much again, twice: forward, and two products backward.
        const low = routed ? 2 * t * rank * (k + n) * (bench === "routed-backward" ? 3 : 1) : 0;
        const flops = passes * 2 * t * k * n + low;
        const weight = k * n * (dtype === "bfloat16" ? 2 : 4);
        const bytes = passes * (weight + 4 * t * (k + n));
        // Few rows: calls take turns on copies of the weight, so that it comes from memory as it does when a model decodes.
        const roofline = await machine.roofline([{ flops, bytes, workingSet: t < 16 ? Infinity : bytes }]);
        const outcome = { bench, name, unit: "GFLOP/s" as const, work: flops / 1e9, seconds, roofline };
        yield resultLine(
          { ...outcome, peer: peer?.describe(request, best.peer) },
          routed ? { overhead: seconds / (passes * (best.plain as number)) } : {},
        );
      } finally {
        linear.close();
      }
    }
  };
}

export const gemm = linearBench("gemm");
/** overhead: the routed product over the plain one. */
export const routedForward = linearBench("routed-forward");
/** Forward, dx, dA and dB; overhead: over two plain products. */
export const routedBackward = linearBench("routed-backward");
