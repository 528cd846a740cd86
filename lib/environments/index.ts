export type { CallRecord, Environment, Passage, Question, ToolCall, ToolResult } from "./types.js";
export { ReplayEnvironment, type RecordedCalls, type ReplayOptions } from "./replay.js";
export { numberedPassages, SearchEnvironment, words, type SearchHit, type SearchOptions } from "./search.js";
export * from "./sql/index.js";
