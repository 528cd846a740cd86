import { lineChart, type Point, type Series } from "../report/chart.js";
import { html, type Html } from "../report/html.js";
import type { LeasResult } from "./leas.js";
import { meanInterval, meanShare } from "./paired.js";
import type { DialectSetting, ExperimentPlan } from "./plan.js";
import type { ExperimentResults } from "./results.js";
import { section } from "./sections.js";

const COLORS = ["1", "0", "wrong", "output", "2", "3", "4", "5", "muted"];

/** Dose-response: right answers by arm over a knob, and lambda23 over the balance. */
export function knobs(results: ExperimentResults, plan: ExperimentPlan): Html {
  const charts = [
    exactMatchOver(results, plan, "balance", {
      title: "Balance",
      hint: "The tool tokens' loss times w; w = 1 is the negative control.",
    }),
    exactMatchOver(results, plan, "dialect", {
      title: "Dialect",
      hint: "1: the search wants marked queries where answers are plain; -1: plain ones; aligned: both are marked.",
    }),
    ...interactionOver(results),
  ].filter((one) => one !== undefined);
  return section("knobs-title", "Dose and response", {
    ours: "Settings that were put there beforehand. Balance makes one optimizer starve the role with the small gradient; dialect turns the gradients' directions.",
    parts: charts.length === 0 ? [] : [html`<div class="charts">${charts}</div>`],
    missing: "No knob has two settings that have ended.",
  });
}

function exactMatchOver(
  results: ExperimentResults,
  plan: ExperimentPlan,
  knob: "balance" | "dialect",
  text: { title: string; hint: string },
): Html | undefined {
  const study = plan.studies.find((one) => one[knob] !== undefined && one.name === knob);
  if (study === undefined) return undefined;
  const series = study.arms.map((arm, i): Series => {
    const points = (study[knob] ?? []).flatMap((value): Point[] => {
      // The study's seeds alone: a setting must not differ from another in its seeds.
      const cells = results.measured.filter(
        (own) =>
          own.arm === arm &&
          own[knob] === value &&
          (own.planned === study.rate || arm === "base") &&
          study.seeds.includes(own.seed) &&
          (knob === "balance" ? own.dialect === null : own.balance === 1),
      );
      if (cells.length === 0) return [];
      const found = meanShare(
        cells.map(({ exactMatch }) => exactMatch),
        results.stamp === null,
      );
      return [pointAt(knob, value, found)];
    });
    const title = results.groups.find((own) => own.arm === arm)?.title ?? arm;
    return { name: title, color: COLORS[i % COLORS.length] as string, points: points.sort((a, b) => a.x - b.x) };
  });
  // One setting alone is no response.
  if (series.every(({ points }) => points.length < 2)) return undefined;
  return lineChart({
    ...text,
    ...axisOf(knob, series),
    ...{ yLabel: results.metric, format: "percent", yMax: 1, legend: true, smooth: false },
    series: series.filter(({ points }) => points.length > 0),
  });
}

/** The share and the mean of lambda23 by w, over the seeds that every w has. */
function interactionOver({ leas, stamp }: ExperimentResults): (Html | undefined)[] {
  const plain = leas.filter(({ seed, dialect }) => seed !== null && dialect === null);
  const rate = plain.find((one) => plain.some((own) => own.rate === one.rate && own.balance !== one.balance))?.rate;
  const list = plain.filter((own) => own.rate === rate);
  const balances = [...new Set(list.map(({ balance }) => balance))].sort((a, b) => a - b);
  const at = (balance: number): LeasResult[] => list.filter((own) => own.balance === balance);
  const seeds = [...new Set(list.map(({ seed }) => seed))].filter((seed) =>
    balances.every((balance) => at(balance).some((own) => own.seed === seed)),
  );
  if (balances.length < 2 || seeds.length === 0) return [];
  const line = (
    name: string,
    color: string,
    value: (own: LeasResult) => number | undefined,
    cut = meanInterval,
  ): Series => ({
    ...{ name, color },
    points: balances.flatMap((balance): Point[] => {
      const values = at(balance)
        .filter(({ seed }) => seeds.includes(seed))
        .flatMap((own) => value(own) ?? []);
      // A mean over other seeds would be no response to w.
      return values.length < seeds.length ? [] : [pointAt("balance", balance, cut(values, stamp === null))];
    }),
  });
  const means = [line("mean of lambda23", "1", (own) => own.mean23.value)];
  const shares = [
    line("share < 0", "1", (own) => own.share.value, meanShare),
    line(
      "its null",
      "muted",
      (own) => own.share.null?.value,
      (values) => meanShare(values, false),
    ),
  ];
  const hint = `Seeds that every w has: ${seeds.join(", ")}.`;
  return [
    lineChart({
      ...{ title: "lambda23 by balance", hint: `The mean in logits; below 0: interference. ${hint}` },
      ...{ ...axisOf("balance", means), yLabel: "logits", smooth: false, series: means },
    }),
    lineChart({
      ...{ title: "Share of lambda23 < 0 by balance", hint: `Beside what additive effects alone would show. ${hint}` },
      ...{ ...axisOf("balance", shares), yLabel: "questions", format: "percent", yMax: 1 },
      ...{ legend: true, smooth: false, series: shares },
    }),
  ];
}

