import type { Question } from "../environments/types.js";
import type { RoleRouter } from "../roles/router.js";

/** A call as the router found it in what the model sampled. */
export interface SampledCall {
  /** Index into `router.spans`. */
  span: number;
  /** The text between the tags, as the model wrote it. */
  text: string;
}

/** What a call asks for, or what is wrong with it in words that the model can act on. */
export type ParsedCall =
  | {
      /** The tool's name; the role's where calls are by tags. */
      name: string;
      arguments: Record<string, unknown>;
      /** What the environment gets as the call's text. */
      text: string;
    }
  | { error: string };

/**
 * Everything in a trajectory that the model does not sample: the prompt, and the glue behind each call. A trajectory is prompt, sampled,
 * glue, sampled, glue, ... and only ever grows: what was sampled keeps its ids, and glue is encoded on its own. Made by
 * {@link tagRenderer} or {@link chatRenderer}.
 */
export interface Renderer {
  /** Roles and spans of what is sampled. A rollout with this renderer takes this router. */
  readonly router: RoleRouter;
  /** Ids that end a trajectory. Without: those of the tokenizer. */
  readonly stopIds?: readonly number[];
  /** Ids of everything before the first sampled token. */
  prompt(question: Question): Int32Array;
  /**
   * Ids of what stands between a call and the model's next words: what is left of its turn, the tool's output, the opening of the next turn.
   * The call's closing tag has been sampled. Tokens of the tokenizer that are spelled out in `text` stay text.
   */
  toolResult(call: SampledCall, text: string): Int32Array;
  /** What the call asks for. A malformed one is no exception: its `error` is for the model to read, by {@link Renderer.toolResult}. */
  parseCall(call: SampledCall): ParsedCall;
}
