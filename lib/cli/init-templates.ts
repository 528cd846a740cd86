import type { RunConfigInput } from "../run/schema.js";

/** What `rolegrad init KIND` writes, and what is to be said in it. */
export interface Template {
  about: string;
  run: RunConfigInput;
  /** What most runs have to change: the field, and what belongs there. */
  say: readonly (readonly [field: string, what: string])[];
}

const QUESTIONS = [
  "data.questions",
  'a line each: {"id": "1", "question": "...", "answers": ["..."], "split": "train"}',
] as const;
const PASSAGES = ["environment.passages", 'a line each: {"id": "1", "title": "...", "text": "..."}'] as const;

const AGENT = { actionBudget: 4, maxLength: 4096, sampling: { temperature: 1, maxNewTokens: 512 } };

/** The fields that most runs change, in the order of the schema, which tells of them and of the others. */
function run(
  kind: string,
  environment: NonNullable<RunConfigInput["environment"]>,
  agent: RunConfigInput["agent"],
): RunConfigInput {
  return {
    model: "Qwen/Qwen2.5-0.5B-Instruct",
    data: { questions: "questions.jsonl", split: "train", evalSplit: "dev" },
    environment,
    agent: { ...agent, ...AGENT },
    variant: "dart",
    rank: 8,
    alpha: 16,
    optimizer: { learningRate: 1e-5, warmupSteps: 10 },
    objective: { clipLow: 0.2, klCoefficient: 0.001 },
    crossRole: "flow",
    steps: 100,
    questionsPerStep: 32,
    group: 8,
    seed: 1,
    evaluation: { every: 10, questions: 100 },
    checkpoint: { every: 10 },
    output: `runs/${kind}`,
  };
}

export const TEMPLATES: Record<string, Template> = {
  search: {
    about: "answer questions with a search tool",
    run: run("search", { kind: "search", passages: "passages.jsonl", topK: 3 }, { chat: true }),
    say: [QUESTIONS, PASSAGES],
  },
  sql: {
    about: "answer questions with a query on a database",
    run: run(
      "sql",
      { kind: "sqlite", databases: "databases", sampleRows: 3 },
      { chat: true, spans: [{ role: "tool", open: "<sql>", close: "</sql>", content: "your query" }] },
    ),
    say: [
      [
        "data.questions",
        'a line each: {"id": "1", "db": "shop", "question": "...", "sql": "SELECT ...", "split": "train"}',
      ],
      ["environment.databases", "a directory of NAME.sqlite, NAME.db or NAME.sql (a script)"],
    ],
  },
  mcp: {
    about: "answer questions with the tools of an MCP server",
    run: run(
      "mcp",
      {
        kind: "mcp",
        server: { command: "node", args: ["server.mjs"] },
        limits: { concurrency: 8, timeout: 30_000, retries: 3 },
      },
      { chat: true },
    ),
    say: [
      QUESTIONS,
      ["environment.server", 'the program, or {"url": "https://...", "headers": {"authorization": "Bearer ${TOKEN}"}}'],
      ["environment.tools", "which of its tools, if not all (rolegrad train FILE --check prints them)"],
    ],
  },
  chat: {
    about: "answer questions by a chat template, with JSON calls of a search tool",
    run: run(
      "chat",
      { kind: "search", passages: "passages.jsonl", topK: 3 },
      {
        format: "chat",
        tools: [
          {
            name: "search",
            description: "Searches an encyclopedia and returns the passages that fit best.",
            parameters: { type: "object", properties: { query: { type: "string" } }, required: ["query"] },
          },
        ],
      },
    ),
    say: [QUESTIONS, PASSAGES, ["agent.tools", "how the tool is called and described to the model"]],
  },
};
