import { z } from "zod";
import { PRECISIONS } from "../model/precision.js";

const text = z.string().min(1);
const count = z.int().min(1);
const tags = (open: string, close: string) => z.strictObject({ open: text, close: text }).default({ open, close });

const data = z.strictObject({
  questions: text.describe(
    "JSON Lines file of questions: id, question, answers (or golden_answers, answer), and split where there are several.",
  ),
  split: z.exactOptional(text).describe("Train on the rows whose split is this. Without it: on all rows."),
  limit: z.exactOptional(count).describe("Train on the first so many of them."),
  demonstrations: z
    .exactOptional(text)
    .describe(
      'JSON Lines file for objective.kind "sft": prompt and completion, text, messages, segments, or trajectories of a run directory.',
    ),
  evalQuestions: z
    .exactOptional(text)
    .describe("JSON Lines file of the questions to evaluate on. Without it: the same file, by evalSplit."),
  evalSplit: z
    .exactOptional(text)
    .describe("Evaluate on the rows whose split is this. Without it and without evalQuestions there is no evaluation."),
});

const environment = z.strictObject({
  kind: z.literal("search").describe("The tool: BM25 search over passages in memory."),
  passages: text.describe("JSON Lines file of passages: id, title (may be absent), text; or id, contents."),
  topK: count.default(3).describe("Passages that one search returns."),
  titleWeight: z.int().min(0).default(1).describe("How often a title counts beside the text."),
  k1: z.number().min(0).default(1.2).describe("BM25's saturation of repeated words."),
  b: z.number().min(0).max(1).default(0.75).describe("BM25's share of length normalisation."),
  passage: z
    .exactOptional(text)
    .describe('How a passage is shown, with {n}, {title} and {text}. Without it: Passage 1 (Title: "…") …'),
  separator: z.string().default("\n").describe("Put between passages that are shown by `passage`."),
});

const sampling = z.strictObject({
  temperature: z.number().positive().default(1).describe("Of the samples that are trained on."),
  maxNewTokens: count.default(512).describe("Tokens that the model writes in one answer at most."),
});

const agent = z.strictObject({
  roles: z
    .array(text)
    .min(1)
    .max(127)
    .default(["reason", "tool"])
    .describe("Names of the roles. Each token of an answer has one."),
  base: text.default("reason").describe("The role of all text outside every span."),
  spans: z
    .array(z.strictObject({ role: text, open: text, close: text }))
    .default([{ role: "tool", open: "<search>", close: "</search>" }])
    .describe("Text of another role, by its tags. At the closing tag the tool is called with the text between."),
  output: tags("<information>", "</information>").describe("Tags that are put around what the tool returns."),
  answer: tags("<answer>", "</answer>").describe("Tags of the final answer."),
  prompt: z
    .exactOptional(text)
    .describe("The prompt, with {question}. Without it: an instruction that explains the tags above."),
  chat: z.boolean().default(false).describe("Put the prompt as the user's turn of the checkpoint's chat template."),
  actionBudget: z.int().min(0).default(4).describe("Tool calls of one answer; a call beyond them ends it."),
  maxLength: z
    .exactOptional(z.int().min(2))
    .describe("Tokens of prompt, answer and tool output together. Without it: the model's limit, at most 4096."),
  sampling: sampling.prefault({}),
  concurrency: count.max(65536).default(64).describe("Answers that are written at the same time."),
  cacheTokens: z
    .exactOptional(count)
    .describe(
      "Tokens of all answers being written for which the cache has room; at least maxLength. Without it: what concurrency and maxLength need, up to half of the free memory.",
    ),
  toolTimeout: count.default(30_000).describe("Milliseconds until a tool that has not answered counts as failed."),
  onToolError: z
    .enum(["observe", "finish", "throw"])
    .default("observe")
    .describe("A failed tool call: the model reads the error, the answer ends, or the run ends."),
});

