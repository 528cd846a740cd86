// managedTool and ToolSet: what they let through, what they try again, what they keep, and what an abort leaves.
import fc from "fast-check";
import t from "tap";
import { managedTool, RolegradError, ToolError, ToolSet, type Environment, type ToolResult } from "rolegrad";
import { call, until } from "./helpers/http.js";

const signal = new AbortController().signal;
const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const quick = { firstMs: 1, maxMs: 4 };
const passing = () => new ToolError("ERR_BUSY", "busy", { retryable: true });

/** A tool of one's own: it adds up the numbers of a call. */
class Calculator implements Environment {
  calls = 0;

  async act({ text }: { text: string }): Promise<ToolResult> {
    this.calls++;
    const numbers = text.split("+").map(Number);
    if (numbers.some(Number.isNaN)) throw new Error(`Expected numbers with + between them but received ${text.trim()}`);
    return { text: String(numbers.reduce((sum, x) => sum + x, 0)) };
  }
}

/** Answers when told to; knows what is out. */
class Slow implements Environment {
  readonly out: { text: string; signal: AbortSignal; answer: (text: string) => void; refuse: (e: unknown) => void }[] =
    [];
  closed = 0;

  act({ text }: { text: string }, options: { signal: AbortSignal }): Promise<ToolResult> {
    return new Promise((resolve, reject) => {
      this.out.push({ text, signal: options.signal, answer: (text) => resolve({ text }), refuse: reject });
    });
  }

  close(): void {
    this.closed++;
  }
}

t.test("an environment of one's own needs nothing but act()", async (t) => {
  const tool = managedTool(new Calculator());
  t.same(await tool.act(call(" 2 + 3 + 4 "), { signal }), { text: "9" });
  await t.rejects(tool.act(call(" two "), { signal }), /Expected numbers .* two/);
  t.match(tool.stats(), { calls: 2, attempts: 2, retries: 0, failures: 1, running: 0, queued: 0 });
});

t.test("calls out at once are never more than the limit, whatever comes, fails or leaves", async (t) => {
  const step = fc.record({
    ms: fc.nat(3),
    fails: fc.nat(2),
    leaves: fc.constantFrom(undefined, undefined, undefined, undefined, undefined, undefined, 1, 3),
    text: fc.nat(5),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 4 }),
      fc.array(step, { minLength: 1, maxLength: 24 }),
      fc.boolean(),
      async (concurrency, steps, cached) => {
        let out = 0;
        let most = 0;
        const tries = new Map<string, number>();
        const environment: Environment = {
          async act({ text }, options) {
            most = Math.max(most, ++out);
            const [, ms, fails] = text.split(" ").map(Number);
            await Promise.race([sleep(ms!), new Promise((end) => options.signal.addEventListener("abort", end))]);
            out--;
            const tried = (tries.get(text) ?? 0) + 1;
            tries.set(text, tried);
            if (tried <= fails!) throw passing();
            return { text: `answer to ${text}` };
          },
        };
        const tool = managedTool(environment, {
          ...{ concurrency, retries: 2, backoff: quick, timeout: 5000 },
          ...(cached && { cache: { maxEntries: 3 } }),
        });
        const results = await Promise.allSettled(
          steps.map(async ({ ms, fails, leaves, text }) => {
            const own = new AbortController();
            if (leaves !== undefined) setTimeout(() => own.abort(), leaves);
            const asked = `${text} ${ms} ${fails}`;
            const result = await tool.act(call(asked), { signal: own.signal });
            return { asked, result };
          }),
        );
        for (const [i, result] of results.entries()) {
          if (result.status === "fulfilled") t.equal(result.value.result.text, `answer to ${result.value.asked}`);
          else if (steps[i]!.leaves === undefined) t.equal((result.reason as RolegradError).code, "ERR_BUSY");
        }
        // One that left is out until its signal has reached the tool: leave this aside only where any left.
        const left = steps.filter(({ leaves }) => leaves !== undefined).length;
        const { running, queued } = tool.stats();
        return most <= concurrency + left && running === 0 && queued === 0;
      },
    ),
    { numRuns: 40 },
  );
});

