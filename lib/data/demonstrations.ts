import { checkInteger, checkObject } from "../arguments.js";
import { fail, RolegradError } from "../errors.js";
import type { ChatMessage, Tokenizer } from "../model/tokenizer.js";
import type { RoleRouter } from "../roles/router.js";
import { parseTrajectory, type Trajectory } from "../rollout/trajectory.js";
import { toId, toText as textOf } from "./fields.js";
import { readJsonLines } from "./jsonl.js";
import { at, excerpt, type Place, type Row } from "./place.js";
import { uniqueIds } from "./rows.js";

export interface ReadDemonstrationsOptions {
  tokenizer: Tokenizer;
  /** Says the role of each token, as in a rollout. */
  router: Pick<RoleRouter, "annotate">;
  /** Tokens of one demonstration at most; a longer one is ERR_DATA_FIELD. Default: any number. */
  maxLength?: number;
}

/** A piece of a demonstration: what is to be learned, or what stands before it. */
interface Piece {
  text: string;
  sampled: boolean;
}

/**
 * What supervised training (objective.kind "sft") learns, from JSON Lines of one of these kinds each; "id" may be absent:
 *
 * - `{"prompt", "completion"}`: the completion is learned. `{"text"}`: all of it.
 * - `{"messages": [{"role", "content"}, …]}`: the assistant's turns are learned, in the checkpoint's chat template.
 * - `{"segments": [{"text", "sampled"}, …]}`: the pieces that are sampled are learned; others are the prompt and what tools returned.
 * - a trajectory of a run directory: what was sampled is learned, by its token ids.
 *
 * Pieces are encoded by themselves, as rollouts do, so that roles are found as there. A text that ends with a learned piece gets the end token
 * (messages end as their template has it). Errors: ERR_DATA_NOT_FOUND, ERR_DATA_LINE, ERR_DATA_FIELD, ERR_DATA_DUPLICATE, ERR_DATA_EMPTY,
 * ERR_TRAJECTORY, naming file and line.
 *
 * @example
 * const demonstrations = await readDemonstrations("demonstrations.jsonl", { tokenizer: model.tokenizer, router });
 * await new Trainer(model, { adapters, optimizer, objective: { kind: "sft" } }).step(demonstrations);
 */
export async function readDemonstrations(file: string, options: ReadDemonstrationsOptions): Promise<Trajectory[]> {
  checkObject(options, "options");
  const { maxLength = Number.MAX_SAFE_INTEGER } = options;
  checkInteger(maxLength, "maxLength", 2);
  const list: Trajectory[] = [];
  const claim = uniqueIds();
  for await (const { row, place } of readJsonLines(file)) {
    const demonstration = row["ids"] === undefined ? encode(row, place, options) : trajectory(row, place);
    const { id, ids, sampled } = demonstration;
    claim(id, place);
    if (ids.length > maxLength)
      fail("ERR_DATA_FIELD", `Expected at most ${maxLength} tokens at ${at(place)} but received ${ids.length}`);
    if (!sampled.includes(1, 1)) fail("ERR_DATA_FIELD", `Expected a token to learn at ${at(place)} but there is none`);
    list.push(demonstration);
  }
  if (list.length === 0) fail("ERR_DATA_EMPTY", `Expected demonstrations in ${file} but received none`);
  return list;
}

function trajectory(row: Row, place: Place): Trajectory {
  try {
    return parseTrajectory(JSON.stringify(row));
  } catch (error) {
    if (error instanceof RolegradError) fail("ERR_TRAJECTORY", `${at(place)}: ${error.message}`, error);
    throw error;
  }
}

