// `rolegrad watch`: the page as a person has it, in headless Chromium, over the files of a run that grow, shrink and lie.
import { spawn, spawnSync } from "node:child_process";
import { appendFileSync, renameSync, writeFileSync } from "node:fs";
import { once } from "node:events";
import { request as httpRequest } from "node:http";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import fc from "fast-check";
import t, { type Test } from "tap";
import { loadTokenizer, startWatch, WORLD_CHECKPOINT, writeReport } from "rolegrad";
import type { Page } from "playwright-core";
import { downsample, smooth, spread } from "../lib/report/downsample.js";
import { runStatus } from "../lib/report/status.js";
import { listAnswers } from "../lib/watch/answers.js";
import { isOwnHost } from "../lib/watch/server.js";
import { JsonLinesTail } from "../lib/watch/tail.js";
import { WatchedRun } from "../lib/watch/watched-run.js";
import { launch, needsChromium, violations, withPages, type OpenPage } from "./helpers/browser.js";
import { answerLine, evaluationLine, jsonLines, metricsLine, runConfig, writeFiles } from "./helpers/watched.js";
import { root } from "./helpers/shared.js";

const tokenizer = await loadTokenizer(WORLD_CHECKPOINT);
const hostile = `</script><script>alert(1)</script><img src=x onerror=alert(2)>"'&lt;`;

const seine = [
  "Question: Where?\n",
  "<think> I need it.</think><search> Seine</search>",
  "<information> Seine.</information>",
  "<answer> Burgundy</answer>",
];

function answersOf(step: number, count = 8): string {
  return Array.from({ length: count }, (_, i) => {
    const id = `rollout/s${step}q${i >> 1}#${i & 1}`;
    const evil =
      i === 1
        ? { parts: ["Q\n", `<think> ${hostile}</think>`], answer: hostile, query: hostile }
        : { parts: seine, answer: " Burgundy" };
    return `${answerLine(tokenizer, { id, question: i === 1 ? hostile : `q${i >> 1}`, reward: i % 3 === 0 ? 1 : 0, ...evil })}\n`;
  }).join("");
}

const steps = Array.from({ length: 30 }, (_, i) => metricsLine(i + 1));

function runFolder(t: Test, files: Record<string, string> = {}, folder = t.testdir()): string {
  writeFiles(folder, {
    "config.json": JSON.stringify({ ...runConfig, note: hostile }),
    "metrics.jsonl": jsonLines(steps),
    "evaluations.jsonl": jsonLines([evaluationLine(0, 0.2), evaluationLine(10, 0.4), evaluationLine(20, 0.6)]),
    "events.jsonl": jsonLines([
      {
        ...{ step: 10, event: "zero-reward", message: `no reward ${hostile}`, trajectory: "rollout/s10q2#0" },
        ...{ findings: ["none answered"], file: "trajectories/step-000010.jsonl" },
      },
    ]),
    "trajectories/step-000010.jsonl": answersOf(10),
    "trajectories/step-000020.jsonl": answersOf(20),
    "trajectories/eval-000020.jsonl": answersOf(20, 4),
    ...files,
  });
  return folder;
}

async function watch(t: Test, ...runs: string[]): Promise<string> {
  const server = await startWatch(runs, { port: 0, interval: 100 });
  t.teardown(() => server.close());
  return server.url;
}

const browser = needsChromium.skip === undefined ? await launch() : undefined;
t.teardown(() => browser?.close());

/** A test in the browser. */
function inBrowser(claim: string, body: (t: Test, open: OpenPage) => Promise<void>): void {
  t.test(claim, needsChromium, (t) => withPages(t, browser as NonNullable<typeof browser>, (open) => body(t, open)));
}

const text = (page: Page, selector: string): Promise<string> => page.locator(selector).first().innerText();
const overflow = (page: Page) => page.evaluate("document.documentElement.scrollWidth - innerWidth");

