import { native, type NativeAdapters, type NativeAdapterSpec } from "../binding.js";
import { checkArray, checkInteger, checkModel, checkObject, checkStrings, describe } from "../arguments.js";
import { fail } from "../errors.js";
import type { Model } from "../model/model.js";
import { Random } from "../random.js";
import { TARGETS, modulesOf, moduleShape } from "./modules.js";
import { readPeft, writePeft } from "./peft.js";

/** Which adapter runs each role; null: the backbone alone. */
export type Routes = Record<string, string | null>;

export interface CreateAdaptersOptions {
  /** Role names; `roles[i]` is the role i of every roles array. */
  roles: string[];
  /** Role -> adapter. Default: one adapter per role, of its name. Two roles may share an adapter. */
  routes?: Routes;
  /** Rank of all adapters, or of each. */
  rank: number | Record<string, number>;
  /** Scale = alpha / rank (alpha / sqrt(rank) with `rsLora`). */
  alpha: number;
  rsLora?: boolean;
  /** Linears that carry a pair, by their last name. Default: all seven. */
  targets?: string[];
  /** Only 0 in this version (else ERR_UNSUPPORTED). @default 0 */
  dropout?: number;
  /** Of the initial A. @default 0 */
  seed?: number;
}

export interface LoraPair {
  /** [r, d_in] */
  a: Float32Array;
  /** [d_out, r] */
  b: Float32Array;
}

export interface AdapterInfo {
  name: string;
  rank: number;
  alpha: number;
  rsLora: boolean;
  targets: string[];
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
  ) {
    this.model = model;
    this.roles = roles;
    this.routes = checkRoutes(roles, routes, list);
    this.list = list;
    this.native = handle;
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

  /** A copy of a module's pair. ERR_BUSY while a training step runs, ERR_MODEL_CLOSED after `model.close()`. */
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

  /** Euclidean norm of all A and B of an adapter. */
  norm(adapter: string): number {
    this.checkIdle("any");
    return this.native.norm(this.indexOf(adapter));
  }

  /** Parameters of an adapter. */
  parameterCount(adapter: string): number {
    const { rank, targets } = this.list[this.indexOf(adapter)] as AdapterInfo;
    return modulesOf(this.model.config, targets).reduce((sum, module) => {
      const [rows, columns] = moduleShape(this.model.config, module);
      return sum + rank * (rows + columns);
    }, 0);
  }

  /** The same weights under another map, e.g. `{ reason: "reason", tool: null }`. Roles that are left out keep their route. */
  withRoutes(routes: Routes): Adapters {
    checkObject(routes, "routes");
    return new Adapters(this.model, this.roles, { ...this.routes, ...routes }, this.list, this.native);
  }

  /** Writes an adapter as a PEFT directory (adapter_config.json, adapter_model.safetensors f32). */
  async save(directory: string, adapter: string): Promise<void> {
    const info = this.list[this.indexOf(adapter)] as AdapterInfo;
    const modules = modulesOf(this.model.config, info.targets);
    await writePeft(
      directory,
      info,
      this.model.name,
      modules.map((module) => ({ module, ...this.get(adapter, module) })),
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
    const loaded = await Promise.all(
      [...directories].map(async ([name, directory]) => ({ name, ...(await readPeft(directory)) })),
    );
    const specs = loaded.map(({ name, rank, alpha, rsLora, targets }) => ({ name, rank, alpha, rsLora, targets }));
    const adapters = new Adapters(model, roles, routes, specs, new native.Adapters(model.native, specs));
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

function checkRoutes(roles: readonly string[], routes: Routes, list: readonly AdapterInfo[]): Routes {
  if (new Set(roles).size !== roles.length || roles.length > 127) {
    fail("ERR_INVALID_ARGUMENT", "Expected up to 127 distinct roles");
  }
  for (const [role, adapter] of Object.entries(routes)) {
    if (!roles.includes(role))
      fail("ERR_NO_ROLE", `Expected routes of roles among ${roles.join(", ")} but received ${role}`);
    if (adapter !== null && !list.some(({ name }) => name === adapter)) {
      fail(
        "ERR_NO_ADAPTER",
        `Expected the route of ${role} to an adapter among ${list.map((a) => a.name).join(", ")} but received ${adapter}`,
      );
    }
  }
  return routes;
}

/**
 * New adapters: A Kaiming-uniform (a = sqrt 5, i.e. uniform in +-1 / sqrt(d_in), as PEFT initialises it), B zero, so that they change nothing
 * until they are trained (method.md, eq. 10).
 *
 * @example
 * createAdapters(model, { roles: ["reason", "tool"], rank: 8, alpha: 16 }); // DART
 * createAdapters(model, { roles: ["reason", "tool"], routes: { reason: "shared", tool: "shared" }, rank: 16, alpha: 32 }); // one LoRA
 */
export function createAdapters(model: Model, options: CreateAdaptersOptions): Adapters {
  const { roles, alpha, rsLora = false, targets = [...TARGETS], dropout = 0, seed = 0 } = options;
  checkModel(model, "model");
  checkStrings(roles, "roles");
  if (roles.length === 0) fail("ERR_INVALID_ARGUMENT", "Expected at least one role but received none");
  if (options.routes !== undefined) checkObject(options.routes, "routes");
  checkStrings(targets, "targets");
  if (dropout !== 0) {
    fail("ERR_UNSUPPORTED", `Expected dropout 0 in this version but received ${describe(dropout)}`);
  }
  const routes: Routes = Object.fromEntries(
    roles.map((role) => [role, options.routes === undefined ? role : (options.routes[role] ?? null)]),
  );
  for (const role of Object.keys(options.routes ?? {})) {
    if (!roles.includes(role))
      fail("ERR_NO_ROLE", `Expected routes of roles among ${roles.join(", ")} but received ${role}`);
  }
  const names = [...new Set(Object.values(routes).filter((name) => name !== null))];
  if (typeof alpha !== "number" || !Number.isFinite(alpha))
    fail("ERR_INVALID_ARGUMENT", `Expected a finite alpha but received ${describe(alpha)}`);
  const list = names.map((name): NativeAdapterSpec => {
    const ranks: unknown = options.rank;
    const rank = typeof ranks === "object" && ranks !== null ? (ranks as Record<string, unknown>)[name] : ranks;
    checkInteger(rank, `rank of adapter ${name}`, 1, 4096);
    return { name, rank: rank as number, alpha, rsLora, targets };
  });
  const adapters = new Adapters(model, roles, routes, list, new native.Adapters(model.native, list));
  for (const { name, rank } of list) {
    for (const module of modulesOf(model.config, targets)) {
      const [rows, columns] = moduleShape(model.config, module);
      const random = new Random(seed, `adapter/${name}/${module}`);
      const bound = 1 / Math.sqrt(columns);
      const a = Float32Array.from({ length: rank * columns }, () => (2 * random.next() - 1) * bound);
      adapters.set(name, module, { a, b: new Float32Array(rows * rank) });
    }
  }
  return adapters;
}
