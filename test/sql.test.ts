// The SQL environment: what it answers, what it refuses, and that neither a file nor the event loop feels any of it.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import t from "tap";
import { isOrdered, sameRows, SqlEnvironment, sqlPrompt, sqlReward, type Question, type SqlValue } from "rolegrad";
import { needsShared, root, shared } from "./helpers/shared.js";
import { temporary } from "./helpers/world.js";

const engine = path.join(root, "node_modules/@sqlite.org/sqlite-wasm/dist/node.mjs");
const needsEngine = existsSync(engine) ? {} : { skip: "@sqlite.org/sqlite-wasm is not installed" };
const { skip = undefined } = { ...needsShared("data/spider/questions.jsonl"), ...needsEngine };
const needsBoth = skip === undefined ? {} : { skip };

interface Engine {
  capi: { sqlite3_js_db_export(db: unknown): Uint8Array };
  oo1: { DB: new () => { exec(sql: string): void; close(): void } };
}

/** The bytes of a database file that a script makes. */
async function databaseFile(script: string): Promise<Uint8Array> {
  const { default: start } = (await import(pathToFileURL(engine).href)) as { default: () => Promise<Engine> };
  const { capi, oo1 } = await start();
  const db = new oo1.DB();
  db.exec(script);
  const bytes = capi.sqlite3_js_db_export(db);
  db.close();
  return bytes;
}

const question = (extra: Record<string, unknown> = {}): Question => ({ id: "q", question: "?", answers: [], ...extra });
const answered = (sql: string) => ({ response: `<answer> ${sql} </answer>`, calls: [], finish: "stop" });
const sha = (file: string): string => createHash("sha256").update(readFileSync(file)).digest("hex");

const pets = `CREATE TABLE pet (id INTEGER PRIMARY KEY, name TEXT, weight REAL, owner TEXT);
  CREATE INDEX by_name ON pet (name);
  INSERT INTO pet VALUES (1, 'Rex', 12.0, 'Ann'), (2, 'Tom', 3.5, NULL), (3, 'Kit', 3.5, 'Bob
and Eve');
  CREATE VIEW heavy AS SELECT name FROM pet WHERE weight > 10;`;

const open = (options: Record<string, unknown> = {}): Promise<SqlEnvironment> =>
  SqlEnvironment.open({ databases: { pets: { script: pets } }, timeout: 1000, workers: 2, ...options });

t.test("a query is answered with a table, and an error of SQL is something to read", needsEngine, async (t) => {
  const sql = await open({ maxRows: 2, maxCellCharacters: 5 });
  t.teardown(() => sql.close());
  const read = async (text: string) => (await sql.act({ text, question: question() })).text;
  t.equal(
    await read(" SELECT name, weight, owner FROM pet ORDER BY id; -- all\n"),
    "name | weight | owner\nRex | 12.0 | Ann\nTom | 3.5 | NULL\n(the first 2 of 3 rows; 1 left out)",
  );
  t.equal(await read("SELECT owner FROM pet WHERE id = 3"), "owner\nBob\\na…\n(1 row)");
  t.equal(await read("```sql\nSELECT * FROM heavy\n```"), "name\nRex\n(1 row)");
  t.equal(await read("SELECT name FROM pet WHERE id = 9"), "name\n(0 rows)");
  t.equal(await read("SELECT x'00ff', 1e999, -2"), "x'00ff' | 1e999 | -2\nx'00ff' | Inf | -2\n(1 row)");
  t.equal(await read("SELECT nme FROM pet"), "Error: no such column: nme");
  t.equal(await read("SELECT FROM"), 'Error: near "FROM": syntax error');
  t.match(await read("PRAGMA table_info(pet)"), /^cid \| name \| type/);
  t.match(
    await read("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 20000) SELECT x FROM c"),
    /more than 10002 rows/,
  );
  const { rows } = await sql.query("pets", "SELECT 9007199254740993, 2.0, NULL, 'é', x'01', 'a' || char(0) || 'b'");
  t.same(rows, [[9007199254740993n, 2, null, "é", new Uint8Array([1]), "a\0b"]]);
  await t.rejects(sql.query("pets", "SELECT * FROM pet", { maxRows: 2 }), {
    code: "ERR_SQL_QUERY",
    message: /more than 2 rows/,
  });
});