inBrowser("the page has a chart of everything that the run's files tell", async (t, open) => {
  const page = await open(await watch(t, runFolder(t)));
  const titles = await page.locator("figure h3").allInnerTexts();
  t.strictSame(titles, [
    ...["Exact match", "Mean reward", "Retrieval", "Groups that teach", "Loss", "KL to the reference"],
    ...[
      "KL to the start, by role",
      "Entropy, by role",
      "Probability ratio",
      "Clipped tokens",
      "Clipped tokens, by role",
    ],
    ...["Gradient norm, by adapter", "Update norm, by adapter", "Weight norm, by adapter", "Learning rate"],
    ...["Answer length, by role", "Tool calls", "Answers with a call, with an answer", "Answers cut short"],
    ...["Calls, by tool", "Failed calls", "Seconds a call, by tool", "Tokens a second", "Seconds a step"],
  ]);
  t.match(await text(page, "#status"), /Running\s+step 30 of 40\s+about 13 s to go/);
  t.match(await text(page, ".events"), `step 10 zero-reward no reward ${hostile}`);
});

inBrowser("values of a chart by the keyboard and by the pointer, as a table, and smooth", async (t, open) => {
  const page = await open(await watch(t, runFolder(t)));
  const probe = page.locator("#chart-gradient-norm-by-adapter .probe");
  await probe.focus();
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowRight");
  t.equal(await probe.getAttribute("aria-valuetext"), "optimizer step 2: reason 0.06909, tool 0.03");
  t.match(await text(page, "#chart-gradient-norm-by-adapter .tip"), /optimizer step 2\s+reason 0.06909\s+tool 0.03/);
  const mean = page.locator("#chart-mean-reward .probe");
  await mean.hover();
  t.match(await text(page, "#chart-mean-reward .tip"), /optimizer step 1[56]\s+reward 0.3[56]/);
  await page.locator("#chart-mean-reward summary").click();
  t.match(await text(page, "#chart-mean-reward tbody"), /30\s+0.50/);
  t.equal(await page.locator("#chart-mean-reward .smooth").first().isVisible(), false);
  await page.check("#smooth");
  t.equal(await page.locator("#chart-mean-reward .smooth").first().isVisible(), true);
});

inBrowser("what a run writes is on the page without a reload, and what a reader has open stays", async (t, open) => {
  const folder = runFolder(t);
  const page = await open(await watch(t, folder));
  await page.locator("#entries > .entry > summary").first().click();
  await page.locator(".entry .trajectory").waitFor();
  await page.locator("#chart-loss summary").click();
  await page.evaluate(
    "window.here = document.querySelector('#chart-loss'); document.querySelector('#chart-loss .probe').focus(); scrollTo(0, 700)",
  );
  await page.evaluate("getSelection().selectAllChildren(document.querySelector('#chart-mean-reward h3'))");
  appendFileSync(path.join(folder, "metrics.jsonl"), jsonLines([metricsLine(31)]).slice(0, 60));
  await page.waitForTimeout(250);
  t.match(await text(page, "#status"), "step 30 of 40", "half a line is none");
  appendFileSync(path.join(folder, "metrics.jsonl"), jsonLines([metricsLine(31)]).slice(60));
  await page.locator("#status b", { hasText: "31" }).waitFor();
  t.match(await text(page, "#chart-loss tbody"), /\n31\t/);
  t.equal(
    await page.evaluate(
      "window.here === document.querySelector('#chart-loss') && here.contains(document.activeElement)",
    ),
    true,
  );
  t.equal(await page.evaluate("scrollY"), 700);
  t.equal(await page.evaluate("String(getSelection())"), "Mean reward");
  t.equal(await page.locator(".entry[open] .trajectory").count(), 1);
  writeFiles(folder, { "trajectories/step-000031.jsonl": answersOf(31) });
  await page.locator("[name=later]:enabled").click();
  await page.getByText("8 answers, training step 31").waitFor();
});

