import { Template } from "@huggingface/jinja";
import * as huggingFace from "@huggingface/tokenizers";
import { checkNumbers, checkPath } from "../arguments.js";
import { fail } from "../errors.js";
import { addTokens } from "./added-tokens.js";
import { tokenBytesOf } from "./token-bytes.js";
import { readTokenizerFiles, vocabularyOf, type TokenizerFiles } from "./tokenizer-files.js";

export interface ChatMessage {
  role: string;
  content: string;
  [extra: string]: unknown;
}

export interface ChatTemplateOptions {
  /** End with the opening of the assistant's turn. @default false */
  addGenerationPrompt?: boolean;
  /** More variables for the template, e.g. `tools`. */
  variables?: Record<string, unknown>;
}

/** What is used of Hugging Face's class, whose own declarations do not resolve for ES modules (no file extensions). */
interface Encoder {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: (number | undefined)[]; tokens: string[] };
  decode(ids: number[], options: { skip_special_tokens: boolean }): string;
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
}
const Encoder = (huggingFace as { Tokenizer: unknown }).Tokenizer as new (tokenizer: object, config: object) => Encoder;

/** A checkpoint's own tokenizer: text to ids and back, ids to bytes, chat template. Made by {@link loadTokenizer}. */
export class Tokenizer {
  /** Path of tokenizer.json. */
  readonly file: string;
  /** Highest id + 1. A model's embedding may have more rows. */
  readonly vocabularySize: number;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  readonly padTokenId: number | undefined;
  /** All ids that end a generation (generation_config.json may name several); empty where none is known. */
  readonly eosTokenIds: readonly number[];
  readonly #files: TokenizerFiles;
  readonly #encoder: Encoder;
  #bytes: readonly Uint8Array[] | undefined;
  #added: ReadonlyMap<string, number> | undefined;
  #template: Template | undefined;
  #bosFirst: boolean | undefined;

  constructor(files: TokenizerFiles) {
    this.file = files.file;
    this.#files = files;
    try {
      const config = { clean_up_tokenization_spaces: false, ...files.config };
      this.#encoder = new Encoder(files.tokenizer, config);
    } catch (cause) {
      const code = /^Unknown/.test((cause as Error).message) ? "ERR_TOKENIZER_UNSUPPORTED" : "ERR_TOKENIZER_INVALID";
      fail(code, `Expected a tokenizer in ${files.file}: ${(cause as Error).message}`, cause);
    }
    const { tokenizer } = files;
    const ids = [
      ...vocabularyOf(tokenizer.model).map(([, id]) => id as number),
      ...tokenizer.added_tokens.map((t) => t.id),
    ];
    this.vocabularySize = ids.reduce((size, id) => Math.max(size, id + 1), 0);
    this.bosTokenId = this.#special("bos")[0];
    this.padTokenId = this.#special("pad")[0];
    this.eosTokenIds = this.#special("eos");
    this.eosTokenId = this.#namedToken("eos") ?? this.eosTokenIds[0];
  }