const bomb = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)";
const long = `hex(zeroblob(400000))`;
/** What the model reads where a statement is refused or stopped. */
const hostile: [string, RegExp][] = [
  ["INSERT INTO pet VALUES (9, 'x', 1, 'x')", /not authorized: INSERT/],
  ["UPDATE pet SET name = 'x'", /not authorized: UPDATE/],
  ["DELETE FROM pet", /not authorized: DELETE/],
  ["WITH a AS (SELECT 1) DELETE FROM pet RETURNING id", /not authorized: DELETE/],
  ["REPLACE INTO pet SELECT * FROM pet", /not authorized: (INSERT|DELETE)/],
  ["DROP TABLE pet", /not authorized/],
  ["ALTER TABLE pet ADD COLUMN x", /not authorized/],
  ["CREATE TABLE x (a)", /not authorized/],
  ["CREATE TEMP TABLE x AS SELECT * FROM pet", /not authorized/],
  ["CREATE TEMP VIEW x AS SELECT 1", /not authorized/],
  ["CREATE VIRTUAL TABLE x USING fts5(a)", /not authorized/],
  ["CREATE TRIGGER x AFTER INSERT ON pet BEGIN SELECT 1; END", /not authorized/],
  ["ATTACH 'FILE' AS other", /not authorized: ATTACH/],
  ["ATTACH DATABASE 'file:FILE?mode=rwc' AS other", /not authorized: ATTACH/],
  ["DETACH main", /not authorized: DETACH/],
  ["VACUUM", /not authorized/],
  ["VACUUM INTO 'FILE.copy'", /not authorized/],
  ["REINDEX", /not authorized/],
  ["ANALYZE", /not authorized/],
  ["BEGIN EXCLUSIVE", /not authorized: TRANSACTION/],
  ["SAVEPOINT a", /not authorized: SAVEPOINT/],
  ["PRAGMA user_version = 7", /not authorized: PRAGMA user_version/],
  ["PRAGMA writable_schema = ON", /not authorized: PRAGMA/],
  ["PRAGMA query_only = OFF", /not authorized: PRAGMA/],
  ["PRAGMA journal_mode = WAL", /not authorized: PRAGMA/],
  ["PRAGMA hard_heap_limit = 0", /not authorized: PRAGMA/],
  ["PRAGMA temp_store_directory = '/'", /not authorized: PRAGMA/],
  ["SELECT * FROM pragma_database_list", /not authorized/],
  ["SELECT load_extension('FILE')", /not authorized|no such function/],
  ["SELECT readfile('FILE')", /no such function/],
  ["SELECT writefile('FILE', 'x')", /no such function/],
  ["SELECT fts3_tokenizer('simple')", /not authorized|no such function/],
  ["SELECT data FROM sqlite_dbpage", /not authorized: READ sqlite_dbpage/],
  ["UPDATE sqlite_dbpage SET data = zeroblob(4096)", /not authorized|may not be modified/],
  ["SELECT random()", /not authorized: FUNCTION random/],
  ["SELECT 1; DROP TABLE pet", /only one statement/],
  ["SELECT 1; SELECT 2", /only one statement/],
  ["; ; SELECT 1; /* x */ ; PRAGMA user_version = 7", /only one statement/],
  ["SELECT 1; nonsense", /only one statement/],
  ["SELECT 1\0; DROP TABLE pet", /unrecognized token/],
  ["", /no statement/],
  ["-- nothing", /no statement/],
  ["EXPLAIN DELETE FROM pet", /not authorized/],
  [`${bomb} SELECT count(*) FROM c`, /interrupted/],
  [`${bomb} SELECT x FROM c WHERE x < 0`, /interrupted/],
  [`${bomb} SELECT x FROM c ORDER BY x DESC`, /interrupted|out of memory/],
  [`${bomb} SELECT group_concat(x) FROM c`, /too big|interrupted/],
  [
    "SELECT count(*) FROM pet a, pet b, pet c, pet d, pet e, pet f, pet g, pet h, pet i, pet j, pet k, pet l, pet m, pet n, pet o, pet p",
    /interrupted/,
  ],
  ["SELECT zeroblob(1000000000)", /too big/],
  ["SELECT randomblob(1000000000)", /not authorized/],
  ["SELECT printf('%.*c', 900000000, 'x')", /too big/],
  ["SELECT replace(hex(zeroblob(400000)), '00', 'aaaaaaaaaaaaaaaa')", /too big/],
  // One call of one function, which no progress handler can stop: the thread ends.
  [`SELECT ${long} LIKE '%${"0%".repeat(200)}1%0'`, /interrupted|^\S+ LIKE|rows?\)$/],
  [`SELECT instr(${long}, substr(${long}, 1, 400000) || '1')`, /interrupted/],
  [`SELECT 1 FROM pet WHERE name LIKE '${"%a".repeat(800)}'`, /too complex/],
  [`SELECT ${"(".repeat(5000)}1${")".repeat(5000)}`, /recursion limit|overflow|depth/i],
  [`SELECT ${"1+".repeat(5000)}1`, /depth/],
  [Array.from({ length: 400 }, () => "SELECT 1").join(" UNION ALL "), /too many terms/],
  [`SELECT '${"x".repeat(200_000)}'`, /statement too long/],
];

