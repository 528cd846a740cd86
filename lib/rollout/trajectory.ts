import { z } from "zod";
import type { CallRecord } from "../environments/types.js";
import { fail } from "../errors.js";
import { PRECISIONS, type Precision } from "../model/precision.js";

/** Why a trajectory ended: its own end token, a token limit, a call beyond the action budget, or a failed tool. */
export type Finish = "stop" | "length" | "budget" | "error";

/**
 * One answer to one prompt: what rollouts produce and trainer and attribution consume. Token ids are those that were sampled; nothing is ever
 * decoded and re-encoded.
 */
export interface Trajectory {
  id: string;
  /** The prompt that it answers; trajectories of one group are compared with each other. */
  group: string;
  /** Id of the question. */
  question: string;
  /** [T] prompt, sampled text and tool output. */
  ids: Int32Array;
  /** [T] role of each input position. */
  roles: Int8Array;
  /** [T] the role whose route each position took, where it was not its own: see RolloutOptions.shuffleRoutes. */
  routing?: Int8Array;
  /** [T] 1 where the model sampled the token. */
  sampled: Uint8Array;
  /** [T] log softmax(logits / temperature) of ids[t], before any truncation; 0 where not sampled. */
  logprobs: Float32Array;
  temperature: number;
  topP: number;
  topK: number;
  /** Optimizer steps that the policy had taken: see Rollout.policyVersion. */
  policyVersion: number;
  /**
   * Of the model that sampled: `logprobs` are its own, so a step in another precision would begin with ratios that are not 1. Rollouts always say
   * it; absent (as in lines of earlier versions): "exact".
   */
  precision?: Precision;
  /** The random stream: (seed, purpose, variant, step, question, sample). */
  rngKey: string;
  /** Text after the prompt: sampled text and tool output. */
  response: string;
  reward: number;
  /** What the reward was made of, by name (weightedReward, or a reward that says so). */
  rewardParts?: Record<string, number>;
  /** Text of the last answer, null without one. */
  answer: string | null;
  calls: CallRecord[];
  finish: Finish;
}

/** A trajectory as one line of JSON. */
export function serializeTrajectory(trajectory: Trajectory): string {
  const { ids, roles, sampled, logprobs, routing, ...rest } = trajectory;
  return JSON.stringify({
    ...rest,
    ...(routing && { routing: Array.from(routing) }),
    ids: Array.from(ids),
    roles: Array.from(roles),
    sampled: Array.from(sampled),
    logprobs: Array.from(logprobs),
  });
}

const text = z.string();
const schema = z.looseObject({
  id: text,
  group: text,
  question: text,
  ids: z.array(z.int32().min(0)),
  roles: z.array(z.int().min(-1).max(127)),
  routing: z.exactOptional(z.array(z.int().min(-1).max(127))),
  sampled: z.array(z.int().min(0).max(1)),
  logprobs: z.array(z.number()),
  temperature: z.number(),
  topP: z.number(),
  topK: z.number(),
  policyVersion: z.number(),
  precision: z.enum(PRECISIONS).default("exact"),
  rngKey: text,
  response: text,
  reward: z.number(),
  rewardParts: z.exactOptional(z.record(text, z.number())),
  answer: text.nullable(),
  calls: z.array(z.looseObject({ role: text, query: text, result: text, latencyMs: z.number() })),
  finish: z.enum(["stop", "length", "budget", "error"]),
});

/**
 * The inverse of {@link serializeTrajectory}: the same values, bit for bit; a line without `precision` is "exact". A line that is no trajectory -> ERR_TRAJECTORY, naming the field.
 */
export function parseTrajectory(line: string): Trajectory {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch (cause) {
    fail("ERR_TRAJECTORY", `Expected a trajectory as one line of JSON: ${(cause as Error).message}`, cause);
  }
  const parsed = schema.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    fail(
      "ERR_TRAJECTORY",
      `Expected a trajectory: ${issue?.path.join(".") || "the line"}: ${issue?.message ?? "invalid"}`,
    );
  }
  const { id, ids, roles, sampled, logprobs, routing, precision } = parsed.data;
  if ([roles, sampled, logprobs, routing ?? ids].some(({ length }) => length !== ids.length)) {
    fail("ERR_TRAJECTORY", `Expected ids, roles, sampled, logprobs and routing of one length in trajectory ${id}`);
  }
  return {
    ...(json as Trajectory),
    ...(routing && { routing: Int8Array.from(routing) }),
    ids: Int32Array.from(ids),
    roles: Int8Array.from(roles),
    sampled: Uint8Array.from(sampled),
    logprobs: Float32Array.from(logprobs),
    precision,
  };
}

/** A stretch of a trajectory's tokens of one kind: for showing it. */
export interface TrajectorySegment {
  kind: "prompt" | "sampled" | "tool-output";
  /** Role of the predictions of these tokens, by index; that of unsampled ones is the base role. */
  role: number;
  ids: number[];
}

/** Splits a trajectory where the kind of text or the role that wrote it changes. */
export function segments({ ids, roles, sampled }: Pick<Trajectory, "ids" | "roles" | "sampled">): TrajectorySegment[] {
  const out: TrajectorySegment[] = [];
  let begun = false;
  ids.forEach((id, t) => {
    begun ||= sampled[t] === 1;
    const kind = sampled[t] === 1 ? "sampled" : begun ? "tool-output" : "prompt";
    // The role that predicted a token is the role of the position before it.
    const role = kind === "sampled" && t > 0 ? (roles[t - 1] ?? 0) : (roles[0] ?? 0);
    const last = out.at(-1);
    if (last !== undefined && last.kind === kind && last.role === role) last.ids.push(id);
    else out.push({ kind, role, ids: [id] });
  });
  return out;
}
