/** Means of numbers of targets, by the role that predicted them. */
export class MeanByRole {
  readonly #roles: readonly string[];
  readonly #sums: number[];
  readonly #counts: number[];

  constructor(roles: readonly string[]) {
    this.#roles = roles;
    this.#sums = roles.map(() => 0);
    this.#counts = roles.map(() => 0);
  }

  /** values [total] by target, NaN: none; roles [total] by input position. */
  add(roles: Int8Array, values: Float32Array): void {
    for (let t = 1; t < values.length; t++) {
      const role = roles[t - 1] as number;
      const value = values[t] as number;
      if (Number.isNaN(value) || role < 0 || role >= this.#roles.length) continue;
      this.#sums[role] = (this.#sums[role] as number) + value;
      this.#counts[role] = (this.#counts[role] as number) + 1;
    }
  }

  get any(): boolean {
    return this.#counts.some((count) => count > 0);
  }

  get means(): Record<string, number | null> {
    const mean = (i: number): number | null =>
      this.#counts[i] === 0 ? null : (this.#sums[i] as number) / (this.#counts[i] as number);
    return Object.fromEntries(this.#roles.map((role, i) => [role, mean(i)]));
  }
}
