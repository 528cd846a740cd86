import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { z } from "zod";
import type { NativeAdapterSpec } from "../binding.js";
import { describe } from "../arguments.js";
import { writeDurable } from "../durable.js";
import { fail } from "../errors.js";
import type { ModelConfig } from "../model/config.js";
import { readSafetensors, writeSafetensors, type TensorData } from "../model/safetensors.js";
import { Random } from "../random.js";
import type { AdapterInfo, Adapters, LoraPair } from "./adapters.js";
import { readSettings } from "./json.js";
import { modulesOf, pairSize } from "./modules.js";

/**
 * Soft routing (MixLoRA): one adapter of R experts, y = W x + sum_v g_v scale B_v A_v x, g = softmax(Wg x) over the experts. Each layer has two
 * routers Wg [R, hiddenSize]: "attention" reads what q, k and v read and gates q, k, v and o; "mlp" reads what gate and up read and gates
 * gate, up and down. MixLoRA routes a feed-forward block by one router that reads the block's input; here attention has one too, because all
 * seven linears carry experts.
 */
export type RouterBlock = "attention" | "mlp";

const BLOCKS: readonly RouterBlock[] = ["attention", "mlp"];

/** The name of the only adapter of soft routing, unless `routes` says another. */
export const MIXTURE = "mixture";

/** Every router of a model, by layer. */
export function routersOf(config: ModelConfig): { layer: number; block: RouterBlock }[] {
  return Array.from({ length: config.layers }, (_, layer) => BLOCKS.map((block) => ({ layer, block }))).flat();
}

/** The experts' pairs lie side by side in one, of rank R * rank. */
export function nativeSpec(config: ModelConfig, info: AdapterInfo): NativeAdapterSpec {
  const { name, rsLora, dropout, experts, targets } = info;
  const modules = modulesOf(config, targets).map((module) => {
    return { module, rank: wholeRank(info, module), alpha: pairSize(info, module).alpha };
  });
  return { name, rsLora, dropout, experts, modules };
}

/** Rank of a module's pair, all experts together. */
export function wholeRank(info: AdapterInfo, module: string): number {
  return pairSize(info, module).rank * Math.max(info.experts, 1);
}

/** Number of a router's block in the engine; ERR_NO_MODULE. */
export function blockIndex(block: RouterBlock): number {
  const index = BLOCKS.indexOf(block);
  if (index < 0) fail("ERR_NO_MODULE", `Expected a router of "attention" or "mlp" but received ${describe(block)}`);
  return index;
}

/** Routers as torch.nn.Linear begins: uniform in +-1 / sqrt(hiddenSize). */
export function initialRouter(config: ModelConfig, experts: number, random: Random): Float32Array {
  const bound = 1 / Math.sqrt(config.hiddenSize);
  return Float32Array.from({ length: experts * config.hiddenSize }, () => (2 * random.next() - 1) * bound);
}

const FILE = "mixture.json";
const WEIGHTS = "mixture.safetensors";

const schema = z.strictObject({
  version: z.literal(1),
  experts: z.number().int().min(1).max(256),
  rank: z.number().int().positive().max(4096),
  alpha: z.number(),
  rsLora: z.boolean(),
  dropout: z.number().min(0).lt(1),
  targets: z.array(z.string()),
});

/** true: the directory holds a mixture, not a PEFT adapter. */
export function isMixture(directory: string): boolean {
  return existsSync(path.join(directory, FILE));
}

const routerName = (layer: number, block: RouterBlock): string => `model.layers.${layer}.${block}.router.weight`;

/**
 * mixture.json (settings, written last) and mixture.safetensors: EXPERT.MODULE.lora_A [r, d_in], EXPERT.MODULE.lora_B [d_out, r] for experts 0 .. R - 1, and
 * model.layers.N.attention.router.weight, model.layers.N.mlp.router.weight [R, hiddenSize].
 */