inBrowser("a run that begins later, is wound back, and ends", async (t, open) => {
  const folder = path.join(t.testdir(), "later");
  const page = await open(await watch(t, folder));
  t.match(await text(page, "#status"), "Waiting for the run to begin");
  runFolder(t, {}, folder);
  await page.locator("#status b", { hasText: "30" }).waitFor();
  // As RunDirectory.rewind does: a file beside it, then a rename.
  writeFileSync(path.join(folder, "metrics.partial"), jsonLines(steps.slice(0, 12)));
  renameSync(path.join(folder, "metrics.partial"), path.join(folder, "metrics.jsonl"));
  await page.locator("#status b", { hasText: "12" }).waitFor();
  t.match(await page.locator("#chart-mean-reward desc").textContent(), "0.32 at optimizer step 12");
  writeFileSync(
    path.join(folder, "metrics.jsonl"),
    jsonLines(Array.from({ length: 40 }, (_, i) => metricsLine(i + 1))),
  );
  writeFiles(folder, { "adapters/reason/adapter_config.json": "{}" });
  await page.getByText("Finished").waitFor();
});

inBrowser(
  "an answer shows its roles, its calls and its reward; lists are ordered, searched and linked to",
  async (t, open) => {
    const failed = {
      id: "rollout/s20q9#0",
      question: "q9",
      parts: seine,
      query: "the Oise",
      error: { code: "ERR_TOOL_TIMEOUT", message: "2 s" },
    };
    const folder = runFolder(t, {
      "trajectories/step-000020.jsonl": `${answersOf(20)}${answerLine(tokenizer, failed)}\nbroken\n`,
    });
    const url = await watch(t, folder);
    const page = await open(`${url}#step=20&answer=${encodeURIComponent(failed.id)}`);
    const entry = page.locator(".entry[open]");
    await entry.locator(".trajectory").waitFor();
    t.match(await entry.innerText(), /failed: ERR_TOOL_TIMEOUT: 2 s/);
    t.match(await entry.innerText(), /the Oise\s+12 ms/);
    t.strictSame(await entry.locator(".who").allInnerTexts(), ["prompt", "reason", "tool", "output", "reason"]);
    t.match(await text(page, ".found [role=status]"), "9 answers, training step 20; 1 broken lines left out");
    const order = () =>
      page.locator(".entry").evaluateAll((entries) => entries.map((one) => Number(one.getAttribute("data-reward"))));
    await page.selectOption("[name=sort]", "best");
    await page.locator(".entry[data-reward='1']").first().waitFor();
    await page.waitForFunction("document.querySelectorAll('.entry')[2].dataset.reward === '1'");
    t.strictSame(await order(), [1, 1, 1, 0, 0, 0, 0, 0, 0]);
    await page.selectOption("[name=reward]", "some");
    await page.getByText("3 of 9 answers").waitFor();
    await page.selectOption("[name=reward]", "");
    await page.fill("[name=text]", "ONERROR");
    await page.getByText("1 of 9 answers").waitFor();
    await page.fill("[name=text]", "");
    await page.getByText(/^9 answers, training step 20/).waitFor();
    await page.keyboard.press("Tab");
    await page.locator("h1").click();
    for (const id of ["rollout/s20q0#0", "rollout/s20q1#1"]) {
      await page.keyboard.press("j");
      await page.locator(`.entry[open][data-id="${id}"] .trajectory`).waitFor();
    }
    t.match(page.url(), "#step=20&answer=rollout%2Fs20q1%231");
    await page.keyboard.press("k");
    await page.locator(`.entry[open][data-id="rollout/s20q0#0"]`).waitFor();
    await page.selectOption("[name=kind]", "eval");
    await page.getByText("4 answers, evaluation step 20").waitFor();
    await page.locator(".events a").click();
    await page.locator(`.entry[open][data-step="10"][data-id="rollout/s10q2#0"]`).waitFor();
  },
);

inBrowser("text of models stays text: no script of it runs", async (t, open) => {
  const page = await open(await watch(t, runFolder(t)));
  await page.locator(".entry > summary").nth(1).click();
  await page.locator(".entry[open] .trajectory").waitFor();
  t.match(await text(page, ".entry[open] .trajectory"), hostile);
  t.match(await text(page, ".entry[open] .calls"), hostile);
  t.match(await text(page, ".entry[open] .said"), hostile);
  t.equal(await page.locator("img").count(), 0);
});

