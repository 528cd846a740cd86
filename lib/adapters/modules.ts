import { fail } from "../errors.js";
import type { ModelConfig } from "../model/config.js";

/** The seven linears of a layer, by their last name. */
export const TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] as const;

/** Hugging Face names of all modules with these last names, in layer order. */
export function modulesOf(config: ModelConfig, targets: readonly string[]): string[] {
  const chosen = TARGETS.filter((name) => targets.includes(name));
  return Array.from({ length: config.layers }, (_, layer) =>
    chosen.map((name) => `model.layers.${layer}.${/gate|up|down/.test(name) ? "mlp" : "self_attn"}.${name}`),
  ).flat();
}

/** Numbers for the modules that a key matches. */
export type ModulePattern = Record<string, number>;

/**
 * Rank and alpha of a module, by peft's rule: a pattern's keys are regular expressions, and of each pattern the first key counts that
 * matches the module's name whole, or its end after a dot.
 */
export function pairSize(
  info: { rank: number; alpha: number; rankPattern: ModulePattern; alphaPattern: ModulePattern },
  module: string,
): { rank: number; alpha: number } {
  const find = (pattern: ModulePattern): number | undefined =>
    Object.entries(pattern).find(([key]) => patternKey(key).test(module))?.[1];
  return { rank: find(info.rankPattern) ?? info.rank, alpha: find(info.alphaPattern) ?? info.alpha };
}

/** A SyntaxError where the key is no regular expression. */
export function patternKey(key: string): RegExp {
  return new RegExp(`^(.*\\.)?(${key})$`);
}

/** [d_out, d_in] of a module. */
export function moduleShape(c: ModelConfig, module: string): [number, number] {
  switch (module.slice(module.lastIndexOf(".") + 1)) {
    case "q_proj":
      return [c.heads * c.headDim, c.hiddenSize];
    case "k_proj":
    case "v_proj":
      return [c.kvHeads * c.headDim, c.hiddenSize];
    case "o_proj":
      return [c.hiddenSize, c.heads * c.headDim];
    case "gate_proj":
    case "up_proj":
      return [c.intermediateSize, c.hiddenSize];
    case "down_proj":
      return [c.hiddenSize, c.intermediateSize];
    default:
      return fail("ERR_NO_MODULE", `Expected a linear such as model.layers.0.self_attn.q_proj but received ${module}`);
  }
}
