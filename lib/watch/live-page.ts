import { randomUUID } from "node:crypto";
import type { Html } from "../report/html.js";

/** Parts that have changed, for a page that has shown an earlier version. */
export interface Updates {
  version: string;
  /** Id of each part and its markup. */
  parts: [id: string, markup: string][];
}

/** A page that is served: looks at its files when asked to, and knows which parts changed since a version. */
export interface LivePage {
  /** Looks at the files; true where a part changed. */
  refresh(): Promise<boolean>;
  /** The whole document, as of the last refresh. */
  document(): string;
  updates(since: string | null): Updates;
}

/** Parts of a page with the number of the change that each came with. */
export class VersionedParts {
  // Numbers of another process mean nothing here: a page that has them gets everything.
  readonly #instance = randomUUID().slice(0, 8);
  #number = 0;
  readonly #parts = new Map<string, { text: string; number: number }>();

  get version(): string {
    return `${this.#instance}.${this.#number}`;
  }

  /** Takes parts as they are now; true where one is another than before. */
  put(parts: readonly (readonly [id: string, part: Html | undefined])[]): boolean {
    const number = this.#number + 1;
    for (const [id, part] of parts) {
      const text = part?.text ?? "";
      if (this.#parts.get(id)?.text === text) continue;
      this.#parts.set(id, { text, number });
      this.#number = number;
    }
    return this.#number === number;
  }

  since(version: string | null): Updates {
    const [instance, number] = (version ?? "").split(".");
    const after = instance === this.#instance ? Number(number) : -1;
    const changed = [...this.#parts].filter(([, part]) => !(part.number <= after));
    return { version: this.version, parts: changed.map(([id, { text }]) => [id, text]) };
  }
}
