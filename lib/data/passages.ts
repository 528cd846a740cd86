import type { Passage } from "../environments/types.js";
import { fail } from "../errors.js";
import { readJsonLines, type Place, type Row } from "./jsonl.js";
import { toId, toText, uniqueIds } from "./questions.js";

/**
 * Passages of a JSON Lines file: `id`, `title` (may be absent) and `text`; or `contents`, as Search-R1's corpora have it: the title
 * on the first line, in quotes, and the text below. Errors as {@link readQuestions}.
 *
 * @example
 * const search = SearchEnvironment.fromPassages(await readPassages("passages.jsonl"));
 */
export async function readPassages(file: string): Promise<Passage[]> {
  const passages: Passage[] = [];
  const claim = uniqueIds();
  for await (const { row, place } of readJsonLines(file)) {
    const passage = toPassage(row, place);
    claim(passage.id, place);
    passages.push(passage);
  }
  if (passages.length === 0) fail("ERR_DATA_EMPTY", `Expected passages in ${file} but received none`);
  return passages;
}

function toPassage(row: Row, place: Place): Passage {
  const id = toId(row["id"] ?? row["_id"], place);
  if (row["text"] === undefined && row["contents"] !== undefined) {
    return { id, ...splitContents(toText(row["contents"], "contents", place)) };
  }
  const text = toText(row["text"], "text", place);
  const title = row["title"];
  return title === undefined || title === null ? { id, text } : { id, title: toText(title, "title", place), text };
}

/** The title on the first line, with or without quotes, and the text below; one line alone is the text. */
export function splitContents(contents: string): Omit<Passage, "id"> {
  const end = contents.indexOf("\n");
  if (end < 0) return { text: contents };
  const title = contents.slice(0, end).trim();
  const quoted = title.length > 1 && title.startsWith('"') && title.endsWith('"');
  return { title: quoted ? title.slice(1, -1) : title, text: contents.slice(end + 1) };
}
