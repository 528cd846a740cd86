import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import path from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { crc32 } from "node:zlib";
import { packageVersion } from "../binding.js";
import { expectScoring, searchedText, words } from "../environments/search.js";
import type { Passage } from "../environments/types.js";
import { fail } from "../errors.js";
import { FORMAT, HEADER, TOKENIZER, VERSION, type IndexFile, type IndexHeader } from "./format.js";
import { PostingsEncoder } from "./postings.js";
import { Bm25 } from "./ranking.js";
import { PostingRuns } from "./runs.js";
import { bytesOf, floats, HashedFile, integers } from "./writer.js";

export interface BuildSearchIndexOptions {
  /** How often the title counts beside the text. @default 1 */
  titleWeight?: number;
  /** @default 1.2 */
  k1?: number;
  /** @default 0.75 */
  b?: number;
  /** Replace an index that is there already; another directory is never replaced. @default false */
  force?: boolean;
  signal?: AbortSignal;
  /** Called every few hundred passages while they are read, then every few thousand terms while postings are merged. */
  onProgress?: (progress: { phase: "read" | "merge"; done: number; total?: number }) => void;
  /** Postings sorted at a time, 20 bytes each. @default 4,194,304 */
  postingsPerRun?: number;
}

/** What {@link buildSearchIndex} wrote. */
export interface BuiltIndex {
  directory: string;
  passages: number;
  tokens: number;
  terms: number;
  /** Of all files of the index. */
  bytes: number;
  seconds: number;
}

const MAX_PASSAGES = 2 ** 30;

/**
 * Writes the passages and their BM25 index into a directory that {@link SearchIndex} opens. It is made beside its place and renamed when it is
 * whole and on the disk: an error or an abort leaves no trace, and an index that was to be replaced as it was. Memory grows
 * with the different tokens and by 16 bytes a passage, not with the text.
 *
 * A directory that exists -> ERR_INDEX_EXISTS; bad settings -> ERR_SEARCH_OPTIONS; the signal's reason where it aborts.
 *
 * @example
 * await buildSearchIndex("passages.index", [{ id: "1", title: "Seine", text: "The Seine runs through Paris." }]);
 * const search = await SearchIndex.open("passages.index");
 */
export async function buildSearchIndex(
  directory: string,
  passages: Iterable<Passage> | AsyncIterable<Passage>,
  options: BuildSearchIndexOptions = {},
): Promise<BuiltIndex> {
  const start = performance.now();
  const { titleWeight = 1, k1 = 1.2, b = 0.75, force = false, signal, onProgress } = options;
  expectScoring({ titleWeight, k1, b });
  signal?.throwIfAborted();
  const place = path.resolve(directory);
  await checkPlace(place, force);
  await mkdir(path.dirname(place), { recursive: true });
  const staging = `${place}.building-${randomUUID()}`;
  await mkdir(staging);
  const builder = new Builder(staging, { titleWeight, k1, b }, options.postingsPerRun ?? 2 ** 22);
  try {
    for await (const passage of passages) {
      builder.add(passage);
      if (builder.passages % 256 > 0) continue;
      onProgress?.({ phase: "read", done: builder.passages });
      await turn();
      signal?.throwIfAborted();
    }
    for (const done of builder.merge()) {
      onProgress?.({ phase: "merge", done, total: builder.postings });
      await turn();
      signal?.throwIfAborted();
    }
    const header = builder.finish();
    builder.close();
    await writeHeader(staging, header);
    signal?.throwIfAborted();
    await putInPlace(staging, place, force);
    const bytes = Object.values(header.files).reduce((sum, file) => sum + file.bytes, 0);
    const { tokens, terms } = header;
    const seconds = (performance.now() - start) / 1000;
    return { directory: place, passages: header.passages, tokens, terms, bytes, seconds };
  } finally {
    builder.close();
    await rm(staging, { recursive: true, force: true });
  }
}

type Scoring = Pick<IndexHeader, "titleWeight" | "k1" | "b">;

