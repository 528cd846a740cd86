// The benchmarks: what they print, that they check results before they time them, and that a wrong one ends the run.
import { chmodSync, existsSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import t from "tap";
import { type DenseAccuracy, computeInterferenceSync, loadModel } from "rolegrad";
import { Checkpoints, parameterCount, sizes } from "../lib/bench/checkpoint.js";
import { linearParameters, trainingFlops, weightBytes } from "../lib/bench/counts.js";
import { type BenchLine, benchNames, type ResultLine } from "../lib/bench/index.js";
import { randomTable, verifyIntervals, verifyInterference } from "../lib/bench/interference.js";
import { gemm } from "../lib/bench/linear.js";
import { Machine } from "../lib/bench/machine.js";
import { Peer } from "../lib/bench/peer.js";
import { clock, median, race, resultLine } from "../lib/bench/timing.js";
import type { BenchContext } from "../lib/bench/types.js";
import { requireClose, requireSameBits } from "../lib/bench/verify.js";
import type { Native } from "../lib/binding.js";
import { rolegrad } from "./helpers/command.js";

const signal = new AbortController().signal;
const job = <T>(value: T) => ({ promise: Promise.resolve(value), abort: () => undefined });
const isWrong = { code: "ERR_BENCH_WRONG" };

/** 100 GFLOP/s; 10 GB/s from memory and 100 from a cache of 1 MiB. */
const fakeMachine = () =>
  Machine.measure(
    {
      measureFma: () => job({ isa: "test", threads: 2, gflops: 100 }),
      measureRead: (bytes: number) => job(bytes > 2 ** 20 ? 10 : 100),
    } as unknown as Native,
    signal,
  );

/** The JSON lines of a command; the command line adds nothing else to stdout. */
function linesOf(stdout: string): BenchLine[] {
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as BenchLine);
}

t.test("one different bit, NaN, another length and nothing at all are wrong; the same bits are not", async (t) => {
  requireSameBits("x", [1, -0, 2.5], Float64Array.of(1, -0, 2.5));
  for (const [got, expected] of [
    [[1 + 2 ** -52], [1]],
    [[0], [-0]],
    [[NaN], [NaN]],
    [[1], [1, 2]],
    [[], []],
  ] as [number[], number[]][]) {
    t.throws(
      () => requireSameBits("x", got, expected),
      { code: "ERR_BENCH_WRONG" },
      `${String(got)} | ${String(expected)}`,
    );
  }
  t.throws(() => requireSameBits("gemm: y", [1, 2, 4], [1, 2, 3]), {
    message: /^gemm: y: Expected the same bits but 1 of 3 values differ, the first at 2: expected 3 but received 4\. /,
  });
});

t.test("a number outside its tolerance, or none, is wrong", async (t) => {
  requireClose("x", 1.01, 1, 0.02);
  for (const [got, expected] of [
    [1.03, 1],
    [-1, 1],
    [NaN, 1],
    [Infinity, Infinity],
  ] as const)
    t.throws(() => requireClose("x", got, expected, 0.02), isWrong, `${got} | ${expected}`);
});

t.test("a kernel whose result is wrong is not timed, and ends the run", async (t) => {
  let [timed, closed] = [0, 0];
  const kernel = (error: number) =>
    class {
      verify = () => job([{ name: "y", got: Float64Array.of(1, 2 + error), expected: Float64Array.of(1, 2) }]);
      time = () => (timed++, job(Float64Array.of(0.5)));
      close = () => closed++;
    };
  const run = async (error: number): Promise<ResultLine[]> => {
    const lines: ResultLine[] = [];
    const context = {
      native: { LinearMeasurement: kernel(error) } as unknown as Native,
      machine: await fakeMachine(),
      peer: undefined,
      quick: true,
      repeats: { rounds: 2, runs: 1, least: 0 },
      wanted: (name: string) => name === "2048x896x896 f32",
      status: () => undefined,
      signal,
    } as unknown as BenchContext;
    for await (const line of gemm(context)) lines.push(line);
    return lines;
  };
  await t.rejects(run(2 ** -50), { code: "ERR_BENCH_WRONG", message: /2048x896x896 f32: y against a scalar chain/ });
  t.strictSame([timed, closed], [0, 1]);
  const [line] = await run(0);
  t.match(line, { case: "2048x896x896 f32", value: (2 * 2048 * 896 ** 2) / 0.5 / 1e9, limitedBy: "compute" });
  t.strictSame([timed, closed], [2, 2]);
});

