// What a person reads of a run: trajectories on a terminal, and report.html.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { stripVTControlCharacters } from "node:util";
import t, { type Test } from "tap";
import { loadTokenizer, RoleRouter, WORLD_CHECKPOINT, type Trajectory } from "rolegrad";
import { annotate, exampleOf, pickExample, writeReport } from "../lib/report/index.js";
import { formatTick, lineChart, ticks } from "../lib/report/chart.js";
import { visible, wrap } from "../lib/report/text.js";
import type { EvaluationRecord, StepRecord } from "../lib/run/records.js";
import { root } from "./helpers/shared.js";

const ESC = "\x1b";
const roles = ["reason", "tool"];
const router = new RoleRouter({
  roles,
  base: "reason",
  spans: [{ role: "tool", open: "<search>", close: "</search>" }],
});

/** A tokenizer of single bytes. */
const byBytes = { tokenBytes: () => Array.from({ length: 256 }, (_, i) => Uint8Array.of(i)) };

/** A trajectory of text as the router sees it; what the model has sampled stands at odd places. */
function trajectoryOf(...parts: string[]): Trajectory {
  const bytes = parts.map((part) => [...Buffer.from(part)]);
  const ids = Int32Array.from(bytes.flat());
  const sampled = Uint8Array.from(bytes.flatMap((part, i) => part.map(() => i % 2)));
  return {
    id: "rollout/q1#0",
    group: "rollout/q1",
    question: "q1",
    ids,
    roles: router.annotate(
      [...ids].map((id) => Uint8Array.of(id)),
      sampled,
    ),
    sampled,
    logprobs: new Float32Array(ids.length),
    temperature: 1,
    topP: 1,
    topK: 0,
    policyVersion: 0,
    rngKey: "",
    response: parts.slice(1).join(""),
    reward: 0,
    answer: null,
    calls: [],
    finish: "stop",
  };
}

const seine = trajectoryOf(
  " Question: Where does the Seine rise?\n",
  "<think> I need the Seine.</think><search> Seine river</search>",
  "<information> Seine. Rises in Burgundy and flows to the Channel.</information>",
  "<think> Burgundy.</think><answer> Burgundy</answer>",
);

t.test("an annotated trajectory names who wrote each stretch, and wraps", async (t) => {
  t.equal(
    annotate(seine, byBytes, roles, { color: false, width: 60 }),
    `
 prompt │ Question: Where does the Seine rise?
 reason │ <think> I need the Seine.</think><search>
   tool │ Seine river</search>
 output │ <information> Seine. Rises in Burgundy and flows
        │ to the Channel.</information>
 reason │ <think> Burgundy.</think><answer>
        │ Burgundy</answer>

 reason, tool: written by the model
 output, prompt: given to it`.slice(1),
  );
  for (const width of [40, 60, 80, 140]) {
    const lines = annotate(seine, byBytes, roles, { color: false, width }).split("\n");
    t.ok(
      lines.every((line) => line.length <= width),
      `fits ${width} columns`,
    );
  }
});

t.test("colours are an addition: without them the same text", async (t) => {
  const colored = annotate(seine, byBytes, roles, { color: true, width: 60 });
  t.match(colored, `${ESC}[36mreason │`, "reasoning is cyan");
  t.match(colored, `${ESC}[33m  tool │`, "tool use is yellow");
  t.match(colored, `${ESC}[2mprompt │`, "the prompt is dim");
  t.equal(stripVTControlCharacters(colored), annotate(seine, byBytes, roles, { color: false, width: 60 }));
});

t.test("no colour where NO_COLOR says so or stdout is no terminal", async (t) => {
  t.notMatch(annotate(seine, byBytes, roles), ESC);
});

t.test("what a model writes cannot command the terminal", async (t) => {
  const hostile = trajectoryOf("Q\n", `a${ESC}[2J${ESC}]0;owned\x07\r\x08 \x9b1m\u202etxt\x7f\0`);
  for (const color of [false, true]) {
    const text = annotate(hostile, byBytes, roles, { color, width: 80, legend: false });
    t.match(text, "a␛[2J␛]0;owned␇␍␈ <U+009B>1m<U+202E>txt␡␀");
    // eslint-disable-next-line no-control-regex
    t.notMatch(stripVTControlCharacters(text), /[\0-\x09\x0b-\x1f\x7f-\x9f\u202e]/);
  }
});

