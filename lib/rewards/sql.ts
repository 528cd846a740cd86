import type { SqlEnvironment } from "../environments/sql/environment.js";
import { unfenced } from "../environments/sql/format.js";
import type { SqlRows } from "../environments/sql/protocol.js";
import type { Question } from "../environments/types.js";
import { fail, RolegradError } from "../errors.js";
import { lastAnswer, type AnswerTags } from "./exact-match.js";
import { isOrdered, sameRows } from "./sql-rows.js";
import type { Reward } from "./types.js";

export interface SqlRewardOptions {
  environment: SqlEnvironment;
  /** The gold query: the field that holds it, or a function. @default "sql" */
  gold?: string | ((question: Question) => string);
  answer?: AnswerTags;
  /** Relative difference within which numbers with a fraction count as equal. @default 1e-9 */
  tolerance?: number;
  /** A longer result scores 0, and a longer gold result is an error. @default 100_000 */
  maxRows?: number;
}

/**
 * Execution result equality: 1 where the query of the last answer gives the rows of the gold query on the question's database, else 0. Columns by
 * position, rows as a multiset, in order where the gold query orders its result ({@link isOrdered}); values as {@link sameRows} has it. An answer
 * that is no query, fails or is refused scores 0. Gold results are kept. A gold query that is missing or fails -> ERR_SQL_GOLD, naming the question.
 *
 * @example
 * const reward = sqlReward({ environment: sql });
 * await reward({ response: "<answer> SELECT 2 - 1 </answer>", … }, { sql: "SELECT 1.0", db: "concerts", … }); // 1
 */
export function sqlReward(options: SqlRewardOptions): Reward {
  const { environment, gold: field = "sql", answer = {}, tolerance = 1e-9, maxRows = 100_000 } = options;
  const { open = "<answer>", close = "</answer>" } = answer;
  const known = new Map<string, Promise<SqlRows>>();

  const goldOf = (question: Question): string => {
    const gold = typeof field === "function" ? field(question) : question[field];
    if (typeof gold === "string" && gold.trim() !== "") return gold;
    const where = typeof field === "string" ? ` in field ${field}` : "";
    return fail(
      "ERR_SQL_GOLD",
      `Expected a gold query${where} of question ${question.id} but received ${String(gold)}`,
    );
  };
  const resultOf = async (question: Question, database: string, gold: string): Promise<SqlRows> => {
    const key = `${database}\0${gold}`;
    let result = known.get(key);
    if (result === undefined) {
      result = environment.query(database, gold, { maxRows });
      known.set(key, result);
    }
    try {
      return await result;
    } catch (cause) {
      known.delete(key);
      const what = `Expected a gold query that runs for question ${question.id}`;
      return fail("ERR_SQL_GOLD", `${what}: ${(cause as Error).message}`, cause);
    }
  };

  return async ({ response }, question) => {
    const database = environment.databaseOf(question);
    const gold = goldOf(question);
    const expected = await resultOf(question, database, gold);
    const text = lastAnswer(response, open, close);
    if (text === null) return 0;
    let found: SqlRows;
    try {
      found = await environment.query(database, text, { maxRows });
    } catch (error) {
      if (error instanceof RolegradError && error.code === "ERR_SQL_QUERY") return 0;
      throw error;
    }
    if (found.columns.length !== expected.columns.length) return 0;
    return sameRows(found.rows, expected.rows, { ordered: isOrdered(unfenced(gold)), tolerance }) ? 1 : 0;
  };
}
