import type { ToolResult } from "./types.js";

/** Results by key, the least recently used go first. */
export class ResultCache {
  /** Bytes of what is held: keys and results as JSON in UTF-8. Counted where there is a bound on it. */
  bytes = 0;
  readonly #held = new Map<string, { result: ToolResult; bytes: number }>();
  readonly #maxEntries: number;
  readonly #maxBytes: number;

  constructor({ maxEntries = Infinity, maxBytes = Infinity }: { maxEntries?: number; maxBytes?: number }) {
    this.#maxEntries = maxEntries;
    this.#maxBytes = maxBytes;
  }

  get size(): number {
    return this.#held.size;
  }

  get(key: string): ToolResult | undefined {
    const entry = this.#held.get(key);
    if (entry === undefined) return undefined;
    this.#held.delete(key);
    this.#held.set(key, entry); // a Map keeps the order of insertion: this is now the last
    return entry.result;
  }

  set(key: string, result: ToolResult): void {
    const counted = this.#maxBytes < Infinity;
    const bytes = counted ? Buffer.byteLength(key) + Buffer.byteLength(JSON.stringify(result)) : 0;
    this.#remove(key);
    if (bytes > this.#maxBytes) return; // would push out all the others and still not fit
    this.#held.set(key, { result, bytes });
    this.bytes += bytes;
    for (const oldest of this.#held.keys()) {
      if (this.#held.size <= this.#maxEntries && this.bytes <= this.#maxBytes) break;
      this.#remove(oldest);
    }
  }

  clear(): void {
    this.#held.clear();
    this.bytes = 0;
  }

  #remove(key: string): void {
    this.bytes -= this.#held.get(key)?.bytes ?? 0;
    this.#held.delete(key);
  }
}
