export { SqlEnvironment, type SqlOptions, type SqlQueryOptions } from "./environment.js";
export type { SqlDatabase } from "./databases.js";
export { sqlTable, type SqlTable } from "./format.js";
export { sqlPrompt } from "./prompt.js";
export type { SqlRows, SqlValue } from "./protocol.js";