export async function writeMixture(directory: string, adapters: Adapters, info: AdapterInfo): Promise<void> {
  const { name, experts, rank, alpha, rsLora, dropout, targets } = info;
  const { config } = adapters.model;
  await mkdir(directory, { recursive: true });
  const tensors: TensorData[] = [];
  for (const module of modulesOf(config, targets)) {
    const pair = adapters.get(name, module);
    for (let v = 0; v < experts; v++) {
      const { a, b } = expertOf(pair, experts, rank, v);
      const add = (side: string, shape: number[], data: Float32Array): unknown =>
        tensors.push({ name: `${v}.${module}.lora_${side}`, dtype: "F32", shape, data });
      add("A", [rank, a.length / rank], a);
      add("B", [b.length / rank, rank], b);
    }
  }
  for (const { layer, block } of routersOf(config)) {
    const data = adapters.getRouter(layer, block);
    tensors.push({ name: routerName(layer, block), dtype: "F32", shape: [experts, config.hiddenSize], data });
  }
  await writeSafetensors(path.join(directory, WEIGHTS), tensors);
  const settings: z.infer<typeof schema> = { version: 1, experts, rank, alpha, rsLora, dropout, targets };
  await writeDurable(path.join(directory, FILE), `${JSON.stringify(settings, null, 2)}\n`);
}

/** Reads what {@link writeMixture} wrote: its settings, and a function that puts the weights into new adapters. */
export async function readMixture(directory: string): Promise<{
  info: Omit<AdapterInfo, "name">;
  modules: number;
  parameters: number;
  fill: (adapters: Adapters) => void;
}> {
  const file = path.join(directory, FILE);
  const { version: _, ...settings } = readSettings(file, schema);
  const info = { ...settings, rankPattern: {}, alphaPattern: {} };
  const { experts, rank } = info;
  const weights = path.join(directory, WEIGHTS);
  const tensors = await readSafetensors(weights);
  const parameters = [...tensors.values()].reduce((sum, { data }) => sum + data.length, 0);
  const modules = [...tensors.keys()].filter((name) => /^0\..*\.lora_A$/.test(name)).length;
  const take = (name: string, rows: number | undefined, columns: number | undefined): Float32Array => {
    const found = tensors.get(name);
    if (found === undefined)
      return fail("ERR_ADAPTER_INVALID", `Expected ${name} in ${weights} but it is missing: is it of this model?`);
    const { shape, data } = found;
    if (shape.length !== 2 || shape[0] !== (rows ?? shape[0]) || shape[1] !== (columns ?? shape[1])) {
      const wanted = [rows ?? "rows", columns ?? "columns"].join(", ");
      fail("ERR_ADAPTER_INVALID", `Expected [${wanted}] for ${name} in ${weights} but received [${shape.join(", ")}]`);
    }
    tensors.delete(name);
    return data;
  };
  const fill = (adapters: Adapters): void => {
    const { config } = adapters.model;
    const name = adapters.names[0] as string;
    for (const module of modulesOf(config, info.targets)) {
      const pairs = Array.from({ length: experts }, (__, v) => ({
        a: take(`${v}.${module}.lora_A`, rank, undefined),
        b: take(`${v}.${module}.lora_B`, undefined, rank),
      }));
      adapters.set(name, module, joinExperts(pairs, rank));
    }
    for (const { layer, block } of routersOf(config))
      adapters.setRouter(layer, block, take(routerName(layer, block), experts, config.hiddenSize));
    const extra = [...tensors.keys()][0];
    if (extra !== undefined)
      fail("ERR_ADAPTER_INVALID", `Expected modules of ${adapters.model.name} in ${weights} but received ${extra}`);
  };
  return { info, modules, parameters, fill };
}

/** Expert v's pair out of all: rows v * rank .. of a, columns v * rank .. of b. */
function expertOf({ a, b }: LoraPair, experts: number, rank: number, v: number): LoraPair {
  const width = a.length / (experts * rank);
  const outputs = b.length / (experts * rank);
  const own = new Float32Array(outputs * rank);
  for (let n = 0; n < outputs; n++) {
    const at = n * experts * rank + v * rank;
    own.set(b.subarray(at, at + rank), n * rank);
  }
  return { a: a.slice(v * rank * width, (v + 1) * rank * width), b: own };
}

/** The experts' pairs side by side. */
export function joinExperts(pairs: readonly LoraPair[], rank: number): LoraPair {
  const outputs = (pairs[0] as LoraPair).b.length / rank;
  const all = pairs.length * rank;
  const b = new Float32Array(outputs * all);
  pairs.forEach((pair, v) => {
    for (let n = 0; n < outputs; n++) b.set(pair.b.subarray(n * rank, (n + 1) * rank), n * all + v * rank);
  });
  return { a: Float32Array.from(pairs.flatMap((pair) => [...pair.a])), b };
}
