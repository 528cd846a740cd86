import { checkInteger, checkModel, checkObject, checkStrings, describe } from "../arguments.js";
import { fail } from "../errors.js";
import type { Model } from "../model/model.js";
import { Random } from "../random.js";
import { Adapters, allocate, checkRouteRoles, type AdapterInfo, type LoraPair, type Routes } from "./adapters.js";
import { MIXTURE, initialRouter, joinExperts, routersOf } from "./mixture.js";
import { TARGETS, modulesOf, moduleShape, pairSize, patternKey, type ModulePattern } from "./modules.js";
import { TOKENS, tokenIds } from "./tokens.js";

export interface CreateAdaptersOptions {
  /** Role names; `roles[i]` is the role i of every roles array. */
  roles: string[];
  /** Role -> adapter. Default: one adapter per role, of its name. Two roles may share an adapter. */
  routes?: Routes;
  /** Rank of all adapters, or of each. */
  rank: number | Record<string, number>;
  /** Of all adapters, or of each. Scale = alpha / rank (alpha / sqrt(rank) with `rsLora`). */
  alpha: number | Record<string, number>;
  rsLora?: boolean;
  /**
   * Other ranks and alphas of some modules, in every adapter, as peft's `rank_pattern` and `alpha_pattern`: keys are regular expressions
   * for a module's name or its end, and the first that matches counts.
   *
   * @example
   * { rankPattern: { "layers.0.mlp.down_proj": 16, q_proj: 4 } }
   */
  rankPattern?: Record<string, number>;
  alphaPattern?: Record<string, number>;
  /** Linears that carry a pair, by their last name. Default: all seven. */
  targets?: string[];
  /**
   * LoRA dropout, in [0, 1): in training steps alone A reads x with so large a share of its entries dropped and the others scaled up. The mask
   * is drawn by position in the trajectory, so batches and threads change nothing. q, k and v share theirs, and so do gate and up. @default 0
   */
  dropout?: number;
  /** Of the initial A. @default 0 */
  seed?: number;
  /**
   * "hard" (default): a position runs the adapter of its role. "soft": every position runs a mixture of experts whose gates routers compute from
   * what it reads (MixLoRA, see {@link RouterBlock}); roles then only say what a token is. One adapter, "mixture", holds the experts' pairs side by
   * side: `get` gives a [experts * rank, d_in] and b [d_out, experts * rank].
   */
  routing?: "hard" | "soft";
  /** Experts of soft routing. @default one a role */
  experts?: number;
  /**
   * Tokens (ids, or entries of the tokenizer) whose rows of the embedding and of the head are trained too, for tags that the checkpoint has
   * not learned (see `addTokens` of loadModel). One row a token, shared by all roles. PEFT's trainable_token_indices. @default none
   */
  trainableTokens?: (number | string)[];
  /** What these rows begin as: the model's own, or the mean of the rows of all tokens that the tokenizer knows. @default "model" */
  tokenInit?: "model" | "mean";
}

/**
 * New adapters: A Kaiming-uniform (a = sqrt 5, i.e. uniform in +-1 / sqrt(d_in), as PEFT initialises it), B zero, so that they change nothing
 * until they are trained (method.md, eq. 10).
 *
 * @example
 * createAdapters(model, { roles: ["reason", "tool"], rank: 8, alpha: 16 }); // DART
 * createAdapters(model, { roles: ["reason", "tool"], routes: { reason: "shared", tool: "shared" }, rank: 16, alpha: 32 }); // one LoRA
 * createAdapters(model, { roles: ["reason", "tool"], routing: "soft", rank: 8, alpha: 16 }); // MixLoRA
 */
