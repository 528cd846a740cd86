import { checkArray, checkObject, describe } from "../arguments.js";
import { fail } from "../errors.js";
import type { Model } from "../model/model.js";
import { readSafetensorsHeader, type TensorData } from "../model/safetensors.js";

/** The group of trained token rows, where adapters are listed by name. */
export const TOKENS = "tokens";

/** The trained row of a token. */
export interface TokenRow {
  /** [hiddenSize] */
  embedding: Float32Array;
  /** [hiddenSize]; absent where the head is the embedding. */
  head?: Float32Array;
}

/** Ids and rows of an adapter directory: embedding and head are [ids, hiddenSize]. */
export interface SavedTokens {
  ids: number[];
  embedding: Float32Array;
  head: Float32Array | undefined;
  /** Texts of the ids, where the directory says. */
  texts: Record<string, number>;
}

/** Increasing ids of tokens given as ids or as the tokenizer's entries. ERR_NO_TOKEN, ERR_TOKEN_RANGE. */
export function tokenIds(model: Model, tokens: readonly (number | string)[]): number[] {
  const list: unknown = tokens;
  if (!Array.isArray(list)) fail("ERR_INVALID_ARGUMENT", `Expected a list of tokens but received ${describe(list)}`);
  return [...new Set(tokens.map((token) => tokenId(model, token)))].sort((a, b) => a - b);
}

export function tokenId(model: Model, token: number | string): number {
  const { vocabSize } = model.config;
  const id = typeof token === "string" ? model.tokenizer?.tokenId(token) : token;
  if (id === undefined)
    fail(
      "ERR_NO_TOKEN",
      `Expected a token of the tokenizer of ${model.name} but received ${describe(token)}: ` +
        "loadModel's addTokens makes it one",
    );
  if (!Number.isInteger(id) || id < 0 || id >= vocabSize)
    fail("ERR_TOKEN_RANGE", `Expected token ids below ${vocabSize} but received ${describe(token)}`);
  return id;
}

/** One token's part of flat rows: [n, H], or with a head of its own [2 n, H], embedding first. */
export function rowOf(model: Model, flat: Float32Array, index: number): TokenRow {
  const { tied, hiddenSize } = model.config;
  const row = (i: number): Float32Array => flat.slice(i * hiddenSize, (i + 1) * hiddenSize);
  const count = flat.length / hiddenSize / (tied ? 1 : 2);
  return { embedding: row(index), ...(tied ? {} : { head: row(count + index) }) };
}

/** Puts one token's row into flat rows. */
export function setRow(model: Model, flat: Float32Array, index: number, row: TokenRow): void {
  checkObject(row, "row");
  const { tied, hiddenSize } = model.config;
  const count = flat.length / hiddenSize / (tied ? 1 : 2);
  checkArray(row.embedding, Float32Array, "embedding");
  if (tied !== (row.head === undefined))
    fail(
      "ERR_SHAPE",
      `Expected ${tied ? "no head row: it is the embedding's" : "a head row as well"} in ${model.name}`,
    );
  if (row.head !== undefined) checkArray(row.head, Float32Array, "head");
  for (const part of [row.embedding, row.head])
    if (part !== undefined && part.length !== hiddenSize)
      fail("ERR_SHAPE", `Expected rows of ${hiddenSize} values but received ${part.length}`);
  flat.set(row.embedding, index * hiddenSize);
  if (row.head !== undefined) flat.set(row.head, (count + index) * hiddenSize);
}

const KEY = /^base_model\.model\.(model\.embed_tokens|lm_head)\.(?:token_adapter\.)?trainable_tokens_delta$/;

/** Takes the token rows out of an adapter's tensors. PEFT's "delta" is the row itself, not a difference. */
export function takeTokens(
  file: string,
  configured: readonly number[] | Record<string, readonly number[]> | null | undefined,
  tensors: Map<string, { shape: number[]; data: Float32Array }>,
): SavedTokens | undefined {
  const found = new Map<string, { shape: number[]; data: Float32Array }>();
  for (const [name, tensor] of tensors) {
    const part = KEY.exec(name)?.[1];
    if (part === undefined) continue;
    found.set(part, tensor);
    tensors.delete(name);
  }
  if (configured === null || configured === undefined) {
    if (found.size > 0)
      fail("ERR_ADAPTER_INVALID", `Expected trainable_token_indices beside the token rows in ${file}`);
    return undefined;
  }
  const parts = Array.isArray(configured) ? { embed_tokens: configured as number[] } : { ...configured };
  const { embed_tokens: ids, lm_head: headIds, ...others } = parts as Record<string, number[] | undefined>;
  const other = Object.keys(others)[0];
  if (ids === undefined || other !== undefined || (headIds !== undefined && headIds.join() !== ids.join())) {
    fail(
      "ERR_ADAPTER_UNSUPPORTED",
      `${file}: trainable_token_indices other than of embed_tokens, with the same ones of lm_head, is not supported`,
    );
  }
  const embedding = found.get("model.embed_tokens");
  const head = found.get("lm_head");
  for (const part of [embedding, head])
    if (part !== undefined && (part.shape.length !== 2 || part.shape[0] !== ids.length))
      fail(
        "ERR_ADAPTER_INVALID",
        `Expected ${ids.length} token rows in ${file} but received [${part.shape.join(", ")}]`,
      );
  if (embedding === undefined) fail("ERR_ADAPTER_INVALID", `Expected the rows of trainable_token_indices in ${file}`);
  const { tokens } = readSafetensorsHeader(file).metadata;
  return {
    ids,
    embedding: embedding.data,
    head: head?.data,
    texts: tokens === undefined ? {} : readTexts(tokens, file),
  };
}

