// What the main thread and a worker of the pool say to each other.

/** A value as SQLite stores it; an integer beyond 2^53 is a bigint, and 1.0 is 1. */
export type SqlValue = null | number | bigint | string | Uint8Array;

export interface WorkerSettings {
  /** URL of the engine's module. */
  engine: string;
  /** Bytes that the engine of one worker may allocate. */
  memory: number;
  /** Bytes of one value, and of one row. */
  maxValueBytes: number;
  /** [0]: the id of the request to give up. */
  cancelled: Int32Array;
}

export type SqlRequest = { id: number } & (
  | { kind: "build"; script: string }
  | {
      kind: "query";
      database: string;
      image: Uint8Array;
      sql: string;
      /** Milliseconds. */
      timeout: number;
      maxRows: number;
      /** For a reader: values as SQLite writes them, long ones cut to so many characters. Without it: the values themselves. */
      maxCellCharacters?: number;
      /** Bytes of all values together, where they are not cut. */
      maxBytes: number;
      /** Rows to count at most, beyond those that are kept. */
      countRows: number;
    }
);

export interface SqlRows<Value = SqlValue> {
  columns: string[];
  rows: Value[][];
  /** Rows of the result; of a longer one, as many as were counted. */
  total: number;
  /** Whether `total` is all of them. */
  complete: boolean;
}

/** Why there is no result. */
export type SqlFailure = "sql" | "refused" | "timeout" | "memory" | "size" | "database";

export type SqlReply = { id: number } & (
  | { kind: "started" }
  | { kind: "rows"; result: SqlRows<SqlValue> }
  | { kind: "image"; image: Uint8Array }
  // `broken`: the engine may not be used again.
  | { kind: "failed"; why: SqlFailure; message: string; broken: boolean }
);
