// The command line, the example, and what the package's entry loads.
import { execFile } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import t, { type Test } from "tap";
import { computeInterferenceSync, summary } from "rolegrad/attribution";
import { root } from "./helpers/shared.js";
import { dense, designRows, randomCounts, table } from "./helpers/tables.js";

const counts = randomCounts(12, 20, 11);
const correct = dense(counts);
const rows = designRows.flatMap((variant, v) =>
  counts.map((k, q) => ({ variant, id: `q${q}`, correct: k[v], samples: 20 })),
);
const expected = computeInterferenceSync(table(counts, 20));

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs a script of the repository. */
async function node(...args: string[]): Promise<Ended> {
  const env = { ...process.env, NO_COLOR: "1", FORCE_COLOR: undefined };
  try {
    return { code: 0, ...(await promisify(execFile)(process.execPath, args, { cwd: root, env })) };
  } catch (error) {
    return error as Ended;
  }
}

const rolegrad = (...args: string[]): Promise<Ended> => node("bin/rolegrad.js", "interference", ...args);

function file(t: Test, name: string, text: string): string {
  const made = path.join(t.testdir(), name);
  writeFileSync(made, text);
  return made;
}

t.test("rolegrad interference prints the figures, the warnings and the sentence", async (t) => {
  const { code, stdout, stderr } = await rolegrad(file(t, "table.json", JSON.stringify({ samples: 20, correct })));
  t.equal(code, 0, stderr);
  t.match(stdout, new RegExp(`^negative +${expected.counts.negative} .* interference$`, "m"));
  const mean = expected.mean23.value.toFixed(2);
  t.match(stdout, new RegExp(`^lambda23 +${mean} .* ${expected.median23.value.toFixed(2)}  the two trainings`, "m"));
  t.match(stdout, /^test of lambda23/m);
  for (const warning of expected.warnings) t.ok(stdout.includes(`- ${warning}\n`), warning);
  t.ok(stdout.endsWith(`\n${summary(expected)}\n`));
});

t.test("--json prints the whole result, from all three kinds of file", async (t) => {
  const files = {
    "dense.json": JSON.stringify({ samples: 20, correct }),
    "rows.json": JSON.stringify({ rows }),
    "list.json": JSON.stringify(rows),
    "rows.jsonl": rows.map((row) => `${JSON.stringify(row)}\n`).join("\n"),
  };
  for (const [name, text] of Object.entries(files)) {
    const { code, stdout } = await rolegrad("--json", file(t, name, text));
    t.equal(code, 0, name);
    const result = JSON.parse(stdout);
    t.same(result.lambda.l23, [...expected.lambda.l23], name);
    t.same(result.counts, expected.counts);
    t.same(result.warnings, expected.warnings);
    t.equal(result.summary, summary(expected));
  }
});

t.test("--smoothing chooses the smoothing", async (t) => {
  const { stdout } = await rolegrad(
    "--json",
    "--smoothing",
    "laplace",
    file(t, "t.json", JSON.stringify({ samples: 20, correct })),
  );
  t.equal(JSON.parse(stdout).smoothing, "laplace");
});

