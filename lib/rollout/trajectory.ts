import type { CallRecord } from "../environments/types.js";

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
  /** [T] role of each input position: the adapter that ran it, by the role's index. */
  roles: Int8Array;
  /** [T] 1 where the model sampled the token. */
  sampled: Uint8Array;
  /** [T] log softmax(logits / temperature) of ids[t], before any truncation; 0 where not sampled. */
  logprobs: Float32Array;
  temperature: number;
  topP: number;
  topK: number;
  /** Optimizer steps that the adapters had taken. */
  policyVersion: number;
  /** The random stream: (seed, purpose, variant, step, question, sample). */
  rngKey: string;
  /** Text after the prompt: sampled text and tool output. */
  response: string;
  reward: number;
  /** Text of the last answer, null without one. */
  answer: string | null;
  calls: CallRecord[];
  finish: Finish;
}

/** A trajectory as one line of JSON. */
export function serializeTrajectory(trajectory: Trajectory): string {
  const { ids, roles, sampled, logprobs, ...rest } = trajectory;
  return JSON.stringify({
    ...rest,
    ids: Array.from(ids),
    roles: Array.from(roles),
    sampled: Array.from(sampled),
    logprobs: Array.from(logprobs),
  });
}

/** The inverse of {@link serializeTrajectory}: the same values, bit for bit. */
export function parseTrajectory(line: string): Trajectory {
  const json = JSON.parse(line) as Omit<Trajectory, "ids" | "roles" | "sampled" | "logprobs"> &
    Record<"ids" | "roles" | "sampled" | "logprobs", number[]>;
  return {
    ...json,
    ids: Int32Array.from(json.ids),
    roles: Int8Array.from(json.roles),
    sampled: Uint8Array.from(json.sampled),
    logprobs: Float32Array.from(json.logprobs),
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
