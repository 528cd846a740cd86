import { html, type Html, type HtmlValue } from "./html.js";

/** A column's title and the class of its cells: "number" stands to the right. */
export type Column = readonly [title: HtmlValue, kind?: string];

/** A table that scrolls sideways where it must; the first cell of a row is its name. `label`: for those who do not see it. */
export function dataTable(
  label: string,
  columns: readonly Column[],
  rows: readonly (readonly HtmlValue[])[],
  caption?: HtmlValue,
): Html {
  const kind = (i: number): string => columns[i]?.[1] ?? "";
  return html`<div class="wide" tabindex="0" role="region" aria-label="${label}">
    <table class="data">
      ${
        caption !== undefined &&
        caption !== false &&
        html`<caption>
          ${caption}
        </caption>`
      }
      <thead>
        <tr>
          ${columns.map(([title], i) => html`<th scope="col" class="${kind(i)}">${title}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          ([name, ...cells]) =>
            html`<tr>
              <th scope="row" class="${kind(0)}">${name}</th>
              ${cells.map((cell, i) => html`<td class="${kind(i + 1)}">${cell}</td>`)}
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

/** The numbers of a chart below it, closed at first. */
export function numbersTable(
  title: string,
  columns: readonly Column[],
  rows: readonly (readonly HtmlValue[])[],
  caption?: HtmlValue,
): Html {
  return html`<details class="numbers">
    <summary>Table<span class="hidden"> of ${title}</span></summary>
    ${dataTable(`${title}: table`, columns, rows, caption)}
  </details>`;
}
