// A worker thread of the pool: one engine, which has no file system (its databases are images in its memory), and one query at a time.
import { parentPort, workerData } from "node:worker_threads";
import type { Connection, Sqlite } from "./engine.js";
import type { SqlFailure, SqlReply, SqlRequest, SqlRows, SqlValue, WorkerSettings } from "./protocol.js";

type Query = Extract<SqlRequest, { kind: "query" }>;

const settings = workerData as WorkerSettings;
const port = parentPort!;
const send = (reply: SqlReply): void => port.postMessage(reply);

class Failure extends Error {
  constructor(
    readonly why: SqlFailure,
    message: string,
  ) {
    super(message);
  }
}

const quiet = { print: () => undefined, printErr: () => undefined };
const module = (await import(settings.engine)) as { default: (options: typeof quiet) => Promise<Sqlite> };
const sqlite = await module.default(quiet);
const { capi, wasm } = sqlite;

// For the whole engine, and for good: a limit can only be lowered.
const first = new sqlite.oo1.DB(":memory:");
first.exec(`PRAGMA hard_heap_limit = ${settings.memory}`);
first.close();

const READS = new Set([capi.SQLITE_SELECT, capi.SQLITE_READ, capi.SQLITE_FUNCTION, capi.SQLITE_RECURSIVE]);
// What a reader of an unknown database asks for. None of them can write, whatever their argument is.
const PRAGMAS = new Set([
  "table_info",
  "table_xinfo",
  "table_list",
  "index_list",
  "index_info",
  "index_xinfo",
  "foreign_key_list",
]);
// The engine's own insides, as tables.
const INTERNAL = new Set([
  "sqlite_dbpage",
  "sqlite_dbdata",
  "sqlite_dbptr",
  "dbstat",
  "sqlite_stmt",
  "bytecode",
  "tables_used",
]);
// An answer depends on the database alone, so that a run repeats: no chance, no clock. The others reach beyond values.
const FUNCTIONS = new Set([
  "random",
  "randomblob",
  "current_date",
  "current_time",
  "current_timestamp",
  "load_extension",
  "fts3_tokenizer",
]);
const NAMES = new Map(
  [
    [
      "CREATE_INDEX",
      "CREATE_TABLE",
      "CREATE_TEMP_INDEX",
      "CREATE_TEMP_TABLE",
      "CREATE_TEMP_TRIGGER",
      "CREATE_TEMP_VIEW",
    ],
    [
      "CREATE_TRIGGER",
      "CREATE_VIEW",
      "CREATE_VTABLE",
      "DELETE",
      "DROP_INDEX",
      "DROP_TABLE",
      "DROP_TRIGGER",
      "DROP_VIEW",
    ],
    [
      "DROP_VTABLE",
      "INSERT",
      "UPDATE",
      "PRAGMA",
      "TRANSACTION",
      "SAVEPOINT",
      "ATTACH",
      "DETACH",
      "ALTER_TABLE",
      "REINDEX",
    ],
    ["ANALYZE", "FUNCTION", "READ"],
  ]
    .flat()
    .map((name) => [capi[`SQLITE_${name}`], name.replace("_", " ")]),
);

let refused: string | undefined;
let deadline = 0;
let current = 0;
let timedOut = false;

function authorize(_: number, action: number, one: unknown, two: unknown): number {
  let allowed = READS.has(action);
  const name = String(action === capi.SQLITE_FUNCTION ? two : one).toLowerCase();
  if (action === capi.SQLITE_PRAGMA) allowed = PRAGMAS.has(name);
  else if (action === capi.SQLITE_READ) allowed = !INTERNAL.has(name);
  else if (action === capi.SQLITE_FUNCTION) allowed = !FUNCTIONS.has(name);
  if (allowed) return capi.SQLITE_OK!;
  const what = NAMES.get(action) ?? `action ${action}`;
  const detail = ["PRAGMA", "FUNCTION", "READ"].includes(what) ? ` ${name}` : "";
  refused ??= `not authorized: ${what}${detail} (only reading queries are)`;
  return capi.SQLITE_DENY!;
}

function stop(): number {
  timedOut = performance.now() > deadline || Atomics.load(settings.cancelled, 0) === current;
  return timedOut ? 1 : 0;
}

// By name, the one used last at the end. Images lie in the memory that queries use too: half of it is for them.
const open = new Map<string, { connection: Connection; bytes: number }>();