t.test(
  "hostile statements are refused or stopped, and the file keeps its bytes",
  { ...needsEngine, timeout: 120_000 },
  async (t) => {
    const folder = temporary();
    const file = path.join(folder, "pets.sqlite");
    writeFileSync(file, await databaseFile(pets));
    const before = sha(file);
    const sql = await SqlEnvironment.open({ databases: folder, timeout: 300, workers: 2, memory: 2 ** 26 });
    t.teardown(() => sql.close());
    for (const [statement, said] of hostile) {
      const text = statement.replaceAll("FILE", file);
      const label = text.length > 80 ? `${text.slice(0, 80)}…` : text;
      const begin = performance.now();
      const result = await sql.act({ text, question: question() });
      t.match(result.text, said, label);
      t.ok(performance.now() - begin < 6000, `${label} ends within its limits`);
    }
    const { rows } = await sql.query("pets", "SELECT count(*) FROM pet");
    t.same(rows, [[3]], "the environment still answers");
    t.equal(sha(file), before);
    t.same(readdirSync(folder), ["pets.sqlite"], "no file is new");
  },
);

t.test(
  "the event loop keeps time while queries run without end, and an abort gives them up",
  needsEngine,
  async (t) => {
    const sql = await open({ timeout: 60_000 });
    t.teardown(() => sql.close());
    await sql.load("pets");
    const abort = new AbortController();
    let longest = 0;
    let last = performance.now();
    const ticks = setInterval(() => {
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }, 5);
    const running = Array.from({ length: 3 }, () =>
      sql.act({ text: `${bomb} SELECT count(*) FROM c`, question: question() }, { signal: abort.signal }),
    );
    setTimeout(() => abort.abort(new Error("enough")), 500);
    for (const result of await Promise.allSettled(running)) t.match(result, { reason: { message: "enough" } });
    clearInterval(ticks);
    t.ok(longest < 250, `the longest pause was ${longest.toFixed(0)} ms`);
    const begin = performance.now();
    t.same((await sql.query("pets", "SELECT 1")).rows, [[1]], "the threads are free again");
    t.ok(performance.now() - begin < 5000);
    await t.rejects(sql.query("pets", "SELECT 1", { signal: AbortSignal.abort(new Error("no")) }), { message: "no" });
  },
);