t.test("medians and races", async (t) => {
  t.equal(median([5, 1, 3]), 3);
  t.equal(median([4, 1, 3, 2]), 2, "of an even number the lower");
  const order: string[] = [];
  const turn = (name: string, times: (number[] | undefined)[]) => async () => (order.push(name), times.shift());
  const best = await race(3, {
    a: turn("a", [[9], [1, 2, 30], [5]]),
    b: turn("b", [[7], undefined]),
  });
  t.strictSame(best, { a: 2, b: 7 }, "the best round, each by its median");
  t.equal(order.join(""), "ababa", "in turn; who cannot is out");
  t.equal((await clock(3, async () => undefined)).length, 3);
});

t.test("the roofline is the lower of compute and reading, and a cache may hold what is read again", async (t) => {
  const machine = await fakeMachine();
  t.match(machine.line, { bench: "machine", isa: "test", threads: 2, fmaPeakGflops: 100, readGBps: 10 });
  t.same(await machine.roofline([{ flops: 1e11, bytes: 1e9 }]), { seconds: 1, by: "compute" });
  t.same(await machine.roofline([{ flops: 1e9, bytes: 1e9 }]), { seconds: 0.1, by: "memory" });
  t.same(await machine.roofline([{ flops: 0, bytes: 1e6 }]), { seconds: 1e-5, by: "memory" }, "from the cache");
  t.same(await machine.roofline([{ flops: 0, bytes: 1e6, workingSet: Infinity }]), { seconds: 1e-4, by: "memory" });
  const { seconds } = await machine.roofline([
    { flops: 1e11, bytes: 1 },
    { flops: 0, bytes: 1e10 },
  ]);
  t.equal(seconds, 2, "parts run one after another");
  const line = resultLine({
    bench: "gemm",
    name: "x",
    unit: "GFLOP/s",
    work: 50,
    seconds: 2,
    roofline: { seconds: 0.5, by: "compute" },
    peer: { label: "p", seconds: 4 },
  });
  t.match(line, { value: 25, limit: 100, share: 0.25, peer: "p", peerValue: 12.5, ratio: 2 });
});

t.test("FLOPs are counted as the documentation says", async (t) => {
  const s = sizes.tiny;
  const kv = 2 * 32;
  const layer = 2 * 192 * 192 + 2 * 192 * kv + 3 * 192 * 512;
  t.equal(linearParameters(s), 4 * layer);
  const rest = 4096 * 192 + 192 + 4 * (2 * 192 + 192 + 2 * kv);
  t.equal(parameterCount(s), 4 * layer + rest);
  t.equal(weightBytes(s, "bfloat16"), 2 * (4 * layer + 4096 * 192));
  // Two sequences of 3: 6 tokens, 4 rows of the head, 2 * (1 + 2 + 3) pairs.
  const flops = (each: number) => each * 4 * layer * 6 + each * 192 * 4096 * 4 + 12 * 192 * 4 * 12;
  t.equal(trainingFlops(s, 2, 3, "adapters"), flops(4));
  t.equal(trainingFlops(s, 2, 3, "full"), flops(6));
});

