// The postings of a term: passages that hold it, ascending, and how often each does. In blocks of 128, each posting as a varint of
// 2 * (distance from the passage before it, across blocks; the first from -1) + (frequency > 1), with the frequency as a second varint where it is. With more
// than one block the term begins with u32 [blocks] last passages and u32 [blocks] ends of blocks, counted from the first block.

export const BLOCK = 128;
/** Beyond every passage; also their limit, as twice a distance is a u32. */
export const END = 2 ** 31 - 1;

/** Writes the postings of one term after another. */
export class PostingsEncoder {
  #bytes = new Uint8Array(2 ** 16);
  #lastDocuments: number[] = [];
  #ends: number[] = [];
  #length = 0;
  #count = 0;
  #last = -1;

  add(document: number, frequency: number): void {
    if (this.#count === BLOCK) this.#endBlock();
    if (this.#length + 10 > this.#bytes.length) {
      const grown = new Uint8Array(2 * this.#bytes.length);
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    const distance = document - this.#last;
    this.#varint(2 * distance + (frequency > 1 ? 1 : 0));
    if (frequency > 1) this.#varint(frequency);
    this.#last = document;
    this.#count++;
  }

  /** The bytes of the postings since the last call; the encoder is empty after it. */
  take(): Buffer {
    this.#endBlock();
    const data = Buffer.from(this.#bytes.subarray(0, this.#length));
    const blocks = this.#ends.length;
    let whole = data;
    if (blocks > 1) {
      const skips = Uint32Array.from([...this.#lastDocuments, ...this.#ends]);
      whole = Buffer.concat([new Uint8Array(skips.buffer), data]);
    }
    this.#lastDocuments = [];
    this.#ends = [];
    this.#length = 0;
    this.#last = -1;
    return whole;
  }

  #endBlock(): void {
    this.#lastDocuments.push(this.#last);
    this.#ends.push(this.#length);
    this.#count = 0;
  }

  #varint(value: number): void {
    while (value > 127) {
      this.#bytes[this.#length++] = (value & 127) | 128;
      value >>>= 7;
    }
    this.#bytes[this.#length++] = value;
  }
}

/** The postings of a term as they lie in the file. */
export class PostingList {
  readonly count: number;
  readonly blocks: number;
  readonly data: Uint8Array;
  /** Last passage of each block. */
  readonly lastDocuments: Uint32Array;
  readonly #ends: Uint32Array;

  constructor(bytes: Uint8Array, count: number) {
    this.count = count;
    this.blocks = Math.ceil(count / BLOCK);
    const skips = this.blocks > 1 ? this.blocks : 0;
    const copy = bytes.slice(0, 8 * skips).buffer;
    this.data = bytes.subarray(8 * skips);
    // One block needs no numbers: it ends where the data do, and is the only one to look in.
    this.lastDocuments = skips > 0 ? new Uint32Array(copy, 0, skips) : Uint32Array.of(END - 1);
    this.#ends = skips > 0 ? new Uint32Array(copy, 4 * skips, skips) : Uint32Array.of(this.data.length);
  }

  /** The block, from `from` on, that may hold the passage; `blocks` where none does. */
  blockOf(document: number, from = 0): number {
    let low = from;
    let high = this.blocks;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.lastDocuments[middle]! < document) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Reads a block; returns how many postings it has. */
  decode(block: number, documents: Int32Array, frequencies: Int32Array): number {
    const { data } = this;
    const count = block === this.blocks - 1 ? this.count - block * BLOCK : BLOCK;
    let at = block === 0 ? 0 : this.#ends[block - 1]!;
    let document = block === 0 ? -1 : this.lastDocuments[block - 1]!;
    for (let i = 0; i < count; i++) {
      let byte = data[at++]!;
      let value = byte & 127;
      for (let shift = 7; byte > 127; shift += 7) {
        byte = data[at++]!;
        value |= (byte & 127) << shift;
      }
      value >>>= 0;
      document += value >>> 1;
      let frequency = 1;
      if ((value & 1) === 1) {
        byte = data[at++]!;
        frequency = byte & 127;
        for (let shift = 7; byte > 127; shift += 7) {
          byte = data[at++]!;
          frequency |= (byte & 127) << shift;
        }
      }
      documents[i] = document;
      frequencies[i] = frequency;
    }
    return count;
  }
}

/** Goes through a {@link PostingList}, forwards only. */
export class Cursor {
  readonly list: PostingList;
  readonly documents = new Int32Array(BLOCK);
  readonly frequencies = new Int32Array(BLOCK);
  /** Where it stands; {@link END} behind the last. */
  document = END;
  #block = -1;
  #at = 0;
  #count = 0;

  constructor(list: PostingList) {
    this.list = list;
    this.#load(0);
  }

  get frequency(): number {
    return this.frequencies[this.#at]!;
  }

  next(): void {
    if (++this.#at < this.#count) this.document = this.documents[this.#at]!;
    else this.#load(this.#block + 1);
  }

  /** To the first passage at or behind `target`. */
  advance(target: number): void {
    if (this.document >= target) return;
    if (this.list.lastDocuments[this.#block]! < target) {
      this.#load(this.list.blockOf(target, this.#block + 1));
    }
    while (this.document < target) this.next();
  }

  #load(block: number): void {
    this.#block = block;
    this.#at = 0;
    this.#count = block < this.list.blocks ? this.list.decode(block, this.documents, this.frequencies) : 0;
    this.document = this.#count === 0 ? END : this.documents[0]!;
  }
}
