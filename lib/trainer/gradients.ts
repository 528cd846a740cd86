import type { LoraPair } from "../adapters/adapters.js";
import { blockIndex, type RouterBlock } from "../adapters/mixture.js";
import { rowOf, type TokenRow } from "../adapters/tokens.js";
import { fail } from "../errors.js";
import { keptAs, roleIndex } from "./options.js";
import type { Trainer } from "./trainer.js";

/** Gradient buffers, by adapter and module (or by parameter in full training). */
export interface Gradients {
  /**
   * The gradient accumulated so far: of a pair, `get(adapter, module)`; in full training of a parameter, `get(name)`.
   * `lossRole`: the part that the loss of this role's tokens gave; ERR_NOT_KEPT without `trackLossRoles` or crossRole "exact" (which keeps
   * it for adapters that run one role).
   */
  get(adapter: string, module: string, options?: { lossRole?: string }): LoraPair;
  get(parameter: string): Float32Array;
  /** The gradient of a trained token's row (see `trainableTokens` of createAdapters). */
  token(token: number | string): TokenRow;
  /** Soft routing: the gradient of a router [experts, hiddenSize]. */
  router(layer: number, block: RouterBlock): Float32Array;
  /** Euclidean norm by adapter; of the rows of trained tokens under "tokens"; in full training { full }. */
  norms(): Record<string, number>;
  zero(): void;
}

/** The buffers of a trainer; `checkIdle` throws while it works, `zeroed` hears that they have been emptied. */
export function gradientsOf(trainer: Trainer, checkIdle: () => void, zeroed: () => void): Gradients {
  const { native: handle, adapters, model, groups } = trainer;
  return {
    get: ((name: string, module?: string, { lossRole }: { lossRole?: string } = {}) => {
      checkIdle();
      if (adapters === undefined) {
        if (lossRole !== undefined)
          fail("ERR_NOT_KEPT", "Expected no lossRole: full training keeps one gradient for the whole loss");
        return handle.gradient(-1, name, -1).value;
      }
      if (module === undefined) fail("ERR_INVALID_ARGUMENT", "Expected an adapter and a module");
      const adapter = adapters.indexOf(name);
      const pair = handle.gradient(adapter, module, -1);
      if (lossRole === undefined) return pair;
      const kept = keptAs(adapters, trainer.options, adapter, roleIndex(trainer.roles, lossRole));
      return kept === "whole" ? pair : handle.gradient(adapter, module, kept);
    }) as Gradients["get"],
    token: (token) => {
      checkIdle();
      if (adapters === undefined) fail("ERR_NO_TOKEN", "Expected adapters: in full training every row is trained");
      const index = adapters.tokenIndex(token);
      return rowOf(model, handle.tokenGradient() as Float32Array, index);
    },
    router: (layer, block) => {
      checkIdle();
      return handle.routerGradient(layer, blockIndex(block));
    },
    norms: () => {
      checkIdle();
      const norms = handle.norms();
      return Object.fromEntries(groups.map((name, i) => [name, norms[i] ?? 0]));
    },
    zero: () => {
      checkIdle();
      handle.zero();
      zeroed();
    },
  };
}
