import { fail } from "../errors.js";
import type { SamplingServer } from "./types.js";

/** Servers that have been asked, with the temperatures for which they may be used. */
const known = new WeakMap<SamplingServer, Set<number>>();

const COUNT = 5;
/** Ids that every vocabulary has; which ones makes no difference. */
const PROBE = [1, 2, 3];

/**
 * Trajectories hold log softmax(logits / temperature), but a server may report log softmax(logits) (vLLM does unless told otherwise): it is asked
 * for the likeliest tokens at temperature 1 and at this one. Distances between logits shrink by the temperature where it is applied and stay
 * where it is not. At 1, and greedily, where the record is of temperature 1, both are the same. ERR_SERVER_LOGPROBS.
 */
export async function checkTemperature(
  server: SamplingServer,
  temperature: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (temperature === 0 || temperature === 1 || known.get(server)?.has(temperature)) return;
  const distance = async (at: number): Promise<number> => {
    const values = await server.topLogprobs({ ids: PROBE, temperature: at, count: COUNT }, signal && { signal });
    return (values[0] ?? 0) - (values[COUNT - 1] ?? 0);
  };
  const plain = await distance(1);
  const tempered = await distance(temperature);
  if (Math.abs(tempered - plain / temperature) >= Math.abs(tempered - plain))
    fail(
      "ERR_SERVER_LOGPROBS",
      `Expected log-probabilities at temperature ${temperature} from ${server.label} but it reports those at 1: start vLLM with ` +
        "--logprobs-mode processed_logprobs, SGLang without SGLANG_RETURN_ORIGINAL_LOGPROB, or sample at temperature 1",
    );
  known.set(server, (known.get(server) ?? new Set()).add(temperature));
}
