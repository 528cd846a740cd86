import type { Truth } from "./tables.mjs";

export interface StudySettings {
  tables: number;
  questions: number;
  samples: number;
  seed: number;
}
/** Counts of one name: `of` times asked, `hits` of them, `refused` where there was no interval. */
export interface Count {
  of: number;
  hits: number;
  refused: number;
  sum: number;
}
export function runTruth(truth: Truth, settings: StudySettings): Record<string, Count>;
export const parts: { section: string; name: string }[];
export function runPart(
  part: { section: string; name: string },
  settings: { questions: number; samples: number; seed: number; from?: number; to: number },
): { counts: Record<string, Count> };
export class Tally {
  counts: Record<string, Count>;
  add(counts: Record<string, Count>): this;
}
