export { exactMatch, exactMatchReward, type AnswerTags, type ExactMatch } from "./exact-match.js";
export type { Judged, Reward } from "./types.js";
export { sqlReward, type SqlRewardOptions } from "./sql.js";
export { isOrdered, sameRows } from "./sql-rows.js";
