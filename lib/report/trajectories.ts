import { createReadStream } from "node:fs";
import { open, readdir, stat } from "node:fs/promises";
import path from "node:path";
import { parseTrajectory, type Finish, type Trajectory } from "../rollout/trajectory.js";

/** A file of trajectories/: "step-000012" is what step 12 sampled, "eval-000010" an evaluation after 10 steps. */
export interface TrajectorySource {
  /** Without ".jsonl". */
  name: string;
  /** "step", "eval", or another word. */
  kind: string;
  step: number;
}

/** What a list shows of an answer, and where its line lies in the file. */
export interface AnswerSummary {
  id: string;
  question: string;
  reward: number;
  finish: Finish;
  calls: number;
  tokens: number;
  answer: string | null;
  /** Mean reward of the answers to the same prompt, and their number. */
  groupMean: number;
  groupSize: number;
  offset: number;
  length: number;
}

/** Answers of a file. */
export interface AnswerIndex {
  answers: AnswerSummary[];
  /** Lines that are no trajectory. */
  broken: number;
}

const NAME = /^([a-z][a-z0-9-]{0,40})-(\d{1,12})$/;

/** The files of a run's trajectories, by kind and step. A name that is none of them is none of a file's, so no other file can be named. */
export async function trajectorySources(directory: string): Promise<TrajectorySource[]> {
  const names = await readdir(path.join(directory, "trajectories")).catch(() => []);
  return names
    .flatMap((file): TrajectorySource[] => {
      const match = file.endsWith(".jsonl") ? NAME.exec(file.slice(0, -".jsonl".length)) : null;
      return match === null ? [] : [{ name: match[0], kind: match[1] as string, step: Number(match[2]) }];
    })
    .sort((a, b) => (a.kind < b.kind ? -1 : a.kind > b.kind ? 1 : a.step - b.step));
}

export function trajectoryFile(directory: string, { name }: TrajectorySource): string {
  return path.join(directory, "trajectories", `${name}.jsonl`);
}

/** The last indices that were asked for: going from page to page reads a file once. */
export class AnswerIndexCache {
  readonly #kept = new Map<string, { stamp: string; index: Promise<AnswerIndex> }>();
  readonly #most: number;

  constructor(most = 6) {
    this.#most = most;
  }

  /** The index of a file as it is now; undefined where there is none. */
  async get(file: string): Promise<AnswerIndex | undefined> {
    const found = await stat(file).catch(() => undefined);
    if (found === undefined) return undefined;
    const stamp = `${found.ino} ${found.mtimeMs} ${found.size}`;
    let kept = this.#kept.get(file);
    if (kept?.stamp !== stamp) kept = { stamp, index: indexAnswers(file) };
    this.#kept.delete(file);
    this.#kept.set(file, kept);
    while (this.#kept.size > this.#most) this.#kept.delete(this.#kept.keys().next().value as string);
    try {
      return await kept.index;
    } catch (error) {
      this.#kept.delete(file);
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
  }
}

/** Reads a file once, line by line; of a line only the summary is kept. */
export async function indexAnswers(file: string): Promise<AnswerIndex> {
  const answers: AnswerSummary[] = [];
  let broken = 0;
  const groups = new Map<string, { sum: number; n: number; members: AnswerSummary[] }>();
  for await (const { text, offset, length } of jsonLines(file)) {
    const line = parseLine(text);
    if (line === undefined) {
      broken++;
      continue;
    }
    const { id, reward, calls, ids } = line;
    const summary: AnswerSummary = {
      ...{ id, reward, offset, length },
      question: String(line.question),
      finish: typeof line.finish === "string" ? line.finish : "error",
      answer: typeof line.answer === "string" ? line.answer : null,
      calls: Array.isArray(calls) ? calls.length : 0,
      tokens: ids.length,
      groupMean: reward,
      groupSize: 1,
    };
    answers.push(summary);
    const key = typeof line.group === "string" ? line.group : id;
    const group = groups.get(key) ?? { sum: 0, n: 0, members: [] };
    groups.set(key, group);
    group.sum += reward;
    group.n++;
    group.members.push(summary);
  }
  for (const { sum, n, members } of groups.values()) {
    for (const member of members) [member.groupMean, member.groupSize] = [sum / n, n];
  }
  return { answers, broken };
}

function parseLine(text: string): Trajectory | undefined {
  try {
    const line = JSON.parse(text) as Trajectory;
    const whole = typeof line.id === "string" && typeof line.reward === "number" && Array.isArray(line.ids);
    return whole ? line : undefined;
  } catch {
    return undefined;
  }
}

/** Whole lines of a file with their places; what follows the last line feed is left out. */
async function* jsonLines(file: string): AsyncGenerator<{ text: string; offset: number; length: number }> {
  let rest: Buffer[] = [];
  let offset = 0;
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
    let from = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      const line = rest.length === 0 ? chunk.subarray(from, end) : Buffer.concat([...rest, chunk.subarray(from, end)]);
      rest = [];
      if (line.length > 0) yield { text: line.toString("utf8"), offset, length: line.length };
      offset += line.length + 1;
      from = end + 1;
    }
    if (from < chunk.length) rest.push(Buffer.from(chunk.subarray(from)));
  }
}

/** One answer, whole. A line that is no trajectory (or a file that changed) -> ERR_TRAJECTORY. */
export async function readAnswer(file: string, { offset, length }: AnswerSummary): Promise<Trajectory> {
  const handle = await open(file);
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, offset);
    return parseTrajectory(buffer.toString("utf8", 0, bytesRead));
  } finally {
    await handle.close();
  }
}

/** Which answers, and in which order. */
export interface AnswerQuery {
  /** @default "made" */
  sort?: string;
  finish?: string;
  /** "some": above 0; "none": 0 or less. */
  reward?: string;
  /** Text that the response, the question's id or the answer has; upper and lower case are one. */
  text?: string;
}

const ORDERS: Record<string, (a: AnswerSummary, b: AnswerSummary) => number> = {
  best: (a, b) => b.reward - a.reward,
  worst: (a, b) => a.reward - b.reward,
  longest: (a, b) => b.tokens - a.tokens,
  calls: (a, b) => b.calls - a.calls,
  question: (a, b) => (a.question < b.question ? -1 : a.question > b.question ? 1 : 0),
};

/** The answers that a query asks for. Only text makes it read the file again. */
export async function findAnswers(file: string, index: AnswerIndex, query: AnswerQuery): Promise<AnswerSummary[]> {
  const { sort = "made", finish, reward, text } = query;
  let found = index.answers.filter(
    (answer) =>
      (finish === undefined || answer.finish === finish) &&
      (reward === undefined || answer.reward > 0 === (reward === "some")),
  );
  if (text !== undefined && text !== "") {
    const wanted = text.toLowerCase();
    const places = new Set<number>();
    for await (const line of jsonLines(file)) {
      const { response, question, answer, id } = parseLine(line.text) ?? {};
      if (
        [response, question, answer, id].some(
          (field) => typeof field === "string" && field.toLowerCase().includes(wanted),
        )
      )
        places.add(line.offset);
    }
    found = found.filter(({ offset }) => places.has(offset));
  }
  const order = Object.hasOwn(ORDERS, sort) ? ORDERS[sort] : undefined;
  return order === undefined ? found : [...found].sort(order);
}
