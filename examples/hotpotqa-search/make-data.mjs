// Writes data/: questions and passages of an invented world, in the layout of FlashRAG's files. node make-data.mjs
import { writeFile } from "node:fs/promises";
import { World } from "rolegrad";

const world = new World({ seed: 20, people: 60, towns: 30, firms: 20, rivers: 15 });
const lines = (rows) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");
const questions = (split, count) =>
  world
    .questions(split, count, 0)
    .map(({ id, question, answers }) => ({ id, question, golden_answers: answers, split }));
const passages = world.pages.map(({ id, title, text }) => ({ id, contents: `"${title}"\n${text}` }));
const data = new URL("data/", import.meta.url);
await writeFile(new URL("questions.jsonl", data), lines([...questions("train", 64), ...questions("dev", 32)]));
await writeFile(new URL("passages.jsonl", data), lines(passages));
