import { answerBody, answerRow } from "../report/answer.js";
import { html } from "../report/html.js";
import { findAnswers, readAnswer, trajectoryFile, type TrajectorySource } from "../report/trajectories.js";
import type { WatchedRun } from "./watched-run.js";

const PAGE = 20;

/** A request that cannot be answered, with its status. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** Answers of one file, a page of them, as the page's script asks for them. */
export async function listAnswers(run: WatchedRun, query: URLSearchParams): Promise<unknown> {
  const { source, earlier, later } = findSource(run, query);
  const file = trajectoryFile(run.directory, source);
  const index = await run.indices.get(file);
  if (index === undefined) throw new Refusal(404, `Expected ${source.name}.jsonl but it is gone`);
  const given = (name: string): string | undefined => query.get(name) || undefined;
  const found = await findAnswers(file, index, {
    ...(given("sort") && { sort: given("sort") as string }),
    ...(given("finish") && { finish: given("finish") as string }),
    ...(given("reward") && { reward: given("reward") as string }),
    ...(given("text") && { text: given("text") as string }),
  });
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  const wanted = given("id");
  const place = wanted === undefined ? -1 : found.findIndex(({ id }) => id === wanted);
  const asked = place >= 0 ? Math.floor(place / PAGE) : Math.trunc(Number(query.get("page")) || 0);
  const page = Math.min(pages - 1, Math.max(0, asked));
  const shown = found.slice(page * PAGE, (page + 1) * PAGE);
  const places = new Map(index.answers.map((answer, i) => [answer, i]));
  return {
    markup: html`${shown.map((answer) => answerRow(source, answer, places.get(answer) as number))}`.text,
    total: found.length,
    all: index.answers.length,
    broken: index.broken,
    step: source.step,
    earlier: earlier?.step,
    later: later?.step,
    page,
    pages,
  };
}

/** One answer, opened. */
export async function oneAnswer(run: WatchedRun, query: URLSearchParams): Promise<unknown> {
  const { source } = findSource(run, query, true);
  const file = trajectoryFile(run.directory, source);
  const index = await run.indices.get(file);
  const id = query.get("id");
  const at = index?.answers[Number(query.get("place"))];
  const answer = at?.id === id ? at : index?.answers.find((one) => one.id === id);
  if (answer === undefined) throw new Refusal(404, `Expected an answer ${id} in ${source.name}.jsonl`);
  const trajectory = await readAnswer(file, answer);
  return { markup: answerBody(trajectory, answer, await run.reader()).text };
}

/** The file of a kind and step that the folder lists, or (unless it must be that one) the one nearest to it. */
function findSource(
  run: WatchedRun,
  query: URLSearchParams,
  exact = false,
): { source: TrajectorySource; earlier: TrajectorySource | undefined; later: TrajectorySource | undefined } {
  const kind = query.get("kind");
  const own = run.sources.filter((source) => source.kind === kind);
  const given = query.get("step") ?? "";
  const step = given.trim() === "" ? Infinity : Number(given);
  if (Number.isNaN(step)) throw new Refusal(400, "Expected a number for step");
  let best = own.length - 1;
  own.forEach((source, i) => {
    if (Math.abs(source.step - step) < Math.abs((own[best] as TrajectorySource).step - step)) best = i;
  });
  const source = own[best];
  if (source === undefined || (exact && source.step !== step))
    throw new Refusal(404, "Expected a kind and step that this run has answers of");
  return { source, earlier: own[best - 1], later: own[best + 1] };
}
