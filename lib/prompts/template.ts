import type { ChatMessage, Tokenizer } from "../model/tokenizer.js";

/** How a model writes a call of a tool. */
export interface CallFormat {
  /** The tag before the JSON, or where there is none the JSON's own beginning, e.g. `{"name": `. */
  open: string;
  /** The tag behind it, or where there is none the token that ends the turn. */
  close: string;
  /** White space between `open` and the JSON, as the template has it. */
  space: string;
  /** What the JSON calls the arguments: "arguments" or "parameters". */
  key: string;
}

/** Where the chat template would write a conversation in another way than the trajectory has it. */
export interface TemplateDifference {
  /** What the model had written: a call alone, or thinking and a call. */
  case: "plain" | "thinking";
  /** How the trajectory goes on from where they part. */
  trajectory: string;
  /** How the template's rendering does. */
  template: string;
}

/** Renders messages by the tokenizer's template, with or without the opening of the assistant's turn. */
export type Render = (messages: readonly ChatMessage[], open: boolean) => string;

/** Texts that occur in nobody's system prompt. */
export const PROBE = { question: "q-7f3a91", turn: "s-7f3a91", result: "r-7f3a91", name: "n_7f3a91" };

/**
 * The format in which a template writes calls, read from its rendering of one; undefined where it refuses calls, leaves them out, or
 * writes no JSON object with a name and arguments.
 */
export function callFormatOf(
  tokenizer: Tokenizer,
  render: Render,
  start: readonly ChatMessage[],
): CallFormat | undefined {
  const call = { type: "function", function: { name: PROBE.name, arguments: { key: "value" } } };
  const turn = { role: "assistant", content: PROBE.turn, tool_calls: [call] };
  let text: string;
  let prompt: string;
  try {
    prompt = render(start, true);
    text = render([...start, turn, { role: "tool", content: PROBE.result }], false);
  } catch {
    return undefined;
  }
  const said = text.indexOf(PROBE.turn);
  if (said < 0 && !text.startsWith(prompt)) return undefined;
  const rest = text.slice(said < 0 ? prompt.length : said + PROBE.turn.length);
  const json = rest.lastIndexOf("{", rest.indexOf(PROBE.name));
  if (!rest.includes(PROBE.name) || json < 0) return undefined;
  const length = jsonLength(rest.slice(json));
  if (length === undefined) return undefined;
  const entries = Object.entries(JSON.parse(rest.slice(json, json + length)) as Record<string, unknown>);
  const key = entries.find(([, value]) => typeof value === "object" && value !== null)?.[0];
  if (key === undefined) return undefined;
  const before = rest.slice(0, json);
  const tag = before.trim();
  const after = rest.slice(json + length).trimStart();
  const tokens = [...tokenizer.addedTokens.keys()].sort((a, b) => b.length - a.length);
  const close = tokens.find((token) => after.startsWith(token)) ?? /^<[^<>\s]+>/.exec(after)?.[0];
  if (close === undefined) return undefined;
  const open = tag === "" ? rest.slice(json, rest.indexOf(PROBE.name)).replace(/"$/, "") : tag;
  return { open, close, space: tag === "" ? "" : before.slice(before.trimEnd().length), key };
}

/** Length of the JSON object at the start of a text. */
function jsonLength(text: string): number | undefined {
  for (let end = text.indexOf("}"); end >= 0; end = text.indexOf("}", end + 1)) {
    try {
      JSON.parse(text.slice(0, end + 1));
      return end + 1;
    } catch {
      // A longer one may be.
    }
  }
  return undefined;
}

/** The first place where two texts part, a few words of each; undefined where the second begins with the first. */
export function partOf(trajectory: string, template: string): Omit<TemplateDifference, "case"> | undefined {
  if (template.startsWith(trajectory)) return undefined;
  let at = 0;
  while (trajectory[at] === template[at]) at++;
  const few = (text: string): string => text.slice(at, at + 60);
  return { trajectory: few(trajectory), template: few(template) };
}
