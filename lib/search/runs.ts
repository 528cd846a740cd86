import { closeSync, openSync } from "node:fs";
import path from "node:path";
import { bytesOf, readAll, writeAll } from "./writer.js";

/** A run on the disk: (passage, frequency) pairs sorted by term. */
interface Run {
  file: number;
  /** Pairs by term; terms that came later have none. */
  counts: Uint32Array;
  /** Pairs read into `buffer` and how far it is used up. */
  buffer: Uint32Array;
  at: number;
  /** Of the file, in bytes: read so far, and in all. */
  position: number;
  size: number;
}

const READ_NUMBERS = 2 ** 16;

/** Sorts postings by term with bounded memory: in runs on the disk, which are then read side by side. */
export class PostingRuns {
  readonly #directory: string;
  readonly #terms: Uint32Array;
  readonly #documents: Uint32Array;
  readonly #frequencies: Uint32Array;
  readonly #runs: Run[] = [];
  #held = 0;
  /** Added in all. */
  total = 0;

  constructor(directory: string, perRun: number) {
    this.#directory = directory;
    this.#terms = new Uint32Array(perRun);
    this.#documents = new Uint32Array(perRun);
    this.#frequencies = new Uint32Array(perRun);
  }

  /** `terms`: terms there are so far. */
  add(term: number, document: number, frequency: number, terms: number): void {
    if (this.#held === this.#terms.length) this.flush(terms);
    this.#terms[this.#held] = term;
    this.#documents[this.#held] = document;
    this.#frequencies[this.#held++] = frequency;
    this.total++;
  }

  /** Writes a run of what is held: counted, placed, written. */
  flush(terms: number): void {
    const held = this.#held;
    const counts = new Uint32Array(terms);
    for (let i = 0; i < held; i++) counts[this.#terms[i]!]!++;
    const next = new Uint32Array(terms);
    for (let term = 1; term < terms; term++) next[term] = next[term - 1]! + counts[term - 1]!;
    const pairs = new Uint32Array(2 * held);
    for (let i = 0; i < held; i++) {
      const at = 2 * next[this.#terms[i]!]!++;
      pairs[at] = this.#documents[i]!;
      pairs[at + 1] = this.#frequencies[i]!;
    }
    const file = openSync(path.join(this.#directory, `run-${this.#runs.length}`), "wx+");
    this.#runs.push({ file, counts, buffer: new Uint32Array(0), at: 0, position: 0, size: pairs.byteLength });
    writeAll(file, bytesOf(pairs));
    this.#held = 0;
  }

  /** The postings of a term, ascending. Terms must be asked for in their order, each once. */
  read(term: number, sink: (document: number, frequency: number) => void): number {
    let count = 0;
    for (const run of this.#runs) {
      const own = term < run.counts.length ? run.counts[term]! : 0;
      count += own;
      for (let i = 0; i < own; i++) {
        if (run.at === run.buffer.length) fill(run);
        sink(run.buffer[run.at]!, run.buffer[run.at + 1]!);
        run.at += 2;
      }
    }
    return count;
  }

  close(): void {
    for (const { file } of this.#runs) closeSync(file);
    this.#runs.length = 0;
  }
}

function fill(run: Run): void {
  run.buffer = new Uint32Array(Math.min(READ_NUMBERS, (run.size - run.position) / 4));
  if (!readAll(run.file, bytesOf(run.buffer), run.position)) throw new Error("a run on the disk ended early");
  run.position += run.buffer.byteLength;
  run.at = 0;
}
