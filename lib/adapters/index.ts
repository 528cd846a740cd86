export { Adapters, type AdapterInfo, type LoraPair, type Routes } from "./adapters.js";
export { createAdapters, type CreateAdaptersOptions } from "./create.js";
export type { RouterBlock } from "./mixture.js";
export type { TokenRow } from "./tokens.js";
