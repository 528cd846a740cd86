import { formatSeconds } from "./output.js";

/** How often the bar is drawn at most, in milliseconds. */
const interval = 100;
const barWidth = 24;

/**
 * A progress bar on stderr; silent where stderr is no terminal.
 *
 * @example
 * const progress = new Progress("training", 30);
 * for (let step = 1; step <= 30; step++) progress.update(step, "reward 0.42");
 * progress.end();
 */
export class Progress {
  readonly #label: string;
  readonly #total: number;
  readonly #stream: NodeJS.WriteStream;
  readonly #start = performance.now();
  #drawn = -Infinity;

  constructor(label: string, total: number, stream: NodeJS.WriteStream = process.stderr) {
    this.#label = label;
    this.#total = total;
    this.#stream = stream;
    this.update(0);
  }

  /** `done` of the total are finished; `note` stands behind the bar. */
  update(done: number, note = ""): void {
    const now = performance.now();
    if (!this.#stream.isTTY || (now - this.#drawn < interval && done < this.#total)) return;
    this.#drawn = now;
    const share = this.#total > 0 ? Math.min(1, done / this.#total) : 1;
    const filled = Math.round(share * barWidth);
    const bar = "█".repeat(filled) + "░".repeat(barWidth - filled);
    const seconds = (now - this.#start) / 1000;
    const left =
      done > 0 && share < 1 ? `${formatSeconds((seconds * (1 - share)) / share)} left` : formatSeconds(seconds);
    const line = `${this.#label} ${bar} ${done}/${this.#total} ${left} ${note}`;
    this.#stream.write(`\r\x1b[K${line.slice(0, (this.#stream.columns || 80) - 1)}`);
  }

  /** Removes the bar, so that a result can be printed in its place. */
  end(): void {
    if (this.#stream.isTTY) this.#stream.write("\r\x1b[K");
  }
}
