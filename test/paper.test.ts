// docs/paper.md names functions, commands, settings, variants and files: each is there. CITATION.cff says whom to cite.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import * as rolegrad from "rolegrad";
import type { ExperimentResults } from "rolegrad";
import * as attribution from "rolegrad/attribution";
import { capital } from "../lib/experiment/sections.js";
import { rolegrad as command } from "./helpers/command.js";
import { root } from "./helpers/shared.js";

const text = readFileSync(path.join(root, "docs/paper.md"), "utf8");
const names = [...new Set([...text.matchAll(/`([^`]+)`/g)].map(([, name]) => name!))];
const exported: Record<string, unknown> = { ...rolegrad, ...attribution };
const schema = JSON.parse(readFileSync(path.join(root, "assets/run.schema.json"), "utf8"));
type Schema = { properties?: Record<string, Schema> };

function isSetting(name: string): boolean {
  let at: Schema | undefined = schema;
  for (const part of name.split(".")) at = at?.properties?.[part];
  return at !== undefined;
}

const correct = { base: [3], reas: [4], tool: [4], unified: [5], hybridTool: [3], hybridReas: [3] };
const result = attribution.computeInterferenceSync({ samples: 10, correct }) as unknown as Record<string, unknown>;

const metrics = ["exact match", "execution match"] satisfies ExperimentResults["metric"][];

/** Titles of the report that `rolegrad experiment` writes. */
const folder = path.join(root, "lib/experiment");
const sections = new Set(
  readdirSync(folder)
    .map((file) => readFileSync(path.join(folder, file), "utf8"))
    .flatMap((source) => [
      ...[...source.matchAll(/section\("[a-z-]+", "([^"]+)"/g)].map(([, title]) => title),
      // The main section is called by what is measured.
      ...(source.includes('section("main-title", capital(results.metric)') ? metrics.map(capital) : []),
    ]),
);

const helps = new Map<string, Promise<{ status: number | null; stdout: string }>>();
async function isCommand(words: string): Promise<boolean> {
  const [, name = "", ...options] = words.split(" ");
  if (!helps.has(name)) helps.set(name, command([name, "--help"]));
  const { status, stdout } = await helps.get(name)!;
  return (
    status === 0 && stdout.startsWith(`Usage: rolegrad ${name} `) && options.every((option) => stdout.includes(option))
  );
}

async function exists(name: string): Promise<boolean> {
  if (name.startsWith("rolegrad ")) return isCommand(name);
  const [, variant] = /^variant "(.+)"$/.exec(name) ?? [];
  if (variant !== undefined) {
    try {
      return rolegrad.planVariant(variant, ["reason", "tool"]) !== undefined;
    } catch {
      return false;
    }
  }
  const [, title] = /^section "(.+)"$/.exec(name) ?? [];
  if (title !== undefined) return sections.has(title);
  if (name.includes("/")) return existsSync(path.join(root, name));
  const [, field] = /^computeInterference\(\)\.(\w+)$/.exec(name) ?? [];
  if (field !== undefined) return field in result;
  const [, owner = "", member = ""] = /^([A-Z]\w*)\.(\w+)$/.exec(name) ?? [];
  if (owner !== "") return member in ((exported[owner] as { prototype?: object })?.prototype ?? {});
  return name in exported || isSetting(name);
}

t.test("every name in docs/paper.md exists", async (t) => {
  t.ok(names.length > 60, `${names.length} names`);
  for (const name of names) t.ok(await exists(name), name);
});

t.test("every row of the page names something that does it, or says that nothing does", (t) => {
  const rows = text.split("\n").filter((line) => line.startsWith("| ") && !/^\| (the paper |-)/.test(line));
  t.ok(rows.length > 45, `${rows.length} rows`);
  for (const row of rows) t.match(row, /`[^`]+`|not here/, row.slice(0, 60));
  t.end();
});

t.test("a name that is nobody's is found out", async (t) => {
  for (const name of [
    "computeNothing",
    "Trainer.fly",
    "docs/none.md",
    "objective.none",
    'variant "none"',
    "rolegrad train --none",
    "rolegrad none",
    "computeInterference().none",
    'section "None"',
  ])
    t.notOk(await exists(name), name);
});

t.test("CITATION.cff names the software and the paper", (t) => {
  const cff = readFileSync(path.join(root, "CITATION.cff"), "utf8");
  const { version } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8"));
  for (const line of ["cff-version: 1.2.0", "type: software", "title: rolegrad", `version: ${version}`, "license: MIT"])
    t.match(cff, new RegExp(`^${line.replaceAll(".", "\\.")}$`, "m"));
  for (const key of ["message", "authors", "references", "abstract", "keywords"])
    t.match(cff, new RegExp(`^${key}:`, "m"));
  t.match(cff, /arXiv:2602\.00994/);
  t.notMatch(cff, /\t/, "YAML has no tabs");
  t.end();
});
