import { type Command, InvalidArgumentError, Option } from "commander";
import type {
  AccuracySource,
  InterferenceOptions,
  InterferenceRenderOptions,
  ReadAccuracyOptions,
  LoadedAccuracy,
  AccuracyFields,
} from "../attribution/index.js";
import { fail, RolegradError } from "../errors.js";
import { wholeNumber } from "./numbers.js";
import { printJson } from "./output.js";
import { interruptSignal } from "./signal.js";

interface Options {
  base?: string[];
  reas?: string[];
  tool?: string[];
  unified?: string[];
  hybridTool?: string[];
  hybridReas?: string[];
  format?: string;
  id?: string;
  correct?: string;
  samples?: string;
  score?: string;
  threshold?: number;
  seedField?: string;
  cluster?: string;
  missing: "error" | "drop";
  population?: "questions" | "fixed";
  draws?: number;
  seed?: number;
  smoothing: string;
  paired?: boolean;
  sampleField?: string;
  halves?: boolean;
  json?: boolean;
  csv?: string;
  svg?: string;
  html?: string;
}

const examples = `
A table is one file with all six variants, recognised by content (CSV, TSV, JSON, JSON Lines, Parquet):
  id,samples,base,reas,tool,unified,hybrid-tool,hybrid-reas      a column a variant
  variant,id,correct,samples[,seed,cluster]                      a row a variant and question
Or one file (or run directory) a variant: id,correct,samples, or a row for each sampled answer with a
score: what "rolegrad eval --out" writes, verl's validation dumps, TRL's completion logs.

  rolegrad interference table.csv
  rolegrad interference table.csv --html interference.html --svg figures --csv figures.csv
  rolegrad interference --base a.jsonl --reas b.jsonl --tool c.jsonl --unified d.jsonl \\
                        --hybrid-tool e.jsonl --hybrid-reas f.jsonl
  rolegrad interference --base a.jsonl ... --hybrid-reas f.jsonl --halves
Give --reas, --tool, ... several times where there are several trainings: they are paired by their order.
`;

/** `rolegrad interference TABLE`: attribution on a table of accuracies. */
export function register(program: Command): void {
  const gather = (file: string, before: string[] = []): string[] => [...before, file];
  const variant = (flag: string, what: string): Option =>
    new Option(`--${flag} <file>`, what).argParser(gather).helpGroup("One file or run directory a variant:");
  const field = (flag: string, what: string): Option => new Option(flag, what).helpGroup("What the rows hold:");
  const output = (flag: string, what: string): Option => new Option(flag, what).helpGroup("Output:");
  program
    .command("interference")
    .argument("[table]", "a file with all six variants, or a folder with a file or run directory for each")
    .description("how much reasoning and tool use interfere, from a table of accuracies")
    .addOption(variant("base", "the model before RL"))
    .addOption(variant("reas", "trained on reasoning tokens alone"))
    .addOption(variant("tool", "trained on tool-use tokens alone"))
    .addOption(variant("unified", "trained on all sampled tokens"))
    .addOption(variant("hybrid-tool", "base reasons, tool writes the calls"))
    .addOption(variant("hybrid-reas", "reas reasons, base writes the calls"))
    .addOption(
      field(
        "--format <name>",
        "csv, tsv, json, jsonl, parquet; or rolegrad, verl, trl, search-r1 (default: by content)",
      ),
    )
    .addOption(field("--id <field>", "the question (default: id, question, or a framework's prompt)"))
    .addOption(field("--correct <field>", "right answers, or whether this one is (default: correct)"))
    .addOption(field("--samples <field|n>", "answers a question got, or one number for all (default: samples)"))
    .addOption(field("--score <field>", 'an answer\'s score; "exact-match" scores its text (default: score, reward)'))
    .addOption(
      field("--threshold <score>", "right from this score on (default: scores are 0 or 1)").argParser((text) => {
        const value = Number(text);
        if (text.trim() === "" || !Number.isFinite(value)) throw new InvalidArgumentError("Expected a number.");
        return value;
      }),
    )
    .addOption(field("--seed-field <field>", "the training seed (default: seed, in tables of counts)"))
    .addOption(field("--cluster <field>", "questions that belong together (default: cluster)"))
    .addOption(
      field("--sample-field <field>", "an answer's number, for --paired (default: sample; else the order of the rows)"),
    )
    .addOption(
      field("--missing <what>", "a question that lacks a variant: error, or drop it and say so")
        .choices(["error", "drop"])
        .default("error"),
    )
    .option("--smoothing <name>", "haldane, laplace or none", "haldane")
    .addOption(
      new Option("--population <what>", "intervals for other questions like these, or for these ones (fixed)").choices([
        "questions",
        "fixed",
      ]),
    )
    .option("--paired", "answers of the same number share their random stream in base, reas, tool and unified")
    .option("--halves", "effects by accuracy in the other half of the samples, not by the hybrids' accuracy")
    .option("--draws <n>", "of the bootstrap (default: 1000)", wholeNumber(100))
    .option("--seed <n>", "of the draws (default: 0)", wholeNumber(0))
    .addOption(output("--json", "print everything as JSON, the table too"))
    .addOption(output("--csv <file>", "write all figures, one a row"))
    .addOption(output("--svg <folder>", "write the charts"))
    .addOption(output("--html <file>", "write a page with charts and tables that needs no network"))
    .addHelpText("after", examples)
    .action(async (table: string | undefined, options: Options) => run(table, options));
}

