// A copy of examples/ in which the commands of its READMEs run as a user gives them.
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import path from "node:path";
import t, { type Test } from "tap";
import { RunDirectory } from "rolegrad";
import { runProgram, type CommandResult } from "./command.js";
import { root } from "./shared.js";

// Inside the package, so that "rolegrad" resolves to it.
export const clone = path.join(root, "build", `examples-${process.pid}`);
export const examples = path.join(clone, "examples");
rmSync(clone, { recursive: true, force: true });
mkdirSync(clone, { recursive: true });
cpSync(path.join(root, "examples"), examples, {
  recursive: true,
  filter: (from) => !/[/\\]runs([/\\]|$)/.test(path.relative(root, from)),
});
for (const name of ["assets", "bin", "docs", "README.md"]) symlinkSync(path.join(root, name), path.join(clone, name));
t.teardown(() => rmSync(clone, { recursive: true, force: true }));

export const peer = (name: string) =>
  existsSync(path.join(root, "node_modules", name)) ? {} : { skip: `${name} is not installed` };

/** The commands of each block of shell in an example's README. */
export function commandsOf(example: string): string[][] {
  const readme = readFileSync(path.join(examples, example, "README.md"), "utf8");
  return [...readme.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, code = ""]) => code.trim().split("\n"));
}

/** A line of a README, with the package's command as it stands in this tree. */
export function words(line: string): string[] {
  const list = line.split(" ");
  if (list[0] === "npx" && list[1] === "rolegrad") return [path.join("bin", "rolegrad.js"), ...list.slice(2)];
  if (list[0] === "node") return list.slice(1);
  throw new Error(`Expected npx rolegrad or node in the README but received ${line}`);
}

export const env = { FORCE_COLOR: undefined, NO_COLOR: "1", NODE_OPTIONS: undefined };

export async function run(t: Test, line: string): Promise<CommandResult> {
  const result = await runProgram(process.execPath, words(line), { cwd: clone, env });
  t.equal(result.status, 0, `${line}\n${result.stderr}`);
  return result;
}

export async function runAll(t: Test, lines: readonly string[]): Promise<string[]> {
  const printed: string[] = [];
  for (const line of lines) printed.push((await run(t, line)).stdout);
  return printed;
}

/** What a run of an example left, and the text between the role's tags in its last answers. */
export async function left(example: string, name: string) {
  const run = new RunDirectory(path.join(examples, example, "runs", name));
  const metrics = await run.metrics();
  const evaluations = await run.evaluations();
  const last = `step-${String(metrics.at(-1)?.step).padStart(6, "0")}`;
  return {
    path: run.path,
    config: await run.readConfig(),
    metrics,
    evaluations,
    answers: await run.readTrajectories(last),
  };
}

/** Both roles trained, on their own samples, and everything is there that a run leaves. */
export async function checkRun(t: Test, example: string, name: string): Promise<Awaited<ReturnType<typeof left>>> {
  const found = await left(example, name);
  t.ok(found.metrics.length > 0, "metrics");
  t.ok(
    found.metrics.every(({ maxRatioDeviation }) => maxRatioDeviation === 0),
    "on policy",
  );
  for (const file of ["config.json", "adapters/reason/adapter_config.json", "adapters/tool/adapter_config.json"])
    t.ok(existsSync(path.join(found.path, file)), file);
  return found;
}

/** Calls, and tokens of the role that makes them. */
export function checkCalls(t: Test, { answers, metrics }: Awaited<ReturnType<typeof left>>): void {
  const calls = answers.flatMap((answer) => answer.calls);
  t.ok(calls.length > 0, `${calls.length} calls`);
  t.ok(
    calls.every(({ role }) => role === "tool"),
    "of the role tool",
  );
  t.ok((metrics.at(-1)?.sampledTokens["tool"] ?? 0) > 0, "tokens of the role tool");
}
