import { existsSync } from "node:fs";
import { open, readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { count, figure, shellCommand } from "./format.js";
import { html, type Html } from "./html.js";
import type { RunFiles } from "./run.js";

/** An adapter that the run left, as its PEFT directory says. */
export interface AdapterFacts {
  name: string;
  /** Relative to the run directory. */
  folder: string;
  rank: number;
  alpha: number;
  targets: string[];
  parameters: number;
}

/** The adapters of a run: the final ones, else those of the newest checkpoint. */
export async function readAdapters(directory: string): Promise<AdapterFacts[]> {
  const checkpoints = (await list(path.join(directory, "checkpoints")))
    .filter((name) => /^step-\d+$/.test(name))
    .sort();
  const newest = checkpoints.at(-1);
  const final = await adaptersIn(directory, "adapters");
  if (final.length > 0 || newest === undefined) return final;
  const checkpoint = path.join("checkpoints", newest);
  const agents = (await list(path.join(directory, checkpoint, "agents"))).sort();
  const folders = [checkpoint, ...agents.map((name) => path.join(checkpoint, "agents", name))];
  return (await Promise.all(folders.map((folder) => adaptersIn(directory, path.join(folder, "adapters"))))).flat();
}

async function adaptersIn(directory: string, folder: string): Promise<AdapterFacts[]> {
  const names = (await list(path.join(directory, folder))).sort();
  const found = await Promise.all(names.map((name) => readAdapter(directory, path.join(folder, name), name)));
  return found.filter((adapter) => adapter !== undefined);
}

async function list(folder: string): Promise<string[]> {
  return existsSync(folder) ? readdir(folder) : [];
}

async function readAdapter(directory: string, folder: string, name: string): Promise<AdapterFacts | undefined> {
  try {
    const file = path.join(directory, folder, "adapter_config.json");
    const config = JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;
    const parameters = await countParameters(path.join(directory, folder, "adapter_model.safetensors"));
    const { r, lora_alpha: alpha, target_modules: targets } = config;
    if (typeof r !== "number" || typeof alpha !== "number" || !Array.isArray(targets)) return undefined;
    return { name, folder, rank: r, alpha, targets: targets.map(String), parameters };
  } catch {
    return undefined; // a folder that is no adapter, or half of one: the report lists those that are
  }
}

/** Parameters of a safetensors file, from its header: a length of 8 bytes, then JSON. */
async function countParameters(file: string): Promise<number> {
  const handle = await open(file);
  try {
    const { buffer } = await handle.read(Buffer.alloc(8), 0, 8, 0);
    const length = Number(buffer.readBigUInt64LE());
    if (length > 2 ** 26) return 0;
    const { buffer: header } = await handle.read(Buffer.alloc(length), 0, length, 8);
    const tensors = JSON.parse(header.toString()) as Record<string, { shape?: number[] }>;
    return Object.values(tensors).reduce((sum, { shape }) => sum + (shape?.reduce((size, n) => size * n, 1) ?? 0), 0);
  } finally {
    await handle.close();
  }
}

/** What was run, on what: the parts of config.json that a reader looks for first; all of it below. */
export function setup({ config }: RunFiles, adapters: readonly AdapterFacts[]): Html {
  const text = (value: unknown): string | undefined =>
    typeof value === "string" ? value : typeof value === "number" ? figure(value) : undefined;
  const field = (name: string): unknown =>
    name.split(".").reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], config);
  const join = (parts: (string | undefined | false)[], separator = ", "): string | undefined =>
    parts.filter((part) => typeof part === "string" && part !== "").join(separator) || undefined;
  const also = (name: string, before: string, after = ""): string | undefined => {
    const value = text(field(name));
    return value === undefined ? undefined : `${before}${value}${after}`;
  };
  const trained = adapters.reduce((sum, { parameters }) => sum + parameters, 0);
  const all = field("modelParameters");
  const share = typeof all === "number" && all > 0 ? ` (${((100 * trained) / all).toFixed(1)} % of the model's)` : "";
  const state = field("parameters") === "full" ? "all of them trained" : "frozen";
  const rows: [string, string | Html | undefined][] = [
    ["Model", join([text(field("model")), typeof all === "number" && `${count(all)} parameters, ${state}`])],
    ["Method", join([also("variant", ""), also("crossRole", "gradients between roles: ")])],
    [
      "Adapters",
      adapters.length > 0
        ? html`${adapters.map(
            ({ name, rank, alpha, parameters, targets, folder }) =>
              html`<div>
                <strong>${name}</strong>: rank ${rank}, alpha ${figure(alpha)}, ${count(parameters)} parameters on
                ${targets.length} linears a layer, in <code>${folder}</code>
              </div>`,
          )}`
        : join([also("rank", "rank "), also("alpha", "alpha ")]),
    ],
    ["Trained", trained > 0 ? `${count(trained)} parameters${share}` : undefined],
    [
      "Each step",
      join([
        also("questionsPerStep", "", " questions"),
        also("group", "", " samples each"),
        also("agent.sampling.temperature", "temperature "),
      ]),
    ],
    [
      "Optimizer",
      join([
        also("optimizer.learningRate", "AdamW, learning rate "),
        also("optimizer.warmupSteps", "", " warm-up steps"),
        also("objective.klCoefficient", "KL coefficient "),
      ]),
    ],
    ["Seed", text(field("seed"))],
    ["Machine", join([also("cpu", ""), also("instructionSet", "kernels "), also("threads", "", " threads")])],
    [
      "Software",
      join([
        join([text(field("package")), text(field("packageVersion"))], " "),
        also("numericsVersion", "numerics "),
        also("precision", "precision "),
        also("node", "Node "),
      ]),
    ],
    ["Started", text(field("startedAt"))],
  ];
  return html`<section aria-labelledby="setup">
    <h2 id="setup">Setup</h2>
    <table class="data setup">
      <tbody>
        ${rows.map(
          ([name, value]) =>
            value !== undefined &&
            html`<tr>
              <th scope="row">${name}</th>
              <td>${value}</td>
            </tr>`,
        )}
      </tbody>
    </table>
    <details>
      <summary>The whole configuration (config.json)</summary>
      <pre tabindex="0"><code>${JSON.stringify(config, null, 2)}</code></pre>
    </details>
  </section>`;
}

/** The command that gives the same run. */
export function reproduce({ config }: RunFiles): Html {
  const command = shellCommand(config["command"]);
  const version = typeof config["packageVersion"] === "string" ? ` ${config["packageVersion"]}` : "";
  return html`<section aria-labelledby="reproduce">
    <h2 id="reproduce">How to reproduce it</h2>
    ${
      command === undefined
        ? html`<p>
            This run was started from a program, not from the command line; config.json has its whole configuration.
          </p>`
        : html`<p>With rolegrad${version}${typeof config["node"] === "string" && ` on Node ${config["node"]}`}:</p>
            <pre tabindex="0"><code>${command}</code></pre>`
    }
    <p class="soft" style="margin-top:12px">
      The same version, configuration and seed give the same numbers, whatever the machine's vector instructions and
      number of threads; only the seconds differ.
    </p>
  </section>`;
}
