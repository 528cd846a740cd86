import type { Interference } from "./types.js";

/**
 * The result in one plain sentence.
 *
 * @example
 * console.log(summary(await computeInterference(table)));
 */
export function summary(interference: Interference): string {
  const { counts, kept, interferenceShare, mean23, median23, scope } = interference;
  const share = (100 * interferenceShare.value).toFixed(1);
  const logits = Math.abs(mean23.value).toFixed(2);
  const size =
    Number(logits) === 0
      ? "training both together gains as many logits as the two trainings apart"
      : `training both together gains ${logits} logits ${mean23.value < 0 ? "less" : "more"} than the two trainings apart`;
  return (
    `Reasoning and tool use interfere in ${counts.negative} of ${kept.length} answered questions (${share} %) and help each ` +
    `other in ${counts.positive}; on average ${size} (mean lambda23 ${signed(mean23.value)}, median ` +
    `${signed(median23.value)}; point estimates for ${scope}).`
  );
}

function signed(value: number): string {
  const text = value.toFixed(2);
  return text === "-0.00" ? "0.00" : text;
}
