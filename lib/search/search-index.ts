import { createHash } from "node:crypto";
import { closeSync, existsSync, fstatSync, openSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { crc32 } from "node:zlib";
import { expectCount, numberedPassages, queryTokens, words, type SearchHit } from "../environments/search.js";
import type { Environment, Passage, ToolCall, ToolResult } from "../environments/types.js";
import { fail } from "../errors.js";
import { documentParts, FILES, HEADER, parseHeader, termParts, type IndexFile, type IndexHeader } from "./format.js";
import { PostingList } from "./postings.js";
import { Bm25, rank, type QueryTerm } from "./ranking.js";
import { readAll } from "./writer.js";

export interface SearchIndexOptions {
  /** Passages a call returns. @default 3 */
  topK?: number;
  /** What the model reads; called with at least one passage. @default {@link numberedPassages} */
  format?: (passages: Passage[]) => string;
  /** What the model reads where no passage shares a token with the query. @default "nothing found" */
  nothingFound?: string;
  /** Postings kept in memory between searches, in bytes; those of one query are held in any case. @default 256 MiB */
  cacheBytes?: number;
}

/** True where a directory has the header of an index. */
export function isSearchIndex(directory: string): boolean {
  return existsSync(path.join(directory, HEADER));
}

/** The header of an index, without opening the rest. Errors as {@link SearchIndex.open}. */
export async function readIndexHeader(directory: string): Promise<IndexHeader> {
  const file = path.join(directory, HEADER);
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    const hint = "rolegrad index PASSAGES --out DIR makes one";
    fail(
      "ERR_INDEX_NOT_FOUND",
      `Expected a search index in ${directory} (${hint}): ${(cause as Error).message}`,
      cause,
    );
  }
  return parseHeader(text, file);
}

/**
 * An index that {@link buildSearchIndex} wrote, as an environment: the ids, scores and order of {@link SearchEnvironment} over the same passages, to the
 * last bit, with the passages and most of the index left on the disk. Tokens are those of {@link words}. Any number of processes may have one
 * open. In memory: 16 bytes a passage, 32 bytes and its text a different token, and `cacheBytes`.
 *
 * @example
 * const search = await SearchIndex.open("passages.index");
 * search.search("river in Paris", 3); // [{ passage: { id: "1", … }, score: … }]
 * search.close();
 */
export class SearchIndex implements Environment {
  readonly directory: string;
  readonly header: IndexHeader;
  readonly topK: number;
  /** What the model reads of the passages found. */
  readonly format: (passages: Passage[]) => string;
  /** What it reads where none was found. */
  readonly nothingFound: string;
  readonly #files: { passages: number; postings: number };
  readonly #documents: { offsets: Float64Array; checksums: Uint32Array };
  readonly #terms: Terms;
  readonly #bm25: Bm25;
  readonly #cacheBytes: number;
  // By term; the one used last is the last.
  readonly #lists = new Map<number, PostingList>();
  #held = 0;
  #closed = false;