export function createAdapters(model: Model, options: CreateAdaptersOptions): Adapters {
  checkModel(model, "model");
  checkObject(options, "options");
  const { roles, rsLora = false, targets = [...TARGETS], dropout = 0, seed = 0 } = options;
  const { rankPattern = {}, alphaPattern = {} } = options;
  checkStrings(roles, "roles");
  if (roles.length === 0) fail("ERR_INVALID_ARGUMENT", "Expected at least one role but received none");
  if (options.routes !== undefined) checkObject(options.routes, "routes");
  checkStrings(targets, "targets");
  if (typeof dropout !== "number" || !(dropout >= 0 && dropout < 1)) {
    fail("ERR_INVALID_ARGUMENT", `Expected dropout from 0 to below 1 but received ${describe(dropout)}`);
  }
  const { routing = "hard" } = options;
  if (routing !== "hard" && routing !== "soft")
    fail("ERR_INVALID_ARGUMENT", `Expected routing "hard" or "soft" but received ${describe(routing)}`);
  const experts = routing === "soft" ? (options.experts ?? roles.length) : 0;
  if (routing === "soft") checkInteger(experts, "experts", 1, 256);
  else if (options.experts !== undefined) fail("ERR_INVALID_ARGUMENT", 'Expected no experts but with routing: "soft"');
  const routeOf = (role: string): string => (routing === "soft" ? MIXTURE : role);
  const routes: Routes = Object.fromEntries(
    roles.map((role) => [role, options.routes === undefined ? routeOf(role) : (options.routes[role] ?? null)]),
  );
  checkRouteRoles(roles, options.routes ?? {});
  const names = [...new Set(Object.values(routes).filter((name) => name !== null))];
  if (routing === "soft") {
    if (names.length !== 1)
      fail("ERR_INVALID_ARGUMENT", `Expected routes to one adapter, the mixture, but received ${names.join(", ")}`);
    if ((options.trainableTokens ?? []).length > 0)
      fail("ERR_UNSUPPORTED", 'Expected no trainableTokens with routing: "soft" in this version');
    if (Object.keys({ ...rankPattern, ...alphaPattern }).length > 0)
      fail("ERR_UNSUPPORTED", 'Expected no rankPattern and no alphaPattern with routing: "soft" in this version');
  }
  const unknown = targets.find((name) => !(TARGETS as readonly string[]).includes(name));
  if (unknown !== undefined)
    fail("ERR_NO_MODULE", `Expected targets among ${TARGETS.join(", ")} but received ${describe(unknown)}`);
  checkPattern(rankPattern, "rankPattern", (rank, key) => checkInteger(rank, key, 1, 4096));
  checkPattern(alphaPattern, "alphaPattern", checkAlpha);
  for (const [field, value] of Object.entries({ rank: options.rank, alpha: options.alpha })) {
    if (typeof value !== "object" || value === null) continue;
    const other = Object.keys(value).find((name) => !names.includes(name));
    if (other !== undefined)
      fail("ERR_NO_ADAPTER", `Expected ${field} by adapter among ${names.join(", ")} but received ${other}`);
  }
  const list = names.map((name): AdapterInfo => {
    const own = <T>(value: T | Record<string, T>): T =>
      typeof value === "object" && value !== null ? ((value as Record<string, T>)[name] as T) : value;
    const [rank, alpha] = [own(options.rank), own(options.alpha)];
    checkInteger(rank, `rank of adapter ${name}`, 1, 4096);
    checkAlpha(alpha, `alpha of adapter ${name}`);
    return { name, rank, alpha, rsLora, dropout, experts, targets, rankPattern, alphaPattern };
  });
  const tokens = tokenIds(model, options.trainableTokens ?? []);
  if (tokens.length > 0 && names.includes(TOKENS))
    fail(
      "ERR_INVALID_ARGUMENT",
      `Expected no adapter named "${TOKENS}" beside trainableTokens: that is what their rows are called`,
    );
  const { tokenInit = "model" } = options;
  if (tokenInit !== "model" && tokenInit !== "mean")
    fail("ERR_INVALID_ARGUMENT", `Expected tokenInit "model" or "mean" but received ${describe(tokenInit)}`);
  const { vocabSize } = model.config;
  const known = tokenInit === "mean" ? Math.min(vocabSize, model.tokenizer?.vocabularySize ?? vocabSize) : 0;
  const adapters = new Adapters(model, roles, routes, list, allocate(model, list, tokens, known), tokens);
  for (const info of list) {
    const { name } = info;
    for (const module of modulesOf(model.config, targets)) {
      const { rank } = pairSize(info, module);
      const [rows, columns] = moduleShape(model.config, module);
      const pair = (of: string): LoraPair => {
        const random = new Random(seed, `adapter/${of}/${module}`);
        const bound = 1 / Math.sqrt(columns);
        const a = Float32Array.from({ length: rank * columns }, () => (2 * random.next() - 1) * bound);
        return { a, b: new Float32Array(rows * rank) };
      };
      const each = Array.from({ length: experts }, (_, v) => pair(`${name}.${v}`));
      adapters.set(name, module, experts > 0 ? joinExperts(each, rank) : pair(name));
    }
  }
  for (const { layer, block } of experts > 0 ? routersOf(model.config) : []) {
    const random = new Random(seed, `router/${layer}/${block}`);
    adapters.setRouter(layer, block, initialRouter(model.config, experts, random));
  }
  return adapters;
}

function checkAlpha(alpha: unknown, name: string): void {
  if (typeof alpha !== "number" || !Number.isFinite(alpha))
    fail("ERR_INVALID_ARGUMENT", `Expected a finite ${name} but received ${describe(alpha)}`);
}

function checkPattern(pattern: ModulePattern, name: string, check: (value: number, key: string) => void): void {
  checkObject(pattern, name);
  for (const [key, value] of Object.entries(pattern)) {
    check(value, `${name}[${JSON.stringify(key)}]`);
    try {
      patternKey(key);
    } catch (cause) {
      fail("ERR_INVALID_ARGUMENT", `Expected a regular expression in ${name} but received ${key}`, cause);
    }
  }
}
