import { writeFile } from "node:fs/promises";
import path from "node:path";
import { Random } from "../../random.js";
import { baseFiles } from "../files.js";
import { COUNTRIES, PRODUCTS, STEMS } from "../names.js";
import { type BaseTrainingOptions, trainFromNothing } from "../train.js";
import { SQL_HARD, SQL_PERFECT, sqlDemonstration, sqlDemonstrationStream } from "./demonstrations.js";
import { COLUMNS, TABLES } from "./names.js";
import { SqlWorld } from "./world.js";

export interface TrainSqlBaseOptions extends BaseTrainingOptions {
  /** Tokens to train on. @default 1000000 */
  tokens?: number;
  /** The share of them from perfect demonstrations, which come first. @default 0.6 */
  perfectShare?: number;
}

/**
 * Trains a base for {@link SqlWorld} from nothing, as trainBase does for the search world: a tokenizer in which every name is a token, then demonstrations
 * first perfect, then full of errors, of databases that are never seen again. It knows the format and copies names; it asks wrong tables and stops too early.
 *
 * @example
 * await trainSqlBase({ directory: "bases/sql" });
 * const model = await loadModel("bases/sql");
 */
export async function trainSqlBase(options: TrainSqlBaseOptions): Promise<void> {
  const { directory, seed = 1, tokens = 1_000_000, perfectShare = 0.6, signal, onProgress } = options;
  await trainFromNothing({
    directory,
    writeFiles: async (folder) => {
      for (const [name, value] of Object.entries(baseFiles(corpus(), ["think", "sql", "observation", "answer"])))
        await writeFile(path.join(folder, name), `${JSON.stringify(value, null, 1)}\n`);
    },
    streams: (tokenizer) => ({
      perfect: sqlDemonstrationStream({ tokenizer, seed: seed * 2, imperfections: SQL_PERFECT }),
      flawed: sqlDemonstrationStream({ tokenizer, seed: seed * 2 + 1, imperfections: SQL_HARD }),
    }),
    seed,
    tokens,
    perfectShare,
    signal,
    onProgress,
  });
}

// Often enough that each name becomes one token, and their parts do before rarer things.
const NAME_REPEATS = 40;

/** Demonstrations without tags, and every name as it stands in a text: values between quotes or alone in a line, tables and columns behind a space. */
function corpus(): string[] {
  const world = new SqlWorld({ seed: 9000, databases: { all: 40 } });
  const random = new Random(9000, "world/sql/tokenizer");
  const texts = world.questions("all", 400, 0).flatMap((question) => {
    const segments = sqlDemonstration(world, question, random, SQL_HARD);
    return [world.prompt(question), ...segments.flatMap(({ text }) => text.split(/<[^>]*>/))];
  });
  const repeated = (names: readonly string[], around: (name: string) => string): string[] =>
    names.map((name) => around(name).repeat(NAME_REPEATS));
  return [
    ...texts,
    ...repeated([...STEMS, ...COUNTRIES, ...PRODUCTS], (name) => `${name}\n`),
    ...repeated([...TABLES, ...COLUMNS], (name) => ` ${name}`),
  ];
}
