import { checkInstance, checkObject } from "../arguments.js";
import type { Question } from "../environments/types.js";
import type { Tokenizer } from "../model/tokenizer.js";
import { RoleRouter, type RoleSpan } from "../roles/router.js";
import { encodeAround } from "./encode.js";
import type { Renderer } from "./renderer.js";

type Tags = { open: string; close: string };

/** A span of tagged text. */
export interface TagSpan extends RoleSpan {
  /** Tags around what its tool returns. Default: the renderer's. */
  output?: Tags;
  /** What stands between the tags, for the instruction, e.g. "your query". */
  content?: string;
  /** The tool that it calls, where its role has several. Default: the role's. */
  tool?: string;
}

export interface TagRendererOptions {
  roles: readonly string[];
  base: string;
  spans: readonly TagSpan[];
  /** @default { open: "<information>", close: "</information>" } */
  output?: Tags;
  /** @default { open: "<answer>", close: "</answer>" } */
  answer?: Tags;
  /**
   * The prompt. Tokens spelled in `question.question` stay text; those in what this function puts around it are tokens. Default:
   * {@link tagInstruction} with the question.
   */
  prompt?: (question: Question) => string;
  /** Put the prompt as the user's turn of the checkpoint's chat template. @default false */
  chat?: boolean;
  /** Begin with the tokenizer's BOS token where it puts one before every text and the prompt does not. Default: unless `chat`. */
  addBos?: boolean;
  stopIds?: readonly number[];
}

/**
 * A conversation in one run of text: the model writes `<search>a query</search>`, the tool's output follows between tags of its own, and the
 * model goes on.
 *
 * @example
 * const renderer = tagRenderer(model.tokenizer, {
 *   roles: ["plan", "search", "sql"],
 *   base: "plan",
 *   spans: [
 *     { role: "search", open: "<search>", close: "</search>" },
 *     { role: "sql", open: "<sql>", close: "</sql>", output: { open: "<rows>", close: "</rows>" } },
 *   ],
 * });
 */
export function tagRenderer(tokenizer: Tokenizer, options: TagRendererOptions): Renderer {
  checkInstance(tokenizer, ["encodePrompt"], "a tokenizer", "tokenizer");
  checkObject(options, "options");
  const { roles, base, spans, output = OUTPUT, answer = ANSWER, chat = false, addBos = !chat, stopIds } = options;
  const router = new RoleRouter({ roles: [...roles], base, spans: [...spans] });
  const instruction = tagInstruction({ spans, output, answer });
  const { prompt = ({ question }: Question) => instruction.replace("{question}", () => question) } = options;
  const render = (content: string): string =>
    chat ? tokenizer.applyChatTemplate([{ role: "user", content }], { addGenerationPrompt: true }) : content;
  return {
    router,
    ...(stopIds !== undefined && { stopIds }),
    prompt(question) {
      const ids = encodeAround(tokenizer, [question.question], ([hidden = ""]) =>
        render(prompt({ ...question, question: hidden })),
      );
      const bos = addBos ? tokenizer.encodePrompt("") : [];
      return Int32Array.from(bos.length > 0 && ids[0] !== bos[0] ? [...bos, ...ids] : ids);
    },
    toolResult({ span }, text) {
      const { open, close } = spans[span]?.output ?? output;
      return Int32Array.from(encodeAround(tokenizer, [text], ([hidden = ""]) => `${open}${hidden}${close}`));
    },
    parseCall: ({ span, text }) => ({
      name: spans[span]?.tool ?? router.spans[span]?.role ?? base,
      arguments: {},
      text,
    }),
  };
}

const OUTPUT = { open: "<information>", close: "</information>" };
const ANSWER = { open: "<answer>", close: "</answer>" };

/** The instruction that explains the tags, with {question} where the question belongs. */
export function tagInstruction({
  spans,
  output = OUTPUT,
  answer = ANSWER,
}: {
  spans: readonly TagSpan[];
  output?: Tags;
  answer?: Tags;
}): string {
  const calls = spans.filter(({ call = true }) => call);
  const written = calls.map(({ open, close, content = "your query" }) => `${open} ${content} ${close}`).join(" or ");
  const pairs = [...new Set(calls.map(({ output: { open, close } = output }) => `${open} and ${close}`))];
  const search =
    calls.length === 0
      ? ""
      : `If you are missing a fact, write ${written} and stop: what the tool finds is put between ${pairs.join(" or ")}. ` +
        "Think again after each result, and call the tool again if you still lack something. ";
  return (
    "Answer the question at the end. Begin by thinking, between <think> and </think>, about what you know and what you need. " +
    `${search}Once you are sure, give the answer alone, in as few words as possible, between ${answer.open} and ` +
    `${answer.close}, for example ${answer.open} Paris ${answer.close}.\n\nQuestion: {question}\n`
  );
}