/** Beyond any vocabulary that a model may have. */
export const mostTokenId = 2 ** 22;

function readTexts(json: string, file: string): Record<string, number> {
  let texts: unknown;
  try {
    texts = JSON.parse(json);
  } catch {
    texts = undefined;
  }
  const known = (id: unknown): boolean => Number.isInteger(id) && (id as number) >= 0 && (id as number) <= mostTokenId;
  if (typeof texts !== "object" || texts === null || Array.isArray(texts) || !Object.values(texts).every(known))
    fail("ERR_ADAPTER_INVALID", `Expected ids by text in the metadata "tokens" of ${file}`);
  return texts as Record<string, number>;
}

/** Token rows as PEFT saves them: its setting, its tensors, and the tokens' texts for {@link checkTexts}. */
export function tokenTensors(
  model: Model,
  ids: readonly number[],
  flat: Float32Array,
): { setting: number[] | Record<string, number[]>; tensors: TensorData[]; metadata: Record<string, string> } {
  const { tied, hiddenSize } = model.config;
  const size = ids.length * hiddenSize;
  const tensor = (part: string, data: Float32Array): TensorData => ({
    name: `base_model.model.${part}.token_adapter.trainable_tokens_delta`,
    dtype: "F32",
    shape: [ids.length, hiddenSize],
    data,
  });
  const tensors = [tensor("model.embed_tokens", flat.subarray(0, size))];
  if (!tied) tensors.push(tensor("lm_head", flat.subarray(size)));
  const texts = Object.fromEntries(ids.map((id) => [model.tokenizer?.decode([id]) ?? "", id]));
  delete texts[""];
  return {
    setting: tied ? [...ids] : { embed_tokens: [...ids], lm_head: [...ids] },
    tensors,
    metadata: { format: "pt", tokens: JSON.stringify(texts) },
  };
}

/** ERR_ADAPTER_INVALID where rows were trained for tokens that this model's tokenizer does not have at their ids. */
export function checkTokens(model: Model, directory: string, { ids, texts }: SavedTokens): void {
  const { tokenizer, config } = model;
  const lost = Object.entries(texts).filter(([text, id]) => tokenizer !== undefined && tokenizer.decode([id]) !== text);
  const beyond = ids.filter((id) => id >= config.vocabSize);
  if (lost.length > 0 || beyond.length > 0) {
    const names = lost.length > 0 ? lost.map(([text, id]) => `${JSON.stringify(text)} (${id})`) : beyond;
    fail(
      "ERR_ADAPTER_INVALID",
      `Expected the tokens ${names.join(", ")} of ${directory} in ${model.name}: load the model with the addTokens that it was trained with`,
    );
  }
}

/** The rows that adapter directories agree on. ERR_ADAPTER_INVALID where two differ: the rows belong to all adapters of a set. */
export function commonTokens(found: { directory: string; tokens: SavedTokens | undefined }[]): SavedTokens | undefined {
  const having = found.filter((each) => each.tokens !== undefined) as { directory: string; tokens: SavedTokens }[];
  const [first] = having;
  for (const { directory, tokens } of having.slice(1)) {
    const a = (first as { tokens: SavedTokens }).tokens;
    const same = (x: Float32Array | undefined, y: Float32Array | undefined): boolean =>
      x?.length === y?.length && (x === undefined || x.every((value, i) => value === y?.[i]));
    if (a.ids.join() !== tokens.ids.join() || !same(a.embedding, tokens.embedding) || !same(a.head, tokens.head)) {
      fail(
        "ERR_ADAPTER_INVALID",
        `Expected the same token rows in ${first?.directory} and ${directory}: adapters that are used together share them`,
      );
    }
  }
  return first?.tokens;
}
