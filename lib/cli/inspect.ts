import path from "node:path";
import type { Command } from "commander";
import { FAMILIES } from "../model/config.js";
import type { BestCheckpoint } from "../run/best.js";
import type { Inspection } from "../run/inspect.js";
import { grouped } from "./numbers.js";
import { formatBytes, formatTable, printJson } from "./output.js";
import { style } from "./style.js";

/** `rolegrad inspect DIR`: what a directory is. */
export function register(program: Command): void {
  program
    .command("inspect")
    .argument("<dir>", "a model, a PEFT adapter, a trainer's checkpoint, a run directory or a search index")
    .description("say what a directory is, and the essentials of it")
    .option("--json", "print JSON for machines")
    .action(async (directory: string, options: { json?: boolean }) => {
      const { inspectDirectory } = await import("../run/inspect.js");
      const found = await inspectDirectory(directory);
      if (options.json) printJson(found);
      else console.log(formatTable(rowsOf(found).map(([name, value]) => [style.bold(name), value])));
    });
}

type Row = [name: string, value: string];

function rowsOf(found: Inspection): Row[] {
  switch (found.kind) {
    case "model":
      return modelRows(found);
    case "adapter":
      return [
        [found.experts > 0 ? `mixture of ${found.experts} experts` : "PEFT adapter", found.directory],
        ["rank", `${found.rank}, alpha ${found.alpha}${found.rsLora ? ", rank-stabilised" : ""}`],
        ...patternRows(found),
        ["targets", found.targets.join(", ")],
        ["modules", `${found.modules}`],
        ["parameters", grouped(found.parameters)],
      ];
    case "checkpoint":
      return [
        ["trainer's checkpoint", found.directory],
        ["steps", `${found.steps}`],
        found.agents.length > 0
          ? ["agents", `${found.agents.join(", ")}: ${found.full ? "every parameter" : "an adapter"} each`]
          : found.full
            ? ["trained", "every parameter"]
            : ["roles", routesText(found.routes)],
      ];
    case "run":
      return runRows(found);
    case "index":
      return indexRows(found);
  }
}

function patternRows({ rankPattern, alphaPattern }: Extract<Inspection, { kind: "adapter" }>): Row[] {
  const rows = Object.entries({ "rank of": rankPattern, "alpha of": alphaPattern });
  return rows.flatMap(([what, pattern]) =>
    Object.entries(pattern).map(([key, value]): Row => [what, `${key}: ${value}`]),
  );
}

function modelRows(found: Extract<Inspection, { kind: "model" }>): Row[] {
  const { config: c } = found;
  const dtypes = Object.entries(found.dtypes).map(([dtype, count]) => `${count} ${dtype}`);
  return [
    ["model", found.directory],
    [
      "architecture",
      `${FAMILIES[c.modelType]}: ${c.layers} layers of width ${c.hiddenSize}, feed-forward ${c.intermediateSize}`,
    ],
    [
      "attention",
      `${c.heads} heads of ${c.headDim}, ${c.kvHeads} for keys and values, ${grouped(c.maxPositions)} positions`,
    ],
    ...(c.ropeScaling === null
      ? []
      : [
          [
            "rope",
            `type llama3, factor ${c.ropeScaling.factor} from ${grouped(c.ropeScaling.originalMaxPositions)}`,
          ] as Row,
        ]),
    ["vocabulary", `${grouped(c.vocabSize)}${c.tied ? ", head and embedding are one" : ""}`],
    ["parameters", grouped(found.parameters)],
    ["tensors", `${found.tensors} (${dtypes.join(", ")}), ${formatBytes(found.bytes)}`],
    ["tokenizer", found.tokenizer ? "tokenizer.json" : style.warning("none: rollouts need one")],
  ];
}

function runRows(found: Extract<Inspection, { kind: "run" }>): Row[] {
  const { config, last, evaluations, checkpoints } = found;
  const text = (name: string): string => {
    const value = config[name];
    return typeof value === "string" || typeof value === "number" ? String(value) : "unknown";
  };
  const newest = checkpoints.at(-1);
  return [
    ["run", found.directory],
    ["started", `${text("startedAt")} by ${text("package")} ${text("packageVersion")}`],
    ["model", text("model")],
    ["variant", `${text("variant")}, seed ${text("seed")}`],
    ["steps", `${last?.step ?? 0} of ${text("steps")}`],
    ...(last === null ? [] : [["last step", `reward ${last.reward.toFixed(3)}, loss ${last.loss.toFixed(4)}`] as Row]),
    ...evaluations.map((e): Row => {
      const interval = `[${e.low.toFixed(3)}, ${e.high.toFixed(3)}]`;
      return [
        `step ${e.step}`,
        `exact match ${e.exactMatch.toFixed(3)} ${interval} on ${e.n} ${e.split} questions (${e.note ?? e.policy})`,
      ];
    }),
    ["checkpoint", newest === undefined ? "none" : path.join("checkpoints", `step-${String(newest).padStart(6, "0")}`)],
    ...(found.best === null ? [] : [["best", bestText(found.best)] as Row]),
    found.model ? ["model", "model"] : ["adapters", found.adapters ? "adapters" : "none yet: the run is not finished"],
    ["report", found.report ? "report.html" : "none"],
  ];
}

function bestText({ step, value }: BestCheckpoint): string {
  return `${path.join("checkpoints", `step-${String(step).padStart(6, "0")}`)} (exact match ${value.toFixed(3)})`;
}

function indexRows({ directory, header, bytes }: Extract<Inspection, { kind: "index" }>): Row[] {
  const { passages, tokens, terms, tokenizer, titleWeight, k1, b } = header;
  return [
    ["search index", directory],
    ["passages", grouped(passages)],
    ["tokens", `${grouped(tokens)}, ${grouped(terms)} different (tokenizer ${tokenizer})`],
    ["scoring", `BM25 with k1 ${k1}, b ${b}, title weight ${titleWeight}`],
    ["size", formatBytes(bytes)],
    ["built by", `rolegrad ${header.package}`],
  ];
}

function routesText(routes: Record<string, string | null>): string {
  return Object.entries(routes)
    .map(([role, adapter]) => `${role} -> ${adapter ?? "the model alone"}`)
    .join(", ");
}
