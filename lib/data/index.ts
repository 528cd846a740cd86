export { readDemonstrations, type ReadDemonstrationsOptions } from "./demonstrations.js";
export { readPassages } from "./passages.js";
export { readQuestions, type ReadQuestionsOptions } from "./questions.js";
