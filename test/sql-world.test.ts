// Small invented databases: questions with gold queries, demonstrations that say what SQLite says, a base, and a run on them.
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import {
  loadModel,
  Random,
  RoleRouter,
  SQL_HARD,
  SQL_PERFECT,
  SQL_WORLD_TAGS,
  sqlDemonstration,
  sqlDemonstrationStream,
  sqlReward,
  SqlWorld,
  trainRun,
  trainSqlBase,
  type SqlImperfections,
} from "rolegrad";
import { root } from "./helpers/shared.js";
import { temporary } from "./helpers/world.js";

const installed = existsSync(path.join(root, "node_modules/@sqlite.org/sqlite-wasm"));
const needsEngine = installed ? {} : { skip: "@sqlite.org/sqlite-wasm is not installed" };
const world = new SqlWorld({ seed: 1 });

t.test("a world follows from its seed; tables, columns and rows are as they were asked for", (t) => {
  const again = new SqlWorld({ seed: 1 });
  t.strictSame(again.questions("dev", 50, 3), world.questions("dev", 50, 3));
  t.notSame(world.questions("dev", 50, 4), world.questions("dev", 50, 3));
  t.notSame(new SqlWorld({ seed: 2 }).script("dev0"), world.script("dev0"));
  t.equal(again.script("train7"), world.script("train7"));
  t.equal(world.databases.length, 85);
  const sizes = new Set<string>();
  for (const { tables } of world.databases) {
    const rows = tables.flatMap((table) => [...table.rows.keys()]);
    const columns = tables.flatMap((table) => table.columns);
    sizes.add([tables.length, rows.length, new Set(rows).size, columns.length, new Set(columns).size].join());
    for (const { columns: own, links, rows: each } of tables) {
      if (new Set(own).size !== own.length || links.size === 0) t.fail("a column twice, or none that leads on");
      for (const [column, linked] of links)
        for (const cells of each.values()) if (!linked.rows.has(cells.get(column)!)) t.fail(`${column} leads nowhere`);
    }
  }
  t.strictSame([...sizes], ["3,18,18,9,6"], "no two rows of one name; half of the columns are in two tables");
  const wide = new SqlWorld({ seed: 1, tables: 5, rows: 9, databases: { all: 3 } });
  t.ok(wide.databases.every(({ tables }) => tables.length === 5 && tables.every(({ rows }) => rows.size === 9)));
  t.equal(wide.questions("all", 20, 0).length, 20);
  t.end();
});

t.test("databases share one schema, or have one each", (t) => {
  const schemas = (world: SqlWorld): number =>
    new Set(world.databases.map(({ name }) => world.prompt({ id: "q", question: "?", answers: [], db: name }))).size;
  t.equal(schemas(world), 1);
  const other = new SqlWorld({ seed: 2 });
  t.equal(schemas(new SqlWorld({ seed: 1, schema: "own" })), 85);
  const [one, two] = [world, other].map(({ databases }) => databases[0]!.tables);
  t.strictSame(
    two!.map(({ name, columns }) => [name, columns]),
    one!.map(({ name, columns }) => [name, columns]),
    "also in another world",
  );
  t.notSame([...two![0]!.rows.keys()], [...one![0]!.rows.keys()], "whose rows are its own");
  t.throws(() => new SqlWorld({ seed: 1, schema: "none" as never }), { code: "ERR_INVALID_ARGUMENT" });
  t.end();
});

t.test("questions are of three kinds, without doubles, on databases of their split", (t) => {
  const questions = world.questions("train", 600, 0);
  t.equal(new Set(questions.map(({ id }) => id)).size, 600);
  const share = (kind: string): number => questions.filter((question) => question.kind === kind).length / 600;
  for (const [kind, expected] of [["lookup", 0.45], ["chain", 0.45], ["count", 0.1]] as const)
    t.ok(Math.abs(share(kind) - expected) < 0.07, `${kind}: ${share(kind)}`); // prettier-ignore
  t.ok(questions.every(({ db, split }) => split === "train" && db.startsWith("train")));
  t.match(world.prompt(questions[0]!), /^ Columns: \w+ \w+(, \w+ \w+){8}\n Question: .*\?\n$/);
  t.throws(() => world.questions("test", 1, 0), { code: "ERR_WORLD_SPLIT", message: /train, dev.*test/ });
  const small = new SqlWorld({ seed: 1, databases: { all: 1 }, tables: 2, rows: 2 });
  t.throws(() => small.questions("all", 1000, 0), { code: "ERR_WORLD_QUESTIONS" });
  t.throws(() => world.prompt({ id: "q", question: "?", answers: [], db: "no" }), { code: "ERR_SQL_DATABASE" });
  for (const wrong of [
    ...[{ tables: 1 }, { tables: 9 }, { rows: 1 }, { rows: 25 }, { rows: "6" }, { seed: -1 }, { schema: "" }],
    ...[{ databases: { dev: 0 } }, { databases: {} }, { databases: null }, { databases: "dev" }, { databases: [3] }],
  ])
    t.throws(() => new SqlWorld({ seed: 1, ...(wrong as object) }), { code: "ERR_INVALID_ARGUMENT" });
  for (const options of [undefined, null, {}, { seed: 1.5 }])
    t.throws(() => new SqlWorld(options as never), { code: "ERR_INVALID_ARGUMENT" });
  for (const [count, seed] of [
    [-1, 0],
    [1, -1],
    [1, "0"],
  ])
    t.throws(() => world.questions("dev", count as number, seed as number), { code: "ERR_INVALID_ARGUMENT" });
  t.equal(new SqlWorld({ seed: 1, tables: 8, rows: 24, databases: { all: 2 } }).questions("all", 50, 0).length, 50);
  t.end();
});