t.test("the world's own tokens read as text, broken UTF-8 as a mark", async (t) => {
  const tokenizer = await loadTokenizer(WORLD_CHECKPOINT);
  const ids = Int32Array.from(tokenizer.encode(" Question: Who?\n<think> Kamsel.</think>"));
  const sampled = Uint8Array.from(ids, (_, i) => (i < 4 ? 0 : 1));
  const text = annotate({ ids, sampled, roles: new Int8Array(ids.length) }, tokenizer, roles, {
    color: false,
    legend: false,
  });
  t.match(text, /prompt │ Question: Who\?/);
  const broken = trajectoryOf("Q", "\u00e9");
  broken.ids[2] = 0x41;
  t.match(annotate(broken, byBytes, roles, { color: false, legend: false }), "│ \ufffdA");
});

t.test("a character whose bytes two stretches share is not lost", async (t) => {
  const ids = Int32Array.from([65, 0xc3, 0xa9]);
  const text = annotate({ ids, sampled: Uint8Array.of(0, 0, 1), roles: new Int8Array(3) }, byBytes, roles, {
    color: false,
    legend: false,
  });
  t.equal(text, " prompt │ A\n reason │ é");
});

t.test("text wraps at white space, else anywhere, by columns", async (t) => {
  t.strictSame(wrap("one two three", 7), ["one two", "three"]);
  t.strictSame(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
  t.strictSame(wrap("a\n\nb", 4), ["a", "", "b"]);
  t.strictSame(wrap("日本語です", 4), ["日本", "語で", "す"]);
  t.strictSame(wrap("a e\u0301e\u0301 b", 4), ["a e\u0301e\u0301", "b"], "marks take no column");
  t.equal(visible("\ud800"), "<U+D800>");
});

t.test("the question shown is one that was learned, with calls before and after, the shortest of them", async (t) => {
  const answer = (question: string, reward: number, calls: number, length = 10): Trajectory => ({
    ...seine,
    question,
    reward,
    calls: Array.from({ length: calls }, () => ({ role: "tool", query: "", result: "", latencyMs: 0 })),
    ids: new Int32Array(length),
  });
  const before = [answer("a", 1, 1), answer("b", 0, 0), answer("c", 0, 1, 40), answer("d", 0, 1)];
  const after = [answer("a", 1, 2), answer("b", 1, 2), answer("c", 1, 2), answer("d", 1, 2)];
  t.equal(pickExample(before, after)?.after.question, "d");
  t.equal(pickExample(before.slice(0, 2), after)?.after.question, "b");
  t.equal(pickExample(before.slice(0, 1), after)?.after.question, "a", "nothing was learned: the first of both");
  t.equal(pickExample([], after), undefined);
});

t.test("ticks enclose the range in steps of 1, 2 or 5", async (t) => {
  t.strictSame(ticks(0, 0.97, 5), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  t.strictSame(ticks(0, 25, 6, true), [0, 5, 10, 15, 20, 25]);
  t.strictSame(ticks(1, 3, 6, true), [1, 2, 3]);
  t.strictSame(ticks(-0.03, 0.05, 5), [-0.04, -0.02, 0, 0.02, 0.04, 0.06]);
  t.strictSame(ticks(7, 7, 5).length > 1, true, "a range of one value has an axis");
  t.strictSame([formatTick(4000, 1000), formatTick(0.05, 0.01), formatTick(0.5, 0.1)], ["4,000", "0.05", "0.5"]);
});

t.test("a chart without a finite value is none", async (t) => {
  const options = { title: "x", xLabel: "step", yLabel: "y" };
  t.equal(lineChart({ ...options, series: [{ name: "a", color: "0", points: [{ x: 1, y: NaN }] }] }), undefined);
  t.equal(lineChart({ ...options, series: [] }), undefined);
  const one = lineChart({ ...options, series: [{ name: "a", color: "0", points: [{ x: 1, y: 2 }] }] });
  t.notMatch(one?.text, /NaN|Infinity|undefined/);
});

// ---- report.html ----

const hostileText = `<script>alert(1)</script> & "quotes" ' ${ESC}[31m \u202e </title><img src=x onerror=alert(1)>`;

function stepRecord(step: number): StepRecord {
  return {
    step,
    loss: -0.01 * step,
    kl: 0,
    clipHigh: 0,
    clipLow: 0,
    maxRatioDeviation: 0,
    learningRate: 0.003,
    gradNorms: { reason: 0.0613 + 0.001 * step, tool: 0.0127 },
    firstRatioMax: 0,
    adapters: {
      reason: { gradNorm: 0.0613 + 0.001 * step, updateNorm: 0.02, norm: 3 },
      tool: { gradNorm: 0.0127, updateNorm: 0.01, norm: 2 },
    },
    roles: {
      reason: { tokens: 3811 + step, taught: 3000, loss: -0.008, lossShare: 0.8, clip: 0, clipHigh: 0, clipLow: 0 },
      tool: { tokens: 822, taught: 600, loss: -0.002, lossShare: 0.2, clip: 0, clipHigh: 0, clipLow: 0 },
    },
    reward: 0.2031 + 0.1 * step,
    mixedGroups: 0.75,
    trajectories: 128,
    tokens: 9000 + step,
    sampledTokens: { reason: 3811 + step, tool: 822 },
    toolRate: 0.9,
    searches: 1.4,
    answerRate: 1,
    finish: { stop: 128, length: 0, budget: 0, error: 0 },
    seconds: 1.25,
    rolloutSeconds: 0.5,
  };
}

function evaluationRecord(
  step: number,
  exactMatch: number,
  low: number,
  high: number,
  note?: string,
): EvaluationRecord {
  const finish = { stop: 250, length: 6, budget: 0, error: 0 };
  const policy = step === 0 ? "base" : "adapters";
  const rest = {
    n: 256,
    samples: 1,
    temperature: 1,
    toolRate: 0.957,
    searches: 1.43,
    answerRate: 1,
    finish,
    seconds: 1,
  };
  return { step, split: "dev", policy, exactMatch, low, high, ...rest, ...(note === undefined ? {} : { note }) };
}

const metrics = [1, 2, 3, 4].map(stepRecord);
const evaluations = [
  evaluationRecord(0, 0.1836, 0.1412, 0.2357),
  evaluationRecord(2, 0.5117, 0.4506, 0.5725),
  evaluationRecord(4, 0.8321, 0.7814, 0.8729),
  evaluationRecord(4, 0.0078, 0.0021, 0.0281, "pages withheld"),
];
const config = {
  model: "checkpoints/tiny",
  modelParameters: 586240,
  variant: "dart",
  rank: 8,
  questionsPerStep: 16,
  group: 8,
  optimizer: { learningRate: 0.003, warmupSteps: 3 },
  seed: 7,
  note: hostileText,
  package: "rolegrad",
  packageVersion: "0.1.0",
  node: "20.20.2",
  instructionSet: "avx2",
  command: ["rolegrad", "quickstart", "--out", "my runs/a"],
  startedAt: "2026-01-02T03:04:05.678Z",
};

const jsonLines = (records: readonly object[]): string =>
  records.map((record) => `${JSON.stringify(record)}\n`).join("");

function runDirectory(t: Test, files: Record<string, string> = {}): string {
  const folder = t.testdir();
  const question = { id: "q1", question: hostileText, answers: ["Burgundy"] };
  const after = { ...seine, policyVersion: 4, reward: 1, answer: " Burgundy" };
  const examples = [
    exampleOf({ ...seine, answer: hostileText }, question, byBytes, roles),
    exampleOf(after, question, byBytes, roles),
  ];
  const all = {
    "config.json": JSON.stringify(config),
    "metrics.jsonl": jsonLines(metrics),
    "evaluations.jsonl": jsonLines(evaluations),
    "examples.jsonl": jsonLines(examples),
    ...files,
  };
  for (const [name, content] of Object.entries(all)) writeFileSync(path.join(folder, name), content);
  const adapter = path.join(folder, "adapters", "reason");
  mkdirSync(adapter, { recursive: true });
  const header = Buffer.from(
    JSON.stringify({ a: { dtype: "F32", shape: [8, 128] }, b: { dtype: "F32", shape: [64, 8] } }),
  );
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  writeFileSync(path.join(adapter, "adapter_model.safetensors"), Buffer.concat([length, header]));
  writeFileSync(
    path.join(adapter, "adapter_config.json"),
    JSON.stringify({ r: 8, lora_alpha: 16, target_modules: ["q_proj", "v_proj"] }),
  );
  return folder;
}

const documentOf = async (directory: string): Promise<string> => readFileSync(await writeReport(directory), "utf8");

const SCRIPT = readFileSync(path.join(root, "lib/report/browser/page.js"), "utf8");

/** The page without its one script. */
const pageOf = async (directory: string): Promise<string> =>
  (await documentOf(directory)).replace(`<script>${SCRIPT}</script>`, "");

/** The text between tags, as a reader sees it. */
function textOf(markup: string): string {
  const body = markup.slice(markup.indexOf("<body>")).replace(/<[^>]*>/g, " ");
  const entities: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'" };
  return body.replace(/&(#?\w+);/g, (whole, name: string) => entities[name] ?? whole).replace(/\s+/g, " ");
}

t.test("the page's elements are closed in order, and no id comes twice", async (t) => {
  const page = await pageOf(runDirectory(t));
  const open: string[] = [];
  const empty = ["meta", "!doctype"];
  for (const [, close, name, attributes, self] of page
    .replace(/<style>[^]*?<\/style>/, "")
    .matchAll(/<(\/?)([!\w]+)((?:\s+[\w-]+(?:="[^"<]*")?)*)\s*(\/?)>/g)) {
    if (close === "/") t.equal(open.pop(), name);
    else if (self !== "/" && !empty.includes(name as string)) open.push(name as string);
    t.notMatch(attributes, /\son\w+=|javascript:/);
  }
  t.strictSame(open, []);
  const rest = page
    .replace(/<style>[^]*?<\/style>/, "")
    .replace(/<(\/?)([!\w]+)((?:\s+[\w-]+(?:="[^"<]*")?)*)\s*(\/?)>/g, "");
  t.notMatch(rest, /[<>]/, "no bracket is left outside a tag");
  const ids = [...page.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id);
  t.equal(new Set(ids).size, ids.length);
});

t.test("text never becomes markup, wherever it comes from", async (t) => {
  const page = await pageOf(runDirectory(t));
  t.notMatch(page, /<script|<img|onerror=alert\(1\)>|<\/title><img/);
  t.notMatch(page, ESC);
  t.match(textOf(page), `<script>alert(1)</script> & "quotes" ' ␛[31m <U+202E> </title><img src=x onerror=alert(1)>`);
});

t.test("the page needs nothing but itself", async (t) => {
  const page = await pageOf(runDirectory(t));
  t.notMatch(page, /https?:|<[^>]*\bsrc=|url\(|@import|<link|<iframe/);
  const hash = createHash("sha256").update(SCRIPT).digest("base64");
  const policy = `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${hash}'`;
  t.match(page, `<meta http-equiv="Content-Security-Policy" content="${policy}">`);
  for (const part of ["prefers-color-scheme: dark", "@media print", 'name="viewport"', '<html lang="en">'])
    t.match(page, part);
});

t.test("the figures shown are the files'", async (t) => {
  const page = await pageOf(runDirectory(t));
  const text = textOf(page);
  t.match(text, "Exact match on 256 questions (dev) 18.4 % → 83.2 %");
  t.match(text, "before 18.4 % (95 %: 14.1 to 23.6)");
  t.match(text, "after 4 steps 83.2 % (95 %: 78.1 to 87.3)");
  t.match(text, "pages withheld 0.8 % (95 %: 0.2 to 2.8)");
  for (const { step, policy, exactMatch, low, high } of evaluations) {
    const share = `${(100 * exactMatch).toFixed(1)} %`;
    const bounds = `${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)} %`;
    t.match(
      text.replaceAll("dev, pages withheld", "dev"),
      `${step} dev ${policy} 256 1 ${share} ${bounds} 95.7 % 1.43 stop 250, length 6`,
    );
  }
  t.match(textOf(page), "sampled answers 512");
  t.match(textOf(page), "tokens 36,010");
  t.match(textOf(page), "training time 5.0 s");
  for (const { step, reward, gradNorms, sampledTokens } of metrics) {
    t.match(page, `<title>reward, optimizer step ${step}: ${reward.toFixed(2)}</title>`);
    t.match(page, `<title>reason, optimizer step ${step}: ${gradNorms["reason"]?.toFixed(3)}</title>`);
    const cells = [step, reward, -0.01 * step, 0.75, gradNorms["reason"], 0.0127, 0, 0.003].map((value) =>
      Number(value?.toPrecision(4)),
    );
    t.match(text, `${cells.join(" ")} ${sampledTokens["reason"]?.toLocaleString("en-US")} 822 1.25`);
  }
  t.match(page, "<title>dev, optimizer step 2: 51.2 % (95 %: 45.1 % to 57.3 %)</title>");
});

t.test("setup and command are there, the command as a shell takes it", async (t) => {
  const text = textOf(await pageOf(runDirectory(t)));
  t.match(text, "checkpoints/tiny, 586,240 parameters, frozen");
  t.match(text, "reason : rank 8, alpha 16, 1,536 parameters on 2 linears a layer, in adapters/reason");
  t.match(text, "1,536 parameters (0.3 % of the model's)");
  t.match(text, "Seed 7");
  t.match(text, "kernels avx2");
  t.match(text, "rolegrad quickstart --out 'my runs/a'");
  t.match(text, "started 2026-01-02 03:04:05 UTC");
});

t.test("who cannot see or use a mouse gets it too", async (t) => {
  const page = await pageOf(runDirectory(t));
  const charts = [...page.matchAll(/<svg[^>]*>\s*(<title[^>]*>[^<]+<\/title>\s*<desc[^>]*>[^<]+<\/desc>)?/g)];
  t.ok(charts.length >= 8);
  for (const [tag, names] of charts) t.ok(tag.includes('aria-hidden="true"') || names !== undefined, tag);
  t.match(page, "reward: 0.30 at optimizer step 1, 0.60 at optimizer step 4");
  t.notMatch(page, /<th(?![^>]*scope)[ >]/, "every header cell has a scope");
  t.equal([...page.matchAll(/<h1/g)].length, 1);
});

t.test("KL and clipping have charts where they are not zero", async (t) => {
  t.notMatch(await pageOf(runDirectory(t)), "KL to the reference");
  const some = metrics.map((row) => ({ ...row, kl: 0.01 * row.step, clipHigh: 0.002 }));
  const page = await pageOf(runDirectory(t, { "metrics.jsonl": jsonLines(some) }));
  t.match(page, "<title>KL, optimizer step 4: 0.040</title>");
  t.match(page, "Clipped tokens");
});

t.test("a run that has only begun has a report", async (t) => {
  const folder = t.testdir({ "config.json": "{}" });
  t.match(textOf(await pageOf(folder)), "This run has no metrics and no evaluations yet.");
});

t.test(
  "a line that a stopped run has cut is left out, and said so; a broken one is an error with its place",
  async (t) => {
    const cut = runDirectory(t, { "metrics.jsonl": `${jsonLines(metrics)}{"step": 5, "rew` });
    const page = await pageOf(cut);
    t.match(textOf(page), "The last line of metrics.jsonl is cut");
    t.match(textOf(page), "optimizer steps 4");
    const broken = runDirectory(t, { "metrics.jsonl": `{"step": 1, "reward": 0.5}\n{"step": 2}\n` });
    await t.rejects(writeReport(broken), { code: "ERR_RUN_FILE", message: /reward at .*metrics\.jsonl:2/ });
    const noJson = runDirectory(t, { "evaluations.jsonl": "nonsense\n" });
    await t.rejects(writeReport(noJson), { code: "ERR_RUN_FILE", message: /evaluations\.jsonl:1/ });
  },
);

t.test("a folder that is no run is refused", async (t) => {
  await t.rejects(writeReport(t.testdir()), { code: "ERR_RUN_NOT_FOUND", message: /config\.json/ });
});
