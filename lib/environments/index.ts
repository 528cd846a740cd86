export type { CallRecord, Environment, Passage, Question, ToolCall, ToolResult } from "./types.js";
export type { HttpAuth } from "./http.js";
export { managedTool, type Backoff, type ManagedTool, type ManagedToolOptions, type ToolStats } from "./managed.js";
export * from "./mcp/index.js";
export { OpenSearchClient, type OpenSearchOptions } from "./opensearch.js";
export { ReplayEnvironment, type RecordedCalls, type ReplayOptions } from "./replay.js";
export { RetrieverClient, type RetrieverOptions, type SearchClientOptions } from "./retriever.js";
export {
  startRetriever,
  type RetrieverServer,
  type RetrieverServerOptions,
  type Searcher,
} from "./retriever-server.js";
export { numberedPassages, SearchEnvironment, words, type SearchHit, type SearchOptions } from "./search.js";
export * from "./sql/index.js";
export { ToolError, type ToolErrorOptions } from "./tool-error.js";
export { ToolSet } from "./tool-set.js";
