import { existsSync } from "node:fs";
import { cp, writeFile } from "node:fs/promises";
import path from "node:path";
import { makeFolder, writeFolder } from "../durable.js";
import { trainBase } from "../world/base.js";
import { trainDialectBase, type Dialect } from "../world/dialect.js";
import { SQL_WORLD_TAGS, SqlWorld, trainSqlBase } from "../world/sql/index.js";
import { WORLD_CHECKPOINT, WORLD_TAGS } from "../world/text.js";
import { World } from "../world/world.js";
import type { RunConfigInput } from "../run/schema.js";
import type { ExperimentDirectory } from "./directory.js";
import type { Cell, ExperimentPlan } from "./plan.js";

/** d = 1, and answers are marked as well. */
export const ALIGNED = { dose: 1, aligned: true };

type Where = Pick<Cell, "dialect" | "samples">;

/** What a cell of a plan is trained and measured in; files are in the experiment's folder. */
export interface CellWorld {
  model: string;
  data: RunConfigInput["data"];
  environment: NonNullable<RunConfigInput["environment"]>;
  agent: Pick<NonNullable<RunConfigInput["agent"]>, "spans" | "output" | "answer" | "prompt" | "maxLength">;
}

export function cellWorld(plan: ExperimentPlan, cell: Where): CellWorld {
  const { seed, tuningSeed } = plan.world;
  const own = cell.samples === 0 ? tuningSeed : seed;
  const model = baseOf(plan, cell);
  const splits = { split: "train", evalSplit: "dev" };
  if (plan.world.task === "sql") {
    const { questions, databases } = sqlData(own);
    const { tool, output, answer } = SQL_WORLD_TAGS;
    return {
      model,
      data: { questions, ...splits },
      environment: { kind: "sqlite", databases },
      // What is asked begins with the columns of its database.
      agent: { spans: [{ role: "tool", ...tool }], output, answer, prompt: " {question}\n", maxLength: 320 },
    };
  }
  const { questions, pages } = searchData(own, cell.dialect === "aligned");
  const maxLength = plan.world.base?.thoughts === "long" ? 400 : 200;
  const { tool, output, answer } = WORLD_TAGS;
  return {
    model,
    data: { questions, ...splits },
    environment: {
      kind: "search",
      passages: pages,
      topK: 1,
      titleWeight: 2,
      passage: "{title}. {text}",
      separator: " ",
    },
    agent: { spans: [{ role: "tool", ...tool }], output, answer, prompt: " Question: {question}\n", maxLength },
  };
}

/** Aligned roles have answers of their own. */
function searchData(seed: number, aligned = false): { questions: string; pages: string } {
  const of = `data/world-${seed}`;
  return { questions: `${of}-${aligned ? "aligned-" : ""}questions.jsonl`, pages: `${of}-pages.jsonl` };
}

function sqlData(seed: number): { questions: string; databases: string } {
  return { questions: `data/sql-world-${seed}-questions.jsonl`, databases: `data/sql-world-${seed}` };
}

/** The folder of a cell's base: of the search, a copy of the shipped one; all doses of the dialect have one, which knows the mark. */
export function baseOf({ world }: ExperimentPlan, { dialect }: Pick<Cell, "dialect">): string {
  if (world.task === "sql") return "data/sql-base";
  return dialect === null ? "data/base" : "data/dialect-base";
}

/** Tokens that a cell's base must still be trained on; 0: it is there, or is a copy. */
export function baseTokensLeft(
  plan: ExperimentPlan,
  cell: Pick<Cell, "dialect">,
  directory: ExperimentDirectory | undefined,
): number {
  const name = baseOf(plan, cell);
  const copied = name === "data/base" && plan.world.base === undefined;
  if (copied || (directory !== undefined && existsSync(directory.file(name)))) return 0;
  const { task, baseTokens } = plan.world;
  return baseTokens ?? (task === "sql" ? 1_000_000 : name === "data/base" ? 2_200_000 : 500_000);
}

