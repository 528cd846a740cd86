import { availableParallelism } from "node:os";
import { checkInteger, checkPositive } from "../../arguments.js";
import { fail } from "../../errors.js";
import { resolveOptional } from "../../optional.js";
import type { Environment, Question, ToolCall, ToolResult } from "../types.js";
import { listDatabases, readDatabase, type SqlDatabase } from "./databases.js";
import { sqlTable, unfenced, type SqlTable } from "./format.js";
import { SqlPool, SqlRefusal } from "./pool.js";
import type { SqlRows } from "./protocol.js";

export interface SqlOptions {
  /** A directory of databases, or a file (NAME.sql: a script) or script by name. */
  databases: string | Record<string, SqlDatabase>;
  /** Which one a question is about: the field that names it, or a function. Not needed for a single one. @default "db" */
  database?: string | ((question: Question) => string);
  /** Milliseconds that one query may run, opening the database aside. @default 5000 */
  timeout?: number;
  /** Rows that the model reads. @default 20 */
  maxRows?: number;
  /** Characters of one value that the model reads. @default 200 */
  maxCellCharacters?: number;
  /** Characters of one result that the model reads, the line of counts aside. @default 4000 */
  maxCharacters?: number;
  /** Bytes of any value that a query makes, and of any row: more is an error of the query. @default 1_000_000 */
  maxValueBytes?: number;
  /** Bytes that the engine of one thread may allocate; half of it for open databases. @default 268_435_456 */
  memory?: number;
  /** Threads, each with an engine of its own. @default up to 4, as many as there are processors */
  workers?: number;
  /** What the model reads of a result. @default {@link sqlTable} */
  format?: (table: SqlTable, maxCharacters: number) => string;
}

export interface SqlQueryOptions {
  /** More rows -> ERR_SQL_QUERY. @default 100_000 */
  maxRows?: number;
  signal?: AbortSignal;
}

const PACKAGE = "@sqlite.org/sqlite-wasm";
// What npm would take by itself is years old: later versions have a build number, which is a pre-release to npm.
const VERSION = "3.54.1-build1";
// Further rows are counted so far, and not to the end of an endless query.
const COUNT = 10_000;
const MAX_RESULT_BYTES = 64e6;

/**
 * A database behind a role's spans: runs the text of a call as one reading query and answers with a table, or with SQLite's error. The engine
 * enforces it: it has no file system, its databases are read-only images in memory, an authorizer lets only reading through, and time, memory and
 * lengths are bounded (docs/sql.md). Queries run in threads of their own.
 *
 * @example
 * const sql = await SqlEnvironment.open({ databases: "databases" }); // databases/concerts.sqlite, ...
 * const { text } = await sql.act({ text: "SELECT count(*) FROM singer", question: { db: "concerts", … }, … }, { signal });
 * // "count(*)\n6\n(1 row)"
 * await sql.close();
 */
export class SqlEnvironment implements Environment {
  /** Names of the databases. */
  readonly databases: readonly string[];
  readonly #sources: Map<string, SqlDatabase>;
  readonly #images = new Map<string, Promise<Uint8Array>>();
  readonly #pool: SqlPool;
  readonly #nameOf: (question: Question) => unknown;
  readonly #limits: { timeout: number; maxRows: number; maxCellCharacters: number; maxCharacters: number };
  readonly #format: NonNullable<SqlOptions["format"]>;

