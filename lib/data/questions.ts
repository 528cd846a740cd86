import { checkInteger } from "../arguments.js";
import type { Question } from "../environments/types.js";
import { fail } from "../errors.js";
import { fieldOf, lookUp, toId, toText } from "./fields.js";
import { at, excerpt, type Place, type Row } from "./place.js";
import { readRows, type ReadRowsOptions } from "./rows.js";
import { shuffleById } from "./shuffle.js";

/** Paths of the fields that a question is made of: names, or "reward_model.ground_truth.target". */
export interface QuestionFields {
  /** @default "id" or "_id" */
  id?: string;
  /** @default "question" */
  question?: string;
  /** @default "answers", "golden_answers" or "answer" */
  answers?: string;
  /** What `split` is compared with. @default "split" */
  split?: string;
}

export interface ReadQuestionsOptions extends ReadRowsOptions {
  /** Where the fields are, if not under their usual names. */
  fields?: QuestionFields;
  /** What stands between several answers in one text, e.g. "|". Without it a text is one answer. */
  separator?: string;
  /** Keep the rows whose `split` is this. */
  split?: string;
  /** Order the questions by this seed and their ids; the order in the file does not matter. Without it: as in the file. */
  shuffle?: number;
  /** Keep the first so many; after the shuffle. */
  limit?: number;
  /** Whether a row may be without answers, which are then none: what is right may be said by another field. @default false */
  withoutAnswers?: boolean;
}

// Spellings in use: this project's, FlashRAG's and Search-R1's, HotpotQA's.
const ANSWER_FIELDS = ["answers", "golden_answers", "answer"];
const ID_FIELDS = ["id", "_id"];

/**
 * Questions of a JSON Lines, JSON, CSV, TSV or Parquet file: `id` (or `_id`), `question`, `answers` (or `golden_answers`, `answer`; one string or
 * several; in a cell of CSV also a JSON list), other fields as they are. A row that is none -> ERR_DATA_LINE or ERR_DATA_FIELD, an id that
 * stands twice -> ERR_DATA_DUPLICATE, each naming file and line (Parquet and JSON arrays: row); a file that cannot be taken apart ->
 * ERR_DATA_FORMAT; no row left -> ERR_DATA_EMPTY.
 *
 * @example
 * const questions = await readQuestions("train.parquet", {
 *   fields: { answers: "reward_model.ground_truth.target" },
 *   ids: "row",
 *   shuffle: 1,
 *   limit: 1000,
 * });
 */
export async function readQuestions(file: string, options: ReadQuestionsOptions = {}): Promise<Question[]> {
  const { split, shuffle, limit = Infinity } = options;
  if (limit !== Infinity) checkInteger(limit, "limit", 1);
  if (shuffle !== undefined) checkInteger(shuffle, "shuffle", 0);
  const questions: Question[] = [];
  const splits = new Set<string>();
  const report = await readRows(
    file,
    options,
    (row, place, cells) => toQuestion(row, place, cells, options),
    (question) => {
      const own = question["split"];
      if (split === undefined || own === split) questions.push(question);
      else splits.add(own === undefined ? "none" : excerpt(own));
      return shuffle !== undefined || questions.length < limit;
    },
  );
  if (questions.length === 0) {
    const found = splits.size > 0 ? ` of split ${excerpt(split)} (found: ${[...splits].slice(0, 8).join(", ")})` : "";
    const bad = report.skipped > 0 ? ` (${report.skipped} bad rows: ${report.first[0]?.message})` : "";
    fail("ERR_DATA_EMPTY", `Expected questions${found} in ${file} but received none${bad}`);
  }
  return shuffle === undefined ? questions : shuffleById(questions, shuffle).slice(0, limit);
}

function toQuestion(row: Row, place: Place, cells: boolean, options: ReadQuestionsOptions): Question {
  const { fields = {}, separator, ids, withoutAnswers = false } = options;
  const answers = fieldOf(row, fields.answers, ANSWER_FIELDS);
  if (answers.value === undefined && !withoutAnswers) {
    fail(
      "ERR_DATA_FIELD",
      `Expected a field ${answers.name} at ${at(place)} but received ${Object.keys(row).join(", ")}`,
    );
  }
  const question = fieldOf(row, fields.question, ["question"]);
  const id = toId(fieldOf(row, ids === "row" ? "id" : fields.id, ID_FIELDS), place);
  const gold = answers.value === undefined ? [] : toAnswers(answers, place, cells, separator);
  const made = { id, question: toText(question, place), answers: gold };
  if (made.question.trim() === "") {
    fail(
      "ERR_DATA_FIELD",
      `Expected a text for ${question.name} at ${at(place)} but received ${excerpt(made.question)}`,
    );
  }
  const { id: _id, _id: __id, question: _question, ...rest } = row;
  // The usual names are this question's own fields under another name; a field that was asked for by its path stays where it is too.
  for (const field of ANSWER_FIELDS) if (field !== fields.answers) delete rest[field];
  const split = fields.split === undefined ? undefined : lookUp(row, fields.split);
  return { ...rest, ...(split === undefined ? {} : { split }), ...made };
}

type Field = { name: string; value: unknown };

function toAnswers({ name, value }: Field, place: Place, cells: boolean, separator: string | undefined): string[] {
  const wrong = (hint = ""): never =>
    fail("ERR_DATA_FIELD", `Expected strings for ${name} at ${at(place)} but received ${excerpt(value)}${hint}`);
  const list = typeof value === "string" ? fromText(value, cells, separator, wrong) : value;
  if (!Array.isArray(list) || !list.every((answer): answer is string => typeof answer === "string")) return wrong();
  return list;
}

function fromText(
  text: string,
  cells: boolean,
  separator: string | undefined,
  wrong: (hint: string) => never,
): unknown {
  if (separator !== undefined) {
    const parts = text.split(separator).map((part) => part.trim());
    return parts.filter((part) => part !== "");
  }
  if (!cells || !/^\s*\[[^]*\]\s*$/.test(text)) return [text];
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return wrong(', which is no JSON list such as ["a", "b"]');
  }
}
