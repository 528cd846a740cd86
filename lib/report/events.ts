import { html, type Html } from "./html.js";

/** A line of events.jsonl: something that a person should know of. What a line lacks is not shown. */
export interface RunEvent {
  step?: unknown;
  /** What it is, in a word. */
  event?: unknown;
  kind?: unknown;
  /** In sentences. */
  message?: unknown;
  /** Why, one reason each. */
  findings?: unknown;
  /** Id of the answer that shows it, and the file that has it. */
  trajectory?: unknown;
  file?: unknown;
}

const MOST = 50;

/** The events of a run, the newest first. */
export function eventList(events: readonly RunEvent[]): Html | undefined {
  const told = events.filter(({ message }) => typeof message === "string");
  if (told.length === 0) return undefined;
  const shown = told.slice(-MOST).reverse();
  return html`<section aria-labelledby="events">
    <h2 id="events">Warnings</h2>
    <ul class="events">
      ${shown.map((event) => {
        const { step, message, findings } = event;
        const reasons = Array.isArray(findings) ? findings.filter((reason) => typeof reason === "string") : [];
        const link = answerLink(event);
        return html`<li>
          <b>${typeof step === "number" && `step ${step} `}${eventName(event)}</b> ${message as string}
          ${link !== undefined && html`<a href="${link}">the answer</a>`}
          ${
            reasons.length > 0 &&
            html`<ul>
              ${reasons.map((reason) => html`<li>${reason}</li>`)}
            </ul>`
          }
        </li>`;
      })}
    </ul>
    ${told.length > MOST && html`<p class="soft">The last ${MOST} of ${told.length}; events.jsonl has all.</p>`}
  </section>`;
}

/** "zero-reward", "stopped", ... */
export function eventName({ event, kind }: RunEvent): string | undefined {
  return [event, kind].find((name) => typeof name === "string");
}

/** Where the viewer shows an event's answer: by the file that it names, else among its step's. */
function answerLink({ step, trajectory, file }: RunEvent): string | undefined {
  if (typeof trajectory !== "string") return undefined;
  const answer = `answer=${encodeURIComponent(trajectory)}`;
  if (typeof file !== "string") return typeof step === "number" ? `#step=${step}&${answer}` : undefined;
  const match = /^trajectories\/([a-z][a-z0-9-]*)-(\d+)\.jsonl$/.exec(file);
  return match === null ? undefined : `#${match[1]}=${Number(match[2])}&${answer}`;
}
