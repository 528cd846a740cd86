import type { AccuracyRow, AccuracyTable, Variant, VariantName } from "../types.js";

/** What kind of file it is. Recognised by content. */
export const fileFormats = ["csv", "tsv", "json", "jsonl", "parquet"] as const;
export type FileFormat = (typeof fileFormats)[number];

/** What wrote the rows. Recognised by their fields. */
export const rowFormats = ["rolegrad", "verl", "trl", "search-r1"] as const;
export type RowFormat = (typeof rowFormats)[number];

export type AccuracyFormat = FileFormat | RowFormat;

/**
 * How the rows of a file were understood: `long` (variant, id, correct, samples), `wide` (a column for each variant), `counts` of one variant (id, correct,
 * samples), `answers` of one variant (a row for each sampled answer), `dense` ({ samples, correct } as JSON), or the outputs of a framework.
 */
export type RowShape = "long" | "wide" | "counts" | "answers" | "dense" | RowFormat;

/** Where the rows have what: names, or paths such as "reward_model.ground_truth.target". */
export interface AccuracyFields {
  /** The question. Default: `id`, `_id`, `question_id`, `qid` or `question`; the prompt of a framework's rows. */
  id?: string | undefined;
  /** Default `variant`. */
  variant?: string | undefined;
  /** How many answers were right, or whether this one was. Default `correct`. */
  correct?: string | undefined;
  /** How many answers a question got. Default `samples`. */
  samples?: string | undefined;
  /**
   * Of one answer, when `correct` does not say it. Default: `score` or `reward`; verl's `acc` before its `score`; the one reward of TRL. "exact-match" compares the
   * answer in the text with the right ones of the row.
   */
  score?: string | undefined;
  /** The training seed. Default `seed` in tables of counts; none where a row is an answer. */
  seed?: string | undefined;
  /** Default `cluster`. */
  cluster?: string | undefined;
  /**
   * The number of an answer among those of its question, for `outcomes`: answers of the same number belong together in all variants.
   * Default: `sample`; what follows the last # of the `id` of this package's trajectories; else the order of the rows.
   */
  sample?: string | undefined;
}

/** Options of {@link readAccuracyTable}. */
export interface ReadAccuracyOptions {
  /** Default: recognised by what is in the file. */
  format?: AccuracyFormat | undefined;
  fields?: AccuracyFields | undefined;
  /** N of every cell, where the files do not say it. */
  samples?: number | undefined;
  /** An answer is right where its score is at least this. Without it scores must be 0 and 1 (or false and true). */
  threshold?: number | undefined;
  /** A question that lacks a variant: `"error"` (default) refuses the table, `"drop"` leaves the question out and tells of it in `incomplete`. */
  missing?: "error" | "drop" | undefined;
  /**
   * Keep which answers were right, in the rows of base, reas, tool and unified, for `commonRandomNumbers`. Counts do not tell it: they
   * are refused (ERR_TABLE_OUTCOMES). Default false.
   */
  outcomes?: boolean | undefined;
  /** Gives up with ERR_ABORTED. */
  signal?: AbortSignal | undefined;
}

/** A file or a folder; several are trainings of the variant under seeds 1, 2, ... */
export type VariantSource = string | readonly string[];

/** What {@link readAccuracyTable} reads: a file with all variants (or a folder of six), one or more files for each variant, or a table. */
export type AccuracySource = string | Readonly<Partial<Record<VariantName, VariantSource>>> | AccuracyTable;

/** A file that was read. */
export interface AccuracyFile {
  file: string;
  shape: RowShape;
  /** Absent where the file has them all. */
  variant?: Variant;
  /** Where several files are given for a variant. */
  seed?: number;
  rows: number;
}

/** A table as {@link readAccuracyTable} returns it: {@link computeInterference} takes it as it is. */
export interface LoadedAccuracy {
  rows: AccuracyRow[];
  files: AccuracyFile[];
  /** Questions that were left out, under `missing: "drop"`. */
  incomplete: { id: string; missing: string[] }[];
}
