/** A line of events.jsonl: something of a run that its reader should know. */
export interface RunEvent {
  /** The step that it was found in. */
  step: number;
  /**
   * "zero-reward", "equal-rewards": nothing could be learned for `steps` steps. "no-gradient": an adapter was taught something and got a gradient of 0.
   * "adapters-unchanged", "stale-policy": an assertion did not hold. "stopped": the run has ended for it (`code`).
   */
  event: "zero-reward" | "equal-rewards" | "no-gradient" | "adapters-unchanged" | "stale-policy" | "stopped";
  /** In sentences. */
  message: string;
  code?: string;
  /** Steps in a row. */
  steps?: number;
  /** Why, one reason each. */
  findings?: string[];
  /** Id of the trajectory that shows it, and the file in the run directory that holds it, where there is one. */
  trajectory?: string;
  file?: string;
}
