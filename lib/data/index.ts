export { readDemonstrations, type ReadDemonstrationsOptions } from "./demonstrations.js";
export { readPassages, type PassageFields, type ReadPassagesOptions } from "./passages.js";
export { readQuestions, type QuestionFields, type ReadQuestionsOptions } from "./questions.js";
export type { ReadRowsOptions, SkippedRows } from "./rows.js";
export type { DataFormat } from "./source.js";