function connect(name: string, image: Uint8Array): Connection {
  const found = open.get(name);
  if (found !== undefined) {
    open.delete(name);
    open.set(name, found);
    return found.connection;
  }
  const half = settings.memory / 2;
  if (image.length > half)
    throw new Failure("database", `database ${name} has ${image.length} bytes, more than half of a worker's memory`);
  let held = image.length;
  for (const { bytes } of open.values()) held += bytes;
  for (const [other, { connection, bytes }] of open) {
    if (held <= half) break;
    connection.close();
    open.delete(other);
    held -= bytes;
  }
  const connection = new sqlite.oo1.DB(":memory:");
  try {
    const data = wasm.allocFromTypedArray(image);
    const flags = capi.SQLITE_DESERIALIZE_FREEONCLOSE! | capi.SQLITE_DESERIALIZE_READONLY!;
    const db = connection.pointer;
    if (capi.sqlite3_deserialize(db, "main", data, image.length, image.length, flags) !== capi.SQLITE_OK)
      throw new Failure("database", `database ${name}: ${capi.sqlite3_errmsg(db)}`);
    // Reads the schema, which tells whether this is a database.
    connection.exec("PRAGMA query_only = 1; SELECT count(*) FROM sqlite_schema");
    capi.sqlite3_db_config(db, capi.SQLITE_DBCONFIG_DEFENSIVE!, 1, 0);
    capi.sqlite3_db_config(db, capi.SQLITE_DBCONFIG_TRUSTED_SCHEMA!, 0, 0);
    for (const [limit, value] of Object.entries(LIMITS)) capi.sqlite3_limit(db, capi[`SQLITE_LIMIT_${limit}`]!, value);
    capi.sqlite3_set_authorizer(db, authorize, 0);
    capi.sqlite3_progress_handler(db, 1000, stop, 0);
  } catch (error) {
    connection.close();
    throw error instanceof Failure ? error : new Failure("database", `database ${name}: ${messageOf(error)}`);
  }
  open.set(name, { connection, bytes: image.length });
  return connection;
}

const LIMITS = {
  LENGTH: settings.maxValueBytes,
  SQL_LENGTH: 100_000,
  EXPR_DEPTH: 200,
  COMPOUND_SELECT: 100,
  VDBE_OP: 250_000,
  LIKE_PATTERN_LENGTH: 1000,
  ATTACHED: 0,
  TRIGGER_DEPTH: 1,
};

function query(request: Query): SqlRows {
  const { database, image, sql, timeout } = request;
  if (sql.includes("\0")) throw new Failure("sql", "unrecognized token: a zero character");
  const { pointer: db } = connect(database, image);
  refused = undefined;
  timedOut = false;
  deadline = performance.now() + timeout;
  const [text, length] = wasm.allocCString(sql, true);
  try {
    const { statement, rest } = prepare(db, text, length);
    if (statement === 0) throw new Failure("sql", "no statement");
    try {
      // More white space, comments and semicolons may follow, but no other statement: the parser says which it is.
      if (isStatement(db, rest, length - (rest - text))) throw new Failure("refused", "only one statement is allowed");
      const isQuery = capi.sqlite3_stmt_readonly(statement) !== 0 && capi.sqlite3_column_count(statement) > 0;
      if (!isQuery) throw new Failure("refused", "not authorized: only queries that return rows are");
      return collect(db, statement, request);
    } finally {
      capi.sqlite3_finalize(statement);
    }
  } finally {
    wasm.dealloc(text);
  }
}

/** The first statement at `text`; 0 where there is none. */
function prepare(db: number, text: number, length: number): { statement: number; rest: number } {
  const stack = wasm.pstack.pointer;
  try {
    const out = wasm.pstack.alloc(16);
    for (let at = text; ;) {
      const left = length - (at - text);
      if (left <= 0) return { statement: 0, rest: at };
      const code = capi.sqlite3_prepare_v3(db, at, left, 0, out, out + 8);
      if (code !== capi.SQLITE_OK) fail(db, code);
      const statement = wasm.peekPtr(out);
      const rest = wasm.peekPtr(out + 8);
      // An empty statement: there may be one behind it.
      if (statement !== 0 || rest <= at) return { statement, rest };
      at = rest;
    }
  } finally {
    wasm.pstack.restore(stack);
  }
}

function isStatement(db: number, text: number, length: number): boolean {
  try {
    const { statement } = prepare(db, text, length);
    if (statement !== 0) capi.sqlite3_finalize(statement);
    return statement !== 0;
  } catch (error) {
    if (error instanceof Failure) return true; // something is there, if only a wrong statement
    throw error;
  }
}