t.test("who waits goes in the order of coming, and the wait is no part of the time-out", async (t) => {
  const order: string[] = [];
  const environment: Environment = {
    async act({ text }) {
      order.push(text);
      await sleep(30);
      return { text };
    },
  };
  const tool = managedTool(environment, { concurrency: 1, timeout: 100, retries: 0 });
  const texts = ["a", "b", "c", "d", "e", "f"]; // 180 ms in all
  const results = await Promise.all(texts.map((text) => tool.act(call(text), { signal })));
  t.same(
    results.map(({ text }) => text),
    texts,
  );
  t.same(order, texts);
  t.match(tool.stats(), { timeouts: 0, attempts: 6 });
});

t.test("an attempt out of time is told so by its own signal, and the next one may succeed", async (t) => {
  const slow = new Slow();
  const tool = managedTool(slow, { timeout: 20, retries: 1, backoff: quick });
  const result = tool.act(call("x"), { signal });
  await until(() => slow.out.length === 2);
  t.ok(slow.out[0]!.signal.aborted);
  t.notOk(slow.out[1]!.signal.aborted);
  slow.out[1]!.answer("at last");
  t.same(await result, { text: "at last" });
  slow.out[0]!.answer("too late");
  t.match(tool.stats(), { timeouts: 1, retries: 1, attempts: 2, failures: 0 });

  const never = managedTool(new Slow(), { timeout: 5, retries: 2, backoff: quick, name: "search" });
  await t.rejects(never.act(call("x"), { signal }), {
    code: "ERR_TOOL_TIMEOUT",
    message: "search did not answer within 5 ms",
  });
  t.match(never.stats(), { timeouts: 3, retries: 2, failures: 1, running: 0 });
});

t.test("only what may pass is tried again", async (t) => {
  const broken = (code: string) => new TypeError("fetch failed", { cause: Object.assign(new Error(code), { code }) });
  for (const [error, attempts] of [
    [passing(), 3],
    [broken("ECONNREFUSED"), 3],
    [broken("UND_ERR_SOCKET"), 3],
    [Object.assign(new Error("mine"), { retryable: true }), 3],
    [broken("ENOTFOUND"), 1],
    [new ToolError("ERR_MINE", "no"), 1],
    [new Error("no"), 1],
    ["a word", 1],
    [new ToolError("ERR_BUSY", "tomorrow", { retryable: true, retryAfterMs: 86_400_000 }), 1],
  ] as const) {
    const tool = managedTool({ act: () => Promise.reject(error) }, { retries: 2, backoff: quick });
    await tool.act(call("x"), { signal }).then(
      () => t.fail("it cannot succeed"),
      (thrown: unknown) => t.equal(thrown, error),
    );
    t.match(tool.stats(), { attempts, retries: attempts - 1, failures: 1 }, String(error));
  }
});

t.test("the waits grow to their bound, chance shortens them by the seed, and Retry-After is heeded", async (t) => {
  const waits = async (backoff: object, error: ToolError, retries = 4) => {
    const at: number[] = [];
    const act = () => (at.push(performance.now()), Promise.reject(error));
    await t.rejects(managedTool({ act }, { retries, backoff }).act(call("x"), { signal }));
    return at.slice(1).map((time, i) => time - at[i]!);
  };
  const near = (ms: number, wanted: number) => t.ok(ms > wanted - 2 && ms < wanted + 150, `${ms} for ${wanted}`);
  const plain = await waits({ firstMs: 10, factor: 3, maxMs: 60, jitter: 0 }, passing());
  [10, 30, 60, 60].forEach((wanted, i) => near(plain[i]!, wanted));
  const [shorter] = await waits({ firstMs: 400, jitter: 1, seed: 3 }, passing(), 1);
  t.ok(shorter! < 400, `${shorter}`);
  const asked = new ToolError("ERR_BUSY", "busy", { retryable: true, retryAfterMs: 120 });
  near((await waits({ ...quick, jitter: 1 }, asked, 1))[0]!, 120);
});

