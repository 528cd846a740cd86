import { checkInstance, checkObject, describe } from "../arguments.js";
import type { Question } from "../environments/types.js";
import { fail } from "../errors.js";
import type { ChatMessage, Tokenizer } from "../model/tokenizer.js";
import { RoleRouter, type RoleSpan } from "../roles/router.js";
import { CallParser, type ChatTool } from "./calls.js";
import { encodeAround } from "./encode.js";
import type { Renderer, SampledCall } from "./renderer.js";
import { callFormatOf, partOf, PROBE, type CallFormat, type TemplateDifference } from "./template.js";

export interface ChatRendererOptions {
  /** The system message. Default: none, or what the template puts there itself. */
  system?: string;
  tools: readonly ChatTool[];
  /**
   * The user's message. Tokens spelled in `question.question` stay text; those in what this function puts around it are tokens. Default: the
   * question itself.
   */
  prompt?: (question: Question) => string;
  /** The role of everything outside calls and spans. @default "reason" */
  base?: string;
  /** All role names, in the adapters' order. Default: `base`, the tools' roles, the spans' roles, in that order. */
  roles?: readonly string[];
  /** More spans that say a role, e.g. `{ role: "plan", open: "<think>", close: "</think>" }`. They call nothing. */
  spans?: readonly RoleSpan[];
  /** How calls are written. Default: as the template writes them; else `<tool_call>` and `</tool_call>`, with "arguments". */
  call?: Partial<CallFormat>;
  /** The role of messages that hold a tool's output. @default "tool" */
  toolRole?: string;
  /** Text around a tool's output, where the template has none. @default none */
  output?: { open: string; close: string };
  /** More variables for the template, e.g. `{ enable_thinking: false }` or a fixed `date_string`. */
  variables?: Record<string, unknown>;
  /** Ids that end a trajectory. Default: those of the tokenizer. */
  stopIds?: readonly number[];
}

/** A {@link Renderer} by a chat template. */
export interface ChatRenderer extends Renderer {
  /** How calls are written. */
  readonly call: CallFormat;
  /**
   * Where the template would write a conversation of two calls in another way than a trajectory has it; empty where it would not. A
   * trajectory only grows, so what a template changes in earlier turns (thinking that it strips or inserts) is not changed there.
   */
  readonly differences: readonly TemplateDifference[];
}

/**
 * Prompts and tool output as the checkpoint's own chat template writes them. The glue behind a call is what the template puts between an
 * assistant's message and the assistant's next turn; an end of turn that the model sampled itself is not written again. One call a turn.
 *
 * A template that refuses tool messages or leaves out what they say -> ERR_TOKENIZER_TEMPLATE; no template -> ERR_TOKENIZER_NO_TEMPLATE.
 *
 * @example
 * const renderer = chatRenderer(model.tokenizer, {
 *   tools: [{ name: "search", parameters: { type: "object", properties: { query: { type: "string" } }, required: ["query"] } }],
 * });
 * new Rollout(model, { renderer, router: renderer.router, environment, reward });
 */