function collect(db: number, statement: number, request: Query): SqlRows {
  const { maxRows, maxBytes, maxCellCharacters, countRows } = request;
  const width = capi.sqlite3_column_count(statement);
  const columns = Array.from({ length: width }, (_, i) => capi.sqlite3_column_name(statement, i) ?? "");
  const rows: SqlValue[][] = [];
  let total = 0;
  let bytes = 0;
  for (;;) {
    const code = capi.sqlite3_step(statement);
    if (code === capi.SQLITE_DONE) return { columns, rows, total, complete: true };
    if (code !== capi.SQLITE_ROW) fail(db, code);
    if (++total > maxRows) {
      if (total > maxRows + countRows) return { columns, rows, total: total - 1, complete: false };
      continue;
    }
    const row = [];
    for (let i = 0; i < width; i++) {
      const value = maxCellCharacters === undefined ? read(statement, i) : shown(statement, i, maxCellCharacters);
      if (typeof value === "string" || value instanceof Uint8Array) bytes += value.length;
      bytes += 8;
      row.push(value);
    }
    if (bytes > maxBytes) throw new Failure("size", `the result has more than ${maxBytes} bytes`);
    rows.push(row);
  }
}

const decoder = new TextDecoder();

function bytesOf(statement: number, column: number, limit = Infinity): Uint8Array {
  const at = capi.sqlite3_column_blob(statement, column);
  const length = Math.min(capi.sqlite3_column_bytes(statement, column), limit);
  return wasm.heap8u().slice(at, at + length);
}

function read(statement: number, column: number): SqlValue {
  switch (capi.sqlite3_column_type(statement, column)) {
    case capi.SQLITE_NULL:
      return null;
    case capi.SQLITE_INTEGER: {
      const value = capi.sqlite3_column_int64(statement, column);
      return BigInt(Number.MIN_SAFE_INTEGER) <= value && value <= BigInt(Number.MAX_SAFE_INTEGER)
        ? Number(value)
        : value;
    }
    case capi.SQLITE_FLOAT:
      return capi.sqlite3_column_double(statement, column);
    case capi.SQLITE_TEXT:
      return decoder.decode(bytesOf(statement, column));
    default:
      return bytesOf(statement, column);
  }
}

/** As SQLite writes the value (1.0, not 1), null for NULL. */
function shown(statement: number, column: number, limit: number): string | null {
  switch (capi.sqlite3_column_type(statement, column)) {
    case capi.SQLITE_NULL:
      return null;
    case capi.SQLITE_TEXT: {
      // A character is four bytes at most.
      const text = decoder.decode(bytesOf(statement, column, 4 * (limit + 1)));
      return text.length > limit ? `${text.slice(0, limit)}…` : text;
    }
    case capi.SQLITE_BLOB: {
      const hex = Buffer.from(bytesOf(statement, column, limit)).toString("hex");
      return hex.length > limit ? `x'${hex.slice(0, limit)}…'` : `x'${hex}'`;
    }
    default:
      return capi.sqlite3_column_text(statement, column);
  }
}

function fail(db: number, code: number): never {
  if (refused !== undefined) throw new Failure("refused", refused);
  if (code === capi.SQLITE_INTERRUPT) throw new Failure("timeout", "interrupted: the query took too long");
  if (code === capi.SQLITE_NOMEM) throw new Failure("memory", "out of memory: the query needs too much");
  throw new Failure("sql", capi.sqlite3_errmsg(db));
}

/** The database that a script makes, as the bytes of a file. */
function build(script: string): Uint8Array {
  if (script.trim() === "") throw new Failure("database", "the script is empty");
  const db = new sqlite.oo1.DB(":memory:");
  try {
    // Thousands of rows in one transaction is what scripts have; each on its own would be slow.
    db.exec(script);
    return capi.sqlite3_js_db_export(db.pointer);
  } finally {
    db.close();
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

port.on("message", (request: SqlRequest) => {
  const { id } = request;
  current = id;
  send({ id, kind: "started" });
  try {
    if (request.kind === "build") send({ id, kind: "image", image: build(request.script) });
    else send({ id, kind: "rows", result: query(request) });
  } catch (error) {
    const known = error instanceof Failure;
    // Anything but an error of SQL (a trap of the engine) leaves it in a state that nobody knows.
    const broken = !known && request.kind === "query";
    send({ id, kind: "failed", why: known ? error.why : "database", message: messageOf(error), broken });
  }
});
