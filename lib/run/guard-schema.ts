import { z } from "zod";

const above = z.number().positive();
const action = z.enum(["stop", "warn", "off"]);

const explosion = z.strictObject({
  factor: z
    .number()
    .min(0)
    .default(100)
    .describe("A step is refused where a number is above so many times its median and above its bound here; 0: never."),
  window: z
    .int()
    .min(1)
    .default(20)
    .describe("Steps that the median is taken over, those without anything learned left out."),
  gradNorm: above.default(100).describe("Bound of each adapter's gradient norm, before clipping."),
  loss: above.default(100).describe("Bound of the loss's absolute value."),
  kl: above.default(10).describe("Bound of the mean KL to the start."),
});

const limits = z.strictObject({
  gradNorm: z.exactOptional(above).describe("Of each adapter, before clipping."),
  loss: z.exactOptional(above).describe("Of its absolute value."),
  kl: z.exactOptional(above).describe("Of the mean KL to the start; needs logKl."),
});

const zeroReward = z.strictObject({
  steps: z.int().min(0).default(5).describe("So many steps in a row in which nothing could be learned; 0: never."),
  action: z.enum(["warn", "stop"]).default("warn").describe("Say why, with one answer; or end the run as well."),
});

/** `guards` of a run.json: what stops a run that has gone astray, or says so. None of it changes a bit of the training. */
export const guards = z
  .strictObject({
    explosion: explosion.prefault({}),
    limits: limits.prefault({}).describe("Absolute bounds: a step above one is refused, whatever went before."),
    zeroReward: zeroReward.prefault({}),
    unchanged: action
      .default("stop")
      .describe(
        "Where an adapter that was taught something does not change by a bit, although the learning rate is not 0.",
      ),
    stalePolicy: action
      .default("stop")
      .describe(
        "Where the adapters as they are did not sample the answers: their first probability ratio is not exactly 1.",
      ),
  })
  .describe("What stops a run that has gone astray (docs/metrics.md). What is not finite always stops it.");

export type Guards = z.output<typeof guards>;
/** Guards with anything left out. */
export type GuardSettings = z.input<typeof guards>;
