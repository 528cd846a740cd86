/** What a row of a file says: of which question, of which variant, how many of its answers were right. */
import { fieldOf, lookUp } from "../../data/fields.js";
import type { Row } from "../../data/place.js";
import { fail } from "../../errors.js";
import { checkCount, checkSamples, variantIndex } from "../cells.js";
import { type Variant, variants } from "../types.js";
import { isArrayLike, show } from "../values.js";
import type { Cells, Place } from "./cells.js";
import { columns, isRight, nameOf, numeric, questionOf } from "./fields.js";
import { goldOf, responsesOf, scoreTexts, trlReward } from "./frameworks.js";
import type { FoundRow } from "./open.js";
import type { ReadAccuracyOptions, RowShape } from "./types.js";
import { variantOf } from "./variant.js";

/** What the rows of a file are, by its first one. `alone`: the file is of one variant. */
export function shapeOf(row: Row, file: string, alone: boolean, options: ReadAccuracyOptions): RowShape {
  const { fields = {}, format } = options;
  const has = (...names: string[]): boolean => names.every((name) => row[name] !== undefined);
  if (format === "rolegrad" || format === "verl" || format === "trl" || format === "search-r1") return format;
  const inRow = (given: string | undefined, usual: string): boolean => lookUp(row, given ?? usual) !== undefined;
  if (!alone) {
    if (inRow(fields.variant, "variant")) return "long";
    if (Object.keys(row).some((name) => variantOf(name) !== undefined)) return "wide";
    return fail(
      "ERR_TABLE_FORMAT",
      `Expected rows with variant, id, correct, samples, or id, samples and a column for each of ${variants.join(", ")}, in ${file} but the first has ` +
        `${columns(row)}. Results of one variant a file go in one by one: { base: file, reas: file, ... } (--base FILE --reas FILE ...)`,
    );
  }
  if (inRow(fields.samples, "samples") || options.samples !== undefined) return "counts";
  if (fields.correct !== undefined) return "answers";
  if (has("question", "policyVersion", "reward", "finish")) return "rolegrad";
  if (has("input", "output", "score") || has("input", "output", "step")) return "verl";
  if (has("prompt", "completion")) return "trl";
  if (responsesOf(row) !== undefined && goldOf(row) !== undefined && !has("correct") && !has("score"))
    return "search-r1";
  if (fields.score !== undefined || has("score") || has("correct") || has("reward")) return "answers";
  return fail(
    "ERR_TABLE_FORMAT",
    `Expected counts (id, correct, samples), answers (id and correct or score), or outputs of rolegrad, verl, TRL or Search-R1 in ${file} but its first ` +
      `row has ${columns(row)}. Name the fields (--id, --correct, --samples, --score)`,
  );
}

/** Puts what a row says into the cells. */
export type TakeRow = (found: FoundRow) => void;

interface Context {
  cells: Cells;
  options: ReadAccuracyOptions;
  /** Of a file of one variant. */
  variant: Variant | undefined;
  /** Of one of several files of a variant. */
  seed: string | undefined;
}

export function rowTaker(shape: RowShape, first: Row, context: Context): TakeRow {
  switch (shape) {
    case "long":
      return takeLong(context, first);
    case "wide":
      return takeWide(context, first);
    case "counts":
      return takeCounts(context);
    default:
      return takeAnswers(context, shape, first);
  }
}

/** What belongs to a row whatever it counts. */
function about(
  found: FoundRow,
  { options, seed }: Context,
  id: string,
  usualSeed: string | undefined,
): Omit<Place, "variant"> {
  const { fields = {} } = options;
  const path = fields.seed ?? usualSeed;
  const own = path === undefined ? undefined : nameOf(found, path, "ERR_TABLE_SEEDS");
  const cluster = nameOf(found, fields.cluster ?? "cluster", "ERR_TABLE_CLUSTER");
  return { id, seed: own ?? seed, cluster, where: found.where };
}

/** Rows of counts or of single answers, as the first row has it: a row that leaves `samples` empty is no answer among counts. */
function takeLong(context: Context, first: Row): TakeRow {
  const { cells, options } = context;
  const { fields = {}, samples } = options;
  const samplesOf = (row: Row): unknown => samples ?? lookUp(row, fields.samples ?? "samples");
  const answers = samplesOf(first) === undefined && fields.samples === undefined;
  return (found) => {
    const { row, where } = found;
    const id = questionOf(found, fields.id);
    const named = fieldOf(row, fields.variant, ["variant"]);
    const spelled = typeof named.value === "string" ? variantOf(named.value) : undefined;
    const variant = variants[
      variantIndex(spelled ?? named.value, `${named.name} at ${where} (question ${show(id)})`)
    ] as Variant;
    const place = { ...about(found, context, id, "seed"), variant };
    if (answers && samplesOf(row) !== undefined)
      fail(
        "ERR_TABLE_SAMPLES",
        `Expected samples in every row or in none but ${where} has them (variant ${variant} of question ${show(id)})`,
      );
    if (answers) cells.addAnswer(place, answerOf(found, context), sampleOf(found, options));
    else cells.addCount(place, ...countOf(found, context, place), outcomesOf(row));
  };
}

function takeCounts(context: Context): TakeRow {
  const { cells, options, variant } = context;
  return (found) => {
    const id = questionOf(found, options.fields?.id);
    const place = { ...about(found, context, id, "seed"), variant: variant as Variant };
    cells.addCount(place, ...countOf(found, context, place), outcomesOf(found.row));
  };
}

/** Which samples a row of counts says were right, as this package writes rows. */
function outcomesOf({ outcomes }: Row): ArrayLike<unknown> | undefined {
  return isArrayLike(outcomes) ? outcomes : undefined;
}

