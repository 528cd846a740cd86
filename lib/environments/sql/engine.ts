// The part of SQLite's C API that is used here, as @sqlite.org/sqlite-wasm gives it. Pointers are numbers.

type Pointer = number;

export interface Sqlite {
  capi: {
    sqlite3_deserialize(
      db: Pointer,
      schema: string,
      data: Pointer,
      size: number,
      capacity: number,
      flags: number,
    ): number;
    sqlite3_js_db_export(db: Pointer): Uint8Array;
    sqlite3_limit(db: Pointer, id: number, value: number): number;
    sqlite3_db_config(db: Pointer, operation: number, value: number, out: Pointer): number;
    sqlite3_set_authorizer(db: Pointer, allow: Authorizer | 0, context: Pointer): number;
    sqlite3_progress_handler(db: Pointer, operations: number, stop: (() => number) | 0, context: Pointer): void;
    sqlite3_prepare_v3(db: Pointer, sql: Pointer, bytes: number, flags: number, out: Pointer, tail: Pointer): number;
    sqlite3_step(statement: Pointer): number;
    sqlite3_finalize(statement: Pointer): number;
    sqlite3_stmt_readonly(statement: Pointer): number;
    sqlite3_errmsg(db: Pointer): string;
    sqlite3_column_count(statement: Pointer): number;
    sqlite3_column_name(statement: Pointer, column: number): string | null;
    sqlite3_column_type(statement: Pointer, column: number): number;
    sqlite3_column_text(statement: Pointer, column: number): string | null;
    sqlite3_column_int64(statement: Pointer, column: number): bigint;
    sqlite3_column_double(statement: Pointer, column: number): number;
    sqlite3_column_blob(statement: Pointer, column: number): Pointer;
    sqlite3_column_bytes(statement: Pointer, column: number): number;
  } & Record<`SQLITE_${string}`, number>;
  wasm: {
    allocFromTypedArray(bytes: Uint8Array): Pointer;
    allocCString(text: string, withLength: true): [Pointer, number];
    dealloc(pointer: Pointer): void;
    heap8u(): Uint8Array;
    peekPtr(pointer: Pointer): Pointer;
    pstack: { pointer: Pointer; restore(pointer: Pointer): void; alloc(bytes: number): Pointer };
  };
  oo1: { DB: new (name: string) => Connection };
}

export interface Connection {
  pointer: Pointer;
  exec(sql: string): unknown;
  close(): void;
}

export type Authorizer = (
  context: Pointer,
  action: number,
  first: string | 0 | null,
  second: string | 0 | null,
  schema: string | 0 | null,
  trigger: string | 0 | null,
) => number;