t.test("equal calls share a request, and then the cache; a failure is not kept", async (t) => {
  const slow = new Slow();
  const tool = managedTool(slow, { cache: { maxEntries: 2 }, retries: 0 });
  const both = [tool.act(call("a"), { signal }), tool.act(call("a"), { signal })];
  const other = tool.act(call("a", "other"), { signal });
  await until(() => slow.out.length === 2);
  slow.out[0]!.answer("1");
  slow.out[1]!.answer("2");
  const [first, second] = await Promise.all(both);
  t.same([first, second, await other], [{ text: "1" }, { text: "1" }, { text: "2" }]);
  first!.text = "changed by its reader";
  t.same(await tool.act(call("a"), { signal }), { text: "1" });
  t.match(tool.stats(), { calls: 4, attempts: 2, shared: 1, hits: 1 });

  const failing = [tool.act(call("b"), { signal }), tool.act(call("b"), { signal })];
  await until(() => slow.out.length === 3);
  slow.out[2]!.refuse(new Error("no"));
  for (const { status } of await Promise.allSettled(failing)) t.equal(status, "rejected");
  const again = tool.act(call("b"), { signal });
  await until(() => slow.out.length === 4);
  slow.out[3]!.answer("yes");
  t.same(await again, { text: "yes" });
  t.match(tool.stats(), { failures: 1, attempts: 4 });
});

t.test("the least recently used go first, by number or by bytes; too large a result is not kept", async (t) => {
  for (const cache of [{ maxEntries: 2 }, { maxBytes: 100 }]) {
    let asked = "";
    const act = async ({ text }: { text: string }) => ((asked += text), { text: text.repeat(20) }); // 44 bytes with its key
    const tool = managedTool({ act }, { cache });
    for (const text of ["a", "b", "a", "c", "a", "b"]) await tool.act(call(text), { signal });
    t.equal(asked, "abcb");
  }
  const act = async () => ({ text: "x".repeat(1000) });
  const tool = managedTool({ act }, { cache: { maxBytes: 100 } });
  await tool.act(call("a"), { signal });
  await tool.act(call("a"), { signal });
  t.equal(tool.stats().hits, 0);
});

t.test("a tool that reads more than the text says so by its key", async (t) => {
  const act = async ({ text }: { text: string }) => ({ text });
  const tool = managedTool(
    { act },
    { cache: { key: ({ question, text }) => (text === "now" ? undefined : `${question.id} ${text}`) } },
  );
  for (const text of ["now", "now", "then", "then"]) await tool.act(call(text), { signal });
  t.match(tool.stats(), { attempts: 3, hits: 1, shared: 0 });
});

t.test("an abort ends a call in whichever state it is, with its reason, and leaves nothing", async (t) => {
  const reason = new Error("enough");
  const busy: Environment = { act: () => Promise.reject(passing()) };
  const before = new Set(process.getActiveResourcesInfo().filter((name) => name === "Timeout")).size;
  for (const state of ["before", "out", "queued", "backing off", "shared"]) {
    const slow = new Slow();
    const own = new AbortController();
    const backsOff = state === "backing off";
    const cache = state === "shared" ? { cache: {} } : {};
    const limits = { concurrency: state === "queued" ? 1 : 4, backoff: { firstMs: 60_000, maxMs: 60_000 }, ...cache };
    const tool = managedTool(backsOff ? busy : slow, limits);
    const others = state === "queued" || state === "shared" ? [tool.act(call("x"), { signal })] : [];
    if (state === "before") own.abort(reason);
    const ended = tool.act(call("x"), { signal: own.signal });
    const rejected = t.rejects(ended, reason, state);
    await sleep(5);
    if (backsOff) t.match(tool.stats(), { running: 0, attempts: 1 });
    if (state === "queued") t.match(tool.stats(), { running: 1, queued: 1 });
    own.abort(reason);
    await rejected;
    await sleep(1);
    t.match(tool.stats(), { queued: 0, running: others.length, aborted: 1, failures: 0 }, state);
    // The request that others share goes on; one that nobody waits for is told.
    if (slow.out.length > 0) t.equal(slow.out[0]!.signal.aborted, state === "out", state);
    slow.out.forEach(({ answer }) => answer("done"));
    for (const other of others) t.same(await other, { text: "done" });
    t.equal(slow.out.length, state === "before" || backsOff ? 0 : 1, "the one that left the queue never went out");
    t.equal(tool.stats().running, 0, state);
  }
  const after = new Set(process.getActiveResourcesInfo().filter((name) => name === "Timeout")).size;
  t.equal(after, before, "no timer is left");
});

