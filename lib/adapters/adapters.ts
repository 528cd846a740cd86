import { native, type NativeAdapters } from "../binding.js";
import { checkArray, checkModel, checkObject, checkPath, describe } from "../arguments.js";
import { fail } from "../errors.js";
import type { Model } from "../model/model.js";
import {
  blockIndex,
  isMixture,
  nativeSpec,
  readMixture,
  wholeRank,
  writeMixture,
  type RouterBlock,
} from "./mixture.js";
import { modulesOf, moduleShape } from "./modules.js";
import { readPeft, writePeft } from "./peft.js";
import {
  TOKENS,
  checkTokens,
  commonTokens,
  rowOf,
  setRow,
  tokenId,
  tokenIds,
  tokenTensors,
  type TokenRow,
} from "./tokens.js";

/** Which adapter runs each role; null: the backbone alone. */
export type Routes = Record<string, string | null>;

export interface LoraPair {
  /** [r, d_in] */
  a: Float32Array;
  /** [d_out, r] */
  b: Float32Array;
}

export interface AdapterInfo {
  name: string;
  /** Of modules that no pattern names. */
  rank: number;
  alpha: number;
  rsLora: boolean;
  dropout: number;
  /** Soft routing: this adapter is a mixture of so many experts, each of `rank`. 0: hard routing. */
  experts: number;
  targets: string[];
  /** As in {@link CreateAdaptersOptions}. */
  rankPattern: Record<string, number>;
  alphaPattern: Record<string, number>;
}

/** What trainers are doing with a set of weights, however it is routed. */
const leases = new WeakMap<NativeAdapters, { users: number; writers: number }>();

/** A set of LoRA adapters on a model, and the map from roles to them. */
export class Adapters {
  readonly model: Model;
  readonly roles: readonly string[];
  readonly routes: Readonly<Routes>;
  /** By adapter index. */
  readonly list: readonly AdapterInfo[];
  /** Ids of the tokens whose rows are trained too, increasing. */
  readonly trainableTokens: readonly number[];
  /** role -> adapter index or -1 @internal */
  readonly adapterOfRole: Int32Array;
  /** @internal */
  readonly native: NativeAdapters;

  /** @internal */
  constructor(
    model: Model,
    roles: readonly string[],
    routes: Routes,
    list: readonly AdapterInfo[],
    handle: NativeAdapters,
    trainableTokens: readonly number[] = [],
  ) {
    this.model = model;
    this.roles = roles;
    this.routes = checkRoutes(roles, routes, list);
    this.list = list;
    this.native = handle;
    this.trainableTokens = trainableTokens;
    this.adapterOfRole = Int32Array.from(roles, (role) => {
      const name = routes[role];
      return name === null || name === undefined ? -1 : list.findIndex((adapter) => adapter.name === name);
    });
  }

  /** Names of the adapters. */
  get names(): string[] {
    return this.list.map(({ name }) => name);
  }

  /** Index of a role; ERR_NO_ROLE where there is none. */
  roleIndex(role: string): number {
    const index = this.roles.indexOf(role);
    if (index < 0) fail("ERR_NO_ROLE", `Expected a role among ${this.roles.join(", ")} but received ${describe(role)}`);
    return index;
  }

  /** @internal */
  indexOf(adapter: string): number {
    const index = this.list.findIndex(({ name }) => name === adapter);
    if (index < 0)
      fail("ERR_NO_ADAPTER", `Expected an adapter among ${this.names.join(", ")} but received ${describe(adapter)}`);
    return index;
  }

  /** What has moments and a clip of its own: every adapter, then the rows of trained tokens ("tokens"). @internal */
  get groups(): string[] {
    return this.trainableTokens.length > 0 ? [...this.names, TOKENS] : this.names;
  }

  /** Index of a trained token among {@link trainableTokens}; ERR_NO_TOKEN. @internal */
  tokenIndex(token: number | string): number {
    const index = this.trainableTokens.indexOf(tokenId(this.model, token));
    if (index < 0) fail("ERR_NO_TOKEN", `Expected one of trainableTokens but received ${describe(token)}`);
    return index;
  }

