// Counts of a cell of `rolegrad experiment`, as a measurement would have left them.
import { writeFileSync } from "node:fs";
import path from "node:path";
import type { Cell, Random } from "rolegrad";

/** Writes counts of 40 questions, each answered `samples` times and right with probability `chance`; the folder has `counts/`. */
export function writeCounts(folder: string, cell: Cell, random: Random, chance: number, samples = 20): void {
  const { id, arm, seed, balance, dialect } = cell;
  const correct = Array.from(
    { length: 40 },
    () => Array.from({ length: samples }, () => random.chance(chance)).filter(Boolean).length,
  );
  const counts = {
    ...{ cell: id, arm, seed, balance, dialect, rate: 1e-3, questions: correct.map((_, q) => `q${q}`), samples },
    ...{ temperature: 1, correct, retrieved: correct, toolRate: 1, searches: 1, answerRate: 1, tokens: 70 },
    ...{ sampledTokens: 30, finish: { stop: 40 * samples, length: 0, budget: 0, error: 0 } },
  };
  writeFileSync(path.join(folder, "counts", `${id}.json`), JSON.stringify(counts));
}
