import { open } from "node:fs/promises";
import { fail, RolegradError } from "../errors.js";
import { parseTrajectory, type Trajectory } from "./trajectory.js";

/**
 * Reads trajectories, one line of JSON each, as run directories hold them (trajectories/eval-000010.jsonl). A line that is none -> ERR_TRAJECTORY
 * with file and line; a file that cannot be read -> ERR_FILE.
 *
 * @example
 * const recorded = await readTrajectories("runs/search/trajectories/eval-000100.jsonl");
 * new ReplayEnvironment(recorded, { match: "order" }); // fixed retrieval
 */
export async function readTrajectories(file: string): Promise<Trajectory[]> {
  const handle = await open(file).catch((cause: unknown) =>
    fail("ERR_FILE", `Expected a file of trajectories but ${(cause as Error).message}`, cause),
  );
  const out: Trajectory[] = [];
  try {
    let number = 0;
    for await (const line of handle.readLines()) {
      number++;
      if (line.trim() === "") continue;
      try {
        out.push(parseTrajectory(line));
      } catch (error) {
        if (error instanceof RolegradError) fail(error.code, `${file}:${number}: ${error.message}`, error);
        throw error;
      }
    }
  } finally {
    await handle.close().catch(() => undefined);
  }
  return out;
}