inBrowser(
  "axe-core finds nothing wrong, and nothing overflows, from 360 to 1280 px, in light and dark",
  async (t, open) => {
    const page = await open(await watch(t, runFolder(t)), {
      ...{ viewport: { width: 360, height: 800 }, colorScheme: "light", bypassCSP: true },
    });
    await page.locator("#entries > .entry > summary").first().click();
    await page.locator(".entry .trajectory").waitFor();
    await page.locator("#chart-loss summary").click();
    await page.locator("#chart-loss .probe").focus();
    await page.check("#doubt");
    for (const colorScheme of ["light", "dark"] as const) {
      const width = colorScheme === "light" ? 360 : 1280;
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 800 });
      t.strictSame(await violations(page), [], `${colorScheme}, ${width} px`);
      t.equal(await overflow(page), 0);
    }
    // The other two pairs: what depends on the colours is contrast alone.
    await page.emulateMedia({ colorScheme: "light" });
    t.strictSame(await violations(page, ["color-contrast"]), []);
    await page.setViewportSize({ width: 360, height: 800 });
    t.equal(await overflow(page), 0);
  },
);

inBrowser("report.html is the page, frozen: from the disk, without scripts, and with them", async (t, open) => {
  const url = pathToFileURL(await writeReport(runFolder(t))).href;
  const plain = await open(url, { javaScriptEnabled: false });
  t.equal(await plain.locator(".plot > svg").count(), 24);
  t.equal(await plain.locator(".entry").count(), 20);
  await plain.locator(".entry > summary").nth(1).click();
  t.match(await text(plain, ".entry[open] .trajectory"), hostile);
  t.equal(await plain.locator(".controls").first().isVisible(), false, "what needs a script is not there");
  const page = await open(`${url}#eval=20&answer=${encodeURIComponent("rollout/s20q1#0")}`);
  t.equal(await page.locator(".entry[open]").getAttribute("data-id"), "rollout/s20q1#0");
  await page.fill("[name=text]", "onerror");
  await page.getByText("1 of 4 answers, evaluation step 20").waitFor();
  await page.locator("#chart-loss .probe").hover();
  t.match(await text(page, "#chart-loss .tip"), "optimizer step");
  t.strictSame(
    await (await open(url, { bypassCSP: true })).evaluate("document.title").then(String),
    `${path.basename(path.dirname(new URL(url).pathname))}: rolegrad report`,
  );
});

inBrowser("where the model is gone its answers are shown as ids, and it says so", async (t, open) => {
  const folder = runFolder(t, { "config.json": JSON.stringify({ ...runConfig, model: "/nowhere/model" }) });
  const page = await open(await watch(t, folder));
  await page.locator("#entries > .entry > summary").first().click();
  await page.locator(".entry .trajectory").waitFor();
  t.match(await text(page, ".entry .remark"), "/nowhere/model does not exist): these are token ids.");
  t.match(await text(page, ".entry .what"), /^\d+ \d+/);
  t.match(await text(page, ".entry .response"), "<answer> Burgundy</answer>");
});

inBrowser("a folder of runs is a list that grows, with their curves side by side", async (t, open) => {
  const folder = t.testdir();
  runFolder(t, {}, path.join(folder, "first run"));
  const page = await open(await watch(t, folder));
  t.match(await text(page, "#runs-part"), /first run\s+running\s+30 of 40\s+0.500\s+60.0 %\s+dart/);
  runFolder(t, {}, path.join(folder, "second"));
  await page.getByRole("link", { name: "second" }).waitFor();
  await page.locator("#chart-mean-reward-by-run .legend", { hasText: "second" }).waitFor();
  t.strictSame(await violations(await open(page.url(), { bypassCSP: true })), []);
  await page.getByRole("link", { name: "first run" }).click();
  await page.locator("#entries > .entry > summary").first().click();
  await page.locator(".entry .trajectory").waitFor();
  await page.getByRole("link", { name: "all runs" }).click();
  await page.locator("#runs-part").waitFor();
});

