import { checkChoice, checkInteger, checkObject } from "../../arguments.js";
import { SqlEnvironment, type SqlOptions } from "../../environments/sql/environment.js";
import type { Question } from "../../environments/types.js";
import { fail } from "../../errors.js";
import { Random } from "../../random.js";
import { COUNTRIES, PRODUCTS, STEMS } from "../names.js";
import { COLUMNS, TABLES } from "./names.js";

/** A table of a database: every row has a name, which no other row of the database has, and a value in each column. */
export interface SqlWorldTable {
  name: string;
  columns: readonly string[];
  /** The table whose names stand in a column; absent: plain values. */
  links: ReadonlyMap<string, SqlWorldTable>;
  rows: ReadonlyMap<string, ReadonlyMap<string, string>>;
}

export interface SqlWorldDatabase {
  name: string;
  split: string;
  tables: readonly SqlWorldTable[];
}

export interface SqlWorldOptions {
  seed: number;
  /** Databases of each split. @default { train: 60, dev: 25 } */
  databases?: Record<string, number>;
  /** Tables of a database. @default 3 */
  tables?: number;
  /** Rows of a table. @default 6 */
  rows?: number;
  /**
   * "shared": every database, of every world, has the same tables and columns, and rows of its own; "own": each has tables and columns of its own too, whose names say
   * nothing, so that a query must be written from the prompt. @default "shared"
   */
  schema?: "shared" | "own";
}

/** A question about a database of a world, which sqlReward judges by the gold query in `sql`. */
export interface SqlWorldQuestion extends Question {
  db: string;
  sql: string;
  split: string;
  /** "lookup": one value; "chain": the value of a value; "count": how many rows have a value. */
  kind: "lookup" | "chain" | "count";
  /** What is looked up, first to last; of a count, the column that is compared. */
  chain: string[];
  /** The name that the question begins with; of a count, the value. */
  subject: string;
}

/** A query as the world writes it, with one column and one condition. */
export interface SqlWorldQuery {
  table: string;
  /** null: count(*). */
  select: string | null;
  where: string;
  equals: string;
}

export function textOf({ table, select, where, equals }: SqlWorldQuery): string {
  return `SELECT ${select ?? "count(*)"} FROM ${table} WHERE ${where} = '${equals}'`;
}

const COLUMNS_PER_TABLE = 3;

/**
 * Small invented databases with questions and their gold queries: NL2SQL for the SQL environment and its reward. Everything follows from the seed. A column may
 * be in two tables, and only one of them has the row that is asked for: so a query has to be tried. Errors: ERR_INVALID_ARGUMENT for an option out of its range.
 *
 * @example
 * const world = new SqlWorld({ seed: 1 });
 * const environment = await world.environment();
 * const questions = world.questions("train", 16, 0);
 * const prompt = world.prompt(questions[0]); // " Columns: volo market, volo seat, …\n Question: What is the home of 'Kromvik'?\n"
 */
export class SqlWorld {
  readonly seed: number;
  readonly databases: readonly SqlWorldDatabase[];
  readonly #byName: ReadonlyMap<string, SqlWorldDatabase>;

  constructor(options: SqlWorldOptions) {
    checkObject(options, "options");
    const { seed, databases = { train: 60, dev: 25 }, tables = 3, rows = 6, schema = "shared" } = options;
    checkInteger(seed, "seed", 0);
    checkInteger(tables, "tables", 2, 8);
    checkInteger(rows, "rows", 2, 24);
    checkChoice(schema, ["shared", "own"], "schema");
    const random = new Random(seed, "world/sql");
    checkObject(databases, "databases");
    if (Object.keys(databases).length === 0)
      fail("ERR_INVALID_ARGUMENT", "Expected a split with databases but received none");
    this.seed = seed;
    this.databases = Object.entries(databases).flatMap(([split, count]) => {
      checkInteger(count, `databases.${split}`, 1);
      return Array.from({ length: count }, (_, i) => made(`${split}${i}`, split, { tables, rows, schema }, random));
    });
    this.#byName = new Map(this.databases.map((database) => [database.name, database]));
  }

  /** ERR_SQL_DATABASE where there is none of this name. */
  database(name: string): SqlWorldDatabase {
    return this.#byName.get(name) ?? fail("ERR_SQL_DATABASE", `Expected a database of the world but received ${name}`);
  }

  /** The statements that make a database. */
  script(name: string): string {
    return this.database(name)
      .tables.map((table) => {
        const values = [...table.rows].map(([row, cells]) => `('${[row, ...cells.values()].join("', '")}')`);
        return `${statement(table)};\nINSERT INTO ${table.name} VALUES ${values.join(", ")};`;
      })
      .join("\n");
  }

  /** The columns of the question's database, each behind its table (`name`, which every table has, goes without saying), and the question. */
  prompt(question: Question): string {
    const { tables } = this.database(String(question["db"]));
    const pairs = tables.flatMap(({ name, columns }) => columns.map((column) => `${name} ${column}`));
    return ` Columns: ${pairs.join(", ")}\n Question: ${question.question}\n`;
  }

  /** The databases behind SQLite; close() ends its threads. */
  environment(options: Omit<SqlOptions, "databases" | "database"> = {}): Promise<SqlEnvironment> {
    const databases = Object.fromEntries(this.databases.map(({ name }) => [name, { script: this.script(name) }]));
    return SqlEnvironment.open({ ...options, databases });
  }

