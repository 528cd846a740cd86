import type { AccuracyBin } from "../accuracy-bins.js";
import type { AccuracyTable } from "../types.js";

/** Options of {@link interferenceCsv} and {@link interferencePage}. */
export interface InterferenceRenderOptions {
  /** The table that the result is of: for the questions' names and accuracies. */
  table?: AccuracyTable | undefined;
  /** Of {@link effectsByAccuracy}. Default: computed from the table, where it has one training seed. */
  bins?: readonly AccuracyBin[] | undefined;
  /** Of {@link effectsByHalves}: then the chart, its numbers and the CSV have these in place of `bins`. */
  byHalves?: readonly [bySecond: readonly AccuracyBin[], byFirst: readonly AccuracyBin[]] | undefined;
  /** What the table is called on a page. */
  name?: string | undefined;
}

/** A chart as a file of its own, see {@link interferenceFigures}. */
export interface InterferenceFigure {
  /** A file's name without its extension. */
  name: string;
  title: string;
  /** A whole SVG document, light or dark as its reader has it. */
  svg: string;
}
