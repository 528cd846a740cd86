// HotpotQA's files as questions and passages: node prepare.mjs --train FILE --dev FILE --out DIR [--limit N]
// Reads FlashRAG's JSON Lines and the JSON arrays of HotpotQA itself (distractor setting). Passages are the paragraphs that the questions come with.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { parseArgs } from "node:util";

const text = { type: "string" };
const { values } = parseArgs({ options: { train: text, dev: text, out: text, limit: text } });
const { train, dev, out, limit = "Infinity" } = values;
if (out === undefined || (train ?? dev) === undefined)
  throw new Error("Expected --train FILE or --dev FILE, and --out DIR");

const questions = [];
const passages = new Map();
for (const [split, file] of Object.entries({ train, dev })) {
  if (file === undefined) continue;
  for (const row of (await rows(file)).slice(0, Number(limit))) {
    const { id = row._id, question, golden_answers = [row.answer], metadata = row } = row;
    const context = paragraphs(metadata.context);
    if (context.length === 0) throw new Error(`Expected paragraphs in "context" of question ${id} of ${file}`);
    for (const [title, sentences] of context) {
      const contents = `"${title}"\n${sentences.map((sentence) => sentence.trim()).join(" ")}`;
      passages.set(contents, { id: `p${passages.size}`, ...passages.get(contents), contents });
    }
    questions.push({ id, question, golden_answers, type: metadata.type, split });
  }
}
const lines = (list) => list.map((row) => `${JSON.stringify(row)}\n`).join("");
await mkdir(out, { recursive: true });
await writeFile(path.join(out, "questions.jsonl"), lines(questions));
await writeFile(path.join(out, "passages.jsonl"), lines([...passages.values()]));
console.log(`${questions.length} questions and ${passages.size} passages in ${out}`);

async function rows(file) {
  const content = await readFile(file, "utf8");
  if (content.trimStart().startsWith("[")) return JSON.parse(content);
  return content.split("\n").flatMap((line) => (line.trim() === "" ? [] : [JSON.parse(line)]));
}

/** [title, sentences] of each: HotpotQA has a list of these, FlashRAG { title: [...], sentences: [[...]] }. */
function paragraphs(context = []) {
  return Array.isArray(context) ? context : context.title.map((title, i) => [title, context.sentences[i]]);
}
