import type { Question } from "../environments/types.js";
import { fail } from "../errors.js";
import { at, excerpt, readJsonLines, type Place, type Row } from "./jsonl.js";

export interface ReadQuestionsOptions {
  /** Keep the rows whose `split` is this. */
  split?: string;
  /** Keep the first so many. */
  limit?: number;
}

// Spellings in use: this project's, FlashRAG's and Search-R1's, HotpotQA's.
const ANSWER_FIELDS = ["answers", "golden_answers", "answer"];

/**
 * Questions of a JSON Lines file: `id` (or `_id`), `question`, `answers` (or `golden_answers`, `answer`; one string or
 * several), other fields as they are. A row that is none -> ERR_DATA_FIELD, an id that stands twice -> ERR_DATA_DUPLICATE,
 * no row left -> ERR_DATA_EMPTY; each names file and line.
 *
 * @example
 * const questions = await readQuestions("questions.jsonl", { split: "train" });
 */
export async function readQuestions(file: string, options: ReadQuestionsOptions = {}): Promise<Question[]> {
  const { split, limit = Infinity } = options;
  const questions: Question[] = [];
  const claim = uniqueIds();
  const splits = new Set<string>();
  for await (const { row, place } of readJsonLines(file)) {
    if (questions.length >= limit) break;
    const question = toQuestion(row, place);
    claim(question.id, place);
    const own = question["split"];
    if (split === undefined || own === split) questions.push(question);
    else splits.add(own === undefined ? "none" : excerpt(own));
  }
  if (questions.length === 0) {
    const found = splits.size > 0 ? ` of split ${excerpt(split)} (found: ${[...splits].slice(0, 8).join(", ")})` : "";
    fail("ERR_DATA_EMPTY", `Expected questions${found} in ${file} but received none`);
  }
  return questions;
}

function toQuestion(row: Row, place: Place): Question {
  const { id, _id, question, ...rest } = row;
  const answerField = ANSWER_FIELDS.find((field) => row[field] !== undefined);
  if (answerField === undefined) {
    fail("ERR_DATA_FIELD", `Expected a field answers at ${at(place)} but received ${Object.keys(row).join(", ")}`);
  }
  const given = row[answerField];
  const answers = typeof given === "string" ? [given] : given;
  if (!Array.isArray(answers) || !answers.every((answer): answer is string => typeof answer === "string")) {
    fail("ERR_DATA_FIELD", `Expected strings for ${answerField} at ${at(place)} but received ${excerpt(given)}`);
  }
  for (const field of ANSWER_FIELDS) delete rest[field];
  return { ...rest, id: toId(id ?? _id, place), question: toText(question, "question", place), answers };
}

/** The id of a row: a string, or a whole number as one. */
export function toId(id: unknown, place: Place): string {
  if (typeof id === "string" && id !== "") return id;
  if (Number.isSafeInteger(id)) return String(id);
  return fail("ERR_DATA_FIELD", `Expected a string for id at ${at(place)} but received ${excerpt(id)}`);
}

export function toText(text: unknown, field: string, place: Place): string {
  if (typeof text === "string") return text;
  return fail("ERR_DATA_FIELD", `Expected a string for ${field} at ${at(place)} but received ${excerpt(text)}`);
}

/** A check that no id comes twice. */
export function uniqueIds(): (id: string, place: Place) => void {
  const places = new Map<string, Place>();
  return (id, place) => {
    const first = places.get(id);
    if (first !== undefined) {
      const where = first.file === place.file ? `on line ${first.line}` : `at ${at(first)}`;
      fail("ERR_DATA_DUPLICATE", `Expected unique ids but received ${excerpt(id)} at ${at(place)} and ${where}`);
    }
    places.set(id, place);
  };
}