inBrowser("ten thousand steps make a small page, and one step more is quickly there", async (t, open) => {
  const many = Array.from({ length: 10_000 }, (_, i) => metricsLine(i + 1));
  const folder = runFolder(t, { "metrics.jsonl": jsonLines(many) });
  const url = await watch(t, folder);
  const size = (await (await fetch(url)).text()).length;
  t.ok(size < 1_500_000, `${size} bytes`);
  const page = await open(url);
  const begin = performance.now();
  appendFileSync(path.join(folder, "metrics.jsonl"), jsonLines([metricsLine(10_001)]));
  await page.locator("#status b", { hasText: "10,001" }).waitFor();
  const seconds = (performance.now() - begin) / 1000;
  t.ok(seconds < 15, `${seconds} s`);
  t.match(await page.locator("#chart-loss desc").textContent(), "at optimizer step 10001");
});

// ---- without a browser ----

interface Answer {
  status: number;
  body: string;
  headers: Record<string, string | string[] | undefined>;
}

/** As a browser would not ask: any Host, any path. */
async function ask(
  url: string,
  pathname: string,
  headers: Record<string, string> = {},
  method = "GET",
): Promise<Answer> {
  const { port } = new URL(url);
  const asked = httpRequest({ host: "127.0.0.1", port, path: pathname, method, headers });
  asked.end();
  const [response] = (await once(asked, "response")) as [import("node:http").IncomingMessage];
  let body = "";
  for await (const chunk of response.setEncoding("utf8")) body += chunk;
  return { status: response.statusCode ?? 0, body, headers: response.headers };
}

t.test("it answers to its own address alone", async (t) => {
  const url = await watch(t, runFolder(t));
  const { port } = new URL(url);
  t.equal((await ask(url, "/", { host: `localhost:${port}` })).status, 200);
  for (const host of [
    "evil.example",
    `evil.example:${port}`,
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "[::1",
  ])
    t.equal((await ask(url, "/", { host })).status, 403, host);
  t.equal((await ask(url, "/answers?kind=step", { host: "evil.example" })).status, 403);
  t.ok(isOwnHost("box.lan:80", "box.lan"));
  for (const none of [undefined, "", "127.0.0.1:x", "a@127.0.0.1"]) t.notOk(isOwnHost(none, "127.0.0.1"), String(none));
});

t.test("only what the run's folder lists can be asked for", async (t) => {
  const folder = runFolder(t, {
    "trajectories/../secret.jsonl": answersOf(1),
    "trajectories/step-x.jsonl": answersOf(1),
  });
  const url = await watch(t, folder);
  for (const wrong of [
    "/../config.json",
    "/config.json",
    "/runs/x/",
    "/%2e%2e/config.json",
    "//evil.example/",
    "/runs/%ff/",
  ])
    t.equal((await ask(url, wrong)).status, 404, wrong);
  for (const query of [
    "kind=../secret&step=1",
    "kind=step-x",
    "kind=",
    "",
    "kind=step&step=10&place=99&id=no",
    "kind=step&step=11&place=0",
  ])
    t.equal((await ask(url, `/answer?${query}`)).status, 404, query);
  t.equal((await ask(url, "/answers?kind=step&step=x")).status, 400);
  t.equal((await ask(url, "/", {}, "POST")).status, 405);
  const { headers, body } = await ask(url, "/");
  const policy = String(headers["content-security-policy"]);
  t.match(
    policy,
    /^default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-[\w+/]+='; connect-src 'self';.*frame-ancestors 'none'$/,
  );
  t.notMatch(policy, /unsafe-eval|script-src[^;]*unsafe/);
  t.match(headers, {
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
  });
  t.equal([...body.matchAll(/<script/g)].length, 1);
  t.equal((await ask(url, "/", {}, "HEAD")).body, "");
});

t.test("answers come in pages, whatever their number", async (t) => {
  const one = answerLine(tokenizer, { id: "ID", parts: seine, answer: " Burgundy" });
  const lines = Array.from({ length: 3000 }, (_, i) => `${one.replace('"ID"', `"rollout/a${i}"`)}\n`).join("");
  const url = await watch(t, runFolder(t, { "trajectories/step-000030.jsonl": lines }));
  const list = async (query: string) => JSON.parse((await ask(url, `/answers?kind=step&${query}`)).body);
  const first = await list("");
  t.match(first, { step: 30, total: 3000, page: 0, pages: 150, earlier: 20 });
  t.equal([...first.markup.matchAll(/<details/g)].length, 20);
  t.match(await list("id=rollout/a2999"), { page: 149 });
  t.match(await list("step=12"), { step: 10, later: 20 });
  t.match(await list("page=1e9"), { page: 149 });
});

