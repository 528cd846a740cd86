import { existsSync, readdirSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { fail } from "../../errors.js";

/** A file (of SQLite, or a script that ends in .sql), or the text of a script. */
export type SqlDatabase = string | { script: string };

const FILE = /\.(sqlite3?|db|sql)$/i;
const MAGIC = "SQLite format 3\0";

/**
 * Databases by name. Of a directory: each file NAME.sqlite, NAME.sqlite3, NAME.db or NAME.sql in it, and NAME/NAME.sqlite as Spider has them.
 * None, or two of one name -> ERR_SQL_DATABASE.
 */
export function listDatabases(databases: string | Record<string, SqlDatabase>): Map<string, SqlDatabase> {
  if (typeof databases !== "string") {
    if (Object.keys(databases).length === 0)
      fail("ERR_SQL_DATABASE", "Expected at least one database but received none");
    return new Map(Object.entries(databases));
  }
  const found = new Map<string, SqlDatabase>();
  let names: string[];
  try {
    names = readdirSync(databases).sort();
  } catch (cause) {
    return fail(
      "ERR_SQL_DATABASE",
      `Expected a directory of databases at ${databases}: ${(cause as Error).message}`,
      cause,
    );
  }
  for (const entry of names) {
    const nested = path.join(databases, entry, `${entry}.sqlite`);
    const isNested = existsSync(nested);
    if (!isNested && !FILE.test(entry)) continue;
    const name = isNested ? entry : entry.replace(FILE, "");
    const other = found.get(name);
    if (other !== undefined)
      fail("ERR_SQL_DATABASE", `Expected one database ${name} in ${databases} but found ${entry} too`);
    found.set(name, isNested ? nested : path.join(databases, entry));
  }
  if (found.size === 0)
    fail("ERR_SQL_DATABASE", `Expected files NAME.sqlite, NAME.db or NAME.sql in ${databases} but found none`);
  return found;
}

/** What a database is made of: the bytes of its file, or the script that makes them. Read once, never written. */
export async function readDatabase(
  name: string,
  database: SqlDatabase,
): Promise<{ script: string } | { image: Uint8Array }> {
  if (typeof database !== "string") return { script: database.script };
  let bytes: Buffer;
  try {
    bytes = await readFile(database);
  } catch (cause) {
    return fail("ERR_SQL_DATABASE", `Expected database ${name} at ${database}: ${(cause as Error).message}`, cause);
  }
  if (/\.sql$/i.test(database)) return { script: bytes.toString("utf8") };
  if (bytes.toString("latin1", 0, MAGIC.length) !== MAGIC)
    fail(
      "ERR_SQL_DATABASE",
      `Expected an SQLite database at ${database} but received another file; a script ends in .sql`,
    );
  for (const [suffix, what] of [
    ["-wal", "a write-ahead log"],
    ["-journal", "a rollback journal"],
  ] as const) {
    if ((statSync(database + suffix, { throwIfNoEntry: false })?.size ?? 0) === 0) continue;
    fail(
      "ERR_SQL_DATABASE",
      `Expected ${database} to be all of the database but there is ${what} beside it (${path.basename(database)}${suffix}): ` +
        `close the program that writes it, or run "PRAGMA wal_checkpoint(TRUNCATE)" with SQLite's shell`,
    );
  }
  // Shared, so that every thread copies from one place.
  const image = new Uint8Array(new SharedArrayBuffer(bytes.length));
  image.set(bytes);
  // A file in WAL mode says so in its header; its pages are the same, and an image in memory has no log.
  if (image[18] === 2) image[18] = 1;
  if (image[19] === 2) image[19] = 1;
  return { image };
}
