// The same work in Python, in the same run: benchmarks/peer.py, one process that is asked case by case.
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";
import { packageRoot } from "../binding.js";

/** How a peer's best time enters a result. */
export interface PeerTime {
  /** Such as "torch 2.9.0 float32". */
  label: string;
  seconds: number;
  peakRssMiB?: number;
  /** Where it did more or less than the engine. */
  work?: number;
}

/** The first answer says the versions; every other one has seconds, or why not. */
interface Answer {
  python?: string;
  torch?: string | null;
  transformers?: string | null;
  numpy?: string | null;
  seconds?: number[];
  label?: string;
  peakRssMiB?: number | null;
  skipped?: string;
  error?: string;
}

/** A case that takes longer is left out. */
const TIMEOUT = 300_000;
/** The peer's threads spin for a while after their work; the engine's turn comes after that. */
const SETTLE = 300;

/** Python with torch, numpy and transformers, as far as they are there. */
export class Peer {
  readonly #python: string;
  readonly #threads: number;
  readonly #remark: (text: string) => void;
  #process: ChildProcessWithoutNullStreams | undefined;
  #answers: AsyncIterator<string> | undefined;
  #errors = "";
  /** By request: what it last said, and whether it is out. */
  readonly #said = new Map<string, Answer>();

  private constructor(python: string, threads: number, remark: (text: string) => void) {
    this.#python = python;
    this.#threads = threads;
    this.#remark = remark;
  }

  /** Finds ROLEGRAD_PYTHON, python3 or python and what it can import; undefined, with a remark, where there is none of use. */
  static async start(threads: number, remark: (text: string) => void): Promise<Peer | undefined> {
    const script = path.join(packageRoot, "benchmarks", "peer.py");
    if (!existsSync(script)) {
      remark(`--peer: Expected ${script} but it is not part of an installed package: run it in a clone`);
      return undefined;
    }
    const own = process.env["ROLEGRAD_PYTHON"];
    for (const python of own ? [own] : ["python3", "python"]) {
      const peer = new Peer(python, threads, remark);
      const greeting = await peer.#launch();
      if (greeting === undefined) continue;
      const missing = (["torch", "transformers", "numpy"] as const).filter((name) => greeting[name] === null);
      if (missing.length > 0) remark(`--peer: ${python} (Python ${greeting.python}) has no ${missing.join(", ")}`);
      if (missing.length < 3) return peer;
      peer.close();
    }
    remark(
      "--peer: Expected Python with torch, transformers or numpy on PATH, or ROLEGRAD_PYTHON to name one; found none",
    );
    return undefined;
  }

  /** Seconds of `runs` runs of a case, or undefined (and a remark, once) where the peer cannot. */
  async time(request: object, runs: number): Promise<number[] | undefined> {
    const key = JSON.stringify(request);
    const before = this.#said.get(key);
    if (before !== undefined && before.seconds === undefined) return undefined;
    if (this.#process === undefined && (await this.#launch()) === undefined) return undefined;
    const answer = await this.#ask(JSON.stringify({ ...request, runs }));
    this.#said.set(key, answer);
    await setTimeout(SETTLE);
    if (answer.seconds !== undefined) return answer.seconds;
    this.#remark(`--peer: ${answer.skipped ?? `${this.#python} failed: ${answer.error ?? "no answer"}`}`);
    return undefined;
  }

  /** What a result says of the peer, from its best time. */
  describe(request: object, seconds: number | undefined, work?: number): PeerTime | undefined {
    if (seconds === undefined) return undefined;
    const { label = "python", peakRssMiB } = this.#said.get(JSON.stringify(request)) ?? {};
    return {
      label,
      seconds,
      ...(typeof peakRssMiB === "number" ? { peakRssMiB } : {}),
      ...(work === undefined ? {} : { work }),
    };
  }

  close(): void {
    this.#process?.kill();
    this.#process = undefined;
  }

  async #launch(): Promise<Answer | undefined> {
    const script = path.join(packageRoot, "benchmarks", "peer.py");
    const child = spawn(this.#python, [script, String(this.#threads)], { stdio: ["pipe", "pipe", "pipe"] });
    this.#process = child;
    this.#errors = "";
    child.stderr.on("data", (chunk) => (this.#errors = (this.#errors + String(chunk)).slice(-2000)));
    child.stdin.on("error", () => undefined); // its end shows in the answers
    child.on("error", (error) => (this.#errors = error.message));
    child.on("close", () => {
      if (this.#process === child) this.#process = undefined;
    });
    this.#answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const greeting = await this.#ask("{}");
    if (greeting.python !== undefined) return greeting;
    this.close();
    return undefined;
  }

  async #ask(line: string): Promise<Answer> {
    this.#process?.stdin.write(`${line}\n`);
    const late = new AbortController();
    const answer = await Promise.race([
      (this.#answers as AsyncIterator<string>).next(),
      setTimeout(TIMEOUT, undefined, { signal: late.signal, ref: false }),
    ]).finally(() => late.abort());
    if (answer === undefined) {
      this.close();
      return { skipped: `${line} took more than ${TIMEOUT / 1000} s` };
    }
    if (answer.done === true) {
      this.close();
      return { error: this.#errors.trim().split("\n").at(-1) ?? "it ended" };
    }
    return JSON.parse(answer.value) as Answer;
  }
}
