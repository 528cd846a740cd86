import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import type { AccuracyTable, Interference, InterferenceOptions, TestResult } from "../attribution/index.js";
import { fail, RolegradError } from "../errors.js";
import { formatTable, printJson } from "./output.js";
import { interruptSignal } from "./signal.js";
import { style } from "./style.js";

/** `rolegrad interference TABLE`: attribution on a table of accuracies. */
export function register(program: Command): void {
  program
    .command("interference")
    .argument("<table>", "JSON ({ samples, correct } or rows), or JSON Lines of rows (.jsonl)")
    .description("how much reasoning and tool use interfere, from a table of accuracies")
    .option("--smoothing <name>", "haldane, laplace or none", "haldane")
    .option("--json", "print JSON for machines")
    .action(async (file: string, options: { smoothing: string; json?: boolean }) => {
      if (!["haldane", "laplace", "none"].includes(options.smoothing))
        fail("ERR_USAGE", `Expected haldane, laplace or none for --smoothing but received ${options.smoothing}`);
      const { computeInterference, summary } = await import("../attribution/index.js");
      const { table, explain } = file.endsWith(".jsonl") ? await readLines(file) : await readJson(file);
      const smoothing = options.smoothing as NonNullable<InterferenceOptions["smoothing"]>;
      const result = await computeInterference(table, { smoothing, signal: interruptSignal() }).catch(explain);
      if (options.json) printJson({ ...result, summary: summary(result) });
      else console.log(`${report(result)}\n\n${summary(result)}`);
    });
}

interface TableFile {
  table: AccuracyTable;
  /** Says where in the file an error of the table is, and throws it. */
  explain: (error: unknown) => never;
}

async function readJson(file: string): Promise<TableFile> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code === "ENOENT" ? "ERR_DATA_NOT_FOUND" : "ERR_DATA_UNREADABLE";
    fail(code, `Expected a table at ${file}: ${(cause as Error).message}`, cause);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    fail(
      "ERR_TABLE_FILE",
      `Expected JSON in ${file}: ${(cause as Error).message}. Name it .jsonl if it has a row a line`,
      cause,
    );
  }
  const table = (Array.isArray(value) ? { rows: value } : value) as AccuracyTable;
  return { table, explain: (error) => rethrow(error, (message) => `${file}: ${message}`) };
}

async function readLines(file: string): Promise<TableFile> {
  const [{ at }, { readJsonLines }] = await Promise.all([import("../data/place.js"), import("../data/jsonl.js")]);
  const rows: unknown[] = [];
  const places: string[] = [];
  for await (const { row, place } of readJsonLines(file)) {
    rows.push(row);
    places.push(at(place));
  }
  // Messages speak of rows[i]; a reader of the file wants its line.
  const located = (message: string): string => {
    const text = message.replace(/\brows\[(\d+)\]/g, (found, i: string) => places[Number(i)] ?? found);
    return text === message ? `${file}: ${message}` : text;
  };
  return { table: { rows } as AccuracyTable, explain: (error) => rethrow(error, located) };
}

function rethrow(error: unknown, locate: (message: string) => string): never {
  if (error instanceof RolegradError && /^ERR_(TABLE|INFINITE_LOGIT)/.test(error.code))
    throw new RolegradError(error.code, locate(error.message), { cause: error });
  throw error;
}

/** The tables for a terminal. */
function report(result: Interference): string {
  const { kept, dropped, saturated, counts, interferenceShare, lambda, naiveTests, contrasts } = result;
  const share = (n: number): string => `${((100 * n) / kept.length).toFixed(1)} %`;
  const heading = (...cells: string[]): string[] => cells.map((cell) => style.bold(cell));
  const outside = interferenceShare.unsaturated;

  const sections = [
    formatTable(
      [
        heading("questions", "", ""),
        ["kept", `${kept.length}`, ""],
        ["  saturated", `${saturated.length}`, "at a floor or ceiling in all four trained variants"],
        ["dropped", `${dropped.length}`, "no variant was ever right"],
      ],
      { right: [1] },
    ),
    formatTable(
      [
        heading("sign of lambda23", "", "share", ""),
        ["negative", `${counts.negative}`, share(counts.negative), "interference"],
        ["zero", `${counts.zero}`, share(counts.zero), ""],
        ["positive", `${counts.positive}`, share(counts.positive), "synergy"],
        [
          "negative, unsaturated",
          "",
          outside === null ? "-" : `${(100 * outside.value).toFixed(1)} %`,
          "without the saturated questions",
        ],
      ],
      { right: [1, 2] },
    ),
    formatTable(
      [
        heading("effect, logits", "mean", "median", ""),
        ["lambda1", fixed(mean(lambda.l1)), "", "base"],
        ["lambda2", fixed(mean(lambda.l2)), "", "tool use"],
        ["lambda3", fixed(mean(lambda.l3)), "", "reasoning"],
        ["lambda12", fixed(mean(lambda.l12)), "", "tool-use training on the reasoning"],
        ["lambda13", fixed(mean(lambda.l13)), "", "reasoning training on the tool use"],
        ["lambda23", fixed(result.mean23.value), fixed(result.median23.value), "the two trainings together"],
      ],
      { right: [1, 2] },
    ),
    formatTable(
      [
        heading("contrast of accuracies", "mean"),
        ["unified - tool - reas + base", fixed(contrasts.additive.value, 3)],
        ["unified - max(tool, reas)", fixed(contrasts.overBest.value, 3)],
      ],
      { right: [1] },
    ),
    formatTable(
      [
        heading("naive tests", "statistic", "p"),
        ["sign (against one half)", ...testCells(naiveTests.sign)],
        ["Wilcoxon (symmetry about 0)", ...testCells(naiveTests.wilcoxon)],
      ],
      { right: [1, 2] },
    ),
    [style.bold(`Read with care (smoothing: ${result.smoothing}; ${result.scope}; intervals are not computed yet)`)]
      .concat(result.warnings.map((warning) => `- ${warning}`))
      .join("\n"),
  ];
  return sections.join("\n\n");
}

function testCells(test: TestResult): [statistic: string, p: string] {
  const { statistic, pValue } = test;
  return [String(statistic), pValue >= 0.001 ? pValue.toFixed(3) : pValue.toExponential(1)];
}

function mean(values: Float64Array): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function fixed(value: number, digits = 2): string {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text;
}
