import { html, type Html } from "./html.js";

/** A line of events.jsonl: something that a person should know of. */
export interface RunEvent {
  step?: number;
  kind?: string;
  message?: string;
  /** Id of the answer that shows it. */
  trajectory?: string;
}

const MOST = 50;

/** The events of a run, the newest first. */
export function eventList(events: readonly RunEvent[]): Html | undefined {
  const shown = events.filter(({ message }) => typeof message === "string").slice(-MOST);
  if (shown.length === 0) return undefined;
  return html`<section aria-labelledby="events">
    <h2 id="events">Warnings</h2>
    <ul class="events">
      ${shown.toReversed().map(
        ({ step, kind, message, trajectory }) =>
          html`<li>
            <b>${typeof step === "number" && `step ${step}`}${typeof kind === "string" && ` ${kind}`}</b>
            ${message}
            ${
              typeof trajectory === "string" &&
              typeof step === "number" &&
              html`<a href="#step=${step}&amp;answer=${encodeURIComponent(trajectory)}">the answer</a>`
            }
          </li>`,
      )}
    </ul>
    ${events.length > MOST && html`<p class="soft">The last ${MOST}; events.jsonl has all.</p>`}
  </section>`;
}
