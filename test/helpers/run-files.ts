// What a run directory holds, to compare runs by.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import type { Test } from "tap";

/** Every file below a folder, by its path; without the times that differ between equal runs, nor TensorBoard's files, which have theirs in names and lines. */
export function contents(folder: string): Map<string, string> {
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => name.replaceAll(path.sep, "/"))
    .filter((name) => !name.startsWith("tensorboard/") && statSync(path.join(folder, name)).isFile());
  const read = (name: string): string =>
    readFileSync(path.join(folder, name), "latin1").replaceAll(
      /"(seconds|rolloutSeconds|startedAt|latencyMs)": ?("[^"]*"|[-+.\de]+)/g,
      "",
    );
  return new Map(files.sort().map((name) => [name, read(name)]));
}

/** The names of a run's checkpoints, in their order. */
export function checkpointNames(directory: string): string[] {
  const folder = path.join(directory, "checkpoints");
  const names = existsSync(folder) ? readdirSync(folder) : [];
  return names.filter((name) => /^step-\d+$/.test(name)).sort();
}

/** Fails with the names of the files that one has and the other has not, or that differ. */
export function sameFiles(t: Test, found: Map<string, string>, wanted: Map<string, string>, what: string): void {
  const names = [...new Set([...found.keys(), ...wanted.keys()])];
  const different = names.filter((name) => found.get(name) !== wanted.get(name));
  t.same(different, [], what);
}