t.test("the request of equal calls ends with the last that waits, and a next call makes its own", async (t) => {
  const slow = new Slow();
  const tool = managedTool(slow, { cache: {} });
  const [a, b] = [new AbortController(), new AbortController()];
  const ends = [a, b].map((own) => t.rejects(tool.act(call("x"), { signal: own.signal })));
  a.abort();
  await sleep(1);
  t.notOk(slow.out[0]!.signal.aborted);
  b.abort();
  const next = tool.act(call("x"), { signal });
  await Promise.all(ends);
  t.ok(slow.out[0]!.signal.aborted);
  slow.out[0]!.answer("of the one that was given up");
  await until(() => slow.out.length === 2);
  slow.out[1]!.answer("its own");
  t.same(await next, { text: "its own" });
  t.same(await tool.act(call("x"), { signal }), { text: "its own" }, "and this is what the cache has");
});

t.test("close ends what is out and waiting, once, and takes no more", async (t) => {
  const slow = new Slow();
  const tool = managedTool(slow, { concurrency: 1 });
  const ends = ["a", "b"].map((text) => t.rejects(tool.act(call(text), { signal }), { code: "ERR_TOOL_CLOSED" }));
  await until(() => slow.out.length === 1);
  await Promise.all([tool.close(), tool.close(), ...ends]);
  await t.rejects(tool.act(call("c"), { signal }), { code: "ERR_TOOL_CLOSED" });
  t.equal(slow.closed, 1);
  t.equal(slow.out.length, 1);
  t.match(tool.stats(), { running: 0, queued: 0, failures: 0 });
});

t.test("limits that make no sense are refused by name", async (t) => {
  const act = async () => ({ text: "" });
  for (const [options, name] of [
    [{ concurrency: 0 }, "concurrency"],
    [{ timeout: Infinity }, "timeout"],
    [{ retries: -1 }, "retries"],
    [{ backoff: { factor: 0.5 } }, "backoff.factor"],
    [{ backoff: { jitter: 2 } }, "backoff.jitter"],
    [{ cache: { maxBytes: 0.5 } }, "cache.maxBytes"],
  ] as const)
    t.throws(() => managedTool({ act }, options), { code: "ERR_TOOL_OPTIONS", message: `for ${name} but received` });
  t.throws(() => managedTool({} as Environment), { code: "ERR_TOOL_OPTIONS" });
});

t.test("a set sends each call to the tool of its role, and closes all", async (t) => {
  const [search, slow] = [new Calculator(), new Slow()];
  const failing = { act: () => Promise.reject(new Error("no")), close: () => Promise.reject(new Error("stuck")) };
  const tools = new ToolSet({ sum: search, failing, search: slow, again: slow });
  t.same(await tools.act(call("1+1", "sum"), { signal }), { text: "2" });
  await t.rejects(tools.act(call("x", "sql"), { signal }), {
    code: "ERR_TOOL_ROLE",
    message: 'Expected a call of sum, failing, search, again but received one of "sql"',
  });
  await t.rejects(tools.act(call("x", "toString"), { signal }), { code: "ERR_TOOL_ROLE" });
  await t.rejects(tools.close(), /stuck/);
  await t.rejects(tools.close(), /stuck/);
  t.equal(slow.closed, 1, "also behind one that fails, and once");
  t.throws(() => new ToolSet({}), { code: "ERR_TOOL_OPTIONS" });
  t.throws(() => new ToolSet({ sum: {} as Environment }), { code: "ERR_TOOL_OPTIONS" });
});