export function chatRenderer(tokenizer: Tokenizer, options: ChatRendererOptions): ChatRenderer {
  checkInstance(tokenizer, ["applyChatTemplate"], "a tokenizer", "tokenizer");
  checkObject(options, "options");
  const { tools, base = "reason", spans: more = [], toolRole = "tool", output, variables, stopIds } = options;
  if (!isList(tools)) fail("ERR_INVALID_ARGUMENT", `Expected a list of tools but received ${describe(tools)}`);
  const { prompt = ({ question }: Question) => question } = options;
  // Checked before anything looks into the tools.
  new CallParser(tools, "arguments");
  const described = tools.map(({ name, description = "", parameters = { type: "object", properties: {} } }) => ({
    type: "function",
    function: { name, description, parameters },
  }));
  const render = (messages: readonly ChatMessage[], open: boolean): string =>
    tokenizer.applyChatTemplate(messages, {
      addGenerationPrompt: open,
      variables: { ...variables, ...(tools.length > 0 && { tools: described }) },
    });
  const user = (content: string): ChatMessage => ({ role: "user", content });
  const found = callFormatOf(tokenizer, render, [...system(options.system), user(PROBE.question)]);
  const call: CallFormat = { ...DEFAULT_CALL, ...found, ...options.call };
  const parser = new CallParser(tools, call.key);

  const plain = system(options.system);
  const start = tools.every(({ name }) => render([...plain, user(PROBE.question)], true).includes(JSON.stringify(name)))
    ? plain
    : system(
        [...(options.system === undefined ? [] : [options.system]), toolInstruction(described, call)].join("\n\n"),
      );
  const promptText = (content: string): string => render([...start, user(content)], true);

  const { spans, heads } = callSpans(tools, call);
  const roles = options.roles ?? [
    ...new Set([base, ...spans.map(({ role }) => role), ...more.map(({ role }) => role)]),
  ];
  const router = new RoleRouter({
    roles: [...roles],
    base,
    spans: [...spans, ...more.map((span) => ({ ...span, call: false }))],
  });

  const ends = new Set(tokenizer.eosTokenIds);
  const endsTurn = (token: string): boolean => ends.has(tokenizer.addedTokens.get(token) ?? -1);
  const answered = (content: string): ChatMessage => ({
    role: toolRole,
    content: `${output?.open ?? ""}${content}${output?.close ?? ""}`,
  });
  const glue = (text: string): string => {
    const rendered = render([...start, user(PROBE.question), said(PROBE.turn), answered(text)], true);
    const after = rendered.slice(rendered.indexOf(PROBE.turn) + PROBE.turn.length);
    if (after.startsWith(call.close)) return after.slice(call.close.length);
    const end = [...tokenizer.addedTokens.keys()].find((token) => after.startsWith(token));
    return endsTurn(call.close) && end !== undefined && endsTurn(end) ? after.slice(end.length) : after;
  };
  const probed = render([...start, user(PROBE.question), said(PROBE.turn), answered(PROBE.result)], true);
  if (probed.indexOf(PROBE.result) < probed.indexOf(PROBE.turn) || !probed.includes(PROBE.turn)) {
    fail(
      "ERR_TOKENIZER_TEMPLATE",
      `Expected the chat template beside ${tokenizer.file} to write messages of the role ${describe(toolRole)} behind the assistant's; ` +
        'try toolRole "user" with output tags',
    );
  }

  const text = ({ span, text }: SampledCall): string => `${heads[span] ?? ""}${text}`;
  let differences: TemplateDifference[] | undefined;
  return {
    router,
    call,
    ...(stopIds !== undefined && { stopIds }),
    prompt: (question) =>
      Int32Array.from(
        encodeAround(tokenizer, [question.question], ([hidden = ""]) =>
          promptText(prompt({ ...question, question: hidden })),
        ),
      ),
    toolResult: (_, result) => Int32Array.from(encodeAround(tokenizer, [result], ([hidden = ""]) => glue(hidden))),
    parseCall: (sampled) => parser.parse(text(sampled)),
    get differences() {
      return (differences ??= (["plain", "thinking"] as const).flatMap((kind) => {
        const args = { name: PROBE.name, [call.key]: { key: "value" } };
        const json = `${heads[0] === "" ? `${call.open}${call.space}` : ""}${JSON.stringify(args)}${call.space}`;
        const turn = (n: number): string => `${kind === "plain" ? "" : `<think>\nwhy ${n}\n</think>\n\n`}${json}`;
        const close = endsTurn(call.close) ? "" : call.close;
        const messages = [1, 2].flatMap((n) => [said(turn(n) + close), answered(`result ${n}`)]);
        const whole = [1, 2].map((n) => `${turn(n)}${call.close}${glue(`result ${n}`)}`).join("");
        const rendered = render([...start, user(PROBE.question), ...messages, said(turn(3) + close)], false);
        const part = partOf(`${promptText(PROBE.question)}${whole}${turn(3)}${call.close}`, rendered);
        return part === undefined ? [] : [{ case: kind, ...part }];
      }));
    },
  };
}

const isList = (value: unknown): boolean => Array.isArray(value);

const DEFAULT_CALL: CallFormat = { open: "<tool_call>", close: "</tool_call>", space: "\n", key: "arguments" };

function system(content: string | undefined): ChatMessage[] {
  return content === undefined ? [] : [{ role: "system", content }];
}

function said(content: string): ChatMessage {
  return { role: "assistant", content };
}

/**
 * The spans of calls, and for each what of the JSON its opening tag has taken. Where tools have several roles, a call has the first tool's until
 * its name is written, and from there its tool's: the name is part of a longer opening tag.
 */
function callSpans(
  tools: readonly ChatTool[],
  { open, close, space }: CallFormat,
): { spans: RoleSpan[]; heads: string[] } {
  const [first] = tools;
  if (first === undefined) return { spans: [], heads: [] };
  const inJson = open.startsWith("{");
  const role = first.role ?? "tool";
  const others = tools.filter((tool) => (tool.role ?? "tool") !== role);
  const head = (name: string): string =>
    inJson ? `${open}${JSON.stringify(name)}` : `{"name": ${JSON.stringify(name)}`;
  return {
    spans: [
      { role, open, close },
      ...others.map(({ name, role = "tool" }) => ({ role, open: `${inJson ? "" : open + space}${head(name)}`, close })),
    ],
    heads: [inJson ? open : "", ...others.map(({ name }) => head(name))],
  };
}

/** For templates that say nothing of tools. */
function toolInstruction(tools: readonly object[], { open, close, space, key }: CallFormat): string {
  const inJson = open.startsWith("{");
  const call = `${inJson ? "" : `${open}${space}`}{"name": "...", "${key}": {...}}${inJson ? "" : `${space}${close}`}`;
  return (
    `To call a tool, write one JSON object and then stop:\n${call}\nIts result comes in the next message. These are the tools:\n` +
    tools.map((tool) => JSON.stringify(tool)).join("\n")
  );
}
