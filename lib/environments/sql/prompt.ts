import type { Question } from "../types.js";
import type { SqlEnvironment } from "./environment.js";

/**
 * A prompt of each question with the schema of its database: {schema} and {question} in the template are filled in. Reads all databases that
 * the questions name; one that is not there -> ERR_SQL_DATABASE, naming the question.
 *
 * @example
 * const prompt = await sqlPrompt(sql, questions, { template: "{schema}\n\nQuestion: {question}\n", sampleRows: 3 });
 * new Rollout(model, { prompt, environment: sql, reward: sqlReward({ environment: sql }), … });
 */
export async function sqlPrompt(
  environment: SqlEnvironment,
  questions: Iterable<Question>,
  options: { template: string; sampleRows?: number },
): Promise<(question: Question) => string> {
  const { template, sampleRows = 0 } = options;
  const schemas = new Map<string, string>();
  for (const question of questions) {
    const database = environment.databaseOf(question);
    if (!schemas.has(database)) schemas.set(database, await environment.schemaText(database, { sampleRows }));
  }
  return (question) => {
    const values: Record<string, string> = {
      schema: schemas.get(environment.databaseOf(question)) ?? "",
      question: question.question,
    };
    return template.replace(/\{(schema|question)\}/g, (_, name: string) => values[name] ?? "");
  };
}