async function run(file: string | undefined, options: Options): Promise<void> {
  if (!["haldane", "laplace", "none"].includes(options.smoothing))
    fail("ERR_USAGE", `Expected haldane, laplace or none for --smoothing but received ${options.smoothing}`);
  const source = sourceOf(file, options);
  const { computeInterference, effectsByHalves, readAccuracyTable, summary } = await import("../attribution/index.js");
  const signal = interruptSignal();
  const table = await readAccuracyTable(source, { ...readingOptions(options), signal });
  const { population, draws, seed, paired } = options;
  const smoothing = options.smoothing as NonNullable<InterferenceOptions["smoothing"]>;
  const computing = { smoothing, population, draws, seed, signal, commonRandomNumbers: paired };
  const refused = (error: unknown): never => named(error, typeof source === "string" ? source : undefined);
  const result = await computeInterference(table, computing).catch(refused);
  const byHalves = options.halves
    ? await effectsByHalves(table, { ...computing, posterior: false }).catch(refused)
    : undefined;
  result.warnings.unshift(...leftOut(table));
  const name = typeof source === "string" ? source : "six files";
  const written = await write(result, { table, name, byHalves }, options);
  if (options.json) {
    const { denseOf } = await import("../attribution/render/dense.js");
    const found = { ...result, ...(byHalves && { byHalves }), summary: summary(result) };
    printJson({ ...found, files: table.files, table: denseOf(table.rows) });
  } else {
    const { report } = await import("./interference-text.js");
    console.log(`${report(result, table, byHalves)}\n\n${summary(result)}`);
  }
  for (const each of written) console.error(`wrote ${each}`);
}

function sourceOf(file: string | undefined, options: Options): AccuracySource {
  const { base, reas, tool, unified, hybridTool, hybridReas } = options;
  const files = { base, reas, tool, unified, hybridTool, hybridReas };
  const missing = Object.entries(files).flatMap(([name, list]) => (list === undefined ? [flagOf(name)] : []));
  if (file !== undefined && missing.length < 6)
    fail("ERR_USAGE", "Expected either one table or a file for each variant, not both");
  if (file !== undefined) return file;
  if (missing.length === 6)
    fail("ERR_USAGE", "Expected a table, or a file for each variant (--base FILE --reas FILE ...)");
  if (missing.length > 0)
    fail("ERR_USAGE", `Expected a file for each variant but there is no ${missing.join(", no ")}`);
  return files as AccuracySource;
}

function flagOf(variant: string): string {
  return `--${variant.replace(/[A-Z]/, (letter) => `-${letter.toLowerCase()}`)}`;
}

function readingOptions(options: Options): ReadAccuracyOptions {
  const { id, correct, score, seedField, cluster, samples, format, threshold, missing } = options;
  const { sampleField, paired } = options;
  if (sampleField !== undefined && paired !== true)
    fail("ERR_USAGE", "Expected --paired with --sample-field: counts need no answer's number");
  const fields: AccuracyFields = { id, correct, score, seed: seedField, cluster, sample: sampleField };
  const n = samples !== undefined && /^\d+$/.test(samples) ? Number(samples) : undefined;
  if (n === 0) fail("ERR_USAGE", "Expected a field or a number of at least 1 for --samples but received 0");
  const formats = ["csv", "tsv", "json", "jsonl", "parquet", "rolegrad", "verl", "trl", "search-r1"];
  if (format !== undefined && !formats.includes(format))
    fail("ERR_USAGE", `Expected ${formats.join(", ")} for --format but received ${format}`);
  return {
    fields: { ...fields, ...(n === undefined && { samples }) },
    samples: n,
    threshold,
    missing,
    outcomes: paired,
    format: format as ReadAccuracyOptions["format"],
  };
}

/** An error of the table says which file it is in, where there is one. */
function named(error: unknown, file: string | undefined): never {
  if (file !== undefined && error instanceof RolegradError && /^ERR_(TABLE|INFINITE_LOGIT)/.test(error.code))
    throw new RolegradError(error.code, `${file}: ${error.message}`, { cause: error });
  throw error;
}

function leftOut({ incomplete, rows }: LoadedAccuracy): string[] {
  if (incomplete.length === 0) return [];
  const kept = new Set(rows.map(({ id }) => id)).size;
  const names = incomplete.slice(0, 3).map(({ id }) => JSON.stringify(id.length > 40 ? `${id.slice(0, 37)}...` : id));
  const more = incomplete.length > names.length ? ", ..." : "";
  return [
    `${incomplete.length} of ${kept + incomplete.length} questions lack a variant and are left out (${names.join(", ")}${more}); if what is missing has to do ` +
      "with the answers, the figures are of another population.",
  ];
}

async function write(
  result: Parameters<typeof import("../attribution/index.js").summary>[0],
  shown: InterferenceRenderOptions,
  { csv, svg, html }: Options,
): Promise<string[]> {
  if (csv === undefined && svg === undefined && html === undefined) return [];
  const [{ interferenceCsv, interferenceFigures, interferencePage }, { makeFolder, writeDurable }, { default: path }] =
    await Promise.all([import("../attribution/render/index.js"), import("../durable.js"), import("node:path")]);
  const written: string[] = [];
  const put = async (file: string, text: string): Promise<void> => {
    await makeFolder(path.dirname(path.resolve(file)));
    await writeDurable(file, [text]);
    written.push(file);
  };
  if (csv !== undefined) await put(csv, await interferenceCsv(result, shown));
  if (svg !== undefined)
    for (const figure of await interferenceFigures(result, shown))
      await put(path.join(svg, `${figure.name}.svg`), figure.svg);
  if (html !== undefined) await put(html, await interferencePage(result, shown));
  return written;
}
