import { readFile } from "node:fs/promises";
import path from "node:path";
import { fail } from "../errors.js";

type Json = Record<string, unknown>;

/** An entry of tokenizer.json's `added_tokens`. */
export interface AddedToken extends Json {
  id: number;
  content: string;
  special?: boolean;
}

/** tokenizer.json, checked as far as this package relies on it. */
export interface TokenizerJson extends Json {
  model: Json;
  decoder: Json | null;
  added_tokens: AddedToken[];
}

/** The tokenizer's part of a checkpoint directory; files other than tokenizer.json may be absent. */
export interface TokenizerFiles {
  /** Path of tokenizer.json, for messages. */
  file: string;
  tokenizer: TokenizerJson;
  /** tokenizer_config.json */
  config: Json;
  /** generation_config.json over config.json: the ids of bos, eos and pad. */
  ids: Json;
  chatTemplate: string | undefined;
}

// Twenty times the largest vocabulary in use. A larger id would only make tables of absurd length.
const MAX_TOKEN_ID = 2 ** 22;

// Those that the encoder knows; it would take another for something else.
const MODEL_TYPES = ["BPE", "Unigram", "WordPiece"];

export async function readTokenizerFiles(directory: string): Promise<TokenizerFiles> {
  const file = path.join(directory, "tokenizer.json");
  const tokenizer = await readJson(file);
  if (tokenizer === undefined) {
    fail("ERR_TOKENIZER_NOT_FOUND", `Expected tokenizer.json in ${directory}; download it with the checkpoint`);
  }
  const config = (await readJson(path.join(directory, "tokenizer_config.json"))) ?? {};
  const model = (await readJson(path.join(directory, "config.json"))) ?? {};
  const generation = (await readJson(path.join(directory, "generation_config.json"))) ?? {};
  return {
    file,
    tokenizer: checkTokenizer(tokenizer, file),
    config,
    ids: { ...model, ...withoutNull(generation) },
    chatTemplate: (await readText(path.join(directory, "chat_template.jinja"))) ?? templateOf(config),
  };
}

/** Token and id of every entry of the model's vocabulary: an object (BPE, WordPiece) or a list of pairs (Unigram). */
export function vocabularyOf(model: Json): [token: unknown, id: unknown][] {
  const { vocab } = model;
  if (Array.isArray(vocab)) return vocab.map((entry, id) => [Array.isArray(entry) ? (entry[0] as unknown) : entry, id]);
  return Object.entries(vocab as Json);
}

async function readText(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    return fail("ERR_TOKENIZER_UNREADABLE", `Expected a readable file at ${file}: ${message}`, cause);
  }
}

async function readJson(file: string): Promise<Json | undefined> {
  const text = await readText(file);
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const what = `Expected JSON in ${file}, which may be cut short (${text.length} characters)`;
    fail("ERR_TOKENIZER_JSON", `${what}: ${(cause as Error).message}`, cause);
  }
  if (!isObject(value)) fail("ERR_TOKENIZER_JSON", `Expected a JSON object in ${file} but received ${kindOf(value)}`);
  return value;
}

function checkTokenizer(json: Json, file: string): TokenizerJson {
  const expect = (holds: boolean, wanted: string, field: string, value: unknown): void => {
    if (!holds) {
      fail("ERR_TOKENIZER_INVALID", `Expected ${wanted} for ${field} in ${file} but received ${kindOf(value)}`);
    }
  };
  const { model, decoder = null, added_tokens: added = [] } = json;
  if (!isObject(model)) return fail("ERR_TOKENIZER_INVALID", `Expected an object for model in ${file}`);
  const { type } = model;
  if (type !== undefined && !MODEL_TYPES.includes(type as string)) {
    fail(
      "ERR_TOKENIZER_UNSUPPORTED",
      `Expected one of ${MODEL_TYPES.join(", ")} for model.type in ${file} but received ${kindOf(type)}`,
    );
  }
  expect(isObject(model["vocab"]) || Array.isArray(model["vocab"]), "a vocabulary", "model.vocab", model["vocab"]);
  expect(decoder === null || isObject(decoder), "an object or null", "decoder", decoder);
  expect(Array.isArray(added), "a list", "added_tokens", added);

  const tokens = new Map<number, string>();
  const claim = (field: string, token: unknown, id: unknown): void => {
    expect(typeof token === "string" && token !== "", "a non-empty string", `a token of ${field}`, token);
    const known = Number.isInteger(id) && (id as number) >= 0 && (id as number) < MAX_TOKEN_ID;
    expect(known, `an id from 0 to ${MAX_TOKEN_ID - 1}`, `${JSON.stringify(token)} of ${field}`, id);
    const other = tokens.get(id as number);
    if (other !== undefined && other !== token) {
      const both = `${JSON.stringify(other)} and ${JSON.stringify(token)}`;
      fail("ERR_TOKENIZER_INVALID", `Expected one token an id in ${file} but received ${both} for ${String(id)}`);
    }
    tokens.set(id as number, token as string);
  };
  const vocabulary = vocabularyOf(model);
  for (const [token, id] of vocabulary) claim("model.vocab", token, id);
  const merges = model["merges"];
  if (merges !== undefined) {
    expect(Array.isArray(merges), "a list", "model.merges", merges);
    checkMerges(merges as unknown[], new Set(vocabulary.map(([token]) => token as string)), model, file);
  }
  for (const token of added as unknown[]) {
    expect(isObject(token), "objects", "added_tokens", token);
    claim("added_tokens", (token as Json)["content"], (token as Json)["id"]);
  }
  const nulls = { normalizer: null, pre_tokenizer: null, post_processor: null };
  return { ...nulls, ...json, model, decoder: decoder as Json | null, added_tokens: added as AddedToken[] };
}

function checkMerges(merges: unknown[], vocabulary: Set<string>, model: Json, file: string): void {
  const prefix = typeof model["continuing_subword_prefix"] === "string" ? model["continuing_subword_prefix"] : "";
  merges.forEach((merge, i) => {
    const pair: unknown = typeof merge === "string" ? merge.split(" ", 2) : merge;
    const [a, b] = Array.isArray(pair) ? (pair as unknown[]) : [];
    if (typeof a !== "string" || typeof b !== "string") {
      fail(
        "ERR_TOKENIZER_INVALID",
        `Expected a pair for merge ${i} of model.merges in ${file} but received ${kindOf(merge)}`,
      );
    }
    const missing = [a, b, a + b.slice(prefix.length)].find((token) => !vocabulary.has(token));
    if (missing !== undefined) {
      const what = `Expected ${JSON.stringify(missing)} of merge ${i} in the vocabulary of ${file}`;
      fail("ERR_TOKENIZER_INVALID", `${what}; the file may be cut or edited`);
    }
  });
}

/** The chat template of tokenizer_config.json: a string, or a list of named ones. */
function templateOf(config: Json): string | undefined {
  const template = config["chat_template"];
  if (typeof template === "string") return template;
  if (!Array.isArray(template)) return undefined;
  const named = template.find((entry) => isObject(entry) && entry["name"] === "default") as Json | undefined;
  return typeof named?.["template"] === "string" ? named["template"] : undefined;
}

function withoutNull(object: Json): Json {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== null));
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function kindOf(value: unknown): string {
  if (value === undefined) return "nothing";
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