t.test("closing just after an abort waits for the threads, whatever they still say", needsEngine, async (t) => {
  for (let i = 0; i < 6; i++) {
    const sql = await open({ timeout: 60_000, workers: 2 });
    const abort = new AbortController();
    const running = [0, 1].map(() =>
      sql.act({ text: `${bomb} SELECT count(*) FROM c`, question: question() }, { signal: abort.signal }),
    );
    setTimeout(() => abort.abort(new Error("enough")), 200);
    for (const result of await Promise.allSettled(running)) t.match(result, { reason: { message: "enough" } });
    await sql.close();
  }
});

t.test("a call that is one function without an end is ended with its thread", needsEngine, async (t) => {
  const sql = await open({ timeout: 100, workers: 1 });
  t.teardown(() => sql.close());
  const statement = `SELECT instr(${long}, substr(${long}, 1, 400000) || '1')`;
  const { text } = await sql.act({ text: statement, question: question() });
  t.match(text, /interrupted/);
  t.same((await sql.query("pets", "SELECT name FROM heavy")).rows, [["Rex"]]);
});

t.test("32 calls at once each get their own answer, beside one that never ends", needsEngine, async (t) => {
  const sql = await open();
  t.teardown(() => sql.close());
  const endless = sql.act({ text: `${bomb} SELECT count(*) FROM c`, question: question() });
  const texts = await Promise.all(
    Array.from({ length: 32 }, async (_, i) => (await sql.act({ text: `SELECT ${i}`, question: question() })).text),
  );
  t.same(
    texts,
    Array.from({ length: 32 }, (_, i) => `${i}\n${i}\n(1 row)`),
  );
  t.match((await endless).text, /interrupted/);
});

t.test("what is wrong with a database names it", needsEngine, async (t) => {
  const folder = temporary();
  const wrong = async (databases: Record<string, string> | string, message: RegExp) => {
    await t.rejects(
      SqlEnvironment.open({ databases }).then(async (sql) => {
        try {
          await sql.load("a");
        } finally {
          await sql.close();
        }
      }),
      { code: "ERR_SQL_DATABASE", message },
    );
  };
  const write = (name: string, bytes: string | Uint8Array): string => {
    writeFileSync(path.join(folder, name), bytes);
    return path.join(folder, name);
  };
  await wrong(folder, /but found none/);
  await wrong(path.join(folder, "absent"), /Expected a directory/);
  await wrong({ a: path.join(folder, "no.db") }, /database a at .*no\.db/);
  await wrong({ a: write("text.db", "hello") }, /Expected an SQLite database at .*text\.db/);
  await wrong({ a: write("bad.sql", "CREATE TABLE (") }, /database a.*syntax error/s);
  const bytes = await databaseFile(pets);
  await wrong({ a: write("cut.db", bytes.slice(0, 600)) }, /database a/);
  const file = write("wal.db", bytes);
  write("wal.db-wal", "frames");
  await wrong({ a: file }, /write-ahead log beside it \(wal\.db-wal\)/);
  const sql = await SqlEnvironment.open({ databases: { a: { script: pets }, b: { script: "" } } });
  await t.rejects(sql.act({ text: "SELECT 1", question: question({ db: "c" }) }), {
    code: "ERR_SQL_DATABASE",
    message: /\(a, b\) for question q but received "c"/,
  });
  await sql.load("a");
  await t.rejects(sql.load("b"), { code: "ERR_SQL_DATABASE", message: /database b.*the script is empty/ });
  const endless = sql.query("a", `${bomb} SELECT count(*) FROM c`);
  setTimeout(() => void sql.close(), 50);
  await t.rejects(endless, { code: "ERR_SQL_CLOSED" }, "a query under way is no wrong query");
  await sql.close();
  await t.rejects(sql.query("a", "SELECT 1"), { code: "ERR_SQL_CLOSED" });
  const wal = bytes.slice();
  wal[18] = wal[19] = 2;
  const read = await SqlEnvironment.open({ databases: { a: write("inwal.db", wal) } });
  t.same((await read.query("a", "SELECT count(*) FROM pet")).rows, [[3]], "a closed file in WAL mode is read");
  await read.close();
});