/** Trains a cell's base where it is not there yet; an abort leaves none. */
export async function makeBase(
  plan: ExperimentPlan,
  cell: Pick<Cell, "dialect">,
  directory: ExperimentDirectory,
  signal?: AbortSignal,
): Promise<void> {
  const tokens = baseTokensLeft(plan, cell, directory);
  if (tokens === 0) return;
  const name = baseOf(plan, cell);
  await writeFolder(directory.file(name), (partial) => {
    const options = { directory: partial, tokens, ...(signal && { signal }) };
    if (name === "data/base") return trainBase({ ...options, ...plan.world.base });
    return plan.world.task === "sql" ? trainSqlBase(options) : trainDialectBase(options);
  });
}

/** Writes the base and the data of the worlds that the plan plays in, once: an experiment goes on with what it began with, whatever version makes it. */
export async function writeWorlds(plan: ExperimentPlan, directory: ExperimentDirectory): Promise<void> {
  const { seed: ownSeed, tuningSeed, task } = plan.world;
  const seeds = [...new Set([ownSeed, tuningSeed])];
  if (task === "sql") {
    for (const seed of seeds) await writeSqlWorld(plan, directory, seed);
    return;
  }
  const base = directory.file("data/base");
  if (plan.world.base === undefined && !existsSync(base)) {
    await makeFolder(path.dirname(base));
    await writeFolder(base, (partial) => cp(WORLD_CHECKPOINT, partial, { recursive: true }));
  }
  for (const seed of seeds) await writeSearchWorld(plan, directory, seed);
  if (plan.studies.some(({ dialect }) => dialect?.includes("aligned") === true))
    await writeSearchWorld(plan, directory, ownSeed, true);
}

const lines = (rows: readonly object[]): string => rows.map((row) => `${JSON.stringify(row)}\n`).join("");

/** Questions to train on, and to measure and draw curves with. */
function questionsOf<T extends object>(
  { trainQuestions, questions, curve }: ExperimentPlan,
  draw: (split: string, count: number) => T[],
): T[] {
  return [...draw("train", trainQuestions), ...draw("dev", Math.max(questions, curve.questions))];
}

/** The search world of a plan. */
export function searchWorld(plan: ExperimentPlan, seed: number, dialect?: Dialect): World {
  const { size = 1 } = plan.world;
  const sizes = { people: 300 * size, towns: 120 * size, firms: 90 * size, rivers: 60 * size };
  return new World({ seed, ...sizes, ...(dialect && { dialect }) });
}

async function writeSearchWorld(
  plan: ExperimentPlan,
  directory: ExperimentDirectory,
  seed: number,
  aligned = false,
): Promise<void> {
  const { questions, pages } = searchData(seed, aligned);
  if (existsSync(directory.file(questions)) && existsSync(directory.file(pages))) return;
  const world = searchWorld(plan, seed, aligned ? ALIGNED : undefined);
  const { twoHops = 0.5 } = plan.world;
  const rows = questionsOf(plan, (split, count) => world.questions(split, count, 0, { twoHops }));
  await directory.write(questions, lines(rows));
  await directory.write(pages, lines(world.pages));
}

async function writeSqlWorld(plan: ExperimentPlan, directory: ExperimentDirectory, seed: number): Promise<void> {
  const { questions, databases } = sqlData(seed);
  const world = new SqlWorld({ seed });
  if (!existsSync(directory.file(databases))) {
    await makeFolder(path.dirname(directory.file(databases)));
    await writeFolder(directory.file(databases), async (partial) => {
      for (const { name } of world.databases) await writeFile(path.join(partial, `${name}.sql`), world.script(name));
    });
  }
  if (existsSync(directory.file(questions))) return;
  const rows = questionsOf(plan, (split, count) => world.questions(split, count, 0));
  const withColumns = rows.map((row) => ({ ...row, question: world.prompt(row).trim() }));
  await directory.write(questions, lines(withColumns));
}
