import type { ChatTool } from "../prompts/calls.js";

/** A question to answer. Fields beyond these are kept as they are: an environment or a reward may read them. */
export interface Question {
  id: string;
  question: string;
  /** Gold answers; any one of them is right. */
  answers: string[];
  [extra: string]: unknown;
}

/** One searchable piece of text. */
export interface Passage {
  id: string;
  title?: string;
  text: string;
}

/** A finished call of a tool, as a trajectory records it. */
export interface CallRecord {
  /** Role whose span made the call, e.g. "tool". */
  role: string;
  /** The text of the span, without its tags. */
  query: string;
  /** What the model got to read, without the tags around it. */
  result: string;
  /** `result` is the start of what the tool answered: it was longer than a tool's output may be. */
  cut?: boolean;
  passages?: Passage[];
  /** Milliseconds from call to answer. */
  latencyMs: number;
  error?: { code: string; message: string };
}

/** A call that the model has just written. */
export interface ToolCall {
  role: string;
  /** The text of the span, without its tags, as the model wrote it: white space and all. */
  text: string;
  /** With a renderer: the tool's name, and the arguments of a JSON call, of which `text` is the one that says what is asked. */
  name?: string;
  arguments?: Record<string, unknown>;
  question: Question;
  /** The trajectory so far. */
  trajectory: { id: string; calls: readonly CallRecord[] };
}

export interface ToolResult {
  /** What the model gets to read. The tags around it are the rollout's. */
  text: string;
  passages?: Passage[];
  [extra: string]: unknown;
}

/**
 * The tool behind a role's spans. `act` may be called for many trajectories at once and must answer for each on its
 * own; a rejection is recorded with the call and told to the model, it does not end the run.
 */
export interface Environment {
  act(call: ToolCall, options: { signal: AbortSignal }): Promise<ToolResult>;
  /** What is wrong with a call, in words for the model: it then is not made. A rollout without `checkCall` of its own asks this. */
  check?(call: ToolCall): string | undefined;
  /** The tools that it offers, where it knows their schemas: for a chatRenderer. */
  readonly tools?: readonly ChatTool[];
  /** It ends each call itself after some time, so that a rollout has no `toolTimeout` unless one is given. */
  readonly timesOut?: boolean;
  close?(): void | Promise<void>;
}
