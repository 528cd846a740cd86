// Lines of a run's files as a page can show them. Other versions write other lines, and a disk may hold anything: a field that is not what its name says
// counts as absent, so that what shows it need not ask.

type Row = Record<string, unknown>;
type Check = (value: unknown) => boolean;

const number: Check = (value) => typeof value === "number" && Number.isFinite(value);
const text: Check = (value) => typeof value === "string";
const record: Check = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const numbers: Check = (value) =>
  record(value) && Object.values(value as Row).every((one) => number(one) || one === null);
const texts: Check = (value) => Array.isArray(value) && value.every(text);
const segments: Check = (value) =>
  Array.isArray(value) &&
  value.every((part) => record(part) && ["kind", "role", "text"].every((name) => text((part as Row)[name])));

function all(check: Check, ...names: string[]): Record<string, Check> {
  return Object.fromEntries(names.map((name) => [name, check]));
}

/** What the fields of each file are. Those that are not named here are looked at where they are shown. */
const FIELDS = {
  metrics: {
    ...all(
      number,
      "loss",
      "kl",
      "clipHigh",
      "clipLow",
      "maxRatioDeviation",
      "learningRate",
      "mixedGroups",
      "trajectories",
    ),
    ...all(number, "tokens", "toolRate", "searches", "answerRate", "seconds", "rolloutSeconds"),
    ...all(numbers, "gradNorms", "sampledTokens", "finish", "rewardParts"),
  },
  evaluations: {
    ...all(text, "split", "policy", "note"),
    ...all(number, "samples", "temperature", "retrieval", "toolRate", "searches", "answerRate", "seconds"),
    ...all(numbers, "finish", "rewardParts"),
  },
  examples: {
    ...all(text, "id", "question", "finish", "answer"),
    ...all(number, "calls", "tokens"),
    ...all(texts, "answers"),
  },
  events: {},
} satisfies Record<string, Record<string, Check>>;

/** What a line must have to be shown. */
const NEEDED: Record<keyof typeof FIELDS, Record<string, Check>> = {
  metrics: all(number, "step", "reward"),
  evaluations: all(number, "step", "n", "exactMatch", "low", "high"),
  examples: { ...all(number, "step", "reward"), roles: texts, segments },
  events: {},
};

export type LinesFile = keyof typeof FIELDS;

/** The first field without which a line cannot be shown; undefined: it can be. */
export function missingField(file: LinesFile, row: Row): string | undefined {
  return Object.entries(NEEDED[file]).find(([name, check]) => !check(row[name]))?.[0];
}

/** A line without the fields that are not what they should be. */
export function cleaned(file: LinesFile, row: Row): Row {
  const wrong = Object.entries<Check>(FIELDS[file]).filter(([name, check]) => name in row && !check(row[name]));
  if (wrong.length === 0) return row;
  const names = wrong.map(([name]) => name);
  return Object.fromEntries(Object.entries(row).filter(([name]) => !names.includes(name)));
}
