import type { ServerResponse } from "node:http";
import type { LivePage } from "./live-page.js";

/** An open page's stream of events, and the version that it shows. */
interface Listener {
  response: ServerResponse;
  version: string | null;
}

/** Milliseconds after which a listener that got nothing gets a sign of life. */
const ALIVE_MS = 5000;

/**
 * Sends what changes to the pages that are open, as server-sent events. A page's files are looked at while someone listens, each `interval`, however
 * many listen; one that does not read as fast as there is news gets the newest when it does.
 */
export class Broadcast {
  readonly #interval: number;
  readonly #listeners = new Map<LivePage, Set<Listener>>();
  readonly #timers = new Set<NodeJS.Timeout>();
  #closed = false;

  constructor(interval: number) {
    this.#interval = interval;
  }

  join(page: LivePage, response: ServerResponse, since: string | null, headers: Record<string, string>): void {
    response.writeHead(200, headers);
    response.write("retry: 2000\n\n");
    const listener: Listener = { response, version: since };
    const others = this.#listeners.get(page);
    const all = others ?? new Set<Listener>();
    all.add(listener);
    response.on("close", () => all.delete(listener));
    if (others === undefined) {
      this.#listeners.set(page, all);
      void this.#follow(page, all);
    } else tell(page, listener);
  }

  close(): void {
    this.#closed = true;
    for (const timer of this.#timers) clearTimeout(timer);
    for (const listeners of this.#listeners.values()) for (const { response } of listeners) response.end();
    this.#listeners.clear();
  }

  async #follow(page: LivePage, listeners: Set<Listener>): Promise<void> {
    let quiet = 0;
    for (;;) {
      const begin = performance.now();
      // A folder that cannot be read now may be readable later; the page says how old it is.
      await page.refresh().catch(() => false);
      if (this.#closed || listeners.size === 0) break;
      quiet += this.#interval;
      for (const listener of listeners) tell(page, listener);
      if (quiet >= ALIVE_MS) {
        for (const { response } of listeners) response.write("event: alive\ndata:\n\n");
        quiet = 0;
      }
      // A page that takes long to make is made less often: at most a third of the time goes into it.
      await this.#wait(Math.max(this.#interval, 2 * (performance.now() - begin)));
      if (this.#closed || listeners.size === 0) break;
    }
    this.#listeners.delete(page);
  }

  #wait(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#timers.delete(timer);
        resolve();
      }, milliseconds);
      this.#timers.add(timer);
    });
  }
}

function tell(page: LivePage, listener: Listener): void {
  if (listener.response.writableNeedDrain) return;
  const updates = page.updates(listener.version);
  if (updates.parts.length === 0) return;
  listener.version = updates.version;
  listener.response.write(`event: parts\nid: ${updates.version}\ndata: ${JSON.stringify(updates)}\n\n`);
}