class Builder {
  passages = 0;
  readonly #scoring: Scoring;
  readonly #files: Record<IndexFile, HashedFile>;
  readonly #runs: PostingRuns;
  // Numbers of the terms, in the order of their first places.
  readonly #vocabulary = new Map<string, number>();
  // By passage.
  readonly #offsets = floats();
  readonly #checksums = integers();
  readonly #lengths = integers();
  // By term.
  readonly #lists = {
    offsets: floats(),
    maxima: floats(),
    counts: integers(),
    bytes: integers(),
    checksums: integers(),
  };
  // By term, all 0 between passages.
  readonly #frequencies: number[] = [];
  #tokens = 0;
  #meanLength = 0;
  #closed = false;

  constructor(directory: string, scoring: Scoring, postingsPerRun: number) {
    this.#scoring = scoring;
    const file = (name: IndexFile): HashedFile => new HashedFile(path.join(directory, name));
    this.#files = {
      "passages.jsonl": file("passages.jsonl"),
      "documents.bin": file("documents.bin"),
      "terms.bin": file("terms.bin"),
      "postings.bin": file("postings.bin"),
    };
    this.#runs = new PostingRuns(directory, postingsPerRun);
  }

  get postings(): number {
    return this.#runs.total;
  }

  add(passage: Passage): void {
    const document = this.passages;
    if (document === MAX_PASSAGES) fail("ERR_INDEX_SIZE", `Expected at most ${MAX_PASSAGES} passages for an index`);
    const { id, title, text } = passage;
    const line = Buffer.from(`${JSON.stringify(title === undefined ? { id, text } : { id, title, text })}\n`);
    this.#offsets.push(this.#files["passages.jsonl"].bytes);
    this.#checksums.push(crc32(line));
    this.#files["passages.jsonl"].write(line);
    const tokens = words(searchedText(passage, this.#scoring.titleWeight));
    const frequencies = this.#frequencies;
    const terms: number[] = [];
    for (const token of tokens) {
      const term = this.#numberOf(token);
      if (frequencies[term]!++ === 0) terms.push(term);
    }
    for (const term of terms) {
      this.#runs.add(term, document, frequencies[term]!, this.#vocabulary.size);
      frequencies[term] = 0;
    }
    this.#lengths.push(tokens.length);
    this.#tokens += tokens.length;
    // As MiniSearch rounds it, so that scores are the same to the last bit.
    this.#meanLength = (this.#meanLength * document + tokens.length) / (document + 1);
    this.passages++;
  }

  #numberOf(token: string): number {
    let term = this.#vocabulary.get(token);
    if (term === undefined) {
      term = this.#vocabulary.size;
      // A copy: a long token is else a window on its passage, which would stay in memory whole.
      this.#vocabulary.set(Buffer.from(token).toString(), term);
      this.#frequencies.push(0);
    }
    return term;
  }

  /** Writes the postings; yields those written. */
  *merge(): Generator<number> {
    const size = this.#vocabulary.size;
    this.#runs.flush(size);
    const bm25 = new Bm25({ ...this.#scoring, meanLength: this.#meanLength }, this.#lengths.values);
    const encoder = new PostingsEncoder();
    const file = this.#files["postings.bin"];
    let max = 0;
    let sinceYield = 0;
    let done = 0;
    for (let term = 0; term < size; term++) {
      max = 0;
      const count = this.#runs.read(term, (document, frequency) => {
        encoder.add(document, frequency);
        max = Math.max(max, bm25.part(document, frequency));
      });
      const bytes = encoder.take();
      const lists = this.#lists;
      lists.offsets.push(file.bytes);
      lists.maxima.push(max);
      lists.counts.push(count);
      lists.bytes.push(bytes.length);
      lists.checksums.push(crc32(bytes));
      file.write(bytes);
      done += count;
      sinceYield += count + 8;
      if (sinceYield < 2 ** 16) continue;
      sinceYield = 0;
      yield done;
    }
  }

  /** Ends the files. */
  finish(): IndexHeader {
    const documents = this.#files["documents.bin"];
    this.#offsets.push(this.#files["passages.jsonl"].bytes);
    for (const part of [this.#offsets, this.#checksums, this.#lengths]) documents.write(bytesOf(part.values));
    this.#writeTerms();
    const { titleWeight, k1, b } = this.#scoring;
    return {
      format: FORMAT,
      version: VERSION,
      package: packageVersion(),
      tokenizer: TOKENIZER,
      unicode: process.versions["unicode"] ?? "none",
      titleWeight,
      k1,
      b,
      passages: this.passages,
      tokens: this.#tokens,
      meanLength: this.#meanLength,
      terms: this.#vocabulary.size,
      postings: this.postings,
      files: {
        "passages.jsonl": this.#files["passages.jsonl"].end(),
        "documents.bin": documents.end(),
        "terms.bin": this.#files["terms.bin"].end(),
        "postings.bin": this.#files["postings.bin"].end(),
      },
    };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const file of Object.values(this.#files)) file.close();
    this.#runs.close();
  }

  #writeTerms(): void {
    const file = this.#files["terms.bin"];
    const texts = [...this.#vocabulary.keys()].sort();
    const order = Uint32Array.from(texts, (text) => this.#vocabulary.get(text)!);
    const { offsets, maxima, counts, bytes, checksums } = this.#lists;
    for (const { values } of [offsets, maxima]) file.write(bytesOf(Float64Array.from(order, (term) => values[term]!)));
    for (const { values } of [counts, bytes, checksums])
      file.write(bytesOf(Uint32Array.from(order, (term) => values[term]!)));
    const textOffsets = new Uint32Array(texts.length + 1);
    texts.forEach((text, i) => (textOffsets[i + 1] = textOffsets[i]! + Buffer.byteLength(text)));
    file.write(bytesOf(textOffsets));
    for (const text of texts) file.write(Buffer.from(text));
  }
}

async function checkPlace(place: string, force: boolean): Promise<void> {
  if (!existsSync(place)) return;
  const isIndex = existsSync(path.join(place, HEADER));
  if (isIndex && force) return;
  const what = isIndex ? "holds an index: --force (force: true) replaces it" : "is there and no index";
  fail("ERR_INDEX_EXISTS", `Expected a new directory for the index but ${place} ${what}`);
}

/** The last file, so that a directory with a header is whole; what was of use while building goes. */
async function writeHeader(staging: string, header: IndexHeader): Promise<void> {
  for (const name of await readdir(staging)) if (name.startsWith("run-")) await rm(path.join(staging, name));
  const file = await open(path.join(staging, HEADER), "wx");
  try {
    await file.writeFile(`${JSON.stringify(header, null, 2)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await syncDirectory(staging);
}

async function putInPlace(staging: string, place: string, force: boolean): Promise<void> {
  await checkPlace(place, force); // again: building takes a while
  const old = existsSync(place) ? `${place}.replaced-${randomUUID()}` : undefined;
  if (old !== undefined) await rename(place, old);
  try {
    await rename(staging, place);
  } catch (error) {
    if (old !== undefined) await rename(old, place);
    throw error;
  }
  await syncDirectory(path.dirname(place));
  if (old !== undefined) await rm(old, { recursive: true });
}

/** So that names are on the disk too; a system that cannot do that to a directory (Windows) has no need of it. */
async function syncDirectory(directory: string): Promise<void> {
  if (process.platform === "win32") return;
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