  private constructor(directory: string, header: IndexHeader, tables: Tables, options: SearchIndexOptions) {
    this.directory = directory;
    this.header = header;
    this.topK = options.topK ?? 3;
    this.format = options.format ?? numberedPassages;
    this.nothingFound = options.nothingFound ?? "nothing found";
    this.#cacheBytes = options.cacheBytes ?? 256 * 2 ** 20;
    const n = header.passages;
    const { checksums, lengths } = documentParts(n);
    this.#documents = {
      offsets: new Float64Array(tables.documents, 0, n + 1),
      checksums: new Uint32Array(tables.documents, checksums, n),
    };
    this.#bm25 = new Bm25(header, new Uint32Array(tables.documents, lengths, n));
    this.#terms = new Terms(tables.terms, header.terms);
    this.#files = { passages: tables.passages, postings: tables.postings };
  }

  /**
   * Reads the tables and checks them: sizes of all files, and the SHA-256 of those that stay in memory. No index -> ERR_INDEX_NOT_FOUND; another
   * file or version -> ERR_INDEX_FORMAT; a file that is missing, cut or changed -> ERR_INDEX_DAMAGED, then or when it is read.
   */
  static async open(directory: string, options: SearchIndexOptions = {}): Promise<SearchIndex> {
    expectCount("topK", options.topK ?? 3);
    const header = await readIndexHeader(directory);
    const files: Partial<Record<IndexFile, number>> = {};
    try {
      for (const name of FILES) files[name] = openFile(directory, name, header.files[name].bytes);
      const tables = {
        documents: await readTable(directory, "documents.bin", header, documentParts(header.passages).bytes),
        terms: await readTable(directory, "terms.bin", header, termParts(header.terms).texts),
        passages: files["passages.jsonl"]!,
        postings: files["postings.bin"]!,
      };
      const index = new SearchIndex(directory, header, tables, options);
      delete files["passages.jsonl"];
      delete files["postings.bin"];
      return index;
    } finally {
      for (const file of Object.values(files)) closeSync(file);
    }
  }

  /** Number of passages. */
  get size(): number {
    return this.header.passages;
  }

  /**
   * The best `k` passages that share a token with the query, by score; equal scores in the order of the passages. Only the
   * first 16,384 characters of a query count. It works on the calling thread; a closed index -> ERR_INDEX_CLOSED.
   */
  search(query: string, k: number = this.topK): SearchHit[] {
    if (this.#closed) fail("ERR_INDEX_CLOSED", `Expected an open index but ${this.directory} was closed`);
    expectCount("k", k);
    const terms: QueryTerm[] = [];
    for (const [token, times] of queryTokens(query, words)) {
      const term = this.#terms.find(token);
      if (term < 0) continue;
      const list = this.#list(term);
      const idf = Bm25.idf(this.size, list.count);
      terms.push({ list, times, idf, bound: times * (idf * this.#terms.maxima[term]!) });
    }
    const ranked = rank(terms, k, this.#bm25);
    this.#shrink();
    return ranked.map(({ document, score }) => ({ passage: this.#passage(document), score }));
  }

  // Async, so that what a search throws is a rejection.
  async act(call: Pick<ToolCall, "text">): Promise<ToolResult> {
    const passages = this.search(call.text).map((hit) => hit.passage);
    return { text: passages.length === 0 ? this.nothingFound : this.format(passages), passages };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#files.passages);
    closeSync(this.#files.postings);
    this.#lists.clear();
  }

  #list(term: number): PostingList {
    let list = this.#lists.get(term);
    if (list === undefined) {
      const { offsets, bytes, checksums, counts } = this.#terms;
      const data = this.#read("postings.bin", this.#files.postings, offsets[term]!, bytes[term]!, checksums[term]!);
      list = new PostingList(data, counts[term]!);
      this.#held += list.data.length;
    } else this.#lists.delete(term);
    this.#lists.set(term, list);
    return list;
  }

  #shrink(): void {
    for (const [term, { data }] of this.#lists) {
      if (this.#held <= this.#cacheBytes) return;
      this.#lists.delete(term);
      this.#held -= data.length;
    }
  }

  #passage(document: number): Passage {
    const { offsets, checksums } = this.#documents;
    const begin = offsets[document]!;
    const length = offsets[document + 1]! - begin;
    const line = this.#read("passages.jsonl", this.#files.passages, begin, length, checksums[document]!);
    return JSON.parse(line.toString("utf8")) as Passage;
  }

  #read(name: IndexFile, file: number, begin: number, length: number, checksum: number): Buffer {
    const data = Buffer.allocUnsafeSlow(length);
    if (!readAll(file, data, begin) || crc32(data) !== checksum)
      damaged(this.directory, name, `bytes ${begin} to ${begin + length} are not those that were written`);
    return data;
  }
}

interface Tables {
  documents: ArrayBuffer;
  terms: ArrayBuffer;
  /** Open files. */
  passages: number;
  postings: number;
}

/** terms.bin in memory. */
class Terms {
  readonly offsets: Float64Array;
  readonly maxima: Float64Array;
  readonly counts: Uint32Array;
  readonly bytes: Uint32Array;
  readonly checksums: Uint32Array;
  readonly #textOffsets: Uint32Array;
  readonly #texts: Buffer;

  constructor(table: ArrayBuffer, n: number) {
    const parts = termParts(n);
    this.offsets = new Float64Array(table, 0, n);
    this.maxima = new Float64Array(table, parts.maxima, n);
    this.counts = new Uint32Array(table, parts.counts, n);
    this.bytes = new Uint32Array(table, parts.counts + 4 * n, n);
    this.checksums = new Uint32Array(table, parts.counts + 8 * n, n);
    this.#textOffsets = new Uint32Array(table, parts.counts + 12 * n, n + 1);
    this.#texts = Buffer.from(table, parts.texts);
  }

  /** The number of a term, or -1. */
  find(text: string): number {
    let low = 0;
    let high = this.counts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const there = this.#texts.toString("utf8", this.#textOffsets[middle], this.#textOffsets[middle + 1]);
      if (there === text) return middle;
      if (there < text) low = middle + 1;
      else high = middle;
    }
    return -1;
  }
}

function openFile(directory: string, name: IndexFile, bytes: number): number {
  let file: number;
  try {
    file = openSync(path.join(directory, name), "r");
  } catch (cause) {
    return damaged(directory, name, (cause as Error).message, cause);
  }
  const { size } = fstatSync(file);
  if (size === bytes) return file;
  closeSync(file);
  return damaged(directory, name, `it has ${size} bytes and should have ${bytes}`);
}

/** A whole file whose SHA-256 is the header's. */
async function readTable(directory: string, name: IndexFile, header: IndexHeader, least: number): Promise<ArrayBuffer> {
  const { bytes, sha256 } = header.files[name];
  if (bytes < least) damaged(directory, name, `it has ${bytes} bytes, too few for the totals of ${HEADER}`);
  const data = new Uint8Array(await readFile(path.join(directory, name)));
  const own = createHash("sha256").update(data).digest("hex");
  if (own !== sha256) damaged(directory, name, "its SHA-256 is not that of the header");
  return data.buffer;
}

function damaged(directory: string, name: string, what: string, cause?: unknown): never {
  return fail(
    "ERR_INDEX_DAMAGED",
    `Expected ${path.join(directory, name)} as it was built but ${what}; build the index again`,
    cause,
  );
}