t.test("errors name the file, and the line of a row; exit codes tell failure from wrong use", async (t) => {
  const bad = rows.map((row, i) => (i === 3 ? { ...row, correct: 21 } : row));
  const cases: [name: string, text: string | undefined, code: number, message: RegExp][] = [
    [
      "k.json",
      JSON.stringify({ rows: bad }),
      1,
      /\[ERR_TABLE_COUNT\]: .*correct at \S*k\.json: rows\[3\] \(variant base of question "q3"\).*21/,
    ],
    [
      "k.jsonl",
      bad.map((row) => `\n${JSON.stringify(row)}`).join("\n"),
      1,
      /\[ERR_TABLE_COUNT\]: .*correct at \S*k\.jsonl:8 \(variant base/,
    ],
    ["short.json", '{"samples": 20,', 1, /\[ERR_TABLE_FILE\]: Expected JSON in \S*short\.json/],
    ["short.jsonl", '{"variant": "base"', 1, /\[ERR_DATA_LINE\].*short\.jsonl:1/],
    ["missing.json", undefined, 1, /\[ERR_DATA_NOT_FOUND\].*missing\.json/],
    ["missing.jsonl", undefined, 1, /\[ERR_DATA_NOT_FOUND\].*missing\.jsonl/],
  ];
  for (const [name, text, code, message] of cases) {
    const made = text === undefined ? path.join(t.testdir(), name) : file(t, name, text);
    const ended = await rolegrad(made);
    t.equal(ended.code, code, name);
    t.match(ended.stderr, message);
    t.equal(ended.stdout, "");
  }
  t.match(await rolegrad("--smoothing", "some", "t.json"), { code: 2, stderr: /ERR_USAGE.*--smoothing.*some/ });
  t.match(await rolegrad(), { code: 2, stderr: /ERR_USAGE.*Expected a table, or a file for each variant/ });
});

t.test("the example prints its sentence", async (t) => {
  const { code, stdout } = await node("examples/attribution.mjs");
  t.equal(code, 0);
  t.match(
    stdout,
    /^Reasoning and tool use interfere in 4 of 5 answered questions \(80\.0 %, 95 % interval .*\) and help each other in 1; /,
  );
  t.match(stdout, /gains 0\.36 logits less .* \(mean lambda23 -0\.36, median -0\.28; for these checkpoints.*\)\.\n$/);
});

t.test("the code of docs/attribution.md runs and prints what the page says", async (t) => {
  const page = readFileSync(path.join(root, "docs", "attribution.md"), "utf8");
  const blocks = [...page.matchAll(/^```js\n(.*?)^```/gms)].map(([, code = ""]) => code);
  t.equal(blocks.length, 5);
  const outputs: string[] = [];
  for (const code of blocks) {
    const ended = await node("--input-type=module", "--eval", code);
    t.equal(ended.code, 0, ended.stderr);
    outputs.push(ended.stdout);
  }
  t.match(outputs[0], /^Reasoning and tool use interfere in 3 of 3 /);
  t.match(outputs[1], /^\d+ \d+ 0\.\d+$/m);
  t.match(outputs[2], /^training seeds -/);
  t.ok(blocks[3]?.includes(`// ${outputs[3]?.trim()}\n`), outputs[3] ?? "nothing printed");
  t.match(outputs[4], "plan:search");
});

t.test("rolegrad/attribution loads nothing of the agent side", async (t) => {
  const dist = path.join(root, "dist");
  /** The modules outside lib/attribution and the packages that its entry reaches, by imports that `pattern` finds. */
  const reach = (pattern: RegExp): { outside: string[]; packages: string[] } => {
    const seen = new Set<string>();
    const packages = new Set<string>();
    const visit = (module: string): void => {
      if (seen.has(module)) return;
      seen.add(module);
      for (const [, name = ""] of readFileSync(module, "utf8").matchAll(pattern)) {
        if (name.startsWith(".")) visit(path.resolve(path.dirname(module), name));
        else if (!name.startsWith("node:")) packages.add(name);
      }
    };
    visit(path.join(dist, "attribution", "index.js"));
    t.ok([...seen].every((module) => existsSync(module)));
    const outside = [...seen]
      .map((module) => path.relative(dist, module))
      .filter((name) => !name.startsWith("attribution"));
    return { outside: outside.sort(), packages: [...packages].sort() };
  };
  const loaded = reach(/(?:^|[}\w*] )(?:from|import) ?"([^"]+)"/gm);
  t.same(loaded, { outside: ["arguments.js", "binding.js", "errors.js", "random.js"], packages: ["node-gyp-build"] });
  // What is loaded where a file is read or a page is made: readers and pure functions.
  const later = reach(/(?:from|import\(|^import) ?"([^"]+)"/gm);
  const allowed =
    /^(arguments|binding|errors|optional|random)\.js$|^data\/(csv|fields|jsonl|parquet|place|source)\.js$|^rewards\/exact-match\.js$|^report\/(chart|document|downsample|facts|html|style|svg|table|visible)\.js$/;
  t.same(
    later.outside.filter((name) => !allowed.test(name)),
    [],
  );
  t.same(later.packages, ["csv-parse", "node-gyp-build"]);
});
