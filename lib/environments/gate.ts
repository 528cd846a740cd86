type Open = () => void;

/** Lets so many through at once, the others in their order; who has waited before and comes back goes first. */
export class Gate {
  /** Those that are through. */
  inside = 0;
  readonly #limit: number;
  // Sets: they keep the order, and one that gives up leaves at once.
  readonly #returning = new Set<Open>();
  readonly #waiting = new Set<Open>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  get queued(): number {
    return this.#returning.size + this.#waiting.size;
  }

  /** Resolves inside; each needs a {@link leave}. An abort while it waits rejects with the signal's reason. */
  async enter(signal: AbortSignal, returning = false): Promise<void> {
    signal.throwIfAborted();
    if (this.inside < this.#limit) {
      this.inside++;
      return;
    }
    const queue = returning ? this.#returning : this.#waiting;
    await new Promise<void>((resolve, reject) => {
      const open = (): void => {
        signal.removeEventListener("abort", give);
        resolve();
      };
      const give = (): void => {
        queue.delete(open);
        reject(signal.reason as Error);
      };
      queue.add(open);
      signal.addEventListener("abort", give, { once: true });
    });
  }

  leave(): void {
    const queue = this.#returning.size > 0 ? this.#returning : this.#waiting;
    const [next] = queue;
    if (next === undefined) {
      this.inside--;
      return;
    }
    queue.delete(next);
    next(); // takes the place: `inside` stays
  }
}
