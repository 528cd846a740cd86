// The paper's tables from finished runs, with the paper's own figures beside: node tables.mjs RUNS [--questions FILE] [--json]
//
//     RUNS/MODEL/METHOD            a run directory: its newest evaluation, or
//     RUNS/MODEL/METHOD.jsonl      what `rolegrad eval ... --out` wrote, which comes first
//     RUNS/MODEL/leas/VARIANT.jsonl   the same with many samples: base, reas, tool, unified, hybrid-tool, hybrid-reas
//
// What is not there is a dash. Averages are macro averages, as the paper's: over the data sets, each counting once; a method that lacks a data set which another
// has gets none.
import { createReadStream, existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { readQuestions, retrievalHit, RunDirectory } from "rolegrad";
import { computeInterference } from "rolegrad/attribution";
import { paper, methods, ablations, pairs, leasVariants } from "./paper.mjs";

const text = { type: "string" };
const { values, positionals } = parseArgs({
  options: { questions: text, json: { type: "boolean" } },
  allowPositionals: true,
});
const [root] = positionals;
if (root === undefined) throw new Error("Expected node tables.mjs RUNS [--questions FILE] [--json]");

const mean = (list) => (list.length === 0 ? undefined : list.reduce((sum, x) => sum + x, 0) / list.length);

/** Gold answers and data set of every question, by id. */
async function readGold(file) {
  const list = await readQuestions(file);
  return new Map(list.map(({ id, answers, dataset }) => [id, { answers, dataset }]));
}

/** The questions that a run evaluates on, as its config.json says. */
async function goldOfRun(folder) {
  const { data } = await new RunDirectory(folder).readRun();
  const file = data.evalQuestions ?? data.questions;
  return existsSync(file) ? readGold(file) : undefined;
}

const datasetOf = (id, gold) => gold?.get(id)?.dataset ?? (id.includes("/") ? id.slice(0, id.indexOf("/")) : "all");

/** One line an answer, of which little is kept: files may be large. */
async function readAnswers(file, gold) {
  const answers = [];
  for await (const line of createInterface({ input: createReadStream(file) })) {
    if (line.trim() === "") continue;
    const { question, reward, calls } = JSON.parse(line);
    const found = gold?.get(question);
    const searched = found !== undefined && calls.some(({ passages }) => passages !== undefined);
    const hit = searched ? Number(retrievalHit({ calls }, { answers: found.answers })) : undefined;
    answers.push({ question, dataset: datasetOf(question, gold), right: reward, hit });
  }
  return answers;
}

/** Exact match and retrieval accuracy by data set: the means over questions of the means over their answers. */
function cells(answers) {
  const sets = group(answers, ({ dataset }) => dataset);
  return new Map(
    [...sets].map(([name, list]) => {
      const questions = [...group(list, ({ question }) => question).values()];
      const hits = list.flatMap(({ hit }) => hit ?? []);
      return [
        name,
        {
          em: mean(questions.map((own) => mean(own.map(({ right }) => right)))),
          retrieval: mean(hits),
          n: questions.length,
        },
      ];
    }),
  );
}

function group(list, key) {
  const out = new Map();
  for (const item of list) {
    const own = out.get(key(item));
    if (own === undefined) out.set(key(item), [item]);
    else own.push(item);
  }
  return out;
}

async function readMethod(model, method, gold) {
  const folder = path.join(root, model, method);
  const isRun = existsSync(path.join(folder, "config.json"));
  const known = gold ?? (isRun ? await goldOfRun(folder) : undefined);
  if (existsSync(`${folder}.jsonl`)) return cells(await readAnswers(`${folder}.jsonl`, known));
  if (!isRun) return undefined;
  const newest = (await new RunDirectory(folder).evaluations()).at(-1);
  if (newest === undefined) return undefined;
  const file = path.join(folder, "trajectories", `eval-${String(newest.step).padStart(6, "0")}.jsonl`);
  return existsSync(file) ? cells(await readAnswers(file, known)) : undefined;
}

/** Share of lambda23 < 0 and its neighbours, by data set; undefined where a variant is missing. */
async function leas(model, gold) {
  const files = leasVariants.map((name) => path.join(root, model, "leas", `${name}.jsonl`));
  if (!files.every((file) => existsSync(file))) return undefined;
  const rows = [];
  for (const [i, file] of files.entries()) {
    for (const [id, list] of group(await readAnswers(file, gold), ({ question }) => question)) {
      const correct = list.filter(({ right }) => right === 1).length;
      rows.push({ variant: leasVariants[i], id, correct, samples: list.length });
    }
  }
  const out = {};
  for (const [dataset, own] of group(rows, ({ id }) => datasetOf(id, gold)))
    out[dataset] = await computeInterference({ rows: own });
  return out;
}

const gold = values.questions === undefined ? undefined : await readGold(values.questions);
const models = readdirSync(root, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => name)
  .sort();
const found = {};
for (const model of models) {
  const own = {};
  for (const method of [...new Set([...Object.keys(methods), ...pairs.flat()])]) {
    const result = await readMethod(model, method, gold);
    if (result !== undefined) own[method] = result;
  }
  found[model] = { methods: own, leas: await leas(model, gold) };
}

/** The macro average, as the paper's: every data set counts once. Undefined where one of `sets` is missing: means over other data sets cannot be compared. */
const macro = (result, sets) => {
  const list = sets.map((name) => result?.get(name)?.em);
  return list.includes(undefined) ? undefined : mean(list);
};
/** The micro average: every question counts once. */
const micro = (result, sets) => {
  const list = sets.map((name) => result?.get(name));
  if (list.includes(undefined)) return undefined;
  return list.reduce((sum, { em, n }) => sum + em * n, 0) / list.reduce((sum, { n }) => sum + n, 0);
};
const number = (x, digits = 3) => (x === undefined || x === null ? "-" : x.toFixed(digits));
const estimate = ({ value, low, high }, digits) =>
  number(value, digits) +
  (low === null || low === undefined ? "" : ` [${number(low, digits)}, ${number(high, digits)}]`);
const table = (title, head, rows) => ({ title, head, rows });

/** "3b-instruct" of this folder, and the same name elsewhere. */
const ofPaper = (model) => paper[model] ?? {};
const tables = models.flatMap((model) => {
  const { methods: own, leas: effects } = found[model];
  const sets = [...new Set(Object.values(own).flatMap((result) => [...result.keys()]))];
  const cell = (method, name, what) => number(own[method]?.get(name)?.[what]);
  const main = Object.entries(methods).map(([method, title]) => [
    title,
    ...sets.map((name) => cell(method, name, "em")),
    number(macro(own[method], sets)),
    number(micro(own[method], sets)),
    number(ofPaper(model).average?.[method]),
  ]);
  const paired = (what) => (method) => sets.map((name) => cell(method, name, what));
  return [
    table(`${model}: exact match`, ["method", ...sets, "macro average", "by question", "paper (macro)"], main),
    table(
      `${model}: share of lambda23 < 0`,
      ["data set", "share", "null band", "mean lambda23", "mean lambda12", "mean lambda13", "questions", "paper"],
      Object.entries(effects ?? { nq: undefined, hotpotqa: undefined }).map(([name, result]) => {
        const reported = number(ofPaper(model).leas?.[name]);
        if (result === undefined) return [name, "-", "-", "-", "-", "-", "-", reported];
        const { interferenceShare, mean23, lambda, kept } = result;
        const band = interferenceShare.null;
        return [
          name,
          estimate(interferenceShare, 3),
          band === null ? "-" : estimate(band, 3),
          estimate(mean23, 2),
          number(mean([...lambda.l12]), 2),
          number(mean([...lambda.l13]), 2),
          String(kept.length),
          reported,
        ];
      }),
    ),
    table(
      `${model}: ablations`,
      ["what", "method", "macro average", "paper (macro)"],
      ablations.map(([what, method]) => [
        what,
        methods[method],
        number(macro(own[method], sets)),
        number(ofPaper(model).average?.[method]),
      ]),
    ),
    table(
      `${model}: one adapter kept, against the hybrid that writes the same role`,
      ["pair", ...sets, "paper (NQ)"],
      pairs
        .flat()
        .map((method) => [methods[method] ?? method, ...paired("em")(method), number(ofPaper(model).nq?.[method])]),
    ),
    table(
      `${model}: retrieval accuracy`,
      ["method", ...sets, "paper (NQ)"],
      ["unified", "lora-16", "dart-stop", "dart-flow"].map((method) => [
        methods[method],
        ...paired("retrieval")(method),
        number(ofPaper(model).retrieval?.[method]),
      ]),
    ),
    table(
      `${model}: fixed retrieval, the passages of unified training replayed`,
      ["method", ...sets, "paper (NQ)", "paper (HotpotQA)"],
      ["unified", "dart-replay"].map((method) => [
        methods[method],
        ...paired("em")(method),
        number(ofPaper(model).replay?.[method]?.nq),
        number(ofPaper(model).replay?.[method]?.hotpotqa),
      ]),
    ),
  ];
});

if (values.json) console.log(JSON.stringify(tables));
else for (const { title, head, rows } of tables) console.log(`## ${title}\n\n${markdown([head, ...rows])}\n`);

function markdown([head, ...rows]) {
  const widths = head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i].length)));
  const line = (row) => `| ${row.map((value, i) => value.padEnd(widths[i])).join(" | ")} |`;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n");
}