  private constructor(options: SqlOptions, engine: string) {
    const { timeout = 5000, maxRows = 20, maxCellCharacters = 200, maxCharacters = 4000, database = "db" } = options;
    const { maxValueBytes = 1_000_000, memory = 2 ** 28, workers = Math.min(4, availableParallelism()) } = options;
    checkPositive(timeout, "timeout");
    checkInteger(maxRows, "maxRows", 1);
    checkInteger(maxCellCharacters, "maxCellCharacters", 1);
    checkInteger(maxCharacters, "maxCharacters", 1);
    checkInteger(maxValueBytes, "maxValueBytes", 1000, 1e9);
    checkInteger(memory, "memory", 2 ** 24, 2 ** 31);
    checkInteger(workers, "workers", 1, 256);
    this.#sources = listDatabases(options.databases);
    this.databases = [...this.#sources.keys()];
    const only = this.databases.length === 1 ? this.databases[0] : undefined;
    this.#nameOf = typeof database === "function" ? database : (question) => question[database] ?? only;
    this.#limits = { timeout, maxRows, maxCellCharacters, maxCharacters };
    this.#format = options.format ?? sqlTable;
    this.#pool = new SqlPool(workers, { engine, memory, maxValueBytes });
  }

  /**
   * Files are read when a question first needs them, or by {@link load}. A bad option -> ERR_INVALID_ARGUMENT, no database -> ERR_SQL_DATABASE, the
   * optional package is absent -> ERR_OPTIONAL_MISSING.
   */
  static open(options: SqlOptions): Promise<SqlEnvironment> {
    return Promise.resolve().then(
      () => new SqlEnvironment(options, resolveOptional(PACKAGE, "SQL environments", VERSION)),
    );
  }

  /** The database that a question is about. One that is not there -> ERR_SQL_DATABASE, naming the question. */
  databaseOf(question: Question): string {
    const name = this.#nameOf(question);
    if (typeof name === "string" && this.#sources.has(name)) return name;
    const known = this.databases.slice(0, 8).join(", ");
    return fail(
      "ERR_SQL_DATABASE",
      `Expected the name of a database (${known}${this.databases.length > 8 ? ", …" : ""}) for question ${question.id} but received ` +
        (typeof name === "string" ? JSON.stringify(name) : String(name)),
    );
  }

  async act(call: Pick<ToolCall, "text" | "question">, { signal }: { signal?: AbortSignal } = {}): Promise<ToolResult> {
    const database = this.databaseOf(call.question);
    const { maxRows, maxCellCharacters, maxCharacters } = this.#limits;
    try {
      const table = await this.#query(database, call.text, { maxRows, maxCellCharacters, countRows: COUNT }, signal);
      return { text: this.#format(table as SqlTable, maxCharacters) };
    } catch (error) {
      // A broken database is not the model's error.
      if (!(error instanceof SqlRefusal) || error.why === "database") throw this.#told(error, database);
      return { text: `Error: ${error.message}`.slice(0, maxCharacters), refused: error.why };
    }
  }

  /**
   * All rows of one reading query, within the same bounds. Anything else, and any error of SQL -> ERR_SQL_QUERY with SQLite's message.
   *
   * @example
   * const { rows } = await sql.query("concerts", "SELECT name, age FROM singer"); // [["Joe", 52], …]
   */
  async query(database: string, sql: string, options: SqlQueryOptions = {}): Promise<SqlRows> {
    const { maxRows = 100_000, signal } = options;
    checkInteger(maxRows, "maxRows", 1);
    try {
      const result = await this.#query(database, sql, { maxRows, countRows: 0 }, signal);
      if (!result.complete) throw new SqlRefusal("size", `the result has more than ${maxRows} rows`);
      return result;
    } catch (error) {
      throw this.#told(error, database);
    }
  }

  /**
   * The CREATE statements of a database's tables and views, for a prompt; with `sampleRows`, the first rows of each table as comments.
   *
   * @example
   * await sql.schemaText("concerts"); // 'CREATE TABLE "singer" (…);\n…'
   */
  async schemaText(database: string, options: { sampleRows?: number; signal?: AbortSignal } = {}): Promise<string> {
    const { sampleRows = 0, signal } = options;
    checkInteger(sampleRows, "sampleRows", 0);
    const found = await this.query(database, SCHEMA, signal && { signal });
    const parts: string[] = [];
    for (const [type, name, sql] of found.rows) {
      parts.push(`${String(sql).trim()};`);
      if (sampleRows === 0 || type !== "table") continue;
      const quoted = `"${String(name).replaceAll('"', '""')}"`;
      const { maxCellCharacters } = this.#limits;
      const limits = { maxRows: sampleRows, maxCellCharacters, countRows: 0 };
      const table = await this.#query(database, `SELECT * FROM ${quoted} LIMIT ${sampleRows}`, limits, signal);
      const lines = sqlTable(table as SqlTable).split("\n");
      parts.push(
        `/* rows of ${quoted.replaceAll("*/", "* /")}:`,
        ...lines.slice(0, -1).map((line) => line.replaceAll("*/", "* /")),
        "*/",
      );
    }
    return parts.join("\n");
  }

  /** Reads a database now: what is wrong with it is an error here (ERR_SQL_DATABASE), and not at a question. */
  async load(database: string): Promise<void> {
    await this.query(database, "SELECT 1");
  }

  /** Ends the threads; queries under way are rejected with ERR_SQL_CLOSED. */
  close(): Promise<void> {
    return this.#pool.close();
  }

  async #query(
    database: string,
    text: string,
    limits: { maxRows: number; countRows: number; maxCellCharacters?: number },
    signal: AbortSignal | undefined,
  ): Promise<SqlRows> {
    signal?.throwIfAborted();
    const image = await this.#image(database);
    const { timeout } = this.#limits;
    const sql = unfenced(text);
    const work = { kind: "query", database, image, sql, timeout, maxBytes: MAX_RESULT_BYTES, ...limits } as const;
    const answer = await this.#pool.run(work, signal);
    return answer.kind === "rows" ? answer.result : fail("ERR_SQL_DATABASE", "Expected rows of the SQL engine");
  }

  #image(name: string): Promise<Uint8Array> {
    let image = this.#images.get(name);
    if (image === undefined) {
      const source = this.#sources.get(name);
      if (source === undefined)
        return fail("ERR_SQL_DATABASE", `Expected one of ${this.databases.join(", ")} but received ${name}`);
      image = readDatabase(name, source).then(async (read) => {
        if ("image" in read) return read.image;
        const made = await this.#pool.run({ kind: "build", script: read.script });
        if (made.kind !== "image") return fail("ERR_SQL_DATABASE", "Expected an image of the SQL engine");
        const shared = new Uint8Array(new SharedArrayBuffer(made.image.length));
        shared.set(made.image);
        return shared;
      });
      this.#images.set(name, image);
      image.catch(() => this.#images.delete(name)); // another try may find it
    }
    return image;
  }

  #told(error: unknown, database: string): unknown {
    if (!(error instanceof SqlRefusal)) return error;
    const code = error.why === "database" ? "ERR_SQL_DATABASE" : "ERR_SQL_QUERY";
    try {
      return fail(code, `Expected a result of database ${database} but received: ${error.message}`, error);
    } catch (told) {
      return told;
    }
  }
}

const SCHEMA =
  "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid";
