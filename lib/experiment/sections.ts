import { html, type Html, type HtmlValue } from "../report/html.js";
import { figure, percent } from "../report/format.js";
import { type Column, dataTable } from "../report/table.js";
import type { Comparison, ExperimentResults, GroupResult } from "./results.js";
import type { DialectSetting } from "./plan.js";

export const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

export const NOT_RUN = "No cell of this part has ended.";

/** A table that scrolls sideways where it must; nothing without rows. */
export function table(
  title: string,
  columns: readonly Column[],
  rows: readonly (readonly HtmlValue[])[],
  caption?: string,
): Html | undefined {
  if (rows.length === 0) return undefined;
  return dataTable(`${title}, a table`, columns, rows, caption);
}

/** A section with what the paper says of the matter first; `parts` that are all missing leave a sentence. */
export function section(
  id: string,
  title: string,
  {
    paper,
    ours,
    parts,
    missing,
  }: { paper?: string; ours?: string; parts: readonly (Html | undefined)[]; missing: string },
): Html {
  const found = parts.filter((part) => part !== undefined);
  return html`<section aria-labelledby="${id}">
    <h2 id="${id}">${title}</h2>
    ${paper !== undefined && html`<p class="soft"><b>The paper:</b> ${paper}</p>`}
    ${ours !== undefined && found.length > 0 && html`<p><b>Here:</b> ${ours}</p>`}
    ${found.length > 0 ? found : html`<p class="soft">${missing}</p>`}
  </section>`;
}

/** "+3.1 points", with its interval where there is one. */
export function points({
  mean,
  low,
  high,
  interim,
}: Pick<Comparison, "mean" | "low" | "high"> & Partial<Pick<Comparison, "interim">>): string {
  const signed = (value: number): string => {
    const cut = Math.min(1, Math.max(-1, value));
    return `${cut >= 0 ? "+" : "-"}${Math.abs(100 * cut).toFixed(1)}`;
  };
  if (interim) return `${signed(mean)} (interim: ${interim.seeds} of ${interim.of} seeds)`;
  return low === null || high === null ? signed(mean) : `${signed(mean)} (${signed(low)} to ${signed(high)})`;
}

/** A number with its interval where it has one; not a number -> "-". */
export function estimate(
  value: { value: number; low: number | null; high: number | null } | null,
  show: (value: number) => string = (own) => own.toFixed(2),
): string {
  if (value === null || !Number.isFinite(value.value)) return "-";
  const { low, high } = value;
  return low === null || high === null ? show(value.value) : `${show(value.value)} (${show(low)} to ${show(high)})`;
}

/** The same of a quantity with a scale, at whose ends the interval is cut. */
export function bounded(
  value: { value: number; low: number | null; high: number | null } | null | undefined,
  [least, most]: readonly [number, number],
  show?: (value: number) => string,
): string {
  if (value === null || value === undefined) return "-";
  const cut = (own: number | null): number | null => own && Math.min(most, Math.max(least, own));
  return estimate({ value: value.value, low: cut(value.low), high: cut(value.high) }, show);
}

/** A share with its interval, in per cent. */
export function share(value: { value: number; low: number | null; high: number | null } | null | undefined): string {
  return bounded(value, [0, 1], (own) => percent(own));
}

/** "+0.50"; not a number -> "-". */
export function signed(value: number): string {
  return Number.isFinite(value) ? `${value >= 0 ? "+" : ""}${value.toFixed(2)}` : "-";
}

/** How a setting of the knobs is called. */
export function settingText({ balance, dialect }: { balance: number; dialect: DialectSetting | null }): string {
  return [`w ${balance}`, ...(dialect === null ? [] : [dialectText(dialect)])].join(", ");
}

/** "d 1", or "d 1, aligned". */
function dialectText(dialect: DialectSetting): string {
  return dialect === "aligned" ? "d 1, aligned" : `d ${dialect}`;
}

/** An arm's title, and what sets it apart where the arm stands more than once among the groups. */
export function titleAmong(group: GroupResult, groups: readonly GroupResult[]): string {
  const same = groups.filter(({ arm }) => arm === group.arm);
  const differ = (of: (own: GroupResult) => unknown): boolean => new Set(same.map(of)).size > 1;
  const { title, planned, balance, dialect } = group;
  return [
    title,
    ...(differ((own) => own.planned) ? [planned === "tuned" ? "tuned rate" : `rate ${planned}`] : []),
    ...(differ((own) => own.balance) ? [`w ${balance}`] : []),
    ...(differ((own) => own.dialect) ? [dialect === null ? "no dialect" : dialectText(dialect)] : []),
  ].join(", ");
}

/** Groups with a rail each: exact match, and its interval over seeds. */
export function rails(groups: readonly GroupResult[]): Html | undefined {
  if (groups.length === 0) return undefined;
  const at = (share: number): string => `${(100 * Math.min(1, Math.max(0, share))).toFixed(2)}%`;
  return html`<ul class="intervals">
    ${groups.map((group) => {
      const { arm, exactMatch, seeds } = group;
      const { mean, low, high } = exactMatch;
      const color = arm.startsWith("dart") ? "0" : arm === "placebo" ? "wrong" : arm === "unified" ? "1" : "muted";
      return html`<li class="c-${color}">
        <span>${titleAmong(group, groups)}</span>
        <span class="value">
          <strong>${percent(mean)}</strong>
          <span class="soft"
            >${
              low === null || high === null
                ? `(${seeds.length} ${seeds.length === 1 ? "seed" : "seeds"})`
                : `(95 %: ${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)})`
            }</span
          >
        </span>
        <span class="rail" aria-hidden="true"
          >${low !== null && high !== null && html`<i style="left:${at(low)};width:${at(high - low)}"></i>`}<b
            style="left:${at(mean)}"
          ></b
        ></span>
      </li>`;
    })}
    <li class="scale" aria-hidden="true">
      <span>0</span><span>25</span><span>50</span><span>75</span><span>100 %</span>
    </li>
  </ul>`;
}

/** Comparisons of arms as a table. */
export function comparisonTable(
  title: string,
  list: readonly Comparison[],
  results: ExperimentResults,
): Html | undefined {
  const titleOf = (arm: string): string => results.groups.find((group) => group.arm === arm)?.title ?? arm;
  return table(
    title,
    [
      ["study"],
      ["difference"],
      ["setting"],
      [`points of ${results.metric}`, "number"],
      ["seeds", "number"],
      ["by seed", "number"],
    ],
    list.map((own) => [
      own.study,
      html`${titleOf(own.a)} less ${titleOf(own.b)}${own.primary && html` <b>(primary)</b>`}`,
      settingText(own),
      points(own),
      Object.keys(own.bySeed).length,
      Object.values(own.bySeed)
        .map((value) => (100 * value).toFixed(1))
        .join(", "),
    ]),
    results.stamp === null
      ? "Paired by seed: same questions in the same order. Intervals are t intervals over seeds, 95 %."
      : `${results.stamp}: no intervals.`,
  );
}

export { figure, percent };