t.test("the prompt holds the schema", needsEngine, async (t) => {
  const sql = await open();
  t.teardown(() => sql.close());
  const schema = await sql.schemaText("pets");
  t.match(schema, /^CREATE TABLE pet \(id .*\);\nCREATE VIEW heavy AS .*;$/s);
  t.match(
    await sql.schemaText("pets", { sampleRows: 1 }),
    /\/\* rows of "pet":\nid \| name \| weight \| owner\n1 \| Rex \| 12\.0 \| Ann\n\*\//,
  );
  const prompt = await sqlPrompt(sql, [question()], { template: "{schema}\nQuestion: {question} {other}" });
  t.equal(
    prompt(question({ question: "How {schema} $& many?" })),
    `${schema}\nQuestion: How {schema} $& many? {other}`,
  );
});

t.test("a query orders its result where ORDER BY stands outside of all parentheses", async (t) => {
  for (const [sql, ordered] of [
    ["SELECT a FROM t ORDER BY a", true],
    ["select a from t order\n--x\n by a limit 1", true],
    ["SELECT a FROM t UNION SELECT b FROM u ORDER BY 1", true],
    ["WITH c AS (SELECT 1) SELECT * FROM c ORDER BY 1", true],
    ["SELECT a FROM (SELECT a FROM t ORDER BY a)", false],
    ["SELECT row_number() OVER (ORDER BY a) FROM t", false],
    ["SELECT ' ORDER BY ', \"order\", `order`, [order] FROM t -- ORDER BY a", false],
    ["SELECT 'it''s (' FROM t ORDER BY 1", true],
    ["SELECT a /* ORDER BY */ FROM border", false],
    ["SELECT ')' || (SELECT 1 ORDER BY 1)", false],
  ] as const)
    t.equal(isOrdered(sql), ordered, sql);
});

t.test("rows are the same as a multiset, or in order; numbers by value, text to the letter", async (t) => {
  const same = (a: SqlValue[][], b: SqlValue[][], ordered = false) => sameRows(a, b, { ordered });
  t.ok(same([[1], [2]], [[2], [1]]));
  t.notOk(same([[1], [2]], [[2], [1]], true));
  t.notOk(same([[1], [1], [2]], [[1], [2], [2]]));
  t.ok(same([[null, "a"]], [[null, "a"]]));
  t.notOk(same([[null]], [[0]]));
  t.notOk(same([["1"]], [[1]]));
  t.notOk(same([["a"]], [["A"]]));
  t.notOk(same([["a", "b"]], [["b", "a"]]));
  t.notOk(same([[1]], [[1, 1]]));
  t.ok(same([[0.1 + 0.2]], [[0.3]]));
  t.ok(
    same(
      [
        [0.1 + 0.2, "x"],
        [0.3, "y"],
        [7, null],
      ],
      [
        [7, null],
        [0.1 + 0.2, "y"],
        [0.3, "x"],
      ],
    ),
  );
  t.notOk(same([[0.3]], [[0.3000001]]));
  t.notOk(same([[10_000_000_001]], [[10_000_000_002]]), "whole numbers are exact");
  t.ok(same([[2n ** 60n]], [[2 ** 60]]));
  t.notOk(same([[2n ** 60n + 1n]], [[2n ** 60n]]));
  t.ok(same([[new Uint8Array([1, 2])]], [[new Uint8Array([1, 2])]]));
  t.notOk(same([[new Uint8Array([97])]], [["a"]]));
  t.notOk(same([["a\u0001t1:b", "c"]], [["a", "b\u0001t1:c"]]));
});

