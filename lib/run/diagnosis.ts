import type { Trajectory } from "../rollout/trajectory.js";
import type { RoleSpan } from "../roles/router.js";

/** Why answers earn nothing. */
export interface Diagnosis {
  trajectories: number;
  reward: number;
  /** Shares of the answers: without a call that the tool could be asked, without an answer tag, cut by a token limit, with a failed call. */
  withoutCall: number;
  withoutAnswer: number;
  cut: number;
  failedCalls: number;
  /** What this says, in sentences, and what to do. */
  findings: string[];
  /** The answer that shows it best. */
  example: Trajectory | undefined;
}

/** Mean reward below which a run is worth explaining. */
const LOW = 0.02;

/** What keeps the reward of these answers near zero; undefined where it is not. */
export function explainReward(
  trajectories: readonly Trajectory[],
  { spans, answer }: { spans: readonly RoleSpan[]; answer: { open: string; close: string } },
): Diagnosis | undefined {
  const n = trajectories.length;
  if (n === 0) return undefined;
  const reward = trajectories.reduce((sum, { reward }) => sum + reward, 0) / n;
  if (reward >= LOW) return undefined;
  const count = (holds: (trajectory: Trajectory) => boolean): number => trajectories.filter(holds).length;
  const withoutCall = spans.length === 0 ? 0 : count(({ calls }) => calls.length === 0);
  const withoutAnswer = count((trajectory) => trajectory.answer === null);
  const cut = count(({ finish }) => finish === "length");
  const failedCalls = count(({ calls }) => calls.some(({ error }) => error !== undefined));
  const wrong = n - withoutAnswer;

  const of = (k: number): string => `${k} of ${n} (${((100 * k) / n).toFixed(0)} %)`;
  const calls = spans.map(({ open, close }) => `${open}…${close}`).join(" or ");
  const findings: string[] = [];
  if (withoutCall > 0)
    findings.push(`${of(withoutCall)} made no parsable tool call: no ${calls} in what the model wrote`);
  if (withoutAnswer > 0) findings.push(`${of(withoutAnswer)} gave no answer: no ${answer.open}…${answer.close}`);
  if (wrong > 0) findings.push(`${of(wrong)} gave an answer, and it was wrong`);
  if (cut > 0) findings.push(`${of(cut)} were cut by a token limit (agent.maxLength, agent.sampling.maxNewTokens)`);
  if (failedCalls > 0) findings.push(`${of(failedCalls)} met a tool call that failed`);
  const groups = new Map<string, Set<number>>();
  for (const { group, reward } of trajectories) groups.set(group, (groups.get(group) ?? new Set()).add(reward));
  if (n > groups.size && [...groups.values()].every((rewards) => rewards.size === 1))
    findings.push(`in all ${groups.size} groups the answers earn the same, so nothing was learned`);
  if (withoutCall > n / 2 || withoutAnswer > n / 2) {
    findings.push(
      "the model does not write the format, so there is nothing to reinforce: start from an instruction-tuned checkpoint, " +
        "say it more plainly in agent.prompt, or train the format first",
    );
  } else if (cut > n / 2) findings.push("most answers never end: raise the limits, or ask for shorter ones");
  return {
    trajectories: n,
    reward,
    withoutCall: withoutCall / n,
    withoutAnswer: withoutAnswer / n,
    cut: cut / n,
    failedCalls: failedCalls / n,
    findings,
    example: mostTelling(trajectories),
  };
}

/** The one that came furthest: with an answer, else with a call, else ended by itself; of equals the shortest. */
function mostTelling(trajectories: readonly Trajectory[]): Trajectory | undefined {
  const merit = ({ answer, calls, finish }: Trajectory): number =>
    (answer === null ? 0 : 4) + (calls.length > 0 ? 2 : 0) + (finish === "stop" ? 1 : 0);
  return [...trajectories].sort((a, b) => merit(b) - merit(a) || a.ids.length - b.ids.length)[0];
}
