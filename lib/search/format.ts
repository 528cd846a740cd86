import { fail } from "../errors.js";

// An index is a directory. Numbers are little-endian, as every machine that this package runs on has them:
//
//     index.json      what it is, its settings and totals, and the size and SHA-256 of each file below
//     passages.jsonl  the passages, one JSON object a line
//     documents.bin   f64 [passages + 1] where a line begins, u32 [passages] its CRC-32, u32 [passages] its tokens
//     terms.bin       by term, in the order of JavaScript's strings: f64 [terms] where its postings begin, f64 [terms] the most that it adds to a
//                     score before idf, u32 [terms] passages that hold it, u32 [terms] bytes of its postings, u32 [terms] their CRC-32, u32 [terms + 1]
//                     where its text begins; then the texts in UTF-8
//     postings.bin    see postings.ts
export const HEADER = "index.json";
export const FILES = ["passages.jsonl", "documents.bin", "terms.bin", "postings.bin"] as const;
export type IndexFile = (typeof FILES)[number];

export const FORMAT = "rolegrad-search-index";
export const VERSION = 1;
/** The only tokenizer: `words` of environments/search.ts. */
export const TOKENIZER = "words";

/** index.json. */
export interface IndexHeader {
  format: typeof FORMAT;
  version: typeof VERSION;
  package: string;
  tokenizer: typeof TOKENIZER;
  /** Of the tables that decided what a letter is. */
  unicode: string;
  titleWeight: number;
  k1: number;
  b: number;
  passages: number;
  /** Tokens of all passages, titles as often as they count. */
  tokens: number;
  /** Tokens a passage, as SearchEnvironment rounds it. */
  meanLength: number;
  /** Different tokens. */
  terms: number;
  /** Pairs of a term and a passage that holds it. */
  postings: number;
  files: Record<IndexFile, { bytes: number; sha256: string }>;
}

/** A header from the text of index.json. What is none -> ERR_INDEX_FORMAT. */
export function parseHeader(text: string, file: string): IndexHeader {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    fail("ERR_INDEX_DAMAGED", `Expected JSON in ${file}: ${(cause as Error).message}`, cause);
  }
  const header = (typeof value === "object" && value !== null ? value : {}) as Partial<
    Record<keyof IndexHeader, unknown>
  >;
  if (header.format !== FORMAT)
    fail("ERR_INDEX_FORMAT", `Expected the header of a search index in ${file} but it is another file`);
  if (header.version !== VERSION || header.tokenizer !== TOKENIZER) {
    const received = `version ${String(header.version)} with tokenizer ${String(header.tokenizer)}`;
    const wanted = `a search index of version ${VERSION} with tokenizer ${TOKENIZER}`;
    fail(
      "ERR_INDEX_FORMAT",
      `Expected ${wanted} in ${file} but received ${received}; build it again with rolegrad index`,
    );
  }
  const totals = ["passages", "tokens", "terms", "postings"];
  for (const name of ["titleWeight", "k1", "b", "meanLength", ...totals] as (keyof IndexHeader)[]) {
    const value = header[name];
    if (typeof value === "number" && value >= 0 && (Number.isSafeInteger(value) || !totals.includes(name))) continue;
    const wanted = totals.includes(name) ? "an integer of 0 or more" : "a number of 0 or more";
    fail("ERR_INDEX_DAMAGED", `Expected ${wanted} for ${name} in ${file} but received ${JSON.stringify(value)}`);
  }
  const files = header.files as Partial<IndexHeader["files"]> | undefined;
  for (const name of FILES) {
    if (typeof files?.[name]?.bytes !== "number" || typeof files[name].sha256 !== "string")
      fail("ERR_INDEX_DAMAGED", `Expected bytes and sha256 of ${name} in ${file}`);
  }
  return header as unknown as IndexHeader;
}

/** documents.bin of n passages: where its parts begin, and its size. */
export function documentParts(n: number): { checksums: number; lengths: number; bytes: number } {
  const checksums = 8 * (n + 1);
  return { checksums, lengths: checksums + 4 * n, bytes: checksums + 8 * n };
}

/** terms.bin of n terms: where its parts begin, those of u32 from `counts` on; the texts are the last. */
export function termParts(n: number): { maxima: number; counts: number; texts: number } {
  return { maxima: 8 * n, counts: 16 * n, texts: 16 * n + 12 * n + 4 * (n + 1) };
}
