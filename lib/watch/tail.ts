import { open, stat } from "node:fs/promises";

/** What {@link JsonLinesTail.poll} found. */
export interface TailNews {
  /** The file is another, or shorter, or gone: what was read before counts no more. */
  reset: boolean;
  /** New whole lines, parsed. */
  lines: Record<string, unknown>[];
}

const CHUNK = 4 << 20;
/** Bytes before the place read to that must be as they were, or the file was written anew. */
const WITNESS = 64;

/**
 * The lines of a file of JSON that another process appends to. Each poll reads what is new, and nothing where the file's size, time and inode are as
 * they were. A line without its line feed is left for the next poll; a line that is no JSON object is counted and left out.
 */
export class JsonLinesTail {
  /** Lines left out. */
  broken = 0;
  readonly #file: string;
  #stamp = "";
  #inode = 0;
  #offset = 0;
  #rest: Buffer = Buffer.alloc(0);
  #witness: Buffer = Buffer.alloc(0);

  constructor(file: string) {
    this.#file = file;
  }

  async poll(): Promise<TailNews> {
    const found = await stat(this.#file).catch(() => undefined);
    const stamp = found === undefined ? "" : `${found.ino} ${found.size} ${found.mtimeMs}`;
    if (stamp === this.#stamp) return { reset: false, lines: [] };
    let reset = false;
    const begun = this.#offset > 0;
    if (found === undefined || found.ino !== this.#inode || found.size < this.#offset) reset = begun;
    const lines: Record<string, unknown>[] = [];
    if (found === undefined || reset || found.ino !== this.#inode) this.#forget();
    if (found !== undefined) {
      this.#inode = found.ino;
      // The file may go between the two calls: the next poll sees that.
      const handle = await open(this.#file).catch(() => undefined);
      if (handle === undefined) return { reset, lines };
      try {
        if (this.#witness.length > 0) {
          const length = this.#witness.length;
          const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, this.#offset - length);
          if (!buffer.subarray(0, bytesRead).equals(this.#witness)) {
            reset = true;
            this.#forget();
          }
        }
        for (;;) {
          const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafe(CHUNK), 0, CHUNK, this.#offset);
          if (bytesRead === 0) break;
          this.#offset += bytesRead;
          this.#take(buffer.subarray(0, bytesRead), lines);
        }
      } finally {
        await handle.close();
      }
    }
    this.#stamp = stamp;
    return { reset, lines };
  }

  #forget(): void {
    this.broken = 0;
    this.#offset = 0;
    this.#rest = Buffer.alloc(0);
    this.#witness = Buffer.alloc(0);
  }

  #take(chunk: Buffer, lines: Record<string, unknown>[]): void {
    const all = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    this.#witness = Buffer.from(all.subarray(-WITNESS));
    const end = all.lastIndexOf(10);
    this.#rest = Buffer.from(all.subarray(end + 1));
    if (end < 0) return;
    for (const text of all.toString("utf8", 0, end).split("\n")) {
      if (text.trim() === "") continue;
      const value = parsed(text);
      if (typeof value === "object" && value !== null && !Array.isArray(value)) lines.push(value as (typeof lines)[0]);
      else this.broken++;
    }
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