  /**
   * Ids of a text; the text of an added token within it becomes that token. `addSpecialTokens` (default false) also puts
   * what the post-processor puts around a text, such as `<|begin_of_text|>`.
   */
  encode(text: string, { addSpecialTokens = false }: { addSpecialTokens?: boolean } = {}): number[] {
    if (typeof text !== "string")
      fail("ERR_INVALID_ARGUMENT", `Expected a string for text but received ${typeof text}`);
    const { ids, tokens } = this.#run("encode a text", () =>
      this.#encoder.encode(text, { add_special_tokens: addSpecialTokens }),
    );
    // The encoder takes ids such as that of the unknown token from the file as they are.
    const lost = ids.findIndex(
      (id) => !Number.isInteger(id) || (id as number) < 0 || (id as number) >= this.vocabularySize,
    );
    if (lost >= 0) {
      const token = JSON.stringify(tokens[lost]);
      fail("ERR_TOKENIZER_INVALID", `Expected a token for ${token} in ${this.file}, which has no unknown token either`);
    }
    return ids as number[];
  }

  /**
   * Ids of a prompt that a model goes on from: as {@link encode}, behind the BOS token where the tokenizer puts one before every text (as
   * Llama's does) and the prompt does not begin with it (as chat templates let it).
   */
  encodePrompt(text: string): number[] {
    const ids = this.encode(text);
    this.#bosFirst ??= this.encode("", { addSpecialTokens: true })[0] === this.bosTokenId;
    const { bosTokenId } = this;
    return !this.#bosFirst || bosTokenId === undefined || ids[0] === bosTokenId ? ids : [bosTokenId, ...ids];
  }

  /**
   * Text of ids. Ids without a token (a model's vocabulary may be larger) are left out, broken UTF-8 becomes U+FFFD;
   * `skipSpecialTokens` (default false) leaves special tokens out.
   */
  decode(ids: ArrayLike<number>, { skipSpecialTokens = false }: { skipSpecialTokens?: boolean } = {}): string {
    checkNumbers(ids, "ids");
    const known = Array.from(ids).filter((id) => this.#encoder.id_to_token(id) !== undefined);
    if (known.length === 0) return "";
    return this.#run("decode ids", () => this.#encoder.decode(known, { skip_special_tokens: skipSpecialTokens }));
  }

  /** What the encoder throws on a file that it took, but cannot work with. */
  #run<T>(what: string, work: () => T): T {
    try {
      return work();
    } catch (cause) {
      return fail("ERR_TOKENIZER_INVALID", `${this.file} cannot ${what}: ${(cause as Error).message}`, cause);
    }
  }

  /** tokenizer.json with the tokens that were added. @internal */
  get json(): object {
    return this.#files.tokenizer;
  }

  /** Text and id of the tokens beside the vocabulary: special ones, tags. Each is one token wherever a text spells it. */
  get addedTokens(): ReadonlyMap<string, number> {
    return (this.#added ??= new Map(this.#files.tokenizer.added_tokens.map(({ content, id }) => [content, id])));
  }

  /** Id of a token by its entry in the vocabulary, e.g. `<search>`; undefined where there is none. */
  tokenId(token: string): number | undefined {
    return this.#encoder.token_to_id(token);
  }

  /**
   * The bytes of each id, [vocabularySize] (do not change them); an id without a token has none. A decoder other than
   * ByteLevel and byte fallback -> ERR_TOKENIZER_UNSUPPORTED.
   */
  tokenBytes(): readonly Uint8Array[] {
    return (this.#bytes ??= tokenBytesOf(this.#files.tokenizer, this.vocabularySize, this.file));
  }

  /**
   * A conversation as the checkpoint's chat template writes it; encode it without special tokens. No template ->
   * ERR_TOKENIZER_NO_TEMPLATE; one that does not parse or refuses the messages -> ERR_TOKENIZER_TEMPLATE.
   *
   * @example
   * tokenizer.applyChatTemplate([{ role: "user", content: "Who?" }], { addGenerationPrompt: true });
   */
  applyChatTemplate(messages: readonly ChatMessage[], options: ChatTemplateOptions = {}): string {
    const source = this.#files.chatTemplate;
    if (source === undefined) {
      fail("ERR_TOKENIZER_NO_TEMPLATE", `Expected a chat_template beside ${this.file}; write the prompt as plain text`);
    }
    const names = ["bos_token", "eos_token", "pad_token", "unk_token"];
    const tokens = names.map((name) => [name, this.#tokenText(name)]).filter(([, text]) => text !== undefined);
    try {
      this.#template ??= new Template(source);
      return this.#template.render({
        ...(Object.fromEntries(tokens) as Record<string, string>),
        ...options.variables,
        messages,
        add_generation_prompt: options.addGenerationPrompt ?? false,
      });
    } catch (cause) {
      const what = `Expected messages that fit the chat template beside ${this.file}`;
      return fail("ERR_TOKENIZER_TEMPLATE", `${what}: ${(cause as Error).message}`, cause);
    }
  }

  /** The text of a token that tokenizer_config.json names, e.g. "eos_token". */
  #tokenText(name: string): string | undefined {
    const token = this.#files.config[name] as string | { content?: unknown } | null | undefined;
    const text = typeof token === "object" && token !== null ? token.content : token;
    return typeof text === "string" ? text : undefined;
  }

  #namedToken(kind: string): number | undefined {
    const text = this.#tokenText(`${kind}_token`);
    return text === undefined ? undefined : this.tokenId(text);
  }

  /** Ids of bos, eos or pad: as the model's configuration has them, else as tokenizer_config.json does. */
  #special(kind: string): number[] {
    const configured = this.#files.ids[`${kind}_token_id`];
    const ids = (Array.isArray(configured) ? configured : [configured]).filter((id) =>
      Number.isInteger(id),
    ) as number[];
    const named = this.#namedToken(kind);
    if (ids.length > 0) return ids;
    return named === undefined ? [] : [named];
  }
}

/**
 * Loads tokenizer.json of a checkpoint directory, with tokenizer_config.json, generation_config.json, config.json and
 * chat_template.jinja where they are there. A file that is missing, cut, or not what it should be -> ERR_TOKENIZER_*. Each text of `addTokens`
 * is an atomic token beside those of the file, with the next ids.
 *
 * @example
 * const tokenizer = await loadTokenizer("checkpoints/Qwen2.5-0.5B");
 * tokenizer.decode(tokenizer.encode("Hello")); // "Hello"
 */
export async function loadTokenizer(
  directory: string,
  { addTokens: texts = [] }: { addTokens?: readonly string[] } = {},
): Promise<Tokenizer> {
  checkPath(directory, "directory");
  return new Tokenizer(addTokens(await readTokenizerFiles(directory), texts).files);
}