  get #leases(): { users: number; writers: number } {
    const found = leases.get(this.native) ?? { users: 0, writers: 0 };
    leases.set(this.native, found);
    return found;
  }

  /** ERR_MODEL_CLOSED; ERR_BUSY while a trainer replaces the weights ("write"), or works with them in any way ("any"). @internal */
  checkIdle(by: "write" | "any"): void {
    this.model.checkOpen();
    const { users, writers } = this.#leases;
    if ((by === "any" ? users : writers) > 0) {
      fail("ERR_BUSY", "Expected no training step to be running while adapters are used: await it first");
    }
  }

  /** Keeps others from the weights until the returned function is called. @internal */
  lease(writes: boolean): () => void {
    const own = this.#leases;
    own.users++;
    if (writes) own.writers++;
    return () => {
      own.users--;
      if (writes) own.writers--;
    };
  }

  /** A copy of a module's pair. ERR_BUSY while a training step runs, ERR_NO_MODULE for one that carries none, ERR_MODEL_CLOSED after `model.close()`. */
  get(adapter: string, module: string): LoraPair {
    this.checkIdle("any");
    return this.native.get(this.indexOf(adapter), module);
  }

  /** Replaces a module's pair. Non-finite values -> ERR_NOT_FINITE (isolation rests on finite adapters). */
  set(adapter: string, module: string, pair: LoraPair): void {
    checkObject(pair, "pair");
    const { a, b } = pair;
    checkArray(a, Float32Array, "a");
    checkArray(b, Float32Array, "b");
    this.checkIdle("any");
    this.native.set(this.indexOf(adapter), module, a, b);
  }

  /** Soft routing: a copy of a router [experts, hiddenSize]. ERR_NO_MODULE where there is none. */
  getRouter(layer: number, block: RouterBlock): Float32Array {
    this.checkIdle("any");
    return this.native.router(layer, blockIndex(block));
  }

  /** Replaces a router. Non-finite values -> ERR_NOT_FINITE. */
  setRouter(layer: number, block: RouterBlock, weight: Float32Array): void {
    checkArray(weight, Float32Array, "weight");
    this.checkIdle("any");
    this.native.setRouter(layer, blockIndex(block), weight);
  }

  /** A copy of a trained token's row. ERR_NO_TOKEN where it is not one of {@link trainableTokens}. */
  getToken(token: number | string): TokenRow {
    const index = this.tokenIndex(token);
    this.checkIdle("any");
    return rowOf(this.model, this.native.tokens() as Float32Array, index);
  }

  /** Replaces a trained token's row. Non-finite values -> ERR_NOT_FINITE. */
  setToken(token: number | string, row: TokenRow): void {
    const index = this.tokenIndex(token);
    this.checkIdle("any");
    const rows = this.native.tokens() as Float32Array;
    setRow(this.model, rows, index, row);
    this.native.setTokens(rows);
  }

  /** Euclidean norm of all A and B of an adapter. */
  norm(adapter: string): number {
    this.checkIdle("any");
    return this.native.norm(this.indexOf(adapter));
  }

  /** Parameters of an adapter. */
  parameterCount(adapter: string): number {
    const { config } = this.model;
    const info = this.list[this.indexOf(adapter)] as AdapterInfo;
    const routers = 2 * config.layers * info.experts * config.hiddenSize;
    return modulesOf(config, info.targets).reduce((sum, module) => {
      const [rows, columns] = moduleShape(config, module);
      return sum + wholeRank(info, module) * (rows + columns);
    }, routers);
  }

  /** The same weights under another map, e.g. `{ reason: "reason", tool: null }`. Roles that are left out keep their route. */
  withRoutes(routes: Routes): Adapters {
    checkObject(routes, "routes");
    const { model, roles, list, native: handle, trainableTokens } = this;
    return new Adapters(model, roles, { ...this.routes, ...routes }, list, handle, trainableTokens);
  }

  /**
   * Writes an adapter as a PEFT directory (adapter_config.json, adapter_model.safetensors f32). The rows of trained tokens, which all adapters
   * share, go into each. A mixture, which PEFT has no format for, is mixture.json and mixture.safetensors.
   */
  async save(directory: string, adapter: string): Promise<void> {
    checkPath(directory, "directory");
    const info = this.list[this.indexOf(adapter)] as AdapterInfo;
    if (info.experts > 0) return writeMixture(directory, this, info);
    const modules = modulesOf(this.model.config, info.targets);
    await writePeft(
      directory,
      info,
      this.model.name,
      modules.map((module) => ({ module, ...this.get(adapter, module) })),
      this.trainableTokens.length === 0
        ? undefined
        : tokenTensors(this.model, this.trainableTokens, this.native.tokens() as Float32Array),
    );
  }

  /**
   * Loads PEFT directories as the adapters of roles: `Adapters.load(model, { reason: "out/reason", tool: "out/tool" })`.
   * The same directory under two roles is one shared adapter.
   */
  static async load(model: Model, directories: Record<string, string | null>): Promise<Adapters> {
    checkModel(model, "model");
    checkObject(directories, "directories");
    const roles = Object.keys(directories);
    const routes: Routes = {};
    const owner = new Map<string, string>();
    for (const role of roles) {
      const directory = directories[role] ?? null;
      if (directory !== null) checkPath(directory, `directories.${role}`);
      if (directory !== null && !owner.has(directory)) owner.set(directory, role);
      routes[role] = directory === null ? null : (owner.get(directory) as string);
    }
    return Adapters.restore(model, roles, routes, new Map([...owner].map(([directory, name]) => [name, directory])));
  }

  /** The adapters of these names, in this order, from PEFT directories, routed or not. @internal */
  static async restore(
    model: Model,
    roles: readonly string[],
    routes: Routes,
    directories: ReadonlyMap<string, string>,
  ): Promise<Adapters> {
    const mixture = [...directories].find(([, directory]) => isMixture(directory));
    if (mixture !== undefined) return restoreMixture(model, roles, routes, mixture, directories.size);
    const loaded = await Promise.all(
      [...directories].map(async ([name, directory]) => ({ name, ...(await readPeft(directory)) })),
    );
    const list = loaded.map(({ pairs: _pairs, directory: _directory, tokens: _tokens, ...info }): AdapterInfo => info);
    for (const { directory, tokens } of loaded) if (tokens !== undefined) checkTokens(model, directory, tokens);
    const tokens = commonTokens(loaded);
    const ids = tokenIds(model, tokens?.ids ?? []);
    const adapters = new Adapters(model, roles, routes, list, allocate(model, list, ids), ids);
    tokens?.ids.forEach((id, i) => {
      // Without rows of a head of its own (PEFT trains them where lm_head is named) the model's stay.
      const head = tokens.head ?? adapters.getToken(id).head;
      const { hiddenSize } = model.config;
      const own = (rows: Float32Array, at: number): Float32Array => rows.slice(at * hiddenSize, (at + 1) * hiddenSize);
      adapters.setToken(id, {
        embedding: own(tokens.embedding, i),
        ...(!model.config.tied && head && { head: tokens.head === undefined ? head : own(head, i) }),
      });
    });
    for (const { name, targets, pairs, directory } of loaded) {
      const wanted = modulesOf(model.config, targets);
      for (const module of wanted) {
        const pair = pairs.get(module);
        if (pair === undefined)
          fail("ERR_ADAPTER_INVALID", `Expected lora_A and lora_B of ${module} in ${directory} but they are missing`);
        try {
          adapters.set(name, module, pair);
        } catch (error) {
          const { code, message } = error as { code?: string; message: string };
          fail(code ?? "ERR_INTERNAL", `${directory}: ${message}`, error);
        }
        pairs.delete(module);
      }
      const extra = [...pairs.keys()][0];
      if (extra !== undefined)
        fail("ERR_ADAPTER_INVALID", `Expected modules of ${model.name} in ${directory} but received ${extra}`);
    }
    return adapters;
  }
}