function encode(row: Row, place: Place, { tokenizer, router }: ReadDemonstrationsOptions): Trajectory {
  const id = row["id"] === undefined ? `line-${place.line}` : toId({ name: "id", value: row["id"] }, place);
  const isChat = row["messages"] !== undefined;
  const pieces = isChat ? chatPieces(row["messages"], tokenizer, place) : textPieces(row, place);
  const ids: number[] = [];
  const sampled: number[] = [];
  const put = (tokens: readonly number[], learned: boolean): void => {
    ids.push(...tokens);
    sampled.push(...tokens.map(() => (learned ? 1 : 0)));
  };
  // A chat template says itself how a text begins and how a turn ends.
  if (!isChat && pieces[0]?.sampled !== false) put(tokenizer.encodePrompt(""), false);
  pieces.forEach(({ text, sampled: learned }, i) =>
    put(i === 0 && !learned && !isChat ? tokenizer.encodePrompt(text) : tokenizer.encode(text), learned),
  );
  const [end] = tokenizer.eosTokenIds;
  if (
    !isChat &&
    pieces.at(-1)?.sampled === true &&
    end !== undefined &&
    !tokenizer.eosTokenIds.includes(ids.at(-1) as number)
  )
    put([end], true);
  const bytes = tokenizer.tokenBytes();
  const first = pieces.findIndex((piece) => piece.sampled);
  return {
    id,
    group: id,
    question: id,
    ids: Int32Array.from(ids),
    roles: router.annotate(
      ids.map((token) => bytes[token] as Uint8Array),
      sampled,
    ),
    sampled: Uint8Array.from(sampled),
    logprobs: new Float32Array(ids.length),
    temperature: 1,
    topP: 1,
    topK: 0,
    policyVersion: 0,
    rngKey: "",
    response: pieces
      .slice(Math.max(first, 0))
      .map(({ text }) => text)
      .join(""),
    reward: 0,
    answer: null,
    calls: [],
    finish: "stop",
  };
}

function textPieces(row: Row, place: Place): Piece[] {
  const { prompt, completion, text, segments } = row;
  if (Array.isArray(segments))
    return segments.map((segment: unknown, i) => {
      const own = segment as { text?: unknown; sampled?: unknown } | null;
      if (typeof own?.sampled !== "boolean" && own?.sampled !== 0 && own?.sampled !== 1)
        fail("ERR_DATA_FIELD", `Expected true or false for segments[${i}].sampled at ${at(place)}`);
      return { text: toText(own.text, `segments[${i}].text`, place), sampled: Boolean(own.sampled) };
    });
  if (completion !== undefined)
    return [
      { text: toText(prompt, "prompt", place), sampled: false },
      { text: toText(completion, "completion", place), sampled: true },
    ];
  if (text !== undefined) return [{ text: toText(text, "text", place), sampled: true }];
  return fail(
    "ERR_DATA_FIELD",
    `Expected prompt and completion, text, messages, segments, or a trajectory at ${at(place)} but received ${Object.keys(row).join(", ")}`,
  );
}

/** Each assistant's turn is what its message adds to the text of those before it. */
function chatPieces(messages: unknown, tokenizer: Tokenizer, place: Place): Piece[] {
  const whole = (message: unknown): message is ChatMessage =>
    typeof message === "object" &&
    message !== null &&
    typeof (message as ChatMessage).role === "string" &&
    typeof (message as ChatMessage).content === "string";
  if (!Array.isArray(messages) || !messages.every(whole))
    fail("ERR_DATA_FIELD", `Expected messages of role and content at ${at(place)} but received ${excerpt(messages)}`);
  const pieces: Piece[] = [];
  let done = "";
  const upTo = (text: string, sampled: boolean): void => {
    if (!text.startsWith(done))
      fail("ERR_DATA_FIELD", `Expected a chat template that only adds to earlier turns at ${at(place)}: use segments`);
    if (text.length > done.length) pieces.push({ text: text.slice(done.length), sampled });
    done = text;
  };
  messages.forEach((message, i) => {
    if (message.role !== "assistant") return;
    upTo(tokenizer.applyChatTemplate(messages.slice(0, i), { addGenerationPrompt: true }), false);
    upTo(tokenizer.applyChatTemplate(messages.slice(0, i + 1), { addGenerationPrompt: false }), true);
  });
  return pieces;
}

function toText(value: unknown, name: string, place: Place): string {
  return textOf({ name, value }, place);
}
