import type { RoleRouter } from "./router.js";

/** A span that has been closed: which one, and the bytes between its tags. */
export interface TrackedCall {
  span: number;
  text: Uint8Array;
}

/**
 * The router of one sequence, token by token, for tokens that another engine samples. native/model/role_router.h is its twin: a tag matches
 * wherever its bytes end, also within a token, whose other bytes then belong to what comes after the tag.
 *
 * @internal
 */
export class RoleTracker {
  readonly #router: RoleRouter;
  readonly #opening: TagMatcher[];
  readonly #closing: TagMatcher[];
  readonly #opens: readonly Uint8Array[];
  #open = -1;
  #text: number[] = [];

  constructor(router: RoleRouter) {
    const encoder = new TextEncoder();
    this.#router = router;
    this.#opens = router.spans.map(({ open }) => encoder.encode(open));
    this.#opening = this.#opens.map((tag) => new TagMatcher(tag));
    this.#closing = router.spans.map(({ close }) => new TagMatcher(encoder.encode(close)));
  }

  /** The role of the last position, by index: whose adapter predicts the next token. */
  get role(): number {
    const { roles, base, spans } = this.#router;
    return roles.indexOf(spans[this.#open]?.role ?? base);
  }

  /** Takes in a sampled token; the calls that it completes. */
  sampled(bytes: Uint8Array): TrackedCall[] {
    const calls: TrackedCall[] = [];
    for (const byte of bytes) {
      if (this.#open < 0) {
        const opened = this.#opening.findIndex((matcher) => matcher.feed(byte));
        if (opened >= 0) this.#enter(opened);
        continue;
      }
      this.#text.push(byte);
      const closing = this.#closing[this.#open] as TagMatcher;
      if (!closing.feed(byte)) {
        this.#takeOver();
        continue;
      }
      const text = Uint8Array.from(this.#text.slice(0, this.#text.length - closing.length));
      if (this.#router.spans[this.#open]?.call ?? true) calls.push({ span: this.#open, text });
      this.#enter(-1);
    }
    return calls;
  }

  /** Takes in a token that was not sampled: it ends any span. */
  given(): void {
    this.#enter(-1);
  }

  #enter(span: number): void {
    this.#open = span;
    this.#text = [];
    for (const matcher of [...this.#opening, ...this.#closing]) matcher.reset();
  }

  /** The text goes on from the opening tag to a longer one that begins with it. */
  #takeOver(): void {
    const now = this.#opens[this.#open] as Uint8Array;
    const longer = this.#opens.findIndex(
      (tag) =>
        tag.length === now.length + this.#text.length &&
        now.every((byte, i) => tag[i] === byte) &&
        this.#text.every((byte, i) => tag[now.length + i] === byte),
    );
    if (longer >= 0) this.#enter(longer);
  }
}

/** Finds a tag in a stream of bytes (Knuth, Morris, Pratt). */
class TagMatcher {
  readonly #tag: Uint8Array;
  readonly #fallback: Int32Array;
  #state = 0;

  constructor(tag: Uint8Array) {
    this.#tag = tag;
    this.#fallback = new Int32Array(tag.length + 1);
    for (let i = 1, k = 0; i < tag.length; i++) {
      while (k > 0 && tag[i] !== tag[k]) k = this.#fallback[k] as number;
      if (tag[i] === tag[k]) k++;
      this.#fallback[i + 1] = k;
    }
  }

  get length(): number {
    return this.#tag.length;
  }

  /** True where this byte completes the tag. */
  feed(byte: number): boolean {
    while (this.#state > 0 && this.#tag[this.#state] !== byte) this.#state = this.#fallback[this.#state] as number;
    if (this.#tag[this.#state] === byte) this.#state++;
    if (this.#state < this.#tag.length) return false;
    this.#state = 0;
    return true;
  }

  reset(): void {
    this.#state = 0;
  }
}
