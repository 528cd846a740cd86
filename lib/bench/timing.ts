import type { Roofline } from "./machine.js";
import type { PeerTime } from "./peer.js";
import type { BenchName, ResultLine } from "./types.js";

/** The middle value; of an even number the lower of the two. */
export function median(values: ArrayLike<number>): number {
  const sorted = Array.from(values).sort((a, b) => a - b);
  return sorted[(sorted.length - 1) >> 1] ?? NaN;
}

/** Seconds of each of `runs` calls. */
export async function clock(runs: number, work: () => Promise<unknown>): Promise<number[]> {
  const seconds: number[] = [];
  for (let i = 0; i < runs; i++) {
    const begin = performance.now();
    await work();
    seconds.push((performance.now() - begin) / 1000);
  }
  return seconds;
}

/**
 * Runs the contestants in turn, round after round, and returns the best median of each: a slow moment of the machine hits
 * all of them. A contestant that answers undefined is out.
 */
export async function race<K extends string>(
  rounds: number,
  contestants: Record<K, () => Promise<ArrayLike<number> | undefined>>,
): Promise<Partial<Record<K, number>>> {
  const best: Partial<Record<K, number>> = {};
  const out = new Set<string>();
  for (let round = 0; round < rounds; round++) {
    for (const name of Object.keys(contestants) as K[]) {
      if (out.has(name)) continue;
      const seconds = await contestants[name]();
      if (seconds === undefined) out.add(name);
      else best[name] = Math.min(best[name] ?? Infinity, median(seconds));
    }
  }
  return best;
}

/** What one call did, and how long it took. */
export interface Outcome {
  bench: BenchName;
  name: string;
  unit: ResultLine["unit"];
  /** In `unit` times seconds: GFLOP, tokens or questions of one call. */
  work: number;
  seconds: number;
  roofline: Roofline;
  peer?: PeerTime | undefined;
}

/** The line of a case. */
export function resultLine(outcome: Outcome, more: Partial<ResultLine> = {}): ResultLine {
  const { bench, name, unit, work, seconds, roofline, peer } = outcome;
  const value = work / seconds;
  const line: ResultLine = {
    bench,
    case: name,
    value,
    unit,
    limit: work / roofline.seconds,
    limitedBy: roofline.by,
    share: roofline.seconds / seconds,
    seconds,
    ...more,
  };
  if (peer === undefined) return line;
  line.peer = peer.label;
  line.peerValue = (peer.work ?? work) / peer.seconds;
  line.ratio = value / line.peerValue;
  if (peer.peakRssMiB !== undefined) line.peerPeakRssMiB = peer.peakRssMiB;
  return line;
}
