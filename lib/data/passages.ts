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
  for await (const { passage } of streamPassages([file])) passages.push(passage);
  return passages;
}

/** The passages of several files one by one, as {@link readPassages} reads them; `read`: bytes so far, of all files. No two of them may share an id. */
export async function* streamPassages(files: readonly string[]): AsyncGenerator<{ passage: Passage; read: number }> {
  const claim = uniqueIds();
  let before = 0;
  for (const file of files) {
    let inFile = 0;
    for await (const { row, place, read } of readJsonLines(file)) {
      const passage = toPassage(row, place);
      claim(passage.id, place);
      inFile = read;
      yield { passage, read: before + read };
    }
    if (inFile === 0) fail("ERR_DATA_EMPTY", `Expected passages in ${file} but received none`);
    before += inFile;
  }
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

function splitContents(contents: string): Omit<Passage, "id"> {
  const end = contents.indexOf("\n");
  if (end < 0) return { text: contents };
  const title = contents.slice(0, end).trim();
  const quoted = title.length > 1 && title.startsWith('"') && title.endsWith('"');
  return { title: quoted ? title.slice(1, -1) : title, text: contents.slice(end + 1) };
}
