import path from "node:path";
import { pathToFileURL } from "node:url";
import { z } from "zod";
import { describe } from "../arguments.js";
import { fail } from "../errors.js";
import { coverMatchReward } from "../rewards/cover-match.js";
import { exactMatchReward } from "../rewards/exact-match.js";
import { f1Reward } from "../rewards/f1.js";
import { formatReward } from "../rewards/format.js";
import { sqlReward } from "../rewards/sql.js";
import type { SqlEnvironment } from "../environments/sql/environment.js";
import type { Reward } from "../rewards/types.js";
import { weightedReward } from "../rewards/weighted.js";
import type { RunConfig } from "./schema.js";

type Setting = NonNullable<RunConfig["reward"]>;
type Tags = { open: string; close: string };

/** The tags that an agent writes: what built-in rewards look at. */
interface AgentTags {
  spans: readonly Tags[];
  output: Tags;
  answer: Tags;
}

/** What a run's rewards may look at. */
interface RewardContext extends AgentTags {
  /** Where the environment is a database: that, and the field of the gold query. */
  sql?: { environment: SqlEnvironment; gold: string };
}

interface BuiltIn {
  /** Of `options` in run.json. */
  options: z.ZodObject;
  make(agent: RewardContext, options: Record<string, unknown>): Reward;
}

const tags = z.strictObject({ open: z.string().min(1), close: z.string().min(1) });
const THINK = { open: "<think>", close: "</think>" };

/** The rewards that run.json calls by name. */
const BUILT_IN: Record<string, BuiltIn> = {
  "exact-match": { options: z.strictObject({}), make: ({ answer }) => exactMatchReward(answer) },
  f1: { options: z.strictObject({}), make: ({ answer }) => f1Reward(answer) },
  "cover-match": {
    options: z.strictObject({ unit: z.exactOptional(z.enum(["words", "characters"])) }),
    make: ({ answer }, options) => coverMatchReward({ ...answer, ...options }),
  },
  format: {
    options: z.strictObject({ tags: z.exactOptional(z.array(tags)) }),
    make: ({ spans, answer, output }, options) => formatReward({ tags: [THINK, ...spans], answer, output, ...options }),
  },
  sql: {
    options: z.strictObject({ tolerance: z.exactOptional(z.number().min(0)) }),
    make: ({ answer, sql }, options) => {
      if (sql === undefined) fail("ERR_CONFIG", 'Expected an environment of kind "sqlite" for the reward "sql"');
      return sqlReward({ ...sql, answer, ...options });
    },
  },
};

/** What is no name of a built-in reward is a path: it has a slash, or ends as modules do. */
const isModule = (reward: string): boolean => /[\\/]|\.[cm]?[jt]s$/.test(reward);

interface Entry {
  reward: string;
  name?: string;
  weight?: number;
  options?: Record<string, unknown>;
}

const entriesOf = (setting: Setting): { entry: Entry; field: string }[] =>
  (Array.isArray(setting) ? setting : [setting]).map((own, i) => ({
    entry: typeof own === "string" ? { reward: own } : own,
    field: Array.isArray(setting) ? `reward[${i}]` : "reward",
  }));

const nameOf = ({ name, reward }: Entry): string => name ?? (isModule(reward) ? path.parse(reward).name : reward);

/** The setting with the paths of its modules resolved; an unknown name, a name twice or options that a built-in reward lacks are `wrong`. */
export function resolveRewards(
  setting: Setting,
  resolve: (name: string) => string,
  wrong: (field: string, expected: string) => never,
): Setting {
  const entries = entriesOf(setting);
  const names = entries.map(({ entry }) => nameOf(entry));
  entries.forEach(({ entry: { reward, options = {} }, field }, i) => {
    if (names.indexOf(names[i]!) < i)
      wrong(field, `Expected a name that no other reward has but received ${describe(names[i])} twice`);
    if (isModule(reward)) return;
    const known = Object.hasOwn(BUILT_IN, reward) ? BUILT_IN[reward] : undefined;
    if (known === undefined) {
      const all = Object.keys(BUILT_IN).join(", ");
      return wrong(field, `Expected ${all}, or the path of a module (./reward.mjs), but received ${describe(reward)}`);
    }
    const issue = known.options.safeParse(options).error?.issues[0];
    if (issue === undefined) return;
    const shape = Object.keys(known.options.shape);
    const has = shape.length === 0 ? `"${reward}" has none` : `"${reward}" has ${shape.join(", ")}`;
    wrong([field, "options", ...issue.path].join("."), `Expected other options (${has}): ${issue.message}`);
  });
  const absolute = (reward: string): string => (isModule(reward) ? resolve(reward) : reward);
  const one = (own: string | Entry) =>
    typeof own === "string" ? absolute(own) : { ...own, reward: absolute(own.reward) };
  return Array.isArray(setting) ? setting.map(one) : one(setting);
}

/** Whether answers are judged by running them: questions then need no gold answers. */
export function judgedBySql({ reward, environment }: Pick<RunConfig, "reward" | "environment">): boolean {
  if (reward === undefined) return environment.kind === "sqlite";
  return entriesOf(reward).some(({ entry }) => entry.reward === "sql");
}

/** The files of the modules that a resolved setting names, each under its reward's name. */
export function rewardModules(setting: Setting | undefined): { name: string; file: string }[] {
  return entriesOf(setting ?? [])
    .filter(({ entry }) => isModule(entry.reward))
    .map(({ entry }) => ({ name: nameOf(entry), file: entry.reward }));
}

/**
 * The reward that a resolved setting means. A text alone is that reward; an object or a list is a weighted sum whose parts are recorded. A module that
 * cannot be imported, or whose default export is no function -> ERR_REWARD_MODULE, naming it.
 */
export async function loadReward(setting: Setting | undefined, agent: RewardContext): Promise<Reward> {
  const make = ({ reward, options }: Entry): Reward | Promise<Reward> =>
    isModule(reward) ? importReward(reward, options) : BUILT_IN[reward]!.make(agent, options ?? {});
  if (setting === undefined) return make({ reward: agent.sql === undefined ? "exact-match" : "sql" });
  if (typeof setting === "string") return make({ reward: setting });
  const parts = entriesOf(setting).map(async ({ entry }) => ({
    name: nameOf(entry),
    weight: entry.weight ?? 1,
    reward: await make(entry),
  }));
  return weightedReward(await Promise.all(parts));
}

async function importReward(file: string, options: Record<string, unknown> = {}): Promise<Reward> {
  let found: { default?: unknown };
  try {
    found = (await import(pathToFileURL(file).href)) as typeof found;
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    return fail("ERR_REWARD_MODULE", `Expected a reward in ${file} but it cannot be imported: ${message}`, cause);
  }
  const own = found.default;
  if (typeof own !== "function") {
    const names = Object.keys(found).join(", ") || "nothing";
    fail("ERR_REWARD_MODULE", `Expected ${file} to export a function as its default but it exports ${names}`);
  }
  const call = own as (...all: [...Parameters<Reward>, Record<string, unknown>]) => ReturnType<Reward>;
  const reward: Reward = (trajectory, question) => call(trajectory, question, options);
  // Errors name a reward by its function.
  return Object.defineProperty(reward, "name", { value: file });
}
