// Lines of a run directory without what differs between equal runs.

const TIMES = ["seconds", "rolloutSeconds"];

/** The same records without times, wherever in them they stand. */
export function withoutTimes<T>(records: readonly T[]): T[] {
  const text = JSON.stringify(records, (name, value: unknown) => (TIMES.includes(name) ? undefined : value));
  return JSON.parse(text) as T[];
}
