// Adding an operation is its line in native/ops/operations.inl, its two definitions, a row in a table of cases and one in docs/numerics.md:
// what the compiler does not ask for is asked for here.
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { root } from "./helpers/shared.js";

const read = (file: string): string => readFileSync(path.join(root, file), "utf8");
const lines = read("native/ops/operations.inl").matchAll(/ROLEGRAD_OPERATION\([^(]*?(\w+)\(/g);
const operations = [...new Set([...lines].map(([, name]) => name as string))];
/** What moves or lays out memory and gives no results. */
const memory = ["allocate", "read", "write", "zero", "copy", "pack", "repack", "kv_pages"];

t.ok(operations.length > 40, `${operations.length} operations`);

t.test("every operation says in docs/numerics.md how it keeps the contract", (t) => {
  const rows = read("docs/numerics.md")
    .split("\n")
    .filter((line) => line.startsWith("| `"))
    .map((line) => line.split("|")[1] as string);
  for (const name of operations.filter((name) => !memory.includes(name))) {
    // `x_backward` may stand as `x` (`_backward`), or `x` (and backward).
    const parts = [...name.matchAll(/_/g)].map(({ index }) => [name.slice(0, index), name.slice(index)] as const);
    const stands = (row: string): boolean =>
      row.includes(`\`${name}\``) ||
      parts.some(([stem, end]) => row.includes(`\`${stem}\``) && /`_|\(and/.test(row) && row.includes(end.slice(1)));
    t.ok(rows.some(stands), name);
  }
  t.end();
});

t.test("every operation is called by the native tests", (t) => {
  const files = readdirSync(path.join(root, "test/native")).filter((name) => /\.(cc|h)$/.test(name));
  const tests = files.map((name) => read(`test/native/${name}`)).join("\n");
  for (const name of operations) t.match(tests, new RegExp(`[.>:]${name}\\(`), name);
  t.end();
});
