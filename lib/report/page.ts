import path from "node:path";
import { escape, html } from "./html.js";
import type { RunFiles } from "./run.js";
import { answers, evaluationTable, headline, learning } from "./sections.js";
import { reproduce, setup, type AdapterFacts } from "./setup.js";
import { STYLE } from "./style.js";

/** The whole page. It loads nothing and runs nothing, and tells the browser so: text that got past the escaping could not either. */
export function page(run: RunFiles, adapters: readonly AdapterFacts[]): string {
  const name = path.basename(run.directory);
  const started = run.config["startedAt"];
  const body = html`<header>
      <p class="kicker">rolegrad, report of a training run</p>
      <h1>${name}</h1>
      ${typeof started === "string" && html`<p class="soft">Started ${started.replace("T", " ").replace(/\.\d+Z$/, " UTC")}</p>`}
    </header>
    <main>
      ${run.remarks.map((remark) => html`<p class="remark">${remark}</p>`)} ${headline(run)} ${answers(run.examples)}
      ${learning(run)} ${evaluationTable(run)} ${setup(run, adapters)} ${reproduce(run)}
    </main>
    <footer>Made from the files of this run's folder by rolegrad. It needs no network and no script.</footer>`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>${escape(name)}: rolegrad report</title>
<style>${STYLE}</style>
</head>
<body>
${body.text}
</body>
</html>
`;
}
