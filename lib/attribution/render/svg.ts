// The charts of an attribution as SVG. A page brings its own colours (lib/report/style.ts); a file of its own has the same ones in it, light or dark as
// its reader has it.
import { html, Html, type HtmlValue } from "../../report/html.js";
import { WIDTH } from "../../report/svg.js";
import { numbersTable } from "../../report/table.js";

/** What charts need beyond the page's own style. */
export const CHART_STYLE = `
.bar { stroke: var(--page); stroke-width: 0.6; }
.interference { --c: var(--role-1); } .synergy { --c: var(--role-0); } .neither { --c: var(--soft); } .third { --c: var(--role-2); }
.fill { fill: var(--c); }
.null { fill: var(--soft); opacity: 0.22; }
.rod { stroke: var(--c); stroke-width: 2.2; fill: none; }
.box { fill: var(--c); opacity: 0.28; }
.chance { fill: none; stroke: var(--text); stroke-width: 1.5; stroke-linejoin: round; }
.halo { fill: none; stroke: var(--page); stroke-width: 4; stroke-linejoin: round; opacity: 0.75; }
.zero { stroke: var(--text); stroke-width: 1.2; }
.name { font-size: 13px; fill: var(--text); paint-order: stroke; stroke: var(--page); stroke-width: 5px; stroke-linejoin: round; }
.dot { fill: var(--page); stroke: var(--c); stroke-width: 2; }
.value { font-size: 12.5px; fill: var(--text); font-weight: 600; font-variant-numeric: tabular-nums; }
.value.tint { fill: var(--c); }
`;

const COLORS = {
  light:
    "--page: #ffffff; --rule: #d8dce2; --text: #1c2128; --soft: #55606e; --main: #1f4e9c; --role-0: #0b5cad; --role-1: #a34100; --role-2: #6b3fa0;",
  dark: "--page: #12161c; --rule: #353e4b; --text: #e7ebf0; --soft: #a3aebc; --main: #8ab8ff; --role-0: #7cbcff; --role-1: #ffb07a; --role-2: #c9a7ff;",
};

const ALONE = `
svg { ${COLORS.light} background: var(--page); font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
@media (prefers-color-scheme: dark) { svg { ${COLORS.dark} } }
.tick, .label { font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.grid { stroke: var(--rule); stroke-width: 1; opacity: 0.7; }
.axis { stroke: var(--soft); stroke-width: 1; }
.title { font-size: 15px; font-weight: 600; fill: var(--text); }
${CHART_STYLE}`;

/** A chart before it is on a page or in a file. */
export interface Chart {
  /** Of the file, and of the ids on the page. */
  name: string;
  title: string;
  /** How to read it; a line below the title on a page. */
  hint: string;
  /** What it shows, for those who do not see it. */
  description: string;
  height: number;
  body: HtmlValue;
  /** The numbers of the chart: a header and rows, the first cell of each its name. */
  table: { head: string[]; rows: string[][] };
}

/** A chart on a page, with its numbers. */
export function inPage(chart: Chart): Html {
  const { name, title, hint, table } = chart;
  return html`<figure class="chart" id="chart-${name}">
    <figcaption>
      <h3>${title}</h3>
      <p class="hint">${hint}</p>
    </figcaption>
    ${drawing(chart, `0 0 ${WIDTH} ${chart.height}`)}
    ${numbersTable(
      title,
      table.head.map((cell, i) => [cell, i > 0 ? "number" : ""]),
      table.rows,
    )}
  </figure>`;
}

const MARGIN = 14;
const HEAD = 34;
const LINE = 16;

/** Words in lines of so many characters at most. */
function wrapped(text: string, most: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last === undefined || last.length + 1 + word.length > most) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}

/** A chart as a document. */
export function alone(chart: Chart): string {
  const { title, hint, height } = chart;
  const lines = wrapped(hint, 62);
  const head = HEAD + LINE * lines.length;
  const box = `${-MARGIN} ${-head} ${WIDTH + 2 * MARGIN} ${height + head + MARGIN}`;
  const heading = html`<text class="title" x="0" y="${20 - head}">${title}</text>
    ${lines.map((line, i) => html`<text class="label" x="0" y="${20 - head + LINE * (i + 1) + 2}">${line}</text>`)}`;
  const { text } = drawing(chart, box, html`${new Html(`<style>${ALONE}</style>`)}${heading}`);
  return `<?xml version="1.0" encoding="UTF-8"?>\n${text.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')}\n`;
}

function drawing({ name, title, description, body }: Chart, box: string, before?: Html): Html {
  return html`<svg viewBox="${box}" role="img" aria-labelledby="${name}-title ${name}-desc">
    <title id="${name}-title">${title}</title>
    <desc id="${name}-desc">${description}</desc>
    ${before} ${body}
  </svg>`;
}