t.test("the reward is execution result equality", needsEngine, async (t) => {
  const sql = await open();
  t.teardown(() => sql.close());
  const reward = sqlReward({ environment: sql });
  const score = async (answer: string, gold: string) => reward(answered(answer), question({ sql: gold }));
  t.equal(await score("SELECT name FROM pet ORDER BY id DESC", "SELECT name FROM pet"), 1);
  t.equal(await score("SELECT name FROM pet ORDER BY id DESC", "SELECT name FROM pet ORDER BY id"), 0);
  t.equal(await score("SELECT name AS n FROM pet WHERE id < 9 ORDER BY id", "SELECT name FROM pet ORDER BY id"), 1);
  t.equal(await score("SELECT 3.0", "SELECT count(*) FROM pet"), 1);
  t.equal(await score("SELECT '3'", "SELECT count(*) FROM pet"), 0);
  t.equal(await score("SELECT id, name FROM pet", "SELECT name, id FROM pet"), 0);
  t.equal(
    await score("SELECT id, name FROM pet WHERE 0", "SELECT id FROM pet WHERE 0"),
    0,
    "no rows, but other columns",
  );
  t.equal(await score("SELECT nme FROM pet", "SELECT name FROM pet"), 0);
  t.equal(await score("DROP TABLE pet", "SELECT name FROM pet"), 0);
  t.equal(await score(`${bomb} SELECT count(*) FROM c`, "SELECT 1"), 0);
  t.equal(await reward({ response: "SELECT 1", calls: [], finish: "stop" }, question({ sql: "SELECT 1" })), 0);
  await t.rejects(score("SELECT 1", "SELECT wrong"), { code: "ERR_SQL_GOLD", message: /question q.*no such column/ });
  await t.rejects((async () => reward(answered("SELECT 1"), question()))(), {
    code: "ERR_SQL_GOLD",
    message: /field sql of question q/,
  });
});

t.test("the 252 gold queries of Spider score 1, and other queries 0", needsBoth, async (t) => {
  const folder = temporary();
  const scripts = shared("data/spider/db")!;
  for (const name of readdirSync(scripts)) {
    const bytes = await databaseFile(readFileSync(path.join(scripts, name), "utf8"));
    writeFileSync(path.join(folder, name.replace(/\.sql$/, ".sqlite")), bytes);
  }
  const files = readdirSync(folder).map((name) => path.join(folder, name));
  const before = files.map(sha);
  const sql = await SqlEnvironment.open({ databases: folder });
  t.teardown(() => sql.close());
  const lines = readFileSync(shared("data/spider/questions.jsonl")!, "utf8").trim().split("\n");
  const questions = lines.map((line): Question => ({
    ...(JSON.parse(line) as { id: string; question: string }),
    answers: [],
  }));
  t.equal(questions.length, 252);
  const reward = sqlReward({ environment: sql });
  const scores = (answer: (q: Question) => string) =>
    Promise.all(questions.map(async (q) => reward(answered(answer(q)), q)));
  t.same((await scores((q) => String(q["sql"]))).filter((score) => score === 1).length, 252);
  t.equal(
    (await scores((q) => `SELECT * FROM (${String(q["sql"])}) LIMIT 0`)).filter((score) => score === 1).length,
    0,
  );
  const reversed = await scores(
    (q) => `SELECT * FROM (SELECT *, row_number() OVER () AS place FROM (${String(q["sql"])})) ORDER BY place DESC`,
  );
  t.equal(reversed.filter((score) => score === 1).length, 0, "a column more");
  const rows = await Promise.all(questions.map((q) => sql.query(String(q["db"]), String(q["sql"]))));
  t.same(
    rows.map((result) => result.total),
    questions.map((q) => q["n_rows"]),
  );
  const scriptSql = await SqlEnvironment.open({ databases: scripts, workers: 1 });
  t.teardown(() => scriptSql.close());
  t.same(scriptSql.databases, sql.databases);
  t.same(await scriptSql.query("pets_1", "SELECT * FROM Pets"), await sql.query("pets_1", "SELECT * FROM Pets"));
  t.same(files.map(sha), before);
  t.equal(readdirSync(folder).length, files.length);
});