t.test("a random checkpoint is a model, is written once, and is removed at the end", async (t) => {
  const checkpoints = new Checkpoints();
  const made = await checkpoints.get("tiny", signal);
  t.ok("directory" in made);
  const { directory } = made as { directory: string };
  t.same(await checkpoints.get("tiny", signal), { directory });
  const model = await loadModel(directory);
  t.match(model.config, { hiddenSize: 192, layers: 4, kvHeads: 2, vocabSize: 4096, tied: true });
  const { logprobs } = await model.forward({ inputIds: Int32Array.of(1, 2, 3), cuSeqlens: Int32Array.of(0, 3) });
  t.ok(
    logprobs.every((x, i) => (i === 0 ? x === 0 : x < -6 && x > -11)),
    "close to a uniform guess of 4096",
  );
  model.close();
  await checkpoints.remove();
  t.notOk(existsSync(directory));
});

t.test("a wrong attribution is found", async (t) => {
  const table: DenseAccuracy = randomTable(200);
  const result = computeInterferenceSync(table, { posterior: false });
  verifyInterference("x", table, result);
  verifyIntervals("x", computeInterferenceSync(randomTable(5000), { draws: 4000 }));
  const off = { ...result.smoothedMean23, low: result.smoothedMean23.value - 1, high: result.smoothedMean23.value + 1 };
  t.throws(() => verifyIntervals("x", { ...result, smoothedMean23: off }), isWrong, "an interval");
  result.lambda.l23[7] = (result.lambda.l23[7] as number) + 1e-9;
  t.throws(() => verifyInterference("x", table, result), isWrong, "an effect");
  const counts = { ...result.counts, zero: result.counts.zero + 1 };
  t.throws(() => verifyInterference("x", table, { ...result, counts }), isWrong, "a count");
});

const quick = ["--size", "tiny", "--quick"];

t.test("bench prints the machine first, then one complete object a line", async (t) => {
  const cases = ["64x896x9728 bf16", "64x896x9728 f32 span 4", "16x256", "tiny B=1", "1x1024", "100 questions"];
  const { status, stdout, stderr } = await rolegrad(["bench", ...quick, "--json", "--case", ...cases]);
  t.equal(stderr, "");
  t.equal(status, 0);
  const [machine, ...results] = linesOf(stdout) as [BenchLine, ...ResultLine[]];
  t.match(machine, { bench: "machine", cpu: String, isa: /^(avx2|avx512|neon)$/, threads: Number, node: String });
  t.ok(machine.bench === "machine" && machine.fmaPeakGflops > 1 && machine.readGBps > 0.1, "measured");
  t.same([...new Set(results.map(({ bench }) => bench))], [...benchNames], "every bench, in order");
  for (const line of results) {
    const what = `${line.bench} ${line.case}`;
    t.match(line, { case: String, unit: /^(GFLOP|tokens|questions)\/s$/, limitedBy: /^(compute|memory)$/ }, what);
    for (const key of ["value", "limit", "share", "seconds"] as const)
      t.ok(line[key] > 0 && Number.isFinite(line[key]), `${what}: ${key}`);
    t.ok(Math.abs(line.share / (line.value / line.limit) - 1) < 1e-9, `${what}: share is value / limit`);
    t.equal(line.overhead !== undefined, line.bench.startsWith("routed") || line.case.endsWith("routed"), what);
    t.equal(line.switching !== undefined, line.case.endsWith("routed"), what);
    t.equal(line.stop !== undefined, line.bench === "train-step", what);
    t.equal(line.speedup !== undefined, line.bench === "threads", what);
    t.equal(line.growth !== undefined, line.bench === "packed-tokens", what);
    t.equal(line.peakRssMiB !== undefined, line.bench.endsWith("step"), what);
    t.equal(line.peer, undefined, what);
  }
  const names = results.map((line) => line.case);
  t.same(names.slice(0, 5), [
    "64x896x9728 bf16",
    "64x896x9728 f32 span 4",
    "64x896x9728 f32 span 4, 8 roles",
    "64x896x9728 f32 span 4",
    "64x896x9728 f32 span 4, 8 roles",
  ]);
  t.same(names.slice(5), [
    ...["tiny 16x256", "tiny 16x256", "tiny B=1", "tiny B=1 routed"],
    ...["train-step tiny 16x256", "full-train-step tiny 16x256", "tiny 1x1024", "100 questions"],
    "100 questions, all defaults",
  ]);
});

