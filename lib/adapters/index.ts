export {
  Adapters,
  createAdapters,
  type AdapterInfo,
  type CreateAdaptersOptions,
  type LoraPair,
  type Routes,
} from "./adapters.js";
export type { RouterBlock } from "./mixture.js";
export type { TokenRow } from "./tokens.js";