t.test("only new bytes of a file are read, and a file that was written anew is read anew", async (t) => {
  const file = path.join(t.testdir(), "x.jsonl");
  const tail = new JsonLinesTail(file);
  t.strictSame(await tail.poll(), { reset: false, lines: [] }, "a file that is not there yet");
  writeFileSync(file, '{"a":1}\n{"a":2}\n{"a":');
  t.strictSame((await tail.poll()).lines, [{ a: 1 }, { a: 2 }]);
  appendFileSync(file, '"é"}\nnonsense\n[1]\n');
  t.strictSame((await tail.poll()).lines, [{ a: "é" }]);
  t.equal(tail.broken, 2);
  writeFileSync(file, '{"b":1}\n');
  t.strictSame(await tail.poll(), { reset: true, lines: [{ b: 1 }] }, "shorter");
  t.equal(tail.broken, 0);
  writeFileSync(file, '{"c":1}\n{"c":2}\n');
  t.strictSame(await tail.poll(), { reset: true, lines: [{ c: 1 }, { c: 2 }] }, "longer, but another");
  writeFileSync(`${file}.new`, '{"c":1}\n{"c":2}\n{"c":3}\n');
  renameSync(`${file}.new`, file);
  t.match(await tail.poll(), { reset: true, lines: { length: 3 } }, "renamed into place");
});

t.test("updates hold what changed since the version that a page shows", async (t) => {
  const folder = runFolder(t);
  const url = await watch(t, folder);
  const updates = async (since: string) => JSON.parse((await ask(url, `/updates?since=${since}`)).body);
  const all = await updates("");
  t.ok(all.parts.length > 10);
  t.strictSame(await updates(all.version), { version: all.version, parts: [] });
  t.equal((await updates("other.3")).parts.length, all.parts.length, "the number of another process is none");
  appendFileSync(path.join(folder, "events.jsonl"), jsonLines([{ step: 11, event: "x", message: "y" }]));
  const ids = (await updates(all.version)).parts.map(([id]: [string]) => id);
  t.ok(ids.includes("events-part") && !ids.includes("learning-part"), ids.join());
});

t.test("how a run stands is told from its files", async (t) => {
  const now = Date.now();
  const run = async (age: number, files: Record<string, string>) => {
    const folder = runFolder(t, files, t.testdir());
    const watched = new WatchedRun(folder);
    await watched.refresh();
    return runStatus(watched.files, watched.traces, now + 1000 * age);
  };
  const lock = (pid: number, host = os.hostname()) => ({ "run.lock-1": JSON.stringify({ pid, host }) });
  const gone = spawnSync(process.execPath, ["-e", ""]).pid;
  const checkpoint = { "checkpoints/step-000030/trainer.json": "{}" };
  const stopped = { "events.jsonl": jsonLines([{ step: 31, event: "stopped", message: "not finite" }]) };
  t.equal(await run(5, {}), "running");
  t.equal(await run(300, {}), "stalled");
  t.equal(await run(300, checkpoint), "interrupted");
  t.equal(await run(300, { ...checkpoint, ...lock(process.pid) }), "stalled", "its process is there");
  t.equal(await run(5, lock(gone)), "interrupted", "its process is gone");
  t.equal(await run(5, lock(gone, "another machine")), "running");
  t.equal(await run(5, stopped), "stopped");
  for (const trained of ["adapters/reason/x", "model/model.safetensors", "model/tool/model.safetensors"])
    t.equal(
      await run(300, { [trained]: "", "config.json": JSON.stringify({ ...runConfig, steps: 30 }), ...checkpoint }),
      "finished",
      trained,
    );
});

