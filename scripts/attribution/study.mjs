// What the intervals of computeInterference cover, by simulation: node scripts/attribution/study.mjs [--tables 1000]
// [--questions 150] [--samples 50] [--seed 1] [--jobs 2] [--only SECTION,..] [--state FOLDER] [--out docs/attribution-study.md].
// Run it after a build. Every table has its own random stream, so that the figures are the same for any number of jobs; with
// --state what is done is kept there, and the same command goes on where it was stopped.
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { parts, runPart, Tally } from "./parts.mjs";
import { markdown } from "./study-report.mjs";

/** Tables of one process; fixed, since sums of numbers depend on it. */
const chunk = 250;

/** The same in a process of its own, with one thread. */
async function runApart(part, settings) {
  const given = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, `${value}`]);
  const child = spawn(process.execPath, [fileURLToPath(import.meta.url), ...given, "--part", `${part}`], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, ROLEGRAD_THREADS: "1" },
  });
  let text = "";
  for await (const piece of child.stdout) text += piece;
  if (text === "") throw new Error(`Expected counts of "${parts[part].name}" but its process printed nothing`);
  return JSON.parse(text);
}

/** Runs the chosen parts in chunks on `jobs` processes; the merged counts of each part, in order. */
async function runAll(chosen, settings, { jobs, state }) {
  const chunks = chosen.flatMap((part) =>
    Array.from({ length: Math.ceil(settings.tables / chunk) }, (_, i) => ({ part, from: i * chunk })),
  );
  const begin = performance.now();
  let [next, done, ran] = [0, 0, 0];
  const work = async () => {
    while (next < chunks.length) {
      const own = chunks[next++];
      const { part, from } = own;
      const { tables, ...rest } = settings;
      const given = { ...rest, from, to: Math.min(tables, from + chunk) };
      const { section, name } = parts[part];
      const key = JSON.stringify({ section, name, ...given });
      const file = state && join(state, `${section}-${part}-${from}.json`);
      const kept = file && existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : null;
      if (kept?.key === key) own.found = kept.found;
      else {
        own.found = await runApart(part, given);
        ran++;
        if (file) {
          writeFileSync(`${file}.part`, `${JSON.stringify({ key, found: own.found })}\n`);
          renameSync(`${file}.part`, file);
        }
      }
      done++;
      const seconds = (performance.now() - begin) / 1000;
      const left = ran === 0 ? 0 : Math.round(((seconds / ran) * (chunks.length - done)) / 60);
      process.stderr.write(
        `${done} of ${chunks.length}: ${section}, ${name}, tables ${given.from} to ${given.to}; ` +
          `${Math.round(seconds)} s, about ${left} min left\n`,
      );
    }
  };
  await Promise.all(Array.from({ length: jobs }, work));
  return chosen.map((part) => {
    const own = chunks.filter((each) => each.part === part);
    const tally = new Tally();
    for (const { found } of own) tally.add(found.counts);
    return { ...parts[part], truly: own[0].found.truly, counts: tally.counts };
  });
}

const { values } = parseArgs({
  options: {
    tables: { type: "string", default: "1000" },
    questions: { type: "string", default: "150" },
    samples: { type: "string", default: "50" },
    seed: { type: "string", default: "1" },
    jobs: { type: "string", default: "2" },
    only: { type: "string" },
    state: { type: "string" },
    part: { type: "string" },
    from: { type: "string" },
    to: { type: "string" },
    out: { type: "string" },
  },
});
const number = (name) => Number(values[name]);
const shape = { questions: number("questions"), samples: number("samples"), seed: number("seed") };
if (values.part !== undefined) {
  const found = runPart(parts[number("part")], { ...shape, from: number("from"), to: number("to") });
  process.stdout.write(`${JSON.stringify(found)}\n`);
} else {
  const wanted = values.only?.split(",");
  const chosen = parts.flatMap(({ section }, i) => (wanted === undefined || wanted.includes(section) ? [i] : []));
  if (values.state !== undefined) mkdirSync(values.state, { recursive: true });
  const settings = { ...shape, tables: number("tables") };
  const runs = await runAll(chosen, settings, { jobs: number("jobs"), state: values.state });
  const text = markdown(runs, settings);
  if (values.out === undefined) process.stdout.write(text);
  else writeFileSync(values.out, await (await import("prettier")).format(text, { parser: "markdown" }));
}
