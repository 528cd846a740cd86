export { exactMatch, exactMatchReward, type AnswerTags, type ExactMatch } from "./exact-match.js";
export type { Judged, Reward } from "./types.js";
