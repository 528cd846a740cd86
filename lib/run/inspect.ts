import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { isMixture, readMixture } from "../adapters/mixture.js";
import { readPeft } from "../adapters/peft.js";
import { fail } from "../errors.js";
import { readCheckpoint, type Checkpoint } from "../model/checkpoint.js";
import { parseModelConfig, type ModelConfig } from "../model/config.js";
import type { IndexHeader } from "../search/format.js";
import { isSearchIndex, readIndexHeader } from "../search/search-index.js";
import type { BestCheckpoint } from "./best.js";
import { RunDirectory, type RunDescription } from "./directory.js";
import type { EvaluationRecord, StepRecord } from "./records.js";

/** What a directory is, and its essentials. */
export type Inspection = { directory: string } & (
  | {
      kind: "model";
      config: ModelConfig;
      parameters: number;
      tensors: number;
      bytes: number;
      dtypes: Record<string, number>;
      tokenizer: boolean;
    }
  | {
      kind: "adapter";
      /** 0: a PEFT adapter; else a mixture of so many experts, each of `rank`. */
      experts: number;
      rank: number;
      alpha: number;
      rsLora: boolean;
      targets: string[];
      /** Other ranks and alphas of some modules. */
      rankPattern: Record<string, number>;
      alphaPattern: Record<string, number>;
      modules: number;
      parameters: number;
    }
  | {
      kind: "checkpoint";
      steps: number;
      /** Of every parameter, not of adapters. */
      full: boolean;
      /** Where each agent of a policy of several has a state of its own; else empty. */
      agents: string[];
      roles: string[];
      routes: Record<string, string | null>;
    }
  | {
      kind: "run";
      config: RunDescription;
      checkpoints: number[];
      /** The checkpoint of the best evaluation; null: none is kept. */
      best: BestCheckpoint | null;
      adapters: boolean;
      /** What full training has made is there. */
      model: boolean;
      report: boolean;
      last: StepRecord | null;
      evaluations: EvaluationRecord[];
    }
  | {
      kind: "index";
      header: IndexHeader;
      /** Of its files but the header. */
      bytes: number;
    }
);

/**
 * Says what a directory is: a model's checkpoint, a PEFT adapter, a trainer's checkpoint, a run directory or a search index, by the files in
 * it. None of them -> ERR_INSPECT. What is broken throws what loading it would.
 *
 * @example
 * const found = await inspectDirectory("runs/search");
 * if (found.kind === "run") console.log(found.last?.reward);
 */
export async function inspectDirectory(directory: string): Promise<Inspection> {
  const has = (name: string): boolean => existsSync(path.join(directory, name));
  if (has("adapter_config.json")) return inspectAdapter(directory);
  if (isMixture(directory)) return inspectMixture(directory);
  if (isSearchIndex(directory)) return inspectIndex(directory);
  if (has("trainer.json") || has("agents")) return inspectTrainer(directory);
  if (has("config.json")) return (await isRun(directory)) ? inspectRun(directory) : inspectModel(directory);
  if (!existsSync(directory) && /^[\w.-]+\/[\w.-]+$/.test(directory)) return inspectModel(directory);
  const what = existsSync(directory) ? "has none of their files" : "does not exist";
  return fail(
    "ERR_INSPECT",
    `Expected a model, a PEFT adapter, a trainer's checkpoint, a run directory or a search index but ${directory} ${what}`,
  );
}

/** A model's config.json names no package; what is no JSON is left for the model's reader to explain. */
async function isRun(directory: string): Promise<boolean> {
  const text = await readFile(path.join(directory, "config.json"), "utf8");
  try {
    return typeof (JSON.parse(text) as { package?: unknown } | null)?.package === "string";
  } catch {
    return false;
  }
}

async function inspectAdapter(directory: string): Promise<Inspection> {
  const { pairs, tokens: _tokens, ...info } = await readPeft(directory);
  const parameters = [...pairs.values()].reduce((sum, { a, b }) => sum + a.length + b.length, 0);
  return { kind: "adapter", ...info, modules: pairs.size, parameters };
}

async function inspectMixture(directory: string): Promise<Inspection> {
  const { info, modules, parameters } = await readMixture(directory);
  return { kind: "adapter", directory, ...info, modules, parameters };
}

async function inspectTrainer(directory: string): Promise<Inspection> {
  const own = path.join(directory, "trainer.json");
  const agents = existsSync(own) ? [] : (await readdir(path.join(directory, "agents"))).sort();
  const file = agents.length === 0 ? own : path.join(directory, "agents", agents[0] as string, "trainer.json");
  const { steps, full, roles, routes } = JSON.parse(await readFile(file, "utf8")) as {
    steps: number;
    full?: number;
    roles: string[];
    routes: Record<string, string | null>;
  };
  return { kind: "checkpoint", directory, steps, full: full !== undefined, agents, roles, routes };
}

function inspectModel(directory: string): Inspection {
  const checkpoint: Checkpoint = readCheckpoint(directory);
  const config = parseModelConfig(checkpoint.config, checkpoint.configFile);
  const dtypes: Record<string, number> = {};
  let parameters = 0;
  let bytes = 0;
  for (const { dtype, shape, begin, end } of checkpoint.tensors) {
    dtypes[dtype] = (dtypes[dtype] ?? 0) + 1;
    parameters += shape.reduce((product, size) => product * size, 1);
    bytes += end - begin;
  }
  return {
    kind: "model",
    directory: checkpoint.directory,
    config,
    parameters,
    tensors: checkpoint.tensors.length,
    bytes,
    dtypes,
    tokenizer: existsSync(path.join(checkpoint.directory, "tokenizer.json")),
  };
}

async function inspectRun(directory: string): Promise<Inspection> {
  const run = new RunDirectory(directory);
  return {
    kind: "run",
    directory: run.path,
    config: await run.readConfig(),
    checkpoints: await run.checkpoints(),
    best: (await run.best()) ?? null,
    adapters: existsSync(path.join(run.path, "adapters")),
    model: existsSync(path.join(run.path, "model")),
    report: existsSync(path.join(run.path, "report.html")),
    last: (await run.metrics()).at(-1) ?? null,
    evaluations: await run.evaluations(),
  };
}

async function inspectIndex(directory: string): Promise<Inspection> {
  const header = await readIndexHeader(directory);
  const bytes = Object.values(header.files).reduce((sum, file) => sum + file.bytes, 0);
  return { kind: "index", directory, header, bytes };
}