/** The cosine of the roles' summed gradients on the base by the dialect's d, over the seeds that every d has. */
export function cosineOverDialect({ probes, measured, stamp }: ExperimentResults): Html | undefined {
  const found = measured.flatMap(({ id, dialect, seed }) => {
    const batch = probes[id]?.angles?.whole.advantage.batch[0];
    return dialect === null || batch === undefined ? [] : [{ dialect, seed, batch }];
  });
  const settings = [...new Set(found.map(({ dialect }) => dialect))].sort((a, b) => placeOf(a) - placeOf(b));
  if (settings.length < 2) return undefined;
  const seeds = [...new Set(found.map(({ seed }) => seed))].filter((seed) =>
    settings.every((d) => found.some((own) => own.dialect === d && own.seed === seed)),
  );
  const line = (name: string, color: string, of: "cosine" | "corrected"): Series => ({
    ...{ name, color },
    points: settings.flatMap((d): Point[] => {
      const values = found
        .filter((own) => own.dialect === d && seeds.includes(own.seed))
        .flatMap(({ batch }) => batch[of]?.value ?? []);
      if (values.length < seeds.length || values.length === 0) return [];
      const { mean, low, high } = meanInterval(values, stamp === null);
      const cut = of === "cosine" ? 1 : Infinity;
      return [pointAt("dialect", d, { mean, low: low && Math.max(-cut, low), high: high && Math.min(cut, high) })];
    }),
  });
  const series = [line("of the sums", "1", "cosine"), line("without noise", "0", "corrected")];
  return lineChart({
    title: "Cosine between the roles by dialect",
    hint: `Advantage-weighted gradients of the base, summed over the rollouts. The control: it must fall as d rises, and not where the roles are aligned. Seeds that every d has: ${seeds.join(", ") || "none"}. Without noise only where each seed's reliability can be told from 0.`,
    ...{ ...axisOf("dialect", series), yLabel: "cosine", yMin: -0.1, yMax: 0.1, legend: true, smooth: false },
    series: series.filter(({ points }) => points.length > 0),
  });
}

type Knob = "balance" | "dialect";

/** Aligned roles stand to the right of all doses. */
const ALIGNED_PLACE = 2;

function placeOf(value: DialectSetting): number {
  return value === "aligned" ? ALIGNED_PLACE : value;
}

/** w stands on a logarithmic axis, d on a plain one. */
function pointAt(
  knob: Knob,
  value: DialectSetting,
  { mean, low, high }: { mean: number; low: number | null; high: number | null },
): Point {
  const place = placeOf(value);
  const x = knob === "balance" ? Math.log10(place) : place;
  return { x, y: mean, ...(low !== null && high !== null && { low, high }) };
}

/** The settings are the ticks; w is written as itself. */
function axisOf(
  knob: Knob,
  series: readonly Series[],
): { xLabel: string; xTicks: number[]; xText: (x: number) => string } {
  const xTicks = [...new Set(series.flatMap(({ points }) => points.map(({ x }) => x)))].sort((a, b) => a - b);
  const xText = (x: number): string =>
    knob === "dialect" && x === ALIGNED_PLACE
      ? "aligned"
      : String(Number((knob === "balance" ? 10 ** x : x).toPrecision(6)));
  return { xLabel: knob === "balance" ? "w" : "d", xTicks, xText };
}