/**
 * The number of an answer among those of its question, where that is asked for and the row tells it; `id` is that of this package's
 * trajectories, QUESTION#NUMBER. Throws ERR_TABLE_OUTCOMES.
 */
function sampleOf(
  { row, where }: FoundRow,
  { fields = {}, outcomes }: ReadAccuracyOptions,
  id?: unknown,
): number | undefined {
  if (outcomes !== true) return undefined;
  const name = fields.sample ?? "sample";
  const own = typeof id === "string" ? /#(\d+)$/.exec(id)?.[1] : undefined;
  const value = numeric(lookUp(row, name) ?? (fields.sample === undefined ? own : undefined));
  if (value === undefined && fields.sample === undefined) return undefined;
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0)
    fail("ERR_TABLE_OUTCOMES", `Expected the number of an answer for ${name} at ${where} but received ${show(value)}`);
  return value;
}

/** k and N of a row of counts. Throws ERR_TABLE_SAMPLES, ERR_TABLE_COUNT. */
function countOf(
  { row, where }: FoundRow,
  { options }: Context,
  { variant, id }: Place,
): [correct: number, samples: number] {
  const { fields = {}, samples } = options;
  const cell = (name: string) => () => `${name} at ${where} (variant ${variant} of question ${show(id)})`;
  const name = fields.samples ?? "samples";
  const n = checkSamples(numeric(samples ?? lookUp(row, name)), cell(name));
  const counted = fields.correct ?? "correct";
  return [checkCount(numeric(lookUp(row, counted)), n, cell(counted)), n];
}

function takeWide(context: Context, first: Row): TakeRow {
  const { cells, options } = context;
  const { fields = {}, samples } = options;
  const spelled = new Map<Variant, string>();
  const take = (name: string): void => {
    const variant = variantOf(name);
    if (variant === undefined || spelled.get(variant) === name) return;
    if (spelled.has(variant))
      fail(
        "ERR_TABLE_DUPLICATE",
        `Expected one column for ${variant} but received ${spelled.get(variant)} and ${name}`,
      );
    spelled.set(variant, name);
  };
  Object.keys(first).forEach(take);
  return (found) => {
    const { row, where } = found;
    // A cell that is empty is not in the row: a column may first be seen below.
    Object.keys(row).forEach(take);
    const id = questionOf(found, fields.id);
    const name = fields.samples ?? "samples";
    const common = about(found, context, id, "seed");
    cells.addQuestion(common);
    for (const [variant, column] of spelled) {
      const value = row[column];
      if (value === undefined || value === null || value === "") continue;
      const cell = (what: string) => () => `${what} at ${where} (question ${show(id)})`;
      const n = checkSamples(numeric(samples ?? row[`samples_${column}`] ?? lookUp(row, name)), cell(name));
      cells.addCount({ ...common, variant }, checkCount(numeric(value), n, cell(column)), n);
    }
  };
}

/** Whether the answer of a row is right, by `correct`, else by its score. */
function answerOf({ row, where }: FoundRow, { options }: Context): boolean {
  const { fields = {}, threshold } = options;
  if (fields.score === "exact-match") return scoreTexts(row, where)[0] as boolean;
  const given = fields.correct ?? fields.score;
  const { name, value } = fieldOf(row, given, ["correct", "score", "reward"]);
  if (value === undefined || value === null)
    fail(
      "ERR_TABLE_SCORE",
      `Expected ${name}, which says whether the answer is right, at ${where} but the row has ${columns(row)}`,
    );
  return isRight(value, name, where, threshold);
}

const promptOf: Partial<Record<RowShape, string[]>> = { rolegrad: ["question"], verl: ["input"], trl: ["prompt"] };

function takeAnswers(context: Context, shape: RowShape, first: Row): TakeRow {
  const { cells, options, variant } = context;
  const { fields = {} } = options;
  const score = scoreField(shape, first, options);
  const scored =
    score === undefined ? context : { ...context, options: { ...options, fields: { ...fields, correct: score } } };
  return (found) => {
    const id =
      shape === "search-r1" && fields.id === undefined
        ? datasetId(found)
        : questionOf(found, fields.id, promptOf[shape]);
    const place = { ...about(found, context, id, undefined), variant: variant as Variant };
    const sample = sampleOf(found, options, shape === "rolegrad" ? found.row["id"] : undefined);
    if (shape !== "search-r1" || score !== undefined) cells.addAnswer(place, answerOf(found, scored), sample);
    else for (const right of scoreTexts(found.row, found.where)) cells.addAnswer(place, right);
  };
}

/** The field that says whether an answer of this framework is right; undefined where none of the row does. */
function scoreField(shape: RowShape, first: Row, { fields = {}, format }: ReadAccuracyOptions): string | undefined {
  const given = fields.correct ?? fields.score;
  if (given !== undefined) return given === "exact-match" ? undefined : given;
  if (shape === "rolegrad") return "reward";
  if (shape === "verl") return first["acc"] === undefined ? "score" : "acc";
  if (shape === "trl") return trlReward(first);
  return shape === "search-r1" && format === "search-r1" && first["score"] !== undefined ? "score" : undefined;
}

/** The question of a row of a dataset as verl and Search-R1 have it: ids count anew in each data source. */
function datasetId(found: FoundRow): string {
  const { row } = found;
  const source = typeof row["data_source"] === "string" ? `${row["data_source"]}/` : "";
  const id = row["id"] ?? lookUp(row, "extra_info.index") ?? row["index"];
  if (typeof id === "string" || typeof id === "number") {
    const split = lookUp(row, "extra_info.split");
    return `${source}${typeof id === "number" && typeof split === "string" ? `${split}/` : ""}${id}`;
  }
  return questionOf(found, undefined, ["question", "prompt", "input"]);
}
