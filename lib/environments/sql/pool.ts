import { Worker } from "node:worker_threads";
import { fail, RolegradError } from "../../errors.js";
import type { SqlFailure, SqlReply, SqlRequest, WorkerSettings } from "./protocol.js";

type Without<T, K extends string> = T extends unknown ? Omit<T, K> : never;
export type Work = Without<SqlRequest, "id">;
type Answer = Extract<SqlReply, { kind: "rows" | "image" }>;

/** Why the engine gave no answer: something to tell, not a fault of the program. */
export class SqlRefusal extends Error {
  constructor(
    readonly why: SqlFailure,
    message: string,
  ) {
    super(message);
  }
}

interface Job {
  id: number;
  work: Work;
  resolve: (answer: Answer) => void;
  reject: (error: unknown) => void;
}

interface Seat {
  worker: Worker;
  cancelled: Int32Array;
  job: Job | undefined;
  watchdog: NodeJS.Timeout | undefined;
}

// A function of SQL that runs for long asks nobody whether it may go on. Its thread is ended so long after it should have stopped itself.
const GRACE = 1000;
// To start the engine, to open a database, to run a script.
const PATIENCE = 120_000;

/** Worker threads, started as they are needed, each with an engine of its own and one request at a time. */
export class SqlPool {
  readonly #seats: Seat[] = [];
  readonly #queue: Job[] = [];
  #closed = false;
  #last = 0;

  constructor(
    readonly size: number,
    readonly settings: Omit<WorkerSettings, "cancelled">,
  ) {}

  /** Answers in any order. A refusal -> {@link SqlRefusal}; an abort -> its reason, and the request is given up; closed -> ERR_SQL_CLOSED. */
  run(work: Work, signal?: AbortSignal): Promise<Answer> {
    if (this.#closed) fail("ERR_SQL_CLOSED", "Expected an open SQL environment but it has been closed");
    signal?.throwIfAborted();
    return new Promise<Answer>((resolve, reject) => {
      const done = (): void => signal?.removeEventListener("abort", onAbort);
      const job: Job = {
        id: ++this.#last,
        work,
        resolve: (answer) => (done(), resolve(answer)),
        reject: (error) => (done(), reject(error)),
      };
      const onAbort = (): void => {
        this.#giveUp(job);
        job.reject(signal?.reason);
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#queue.push(job);
      this.#next();
    });
  }

  /** Ends all threads; what is under way is rejected. */
  async close(): Promise<void> {
    this.#closed = true;
    const closed = (): Error =>
      new RolegradError("ERR_SQL_CLOSED", "The SQL environment was closed before it answered");
    for (const job of this.#queue.splice(0)) job.reject(closed());
    await Promise.all(
      this.#seats.splice(0).map((seat) => {
        seat.job?.reject(closed());
        seat.job = undefined; // a late answer is not heard: it would let the process end before the thread has
        clearTimeout(seat.watchdog);
        return seat.worker.terminate();
      }),
    );
  }

  #giveUp(job: Job): void {
    const at = this.#queue.indexOf(job);
    if (at >= 0) this.#queue.splice(at, 1);
    const seat = this.#seats.find((each) => each.job === job);
    if (seat === undefined) return;
    Atomics.store(seat.cancelled, 0, job.id);
    this.#watch(seat, GRACE);
  }

  #next(): void {
    while (this.#queue.length > 0) {
      let seat = this.#seats.find(({ job }) => job === undefined);
      if (seat === undefined && this.#seats.length < this.size) seat = this.#start();
      if (seat === undefined) return;
      const job = this.#queue.shift()!;
      seat.job = job;
      seat.worker.ref();
      this.#watch(seat, PATIENCE);
      seat.worker.postMessage({ ...job.work, id: job.id });
    }
  }

  #start(): Seat {
    const cancelled = new Int32Array(new SharedArrayBuffer(4));
    const workerData: WorkerSettings = { ...this.settings, cancelled };
    const worker = new Worker(new URL("./worker.js", import.meta.url), { workerData, execArgv: [] });
    const seat: Seat = { worker, cancelled, job: undefined, watchdog: undefined };
    worker.on("message", (reply: SqlReply) => this.#hear(seat, reply));
    worker.on("error", (error) =>
      this.#drop(seat, new SqlRefusal("database", `the SQL engine failed: ${error.message}`)),
    );
    worker.on("exit", () => this.#drop(seat, new SqlRefusal("database", "the SQL engine ended")));
    this.#seats.push(seat);
    return seat;
  }

  #hear(seat: Seat, reply: SqlReply): void {
    const { job } = seat;
    if (job?.id !== reply.id) return;
    if (reply.kind === "started") {
      const given = Atomics.load(seat.cancelled, 0) === job.id;
      if (job.work.kind === "query" && !given) this.#watch(seat, job.work.timeout + GRACE);
      return;
    }
    clearTimeout(seat.watchdog);
    seat.job = undefined;
    seat.worker.unref(); // a thread that waits for work keeps no process alive
    if (reply.kind === "failed") {
      if (reply.broken) this.#end(seat);
      job.reject(new SqlRefusal(reply.why, reply.message));
    } else job.resolve(reply);
    this.#next();
  }

  #watch(seat: Seat, milliseconds: number): void {
    clearTimeout(seat.watchdog);
    seat.watchdog = setTimeout(() => {
      this.#drop(seat, new SqlRefusal("timeout", "interrupted: the query took too long"));
    }, milliseconds);
  }

  #drop(seat: Seat, error: Error): void {
    if (!this.#seats.includes(seat)) return;
    clearTimeout(seat.watchdog);
    this.#end(seat);
    seat.job?.reject(error);
    seat.job = undefined;
    if (!this.#closed) this.#next();
  }

  #end(seat: Seat): void {
    const at = this.#seats.indexOf(seat);
    if (at >= 0) this.#seats.splice(at, 1);
    void seat.worker.terminate();
  }
}
