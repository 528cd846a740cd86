// A run.json that names databases: schema in the prompt, reward by execution, a step of training.
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { loadRun, resolveRunConfig, trainRun, WORLD_CHECKPOINT } from "rolegrad";
import { root } from "./helpers/shared.js";
import { temporary } from "./helpers/world.js";

const installed = existsSync(path.join(root, "node_modules/@sqlite.org/sqlite-wasm"));
const needsEngine = installed ? {} : { skip: "@sqlite.org/sqlite-wasm is not installed" };

t.test("a run on databases trains on what queries give", needsEngine, async (t) => {
  const folder = temporary();
  mkdirSync(path.join(folder, "db"));
  writeFileSync(
    path.join(folder, "db/pets.sql"),
    "CREATE TABLE pet (name TEXT); INSERT INTO pet VALUES ('Rex'), ('Tom');",
  );
  const rows = ["SELECT count(*) FROM pet", "SELECT name FROM pet"].map((sql, i) =>
    JSON.stringify({ id: `q${i}`, db: "pets", question: "Which?", sql }),
  );
  writeFileSync(path.join(folder, "questions.jsonl"), `${rows.join("\n")}\n`);
  const config = resolveRunConfig(
    {
      model: WORLD_CHECKPOINT,
      data: { questions: "questions.jsonl" },
      environment: { kind: "sqlite", databases: "db", sampleRows: 1 },
      agent: {
        prompt: "{schema}\nQ: {question}\n",
        spans: [{ role: "tool", open: "<sql>", close: "</sql>" }],
        sampling: { maxNewTokens: 4 },
      },
      steps: 1,
      questionsPerStep: 2,
      group: 2,
    },
    path.join(folder, "run.json"),
  );
  const setup = await loadRun(config);
  t.teardown(() => setup.close());
  const [count] = setup.questions;
  t.same(count?.answers, []);
  const prompt = 'CREATE TABLE pet (name TEXT);\n/* rows of "pet":\nname\nRex\n*/\nQ: Which?\n';
  t.equal(setup.model.tokenizer!.decode(setup.rollout.renderer!.prompt(count!)), prompt);
  const score = async (sql: string) =>
    setup.rollout.reward({ response: `<answer>${sql}</answer>`, calls: [], finish: "stop" }, count!);
  t.equal(await score("SELECT 2"), 1);
  t.equal(await score("SELECT 3"), 0);
  t.equal(setup.rollout.evaluateBy, "reward");
  const { hashes } = setup.description as { hashes: Record<string, string> };
  t.match(hashes, { "database pets": /^[0-9a-f]{64}$/ });
  const { metrics } = await trainRun(setup);
  t.equal(metrics.length, 1);
});