t.test("without --json it is a table", async (t) => {
  const { status, stdout } = await rolegrad(["bench", "interference", "--quick", "--case", "100 q"]);
  t.equal(status, 0);
  t.match(stdout, /^.+, \d+ threads: FMA peak [\d.,]+ GFLOP\/s, reading [\d.]+ GB\/s\n/);
  t.match(stdout, /\ninterference +questions\/s +limit +share\n100 questions +[\d,.]+ +[\d,]+ +[\d.]+ % +memory\n/);
});

t.test("a bench, size or device that does not exist is a usage error, and nothing runs", async (t) => {
  for (const [args, said] of [
    [["gem"], "Expected a bench among gemm, routed-forward, "],
    [["--size", "huge"], "Expected --size among tiny, small, qwen2.5-0.5b but received huge"],
    [["--device", "tpu"], "tpu"],
  ] as const) {
    const { status, stdout, stderr } = await rolegrad(["bench", ...args]);
    t.equal(status, 2, args.join(" "));
    t.equal(stdout, "");
    t.match(stderr, said);
  }
});

/** A program that answers as benchmarks/peer.py does; `answer` is JavaScript for a case. */
function fakePython(answer: string): string {
  const file = path.join(mkdtempSync(path.join(tmpdir(), "rolegrad-peer-")), "python");
  const script = `#!${process.execPath}
    require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
      const one = JSON.parse(line);
      const answer = one.bench === undefined ? { python: "3", torch: null, transformers: null, numpy: "2" } : ${answer};
      console.log(JSON.stringify(answer));
    });`;
  writeFileSync(file, script);
  chmodSync(file, 0o755);
  return file;
}

const posix = process.platform === "win32" ? { skip: "needs a script that runs by its first line" } : {};

t.test("with --peer the same case runs in Python beside it", posix, async (t) => {
  const env = { ROLEGRAD_PYTHON: fakePython('{ seconds: [9, one.questions / 1000, 0], label: "numpy 2" }') };
  const args = ["bench", "interference", "--quick", "--peer", "--json", "--case", "100 q"];
  const { status, stdout, stderr } = await rolegrad(args, { env });
  t.equal(status, 0);
  t.match(stderr, /^--peer: .* \(Python 3\) has no torch, transformers\n$/);
  const line = linesOf(stdout)[1] as ResultLine;
  t.match(line, { peer: "numpy 2", peerValue: 1000 });
  t.ok(Math.abs((line.ratio as number) * 1000 - line.value) < 1e-6 * line.value, "ratio is value / peerValue");
});

t.test("a peer that fails, ends or is not there is said to, once, and is left out", posix, async (t) => {
  const before = process.env["ROLEGRAD_PYTHON"];
  t.teardown(() =>
    before === undefined ? delete process.env["ROLEGRAD_PYTHON"] : (process.env["ROLEGRAD_PYTHON"] = before),
  );
  for (const [python, said] of [
    [fakePython('{ error: "no luck" }'), "failed: no luck"],
    [fakePython('{ skipped: "emulated" }'), "--peer: emulated"],
    [fakePython('process.exit(console.error("gone") ?? 1)'), "failed: gone"],
    [path.join(tmpdir(), "no-such-python"), "Expected Python with torch, transformers or numpy"],
  ] as const) {
    process.env["ROLEGRAD_PYTHON"] = python;
    const remarks: string[] = [];
    const peer = await Peer.start(2, (text) => remarks.push(text));
    t.equal(peer === undefined, python.endsWith("no-such-python"));
    const request = { bench: "gemm" };
    for (let round = 0; round < 2; round++) t.equal(await peer?.time(request, 3), undefined);
    t.equal(peer?.describe(request, undefined), undefined);
    t.equal(remarks.filter((text) => text.includes(said)).length, 1, `${said}: ${remarks.join(" | ")}`);
    peer?.close();
  }
});