  /**
   * `count` different questions about the databases of a split, as `seed` draws them: 45 % lookups, 45 % chains of two, the others counts. An unknown
   * split -> ERR_WORLD_SPLIT, more questions than the split has -> ERR_WORLD_QUESTIONS.
   */
  questions(split: string, count: number, seed: number): SqlWorldQuestion[] {
    checkInteger(count, "count", 0);
    checkInteger(seed, "seed", 0);
    const random = new Random(seed, `world/sql/${this.seed}/questions/${split}`);
    const pool = this.databases.filter((database) => database.split === split);
    if (pool.length === 0) {
      const known = [...new Set(this.databases.map((database) => database.split))].join(", ");
      fail("ERR_WORLD_SPLIT", `Expected one of ${known} for split but received ${split}`);
    }
    const questions = new Map<string, SqlWorldQuestion>();
    for (let tries = 0; questions.size < count; tries++) {
      if (tries === 100 * count)
        fail(
          "ERR_WORLD_QUESTIONS",
          `Expected ${count} different questions on ${split} but the world gave ${questions.size}`,
        );
      const question = ask(random.choice(pool), random);
      if (question !== undefined && !questions.has(question.id)) questions.set(question.id, question);
    }
    return [...questions.values()];
  }

  /** What a query of the world's own form gives: the values, or undefined where the table has no such column. */
  run(name: string, { table, select, where, equals }: SqlWorldQuery): string[] | undefined {
    const own = this.database(name).tables.find((each) => each.name === table);
    const has = (column: string): boolean => column === "name" || own?.columns.includes(column) === true;
    if (own === undefined || !has(where) || (select !== null && !has(select))) return undefined;
    const cell = (row: string, cells: ReadonlyMap<string, string>, column: string): string =>
      column === "name" ? row : cells.get(column)!;
    const found = [...own.rows].filter(([row, cells]) => cell(row, cells, where) === equals);
    return select === null ? [String(found.length)] : found.map(([row, cells]) => cell(row, cells, select));
  }
}

function statement({ name, columns }: SqlWorldTable): string {
  return `CREATE TABLE ${name} ( name, ${columns.join(", ")} )`;
}

function made(
  name: string,
  split: string,
  sizes: { tables: number; rows: number; schema: string },
  random: Random,
): SqlWorldDatabase {
  const { tables: count, rows, schema } = sizes;
  const drawn = schema === "shared" ? new Random(1, "world/sql/schema") : random;
  // Every second column is in one table, the others are in two: then the row decides which of them is meant.
  const columns = drawn.sample(COLUMNS, Math.ceil((count * COLUMNS_PER_TABLE * 2) / 3));
  const twice = columns.slice(0, count * COLUMNS_PER_TABLE - columns.length);
  const columnsOf = (i: number): string[] => [
    ...columns.filter((_, at) => at % count === i),
    ...twice.filter((_, at) => (at + 1) % count === i),
  ];
  const names = random.sample(STEMS, count * rows);
  const tables = drawn.sample(TABLES, count).map((table, i) => ({
    name: table,
    columns: drawn.shuffle(columnsOf(i)),
    links: new Map<string, SqlWorldTable>(),
    rows: new Map<string, ReadonlyMap<string, string>>(
      names.slice(i * rows, (i + 1) * rows).map((row) => [row, new Map<string, string>()]),
    ),
  }));
  for (const table of tables) {
    table.columns.forEach((column, i) => {
      // The first leads on, the last does not.
      if (i === 0 || (i + 1 < table.columns.length && drawn.chance(0.5))) table.links.set(column, drawn.choice(tables));
    });
  }
  for (const table of tables) {
    for (const row of table.rows.keys()) {
      const cells = table.columns.map((column): [string, string] => {
        const link = table.links.get(column);
        return [column, random.choice(link === undefined ? PLAIN : [...link.rows.keys()])];
      });
      table.rows.set(row, new Map(cells));
    }
  }
  return { name, split, tables };
}

const PLAIN: readonly string[] = [...COUNTRIES, ...PRODUCTS];

function ask(database: SqlWorldDatabase, random: Random): SqlWorldQuestion | undefined {
  const draw = random.next();
  const kind = draw < 0.45 ? "lookup" : draw < 0.9 ? "chain" : "count";
  const table = random.choice(database.tables);
  const own = (chain: string[], subject: string, question: string, sql: string): SqlWorldQuestion => ({
    id: `${database.name}/${table.name}/${subject}/${chain.join("/")}/${kind}`,
    question,
    answers: [],
    db: database.name,
    sql,
    split: database.split,
    kind,
    chain,
    subject,
  });
  if (kind === "count") {
    // Of a column that one table has: otherwise there would be two answers.
    const alone = table.columns.filter(
      (column) => database.tables.filter(({ columns }) => columns.includes(column)).length === 1,
    );
    if (alone.length === 0) return undefined;
    const column = random.choice(alone);
    const value = random.choice([...table.rows.values()]).get(column)!;
    const query = { table: table.name, select: null, where: column, equals: value };
    return own([column], value, `How many have the ${column} '${value}'?`, textOf(query));
  }
  const subject = random.choice([...table.rows.keys()]);
  if (kind === "lookup") {
    const column = random.choice(table.columns);
    const query = { table: table.name, select: column, where: "name", equals: subject };
    return own([column], subject, `What is the ${column} of '${subject}'?`, textOf(query));
  }
  const first = random.choice([...table.links.keys()]);
  const next = table.links.get(first)!;
  const second = random.choice(next.columns);
  const inner = textOf({ table: table.name, select: first, where: "name", equals: subject });
  return own(
    [first, second],
    subject,
    `What is the ${second} of the ${first} of '${subject}'?`,
    `SELECT ${second} FROM ${next.name} WHERE name = (${inner})`,
  );
}
