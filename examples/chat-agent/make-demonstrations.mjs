// Demonstrations of the format, for supervised training: node make-demonstrations.mjs RUN.json OUT.jsonl
// A search for the title that a question names, and the gold answer. For models that do not write JSON calls yet; instruction-tuned ones do.
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { loadRun, readPassages, readRunConfig } from "rolegrad";

const [runFile, out] = process.argv.slice(2);
if (out === undefined) throw new Error("Expected RUN.json OUT.jsonl");
const config = await readRunConfig(runFile);
const setup = await loadRun(config, { evaluationOnly: true });
try {
  const { environment, rollout, questions, model } = setup;
  const { renderer } = rollout;
  const { tokenizer } = model;
  const name = (title) => title.replace(/ \(.*\)$/, "");
  const titles = (await readPassages(config.environment.passages)).map(({ title }) => name(title));
  const lines = questions.flatMap((question) => {
    const named = titles.filter((title) => question.question.includes(title));
    return named.length === 0 ? [] : [{ question, query: named.sort((a, b) => b.length - a.length)[0] }];
  });
  const rows = [];
  for (const { question, query } of lines) {
    const { open, close, space, key } = renderer.call;
    const { text } = await environment.act({ text: query, question });
    const call = `{"name": "search", "${key}": {"query": "${query}"}}`;
    const segments = [
      { text: tokenizer.decode(renderer.prompt(question)), sampled: false },
      { text: `${open}${space}${call}${space}${close}`, sampled: true },
      { text: tokenizer.decode(renderer.toolResult({ span: 0, text: call }, text)), sampled: false },
      { text: `<answer> ${question.answers[0]}</answer>`, sampled: true },
    ];
    rows.push({ id: question.id, segments });
  }
  await mkdir(path.dirname(path.resolve(out)), { recursive: true });
  await writeFile(out, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  console.log(`${rows.length} demonstrations in ${out}`);
} finally {
  setup.close();
}
