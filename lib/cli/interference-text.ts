import type { AccuracyBin, Estimate, Interference, LoadedAccuracy } from "../attribution/index.js";
import { effectNames } from "../attribution/render/effects.js";
import { binMeans, meanOf, missingBecause } from "../attribution/render/figures.js";
import { fixed, interval, percent, pText } from "../attribution/render/text.js";
import { formatTable } from "./output.js";
import { style } from "./style.js";

/** The tables for a terminal. */
export function report(
  result: Interference,
  table: LoadedAccuracy,
  byHalves?: readonly [readonly AccuracyBin[], readonly AccuracyBin[]],
): string {
  const sections = [
    ...(table.files.length > 1 || table.files[0]?.variant !== undefined ? [filesTable(table)] : []),
    questionTable(result),
    shareTable(result),
    effectTable(result),
    contrastTable(result),
    ...(byHalves === undefined ? [] : [halvesTable(byHalves)]),
    testTable(result),
    remarks(result),
  ];
  return sections.join("\n\n");
}

const heading = (...cells: string[]): string[] => cells.map((cell) => style.bold(cell));

/** How each file was understood. */
function filesTable({ files }: LoadedAccuracy): string {
  return formatTable(
    [
      heading("variant", "rows", "read as", "file"),
      ...files.map(({ variant = "", seed, rows, shape, file }) => [
        seed === undefined ? variant : `${variant}, seed ${seed}`,
        `${rows}`,
        shape,
        file,
      ]),
    ],
    { right: [1] },
  );
}

function questionTable({ kept, saturated, dropped }: Interference): string {
  return formatTable(
    [
      heading("questions", "", ""),
      ["kept", `${kept.length}`, ""],
      ["  saturated", `${saturated.length}`, "at a floor or ceiling in all four trained variants"],
      ["dropped", `${dropped.length}`, "no variant was ever right"],
    ],
    { right: [1] },
  );
}

function shareTable(result: Interference): string {
  const { counts, kept, interferenceShare, trueShare, seeds } = result;
  const share = (n: number): string => percent(n / kept.length);
  const row = (name: string, of: Estimate | null, note: string): string[] => [
    name,
    "",
    of === null ? "-" : percent(of.value),
    of === null ? "" : (interval(of, "share") ?? ""),
    note,
  ];
  const bounds = seeds === null ? (interval(interferenceShare, "share") ?? "") : "";
  const rows = [
    heading("sign of lambda23", "", "share", "95 % interval", ""),
    ["negative", `${counts.negative}`, share(counts.negative), bounds, "interference"],
    ["zero", `${counts.zero}`, share(counts.zero), "", ""],
    ["positive", `${counts.positive}`, share(counts.positive), "", "synergy"],
    ...(seeds === null
      ? []
      : [row("negative, mean over seeds", interferenceShare, `${seeds.names.length} training seeds`)]),
    row("negative, unsaturated", interferenceShare.unsaturated, "without the saturated questions"),
  ];
  const why = (figure: keyof Interference["unavailable"]): string => missingBecause(result, figure) ?? "";
  if (interferenceShare.null !== null)
    rows.push(row("negative, by chance", interferenceShare.null, "what additive effects alone would show"));
  else if (why("null") !== "") rows.push(row("negative, by chance", null, why("null")));
  if (trueShare !== null) rows.push(row("negative, underlying", trueShare, "without the noise of sampling"));
  else if (why("trueShare") !== "") rows.push(row("negative, underlying", null, why("trueShare")));
  return formatTable(withoutEmpty(rows, 3), { right: [1, 2] });
}

function effectTable(result: Interference): string {
  const rows = [
    heading("effect, logits", "mean", "95 % interval", "median", ""),
    ...effectNames.map(({ key, name, meaning }) => {
      const estimate = meanOf(result, key);
      const median = key === "l23" ? fixed(result.median23.value) : "";
      const of = key === "l23" && result.model !== null ? `${meaning} (random-effects model)` : meaning;
      return [name, fixed(estimate.value), interval(estimate, "number") ?? "", median, of];
    }),
  ];
  const shown = withoutEmpty(rows, 2);
  return formatTable(shown, { right: shown === rows ? [1, 3] : [1, 2] });
}

function contrastTable({ contrasts }: Interference): string {
  const row = (name: string, of: Estimate): string[] => [name, fixed(of.value, 3), interval(of, "number", 3) ?? ""];
  const rows = [
    heading("contrast of accuracies", "mean", "95 % interval"),
    row("unified - tool - reas + base", contrasts.additive),
    row("unified - max(tool, reas)", contrasts.overBest),
  ];
  return formatTable(withoutEmpty(rows, 2), { right: [1] });
}

/** Effects by accuracy in the other half of the samples, both ways. */
function halvesTable(byHalves: readonly [readonly AccuracyBin[], readonly AccuracyBin[]]): string {
  const { modelled, meanIn } = binMeans(byHalves);
  const rows = byHalves.flatMap((bins, half) =>
    bins.map(({ low, high, questions, interference }) => {
      const name = `${fixed(100 * low, 0)} to ${percent(high, 0)} in the ${half === 0 ? "second" : "first"} half`;
      if (interference === null) return [name, `${questions.length}`, "-", "", "-", ""];
      const { interferenceShare: share } = interference;
      const mean23 = meanIn(interference);
      const chance = share.null === null ? "" : (interval(share.null, "share") ?? "");
      return [
        ...[name, `${questions.length}`, fixed(mean23.value), interval(mean23, "number") ?? ""],
        ...[percent(share.value), chance],
      ];
    }),
  );
  const head = heading(
    "accuracy",
    "questions",
    modelled ? "mean lambda23" : "smoothed mean",
    "95 % interval",
    "negative",
    "by chance",
  );
  return formatTable([head, ...rows], { right: [1, 2, 4] });
}

function testTable({ naiveTests, calibratedTests }: Interference): string {
  const rows = [
    heading("test of lambda23", "statistic", "p"),
    ["naive sign (against one half)", String(naiveTests.sign.statistic), pText(naiveTests.sign.pValue)],
    ["naive Wilcoxon (symmetry about 0)", String(naiveTests.wilcoxon.statistic), pText(naiveTests.wilcoxon.pValue)],
  ];
  if (calibratedTests !== null) {
    const { sign, wilcoxon } = calibratedTests;
    rows.push(["sign (against additive effects)", `${fixed(sign.statistic)} SD`, pText(sign.pValue)]);
    rows.push(["Wilcoxon (against additive effects)", `${fixed(wilcoxon.statistic)} SD`, pText(wilcoxon.pValue)]);
  }
  return formatTable(rows, { right: [1, 2] });
}

function remarks({ smoothing, scope, warnings, interferenceShare }: Interference): string {
  const without = interferenceShare.low === null ? "; without intervals" : "";
  return [style.bold(`Read with care (smoothing: ${smoothing}; ${scope}${without})`)]
    .concat(warnings.map((warning) => `- ${warning}`))
    .join("\n");
}

/** The rows without a column that no row but the header has anything in. */
function withoutEmpty(rows: string[][], column: number): string[][] {
  if (rows.slice(1).some((row) => (row[column] ?? "") !== "")) return rows;
  return rows.map((row) => row.filter((_, i) => i !== column));
}
