import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import { htmlDocument } from "./document.js";
import { escape, html, Html } from "./html.js";
import { pageParts, type PageInput } from "./parts.js";
import { STYLE } from "./style.js";

/** What stands around a page's parts. */
export interface Frame {
  title: string;
  kicker: Html;
  heading: string;
  parts: readonly (readonly [id: string, part: Html | undefined])[];
  footer: string;
  /** The state that the parts show, as the server's updates count it; undefined: the page stays as it is. */
  live?: string;
}

let script: { text: string; hash: string } | undefined;

/** browser/page.js, which every page holds: values of charts, finding answers, and taking updates in. */
function pageScript(): { text: string; hash: string } {
  if (script === undefined) {
    const text = readFileSync(new URL("../../lib/report/browser/page.js", import.meta.url), "utf8");
    script = { text, hash: createHash("sha256").update(text).digest("base64") };
  }
  return script;
}

/** The policy of every page: its own style, this one script, and where it is served, its own server. Text that got past the escaping could not run. */
export function contentSecurityPolicy(live: boolean): string {
  const rest = live ? "; connect-src 'self'; form-action 'none'; base-uri 'none'" : "";
  return `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${pageScript().hash}'${rest}`;
}

/** A whole document. It loads nothing but, where it is live, updates from its own server; without scripts it is whole and stays as it is. */
export function frame({ title, kicker, heading, parts, footer, live }: Frame): string {
  const body = html`<header>
      <p class="kicker">${kicker}</p>
      <h1>${heading}</h1>
    </header>
    <main>${parts.map(([id, part]) => html`<div class="part" id="${id}">${part}</div>`)}</main>
    <footer>${footer}</footer>`;
  return htmlDocument({
    ...{ title, body, style: STYLE, script: pageScript().text },
    policy: contentSecurityPolicy(live !== undefined),
    ...(live !== undefined && { bodyAttributes: ` data-live="${escape(live)}"` }),
  });
}

/** report.html */
export function page(input: Omit<PageInput, "live">): string {
  const { run } = input;
  const name = path.basename(run.directory);
  const started = run.config["startedAt"];
  return frame({
    title: `${name}: rolegrad report`,
    kicker: html`rolegrad, report of a training
    run${typeof started === "string" && `, started ${started.replace("T", " ").replace(/\.\d+Z$/, " UTC")}`}`,
    heading: name,
    parts: pageParts({ ...input, live: false }),
    footer: "Made from the files of this run's folder by rolegrad. It needs no network, and no script to be read.",
  });
}
