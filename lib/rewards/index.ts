export { coverMatch, coverMatchReward, type CoverMatchOptions } from "./cover-match.js";
export { exactMatch, exactMatchReward, type AnswerTags, type ExactMatch } from "./exact-match.js";
export { f1, f1Reward } from "./f1.js";
export { formatFaults, formatReward, type FormatOptions } from "./format.js";
export { retrievalHit } from "./retrieval.js";
export { sqlReward, type SqlRewardOptions } from "./sql.js";
export { isOrdered, sameRows } from "./sql-rows.js";
export type { Judged, Reward, ScoredParts } from "./types.js";
export { weightedReward, type WeightedPart } from "./weighted.js";
