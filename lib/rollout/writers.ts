import type { Adapters } from "../adapters/adapters.js";
import { checkAdapters, checkModel, checkObject, describe } from "../arguments.js";
import { native, type NativeGenerator } from "../binding.js";
import { fail } from "../errors.js";
import type { Model } from "../model/model.js";
import type { Tokenizer } from "../model/tokenizer.js";
import type { RoleRouter } from "../roles/router.js";

/** Who writes a role's text, in place of the rollout's own model and adapters. */
export interface Writer {
  model: Model;
  /** Of this model; their routes say which of them runs each role's positions as this writer reads them. Default: the model alone. */
  adapters?: Adapters;
}

/** Whose keys and values a hybrid's writers read: see `RolloutOptions.kv`. */
export type WritersCache = "separate" | "shared";

export interface WritersOptions {
  adapters?: Adapters;
  router: RoleRouter;
  writers?: Record<string, Writer>;
  kv?: WritersCache;
}

/** Checks what does not depend on the model. */
export function checkWriters({ router, writers, kv }: WritersOptions): void {
  if (kv !== undefined && kv !== "separate" && kv !== "shared")
    fail("ERR_INVALID_ARGUMENT", `Expected "separate" or "shared" for kv but received ${describe(kv)}`);
  if (writers === undefined) return;
  checkObject(writers, "writers");
  for (const [role, writer] of Object.entries(writers)) {
    if (!router.roles.includes(role))
      fail("ERR_NO_ROLE", `Expected writers of ${router.roles.join(", ")} but received ${role}`);
    checkObject(writer, `writers.${role}`);
    checkModel(writer.model, `writers.${role}.model`);
    const { adapters } = writer;
    if (adapters === undefined) continue;
    checkAdapters(adapters, `writers.${role}.adapters`);
    if (adapters.roles.join() !== router.roles.join()) {
      fail(
        "ERR_NO_ROLE",
        `Expected the router's roles (${router.roles.join(", ")}) for writers.${role}.adapters but received ${adapters.roles.join(", ")}`,
      );
    }
  }
}

/** The rollout's own model and adapters, and those of other roles; each once. */
export function allWriters(model: Model, { adapters, router, writers = {} }: WritersOptions) {
  const list: Writer[] = [{ model, ...(adapters && { adapters }) }];
  const writerOfRole = Int32Array.from(router.roles, (role) => {
    const own = writers[role];
    if (own === undefined) return 0;
    const known = list.findIndex((other) => other.model === own.model && other.adapters === own.adapters);
    return known >= 0 ? known : list.push(own) - 1;
  });
  return { list, writerOfRole };
}

/** A generator for a rollout's writers. ERR_WRITERS where they do not fit together. */
export function makeGenerator(
  model: Model,
  tokenizer: Tokenizer,
  options: WritersOptions & { maxLength: number },
  limits: Omit<ConstructorParameters<typeof native.Generator>[1], "maxLength" | "tokenBytes" | "router">,
): NativeGenerator {
  const { router, kv = "separate", maxLength } = options;
  const { list, writerOfRole } = allWriters(model, options);
  const tokenBytes = tokenizer.tokenBytes();
  for (const { model: other, adapters } of list) {
    adapters?.checkIdle("write");
    if (other !== model) checkFits(other, model, tokenBytes, maxLength);
  }
  return new native.Generator(
    list.map(({ model: own, adapters }) => ({
      model: own.native,
      adapters: adapters?.native ?? null,
      adapterOfRole: adapters?.adapterOfRole ?? new Int32Array(router.roles.length).fill(-1),
    })),
    {
      ...limits,
      maxLength,
      tokenBytes,
      router: router.native,
      ...(list.length > 1 && { writerOfRole, sharedCache: kv === "shared" }),
    },
  );
}

function checkFits(other: Model, model: Model, tokenBytes: readonly Uint8Array[], maxLength: number): void {
  const refuse = (what: string): never =>
    fail("ERR_WRITERS", `Expected ${what} of ${model.name} and ${other.name}, which write one text between them`);
  if (other.config.vocabSize !== model.config.vocabSize) refuse("one vocabulary");
  if (other.precision !== model.precision) refuse("one precision");
  if (other.config.maxPositions < maxLength)
    fail(
      "ERR_WRITERS",
      `Expected maxLength up to ${other.config.maxPositions}, the limit of ${other.name}, but received ${maxLength}`,
    );
  const own = other.tokenizer?.tokenBytes();
  if (own === undefined || own === tokenBytes) return;
  const differs = own.length !== tokenBytes.length || own.some((bytes, i) => !sameBytes(bytes, tokenBytes[i]));
  if (differs) refuse("one tokenizer");
}

function sameBytes(a: Uint8Array, b: Uint8Array | undefined): boolean {
  return b !== undefined && Buffer.compare(a, b) === 0;
}
