import type { ToolStats } from "../environments/managed.js";
import type { Environment } from "../environments/types.js";
import type { Trajectory } from "../rollout/trajectory.js";

/** What the tool of a role did in a step. */
export interface ToolMetrics {
  /** Calls that answers made, and those of them that came to an error, time-outs among them. */
  calls: number;
  errors: number;
  timeouts: number;
  /** Of a tool with limits: attempts after the first, and calls that were answered without a request of their own. */
  retries: number;
  cacheHits: number;
  /** From call to answer, all calls together. */
  seconds: number;
}

/** An environment that counts: one tool, or several by their role. */
type Counting = Environment & { stats(): ToolStats | Record<string, ToolStats> };

/** What tools do between two moments, by role. */
export class ToolMeter {
  readonly #environment: Environment | undefined;
  readonly #roles: readonly string[];
  #before: Record<string, ToolStats>;

  /** `roles`: those whose spans call a tool. */
  constructor(environment: Environment | undefined, roles: readonly string[]) {
    this.#environment = environment;
    this.#roles = [...new Set(roles)];
    this.#before = this.#read();
  }

  begin(): void {
    this.#before = this.#read();
  }

  /** Since begin(), with these answers; undefined where no role calls a tool and none was called. */
  since(trajectories: readonly Trajectory[]): Record<string, ToolMetrics> | undefined {
    const out: Record<string, ToolMetrics> = Object.fromEntries(this.#roles.map((role) => [role, zero()]));
    for (const { calls } of trajectories) {
      for (const { role, error, latencyMs } of calls) {
        const own = (out[role] ??= zero());
        own.calls++;
        own.seconds += latencyMs / 1000;
        if (error !== undefined) own.errors++;
        if (error?.code === "ERR_TOOL_TIMEOUT") own.timeouts++;
      }
    }
    for (const [role, now] of Object.entries(this.#read())) {
      const before = this.#before[role];
      const of = (name: "retries" | "hits" | "shared"): number => now[name] - (before?.[name] ?? 0);
      const own = (out[role] ??= zero());
      own.retries += of("retries");
      own.cacheHits += of("hits") + of("shared");
    }
    return Object.keys(out).length === 0 ? undefined : out;
  }

  #read(): Record<string, ToolStats> {
    const environment = this.#environment;
    if (environment === undefined || !("stats" in environment) || typeof environment.stats !== "function") return {};
    const stats = (environment as Counting).stats();
    if (!isOne(stats)) return stats;
    // One tool behind several roles: whose retries they were is not known.
    return { [this.#roles.length === 1 ? (this.#roles[0] as string) : "all"]: stats };
  }
}

function isOne(stats: ToolStats | Record<string, ToolStats>): stats is ToolStats {
  return typeof stats["calls"] === "number";
}

function zero(): ToolMetrics {
  return { calls: 0, errors: 0, timeouts: 0, retries: 0, cacheHits: 0, seconds: 0 };
}