t.test("whatever the lines of a run's files hold, there is a page, and no markup of theirs in it", async (t) => {
  const line = fc.dictionary(
    fc.constantFrom(
      ...Object.keys(metricsLine(1)),
      ...Object.keys(evaluationLine(1, 0)),
      "event",
      "message",
      "segments",
    ),
    fc.oneof(fc.jsonValue(), fc.constant(hostile), fc.double()),
  );
  const text = (lines: object[]) => lines.map((one) => `${JSON.stringify({ step: 3, reward: 1, ...one })}\n`).join("");
  const folder = t.testdir({ trajectories: {} });
  await fc.assert(
    fc.asyncProperty(
      fc.array(line, { maxLength: 4 }),
      fc.dictionary(fc.string(), fc.jsonValue()),
      async (lines, config) => {
        const whole = lines.map((one) => ({ n: 1, exactMatch: 0.5, low: 0, high: 1, ids: [1], id: "x", ...one }));
        writeFiles(folder, {
          "config.json": JSON.stringify({ ...config, agent: config["x"] ?? null }),
          ...Object.fromEntries(
            ["metrics", "evaluations", "events", "examples", "trajectories/step-000001"].map((name) => [
              `${name}.jsonl`,
              text(whole),
            ]),
          ),
        });
        const run = new WatchedRun(folder);
        await run.refresh();
        const page = run.document();
        const found = [...page.matchAll(/<script|<img/g)].length;
        const listed = await listAnswers(run, new URLSearchParams({ kind: "step", text: "a" }));
        return found === 1 && typeof listed === "object";
      },
    ),
    { numRuns: 30 },
  );
});

t.test("a number that no axis has room for takes no page away", async (t) => {
  for (const low of [1.8e306, -1.8e306, 1e-320]) {
    const evaluations = jsonLines([{ ...evaluationLine(0, 0.2), low }, evaluationLine(10, 0.4)]);
    const run = new WatchedRun(runFolder(t, { "evaluations.jsonl": evaluations }));
    await run.refresh();
    t.match(run.document(), "<svg", `${low}`);
  }
});

t.test("a drawn line keeps its ends and its spikes", async (t) => {
  const points = Array.from({ length: 10_000 }, (_, x) => ({ x, y: x === 4321 ? 99 : x === 777 ? -9 : Math.sin(x) }));
  const drawn = downsample(points);
  t.ok(drawn.length <= 300);
  t.same([drawn[0], drawn.at(-1)], [points[0], points.at(-1)]);
  t.ok(drawn.includes(points[4321] as (typeof points)[0]) && drawn.includes(points[777] as (typeof points)[0]));
  t.ok(drawn.every(({ x }, i) => i === 0 || x > (drawn[i - 1] as { x: number }).x));
  t.strictSame(
    smooth(
      [
        { x: 1, y: 2 },
        { x: 2, y: 2 },
      ],
      10,
    ).map(({ y }) => Math.round(y * 1e9) / 1e9),
    [2, 2],
  );
  t.strictSame(spread([1, 2, 3, 4, 5], 3), [1, 3, 5]);
});

t.test("the command says where the page is, and Ctrl-C ends it with 0", async (t) => {
  const child = spawn(process.execPath, [path.join(root, "bin/rolegrad.js"), "watch", runFolder(t), "--port", "0"], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  t.teardown(() => child.kill("SIGKILL"));
  const ended = once(child, "close");
  const [line] = (await once(createInterface(child.stdout), "line")) as [string];
  const url = /http:\/\/127\.0\.0\.1:\d+\/$|http:\/\/127\.0\.0\.1:\d+\//.exec(line)?.[0];
  t.ok(url, line);
  const stream = await fetch(`${url}events`);
  t.equal(stream.headers.get("content-type"), "text/event-stream; charset=utf-8");
  child.kill("SIGINT");
  t.strictSame(await ended, [0, null], "with a page open");
  await stream.body?.cancel().catch(() => {});
});

t.test("a port that is taken, and what is no run", async (t) => {
  const url = await watch(t, runFolder(t));
  const port = Number(new URL(url).port);
  await t.rejects(startWatch(["x"], { port }), { code: "ERR_WATCH_LISTEN", message: new RegExp(`127.0.0.1:${port}`) });
  for (const wrong of [[], [""], "x", undefined])
    await t.rejects(startWatch(wrong as string[]), { code: "ERR_INVALID_ARGUMENT" });
});
