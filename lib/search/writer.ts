import { createHash } from "node:crypto";
import { closeSync, fsyncSync, openSync, readSync, writeSync } from "node:fs";

/** Writes a file from its start, in large pieces, and knows its SHA-256. */
export class HashedFile {
  readonly #file: number;
  readonly #hash = createHash("sha256");
  readonly #buffer = Buffer.allocUnsafe(2 ** 20);
  #held = 0;
  /** So far. */
  bytes = 0;

  constructor(path: string) {
    this.#file = openSync(path, "wx");
  }

  write(data: Uint8Array): void {
    this.bytes += data.length;
    if (this.#held + data.length > this.#buffer.length) this.#flush();
    if (data.length > this.#buffer.length) this.#put(data);
    else {
      this.#buffer.set(data, this.#held);
      this.#held += data.length;
    }
  }

  /** Onto the disk. */
  end(): { bytes: number; sha256: string } {
    this.#flush();
    fsyncSync(this.#file);
    return { bytes: this.bytes, sha256: this.#hash.digest("hex") };
  }

  close(): void {
    closeSync(this.#file);
  }

  #flush(): void {
    this.#put(this.#buffer.subarray(0, this.#held));
    this.#held = 0;
  }

  #put(data: Uint8Array): void {
    this.#hash.update(data);
    writeAll(this.#file, data);
  }
}

export function writeAll(file: number, data: Uint8Array): void {
  for (let at = 0; at < data.length;) at += writeSync(file, data, at, Math.min(data.length - at, 2 ** 28));
}

/** Fills `into` from a position of a file; false where the file ends before. */
export function readAll(file: number, into: Uint8Array, position: number): boolean {
  for (let at = 0; at < into.length;) {
    const read = readSync(file, into, at, into.length - at, position + at);
    if (read === 0) return false;
    at += read;
  }
  return true;
}

/** The bytes of a typed array. */
export function bytesOf(array: Float64Array | Uint32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** A list of numbers, 8 or 4 bytes each. */
export class Numbers<A extends Float64Array<ArrayBuffer> | Uint32Array<ArrayBuffer>> {
  #array: A;
  readonly #make: (length: number) => A;
  length = 0;

  constructor(make: (length: number) => A) {
    this.#make = make;
    this.#array = make(1024);
  }

  push(value: number): void {
    if (this.length === this.#array.length) {
      const grown = this.#make(2 * this.length);
      grown.set(this.#array);
      this.#array = grown;
    }
    this.#array[this.length++] = value;
  }

  /** What was pushed; a view. */
  get values(): A {
    return this.#array.subarray(0, this.length) as A;
  }
}

export const floats = (): Numbers<Float64Array<ArrayBuffer>> => new Numbers((length) => new Float64Array(length));
export const integers = (): Numbers<Uint32Array<ArrayBuffer>> => new Numbers((length) => new Uint32Array(length));
