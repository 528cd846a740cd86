export { buildSearchIndex, type BuildSearchIndexOptions, type BuiltIndex } from "./build.js";
export type { IndexHeader } from "./format.js";
export { isSearchIndex, readIndexHeader, SearchIndex, type SearchIndexOptions } from "./search-index.js";
