import { adapterParameters, linearParameters, PAGE, pageBytes, parameterCount } from "./model.js";
import { totalLength } from "./memory.js";
import type { PlanMachine, RunShape, WorkLine, WorkPlan } from "./types.js";

/** FLOPs and bytes of one part, before there is a machine. */
export type Work = Omit<WorkLine, "seconds">;

/** Adapters' numbers that one position runs: of hard routing one adapter's, of soft routing all. */
function activeAdapter({ config, adapters, full }: RunShape): number {
  if (full || adapters.length === 0) return 0;
  return Math.max(...adapters.map((size) => adapterParameters(config, size)));
}

/** Products of queries and keys, and of weights and values, of whole texts: 4 FLOPs a pair and column. */
function attentionFlops({ config: c }: RunShape, texts: number, length: number): number {
  return (texts * (4 * c.layers * c.heads * c.headDim * length * (length + 1))) / 2;
}

/** What `answers` answers take to write: prompts once a question, tool output in chunks, then a token at a time for `together` at once. */
export function rolloutWork(shape: RunShape, answers: number, group: number): Work[] {
  if (shape.caches === 0) return [];
  const { config: c, width, answer, caches } = shape;
  const linear = linearParameters(c);
  const low = activeAdapter(shape);
  const head = c.hiddenSize * c.vocabSize;
  const questions = Math.ceil(answers / group);
  // Every writer reads what the others wrote, too.
  const read =
    caches * (questions * answer.prompt + answers * answer.observed) + (caches - 1) * answers * answer.written;
  const together = Math.max(1, Math.min(shape.concurrency, answers));
  const steps = Math.ceil(answers / together) * answer.written;
  const written = answers * answer.written;
  const before = answer.prompt + answer.observed + answer.written / 2;
  return [
    {
      name: "prefill",
      flops: 2 * (linear + low) * read + attentionFlops(shape, answers, answer.prompt + answer.observed),
      bytes: width * linear * Math.ceil(read / 2048),
    },
    {
      name: "decode",
      flops: written * (2 * (linear + low + head) + 4 * c.layers * c.heads * c.headDim * before),
      // Weights once a step for all; keys and values so far once for each.
      bytes: steps * width * (linear + head) + written * ((before / PAGE) * c.layers * pageBytes(c)),
    },
  ];
}

/**
 * One step: rollout, log-probabilities under other policies, forward and backward passes, the optimizer. A linear is 2 FLOPs a
 * parameter and token forward and 2 backward (its input's gradient), 2 more where its own gradient is made; the head twice that of the forward pass with
 * adapters (one pass makes loss and gradient), four times in full training; attention 4 a pair and column forward, 8 backward.
 */
export function stepWork(shape: RunShape): Work[] {
  const { config: c, full, answer, agents, epochs, minibatches, checkpointing, scoring, crossRole, routed } = shape;
  const answers = shape.questionsPerStep * shape.group;
  const length = totalLength(shape);
  const tokens = answers * length;
  const linear = linearParameters(c);
  const low = activeAdapter(shape);
  const head = c.hiddenSize * c.vocabSize;
  const attention = attentionFlops(shape, answers, length);
  const passes = agents * epochs;
  const targets = shape.supervised ? tokens : answers * answer.written;
  const backward =
    (shape.momentRoles > 0 ? shape.momentRoles : crossRole === "exact" && !full ? routed : 1) +
    (shape.trackLossRoles && crossRole === "flow" ? shape.roles : 0);
  const weights = shape.width * (linear + head);
  // A minibatch is whole micro-batches, and each reads the weights.
  const microBatches = minibatches * Math.ceil(tokens / minibatches / Math.max(shape.microBatchTokens, length));
  const each = (adapters: number): number => 2 * (linear + adapters) * tokens + 2 * head * tokens + attention;
  const scored = (scoring.reference ? each(0) : 0) + (scoring.policy ? each(low) : 0);
  const list: Work[] = shape.supervised ? [] : rolloutWork(shape, answers, shape.group);
  if (scored > 0) list.push({ name: "scoring", flops: agents * scored, bytes: agents * microBatches * weights });
  const forward = 2 * (linear + low) * tokens + attention;
  list.push({
    name: "forward",
    flops: passes * (forward + (full ? 2 : 4) * head * targets),
    bytes: passes * microBatches * weights,
  });
  const own = full ? 2 * linear * tokens : 4 * low * tokens;
  list.push({
    name: "backward",
    flops:
      passes *
      (backward * (2 * linear * tokens + own + 2 * attention + (checkpointing ? forward : 0)) +
        (full ? 6 * head * targets : 0)),
    bytes: passes * microBatches * backward * weights,
  });
  const trained = full
    ? agents * parameterCount(c)
    : shape.adapters.reduce((sum, own) => sum + adapterParameters(c, own), 0);
  // Parameters, moments, gradient: read and written, in each update.
  list.push({ name: "optimizer", flops: 0, bytes: epochs * minibatches * trained * (full ? 44 : 40) });
  return list;
}

/** The time of work on a machine: of each part the longer of its arithmetic and its reading. */
export function timed(list: readonly Work[], machine: Pick<PlanMachine, "gflops" | "readGBps">): WorkPlan {
  const lines = list.map((part): WorkLine => ({
    ...part,
    seconds: Math.max(part.flops / (machine.gflops * 1e9), part.bytes / (machine.readGBps * 1e9)),
  }));
  const sum = (of: (line: WorkLine) => number): number => lines.reduce((total, line) => total + of(line), 0);
  const [first] = lines;
  const most = lines.reduce((a, b) => (b.seconds > a.seconds ? b : a), first as WorkLine)?.name ?? "forward";
  return { lines, flops: sum(({ flops }) => flops), seconds: sum(({ seconds }) => seconds), most };
}