t.test(
  "what a demonstrator reads is what SQLite says, and the prompt has the columns that it has",
  needsEngine,
  async (t) => {
    const environment = await world.environment({ workers: 1 });
    t.teardown(() => environment.close());
    const questions = world.questions("dev", 40, 1);
    const random = new Random(1, "test/sql");
    let errors = 0;
    for (const question of questions) {
      const schema = await environment.schemaText(question.db);
      const pairs = [...schema.matchAll(/CREATE TABLE (\w+) \( name, ([^)]*) \);/g)].flatMap(([, table, columns]) =>
        columns!.split(", ").map((column) => `${table} ${column}`),
      );
      t.equal(world.prompt(question).split("\n")[0], ` Columns: ${pairs.join(", ")}`);
      const segments = sqlDemonstration(world, question, random, { ...SQL_HARD, keepsEmpty: 0.1 });
      for (const [i, { text, sampled }] of segments.entries()) {
        if (sampled) continue;
        const [, query] = /<sql>(.*)<\/sql>$/s.exec(segments[i - 1]!.text)!;
        const said = await environment.act({ text: query!, question });
        t.equal(text, `<observation> ${said.text}</observation>`);
        if (said.text.startsWith("Error")) errors++;
      }
    }
    t.ok(errors > 5, `${errors} of the answers are errors`);
  },
);

t.test(
  "perfect demonstrations are right, all of them; hard ones are in a third of cases or so",
  needsEngine,
  async (t) => {
    const environment = await world.environment({ workers: 1 });
    t.teardown(() => environment.close());
    const reward = sqlReward({ environment });
    const questions = world.questions("dev", 150, 0);
    const score = async (imperfections: SqlImperfections): Promise<number> => {
      const random = new Random(1, "test/sql");
      let sum = 0;
      for (const question of questions) {
        const segments = sqlDemonstration(world, question, random, imperfections);
        const response = segments.map(({ text }) => text).join("");
        sum += (await reward({ response, calls: [], finish: "stop" }, question)) as number;
      }
      return sum / questions.length;
    };
    t.equal(await score(SQL_PERFECT), 1);
    const hard = await score(SQL_HARD);
    t.ok(hard > 0.2 && hard < 0.5, `${hard}`);
  },
);

t.test("a base is trained on them, the same every time, and a run trains on from it", needsEngine, async (t) => {
  const folders = [temporary(), temporary()];
  for (const directory of folders) await trainSqlBase({ directory, tokens: 2500 });
  const [one, two] = folders.map((folder) => readFileSync(path.join(folder, "model.safetensors")));
  t.ok(one!.equals(two!));
  const model = await loadModel(folders[0]!);
  t.teardown(() => model.close());
  const tokenizer = model.tokenizer!;
  for (const text of [" 'Kamsel'", " dralo", " mayor", " SELECT count(*) FROM", "</sql>"])
    t.equal(tokenizer.decode(tokenizer.encode(text)), text);
  const { tables } = world.databases[0]!;
  for (const { name, columns, rows } of tables) {
    const words = [...[name, ...columns].map((word) => ` ${word}`), ...rows.keys()];
    t.strictSame(
      words.filter((word) => tokenizer.encode(word).length !== 1),
      [],
      "names are one token",
    );
  }
  const stream = sqlDemonstrationStream({ tokenizer, seed: 1, imperfections: SQL_PERFECT });
  const lengths = Array.from({ length: 50 }, () => stream.next().value.ids.length);
  t.ok(Math.max(...lengths) < 320, `up to ${Math.max(...lengths)} tokens`);

  const environment = await world.environment({ workers: 1 });
  t.teardown(() => environment.close());
  const { metrics } = await trainRun({
    model,
    rollout: {
      router: new RoleRouter({
        roles: ["reason", "tool"],
        base: "reason",
        spans: [{ role: "tool", ...SQL_WORLD_TAGS.tool }],
      }),
      environment,
      reward: sqlReward({ environment }),
      prompt: (question) => world.prompt(question),
      output: SQL_WORLD_TAGS.output,
      answer: SQL_WORLD_TAGS.answer,
      maxLength: 200,
    },
    adapters: { rank: 4, alpha: 8 },
    trainer: { optimizer: { learningRate: 1e-3 } },
    questions: world.questions("train", 8, 0),
    steps: 1,
    questionsPerStep: 4,
    group: 2,
    seed: 1,
    directory: path.join(temporary(), "run"),
    description: { name: "test" },
  });
  t.equal(metrics.length, 1);
});
