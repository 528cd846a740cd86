export { readPassages } from "./passages.js";
export { readQuestions, type ReadQuestionsOptions } from "./questions.js";
