// A coverage-guided fuzzer of what reads other people's files:
//
//   node test/fuzz/fuzz.mjs [--seconds 60] [--seed N] [--target NAME] [--keep]
//
// Inputs that reach code in a new way (counters of build/fuzz/lib, in steps of powers of two) join the corpus in memory,
// and with --keep that of test/fuzz/corpus. What is found is minimised and written to test/fuzz/corpus/TARGET/found-*:
// commit it with the repair. The work is done by a child process, so that a crash, a hang or a lack of memory is a finding
// like any other. The last line is "N passed, N failed", N targets.
import { fork } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { instrument, mapSize, root } from "./instrument.mjs";
import { mutate, randomSource } from "./mutate.mjs";
import { importLib, runInput, targets } from "./targets.mjs";

const slowest = 2000; // ms of one input
const corpusFolder = path.join(root, "test/fuzz/corpus");

/** Committed inputs of a target. */
function corpusOf(name) {
  const folder = path.join(corpusFolder, name);
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .sort()
    .map((file) => readFileSync(path.join(folder, file)));
}

function save(name, input, prefix) {
  const folder = path.join(corpusFolder, name);
  mkdirSync(folder, { recursive: true });
  const file = path.join(folder, `${prefix}-${createHash("sha1").update(input).digest("hex").slice(0, 10)}`);
  writeFileSync(file, input);
  return path.relative(root, file);
}

// ---- the child: one target ----

/** What fails, in a word: two inputs with the same are the same finding. */
const kindOf = (error) => `${error?.constructor?.name}: ${String(error?.message).replace(/\d+/g, "N").slice(0, 60)}`;

async function child({ name, seconds, seed, keep, folder, words, place }) {
  const target = targets[name];
  const map = (globalThis.__fuzz = new Uint8Array(mapSize));
  const seen = new Uint8Array(mapSize);
  const lib = await importLib(folder);
  const random = randomSource(seed);
  console.warn = () => undefined; // of the tokenizers' library
  const corpus = [];
  const tally = {};
  let runs = 0;

  const run = async (input) => {
    writeFileSync(path.join(place, "input"), input); // for the parent, should this process not live to tell
    const start = performance.now();
    const outcome = await runInput(target, lib, path.join(place, "files"), input);
    const time = performance.now() - start;
    if (time > slowest) throw new Error(`took ${time.toFixed(0)} ms`);
    return outcome;
  };
  /** Bits of counts that were not seen before. */
  const gain = () => {
    let fresh = 0;
    for (let i = 0; i < map.length; i++) {
      const count = map[i];
      if (count === 0) continue;
      const bucket = count < 4 ? 1 << (count - 1) : count < 8 ? 8 : count < 16 ? 16 : count < 32 ? 32 : 64;
      if ((seen[i] & bucket) === 0) {
        seen[i] |= bucket;
        fresh++;
      }
    }
    return fresh;
  };
  const attempt = async (input, committed) => {
    map.fill(0);
    runs++;
    let outcome;
    try {
      outcome = await run(input);
    } catch (error) {
      await minimise(input, error);
      return;
    }
    tally[outcome] = (tally[outcome] ?? 0) + 1;
    const fresh = gain();
    if (committed || fresh > 0) {
      corpus.push(input);
      if (keep && !committed) save(name, input, "kept");
    }
  };
  /** Takes pieces out for as long as the same kind of failure stays. */
  const minimise = async (input, error) => {
    const kind = kindOf(error);
    const until = Date.now() + 5000;
    for (let size = input.length >> 1; size > 0 && Date.now() < until; size >>= 1) {
      for (let at = 0; at + size <= input.length && Date.now() < until;) {
        const less = Buffer.concat([input.subarray(0, at), input.subarray(at + size)]);
        const same = await run(less).then(
          () => false,
          (other) => kindOf(other) === kind,
        );
        if (same) input = less;
        else at += size;
      }
    }
    process.send({ finding: kind, stack: error?.stack ?? String(error), input: input.toString("base64") });
    process.exit(1);
  };

  for (const input of [...target.seeds, ...corpusOf(name)]) await attempt(input, true);
  const until = Date.now() + seconds * 1000;
  while (Date.now() < until) await attempt(mutate(random.pick(corpus), corpus, words, random, target.shape), false);
  const reached = seen.reduce((sum, bits) => sum + (bits === 0 ? 0 : 1), 0);
  process.send({ done: { runs, corpus: corpus.length, reached, tally } });
  process.disconnect();
}

// ---- the parent ----

async function fuzz(name, options) {
  const process_ = fork(fileURLToPath(import.meta.url), ["--child"], { execArgv: ["--max-old-space-size=512"] });
  const place = mkdtempSync(path.join(existsSync("/dev/shm") ? "/dev/shm" : os.tmpdir(), "rolegrad-fuzz-"));
  const input = path.join(place, "input");
  let done;
  let finding;
  process_.on("message", (message) => {
    if (message.finding !== undefined) finding = message;
    if (message.done !== undefined) done = message.done;
  });
  const watch = setInterval(() => {
    if (!existsSync(input) || Date.now() - statSync(input).mtimeMs < 5 * slowest) return;
    finding ??= { stack: `no answer for ${5 * slowest} ms` };
    process_.kill("SIGKILL");
  }, 500);
  process_.send({ name, place, ...options });
  const [code, signal] = await once(process_, "exit");
  clearInterval(watch);
  if (done === undefined) finding ??= { stack: `the process ended with ${signal ?? code}` };
  if (finding !== undefined && existsSync(input)) finding.input ??= readFileSync(input).toString("base64");
  rmSync(place, { recursive: true });
  if (finding !== undefined) {
    const file = finding.input === undefined ? "none" : save(name, Buffer.from(finding.input, "base64"), "found");
    console.log(`not ok ${name}: ${finding.stack}\n  the input is ${file}`);
    return false;
  }
  const { runs, corpus, reached, tally } = done;
  console.log(`ok ${name}: ${runs} inputs, ${reached} counters, corpus ${corpus}, ${JSON.stringify(tally)}`);
  return true;
}

if (process.argv[2] === "--child") {
  process.once("message", (options) => void child(options));
} else {
  const { values } = parseArgs({
    options: {
      seconds: { type: "string", default: "60" },
      seed: { type: "string", default: String(Date.now() % 2 ** 31) },
      target: { type: "string" },
      keep: { type: "boolean", default: false },
    },
  });
  const { folder, counters, words } = instrument();
  const names = values.target === undefined ? Object.keys(targets) : [values.target];
  const seed = Number(values.seed);
  const seconds = Number(values.seconds) / names.length;
  console.log(`${counters} counters, ${words.length} words, seed ${seed}, ${seconds.toFixed(1)} s a target`);
  let failed = 0;
  for (const name of names) {
    if (!(await fuzz(name, { seconds, seed, keep: values.keep, folder, words }))) failed++;
  }
  console.log(`${names.length - failed} passed, ${failed} failed`);
  process.exitCode = failed > 0 ? 1 : 0;
}