const optimizer = z.strictObject({
  learningRate: z.number().min(0).default(1e-5).describe("AdamW's rate."),
  betas: z
    .tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)])
    .default([0.9, 0.999])
    .describe("Decay of the two moments."),
  epsilon: z.number().positive().default(1e-8),
  weightDecay: z.number().min(0).default(0).describe("Decoupled from the gradient."),
  maxGradNorm: z.number().min(0).default(1).describe("Bound of each adapter's gradient norm; 0: no clipping."),
  warmupSteps: z.int().min(0).default(0).describe("Steps over which the rate rises to learningRate."),
  totalSteps: z
    .exactOptional(count)
    .describe("Steps over which the rate then falls to learningRate * finalRatio. Without it: constant."),
  finalRatio: z.number().min(0).max(1).default(0),
  decay: z
    .exactOptional(z.enum(["linear", "cosine"]))
    .describe("How the rate falls over totalSteps. Without it: linear."),
});

const objective = z.strictObject({
  kind: z
    .exactOptional(z.enum(["policy", "sft"]))
    .describe('Reinforcement, or supervised training on data.demonstrations ("sft"). Without it: policy.'),
  clipLow: z.number().min(0).default(0.2).describe("Probability ratios are bounded below by 1 - clipLow."),
  clipHigh: z.exactOptional(z.number().min(0)).describe("... and above by 1 + clipHigh. Without it: clipLow."),
  dualClip: z
    .exactOptional(z.number().gt(1))
    .describe("Where an advantage is negative, a token's loss is at most -dualClip times it. Without it: no bound."),
  ratio: z
    .exactOptional(z.enum(["token", "sequence"]))
    .describe(
      'Probability ratios of tokens, or of whole answers ("sequence": GSPO; its clip bounds are usually near 3e-4). Without it: token.',
    ),
  klCoefficient: z.number().min(0).default(0.001).describe("Weight of the divergence from the model without adapters."),
  klEstimator: z
    .exactOptional(z.enum(["k1", "k2", "k3"]))
    .describe("Of that divergence, from one sample: -d, d^2 / 2, exp(d) - d - 1, d = ref - logp. Without it: k3."),
  klPlacement: z
    .exactOptional(z.enum(["loss", "reward"]))
    .describe("Added to each token's loss, or taken off the answer's reward. Without it: loss."),
  importance: z
    .exactOptional(
      z.strictObject({
        cap: z.number().gt(1).describe("C of the weights p_old / p_behaviour."),
        mode: z
          .enum(["truncate", "mask"])
          .default("truncate")
          .describe("Weights above C are C, or tokens of weights outside [1 / C, C] are left out."),
      }),
    )
    .describe("Correct for log-probabilities that another engine recorded. Without it: they are taken as they are."),
  entropyCoefficient: z
    .exactOptional(z.number().min(0))
    .describe("Times each token's entropy, taken off its loss. Without it: 0."),
  advantageEstimator: z
    .exactOptional(z.enum(["grpo", "rloo"]))
    .describe('The reward less the group\'s mean, or less the mean of the others ("rloo"). Without it: grpo.'),
  filterGroups: z
    .exactOptional(z.boolean())
    .describe("Groups of equal rewards leave the batch (DAPO). Without it they teach nothing but count in the mean."),
  aggregation: z
    .enum(["token-mean", "seq-mean-token-mean", "seq-mean-token-sum-norm"])
    .default("token-mean")
    .describe("What the sum of token losses is divided by."),
  normLength: z.exactOptional(count).describe('Divisor of "seq-mean-token-sum-norm", in tokens.'),
  standardize: z.boolean().default(true).describe("Divide the advantages of grpo by their group's standard deviation."),
});

const evaluation = z.strictObject({
  every: z.int().min(0).default(10).describe("Evaluate every so many steps; 0: only before and after training."),
  questions: count.default(100).describe("Evaluate on the first so many questions."),
  samples: count.default(1).describe("Answers a question."),
  temperature: z.number().min(0).default(1).describe("0: the likeliest token, always."),
});

const checkpoint = z.strictObject({
  every: z.int().min(0).default(10).describe("Write a checkpoint every so many steps; 0: only at the end."),
  keep: z.int().min(0).default(2).describe("Keep the newest so many; 0: all."),
});

