// Demonstrations of gold queries, for supervised training: node make-demonstrations.mjs RUN.json OUT.jsonl
// A model that writes no SQL in these tags earns nothing, and learns nothing from that: it is shown some first.
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { loadRun, readRunConfig } from "rolegrad";

const [runFile, out] = process.argv.slice(2);
if (out === undefined) throw new Error("Expected RUN.json OUT.jsonl");
const config = await readRunConfig(runFile);
const setup = await loadRun(config, { evaluationOnly: true });
try {
  const { environment, rollout, questions, model } = setup;
  const { renderer, maxLength } = rollout;
  const { spans, answer } = config.agent;
  const [{ open, close }] = spans;
  const lines = [];
  for (const question of questions) {
    const query = question[config.environment.gold];
    const { text } = await environment.act({ text: query, question });
    // The very text that a rollout puts before and between what the model writes.
    const prompt = model.tokenizer.decode(renderer.prompt(question));
    const result = model.tokenizer.decode(renderer.toolResult({ span: 0, text: query }, text));
    const segments = [
      { text: prompt, sampled: false },
      { text: `<think>I try a query.</think>${open}${query}${close}`, sampled: true },
      { text: result, sampled: false },
      { text: `<think>It fits.</think>${answer.open}${query}${answer.close}`, sampled: true },
    ];
    const tokens = segments.reduce((sum, segment) => sum + model.tokenizer.encode(segment.text).length, 1);
    if (tokens <= maxLength) lines.push(JSON.stringify({ id: question.id, segments }));
  }
  await mkdir(path.dirname(path.resolve(out)), { recursive: true });
  await writeFile(out, lines.map((line) => `${line}\n`).join(""));
  console.log(`${lines.length} demonstrations in ${out}; ${questions.length - lines.length} were too long`);
} finally {
  setup.close();
}