/** Zero pairs for every module of every adapter, and the rows of `tokens` as the model's, or the mean of its first `known`. @internal */
export function allocate(
  model: Model,
  list: readonly AdapterInfo[],
  tokens: readonly number[] = [],
  known = 0,
): NativeAdapters {
  const specs = list.map((info) => nativeSpec(model.config, info));
  return new native.Adapters(model.native, specs, Int32Array.from(tokens), known);
}

async function restoreMixture(
  model: Model,
  roles: readonly string[],
  routes: Routes,
  [name, directory]: [string, string],
  directories: number,
): Promise<Adapters> {
  if (directories > 1)
    fail("ERR_ADAPTER_UNSUPPORTED", `Expected the mixture in ${directory} alone: it runs every position by itself`);
  const { info, fill } = await readMixture(directory);
  const list = [{ name, ...info }];
  const adapters = new Adapters(model, roles, routes, list, allocate(model, list));
  try {
    fill(adapters);
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    fail(code ?? "ERR_INTERNAL", message.includes(directory) ? message : `${directory}: ${message}`, error);
  }
  return adapters;
}

/** @internal */
export function checkRouteRoles(roles: readonly string[], routes: Routes): void {
  const other = Object.keys(routes).find((role) => !roles.includes(role));
  if (other !== undefined)
    fail("ERR_NO_ROLE", `Expected routes of roles among ${roles.join(", ")} but received ${other}`);
}

function checkRoutes(roles: readonly string[], routes: Routes, list: readonly AdapterInfo[]): Routes {
  if (new Set(roles).size !== roles.length || roles.length > 127) {
    fail("ERR_INVALID_ARGUMENT", "Expected up to 127 distinct roles");
  }
  checkRouteRoles(roles, routes);
  for (const [role, adapter] of Object.entries(routes)) {
    if (adapter !== null && !list.some(({ name }) => name === adapter)) {
      fail(
        "ERR_NO_ADAPTER",
        `Expected the route of ${role} to an adapter among ${list.map((a) => a.name).join(", ")} but received ${adapter}`,
      );
    }
  }
  return routes;
}