/** run.json, as it may be written. */
export const runSchema = z.strictObject({
  $schema: z.exactOptional(z.string()).describe("This schema, for editors."),
  model: text.describe("Checkpoint directory in Hugging Face's layout, or a hub id that is in the local cache."),
  data,
  environment,
  agent: agent.prefault({}),
  addTokens: z
    .exactOptional(z.array(text))
    .describe(
      "Tags that the checkpoint has not learned. Each becomes a token of its own, whose rows in the embedding and the head are trained with the adapters.",
    ),
  variant: text
    .default("dart")
    .describe(
      'Which adapter runs each role and which roles are trained: "dart" (an adapter a role), "dart-ROLE" (only that role\'s), ' +
        '"shared" (one adapter for all roles), "shared-ROLE" (the same, trained on that role\'s tokens only), ' +
        '"mixture" (soft routing: an expert a role, gated by trained routers).',
    ),
  rank: z.exactOptional(count.max(4096)).describe("Of each adapter. Without it: 8 a role that the adapter serves."),
  alpha: z.exactOptional(z.number().positive()).describe("Adapters are scaled by alpha / rank. Without it: 2 rank."),
  dropout: z
    .exactOptional(z.number().min(0).lt(1))
    .describe("LoRA dropout of the adapters, in training steps alone. Without it: 0."),
  optimizer: optimizer.prefault({}),
  objective: objective.prefault({}),
  crossRole: z
    .enum(["flow", "stop", "exact"])
    .default("flow")
    .describe(
      'What a role\'s loss gives other roles\' adapters, through keys and values: "flow" (as autograd has it), "stop" (no gradient passes ' +
        'there), "exact" (each adapter gets its own roles\' loss, along every path; a backward pass each).',
    ),
  precision: z
    .enum(PRECISIONS)
    .default("exact")
    .describe(
      'What the products with the model\'s weights multiply: f32 ("exact"), or both operands rounded to bf16, which is faster and needs a ' +
        "CPU with AVX512-BF16.",
    ),
  microBatchTokens: count.default(8192).describe("Tokens of one forward and backward pass; changes no result."),
  gradientCheckpointing: z
    .boolean()
    .default(false)
    .describe(
      "Keep each layer's input alone and make the rest again in the backward pass: less memory, more time; changes no result.",
    ),
  steps: count.default(100).describe("Training steps: answers to questionsPerStep questions, and an update on them."),
  questionsPerStep: count.default(32).describe("Questions of one step."),
  epochs: z
    .exactOptional(count)
    .describe("Times that a step goes through its answers, an optimizer update each. Without it: 1."),
  minibatches: z
    .exactOptional(count)
    .describe("Optimizer updates of one epoch, each on a part of the questions. Without it: 1."),
  group: z.int().min(2).default(8).describe("Answers a question, which are compared with each other."),
  seed: z.int().min(0).default(1).describe("Of everything random."),
  evaluation: evaluation.prefault({}),
  checkpoint: checkpoint.prefault({}),
  trajectories: z
    .strictObject({ every: z.int().min(0).default(1).describe("Keep the answers of every so many steps; 0: of none.") })
    .prefault({}),
  output: z.exactOptional(text).describe("The run directory. Without it: runs/NAME beside NAME.json."),
});

/** run.json as a user writes it. */
export type RunConfigInput = z.input<typeof runSchema>;
type Parsed = z.output<typeof runSchema>;

/** A run.json with every default filled in and every path absolute. */
export interface RunConfig extends Omit<Parsed, "$schema" | "agent" | "rank" | "alpha" | "output"> {
  agent: Omit<Parsed["agent"], "prompt"> & { prompt: string };
  rank: number;
  alpha: number;
  output: string;
}

/** The JSON schema of run.json (draft 7), for editors: assets/run.schema.json is this. */
export function runJsonSchema(): Record<string, unknown> {
  const schema = z.toJSONSchema(runSchema, {
    io: "input",
    target: "draft-7",
    // Every integer would get the bounds of exact ones.
    override: ({ jsonSchema }) => {
      if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
      if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
    },
  });
  const title = "A training run of rolegrad: `rolegrad train run.json`. Paths are relative to the file.";
  return { $schema: schema.$schema, title, ...schema };
}
