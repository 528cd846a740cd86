// A run.json with a chat template, from the file to trained adapters.
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { loadRun, resolveRunConfig, segments, trainRun } from "rolegrad";
import { writeChatTokenizer } from "./helpers/chat.js";
import { questions, writeToyModel } from "./helpers/toy.js";

t.test(
  "a run by a chat template is on policy, and shows each question and correction as the template does",
  async (t) => {
    const directory = t.testdir();
    const model = path.join(directory, "model");
    mkdirSync(model);
    const chat = writeChatTokenizer(path.join(directory, "tokenizer"), "thinking");
    const tokens = { "<tool_call>": 4.5, "</tool_call>": 5.2, "<|im_end|>": 3.5 };
    await writeToyModel(model, { tokenizer: chat, tokens });
    cpSync(path.join(chat, "chat_template.jinja"), path.join(model, "chat_template.jinja"));
    const lines = (rows: object[]): string => rows.map((row) => JSON.stringify(row)).join("\n");
    writeFileSync(path.join(directory, "questions.jsonl"), lines(questions));
    writeFileSync(path.join(directory, "passages.jsonl"), lines([{ id: "1", title: "Bank", text: "Ann owns it." }]));
    const config = resolveRunConfig(
      {
        model,
        data: { questions: "questions.jsonl" },
        environment: { kind: "search", passages: "passages.jsonl" },
        agent: {
          format: "chat",
          roles: ["act", "plan", "tool"],
          base: "act",
          spans: [{ role: "plan", open: "<think>", close: "</think>" }],
          system: "Be brief.",
          sampling: { maxNewTokens: 60 },
        },
        steps: 1,
        questionsPerStep: 3,
        group: 6,
      },
      path.join(directory, "run.json"),
    );
    const setup = await loadRun(config);
    try {
      const reward = ({ response }: { response: string }): number => response.length % 5;
      const { metrics, trajectories } = await trainRun({ ...setup, rollout: { ...setup.rollout, reward } });
      t.match(metrics, [{ maxRatioDeviation: 0 }]);
      const calls = trajectories.flatMap(({ calls }) => calls);
      t.ok(calls.length > 0 && calls.every(({ role, error }) => role === "tool" && error?.code === "ERR_TOOL_CALL"));
      const { tokenizer } = setup.model;
      for (const x of trajectories) {
        const [prompt, ...rest] = segments(x).map(({ kind, ids }) => ({ kind, text: tokenizer!.decode(ids) }));
        const { question } = questions.find(({ id }) => id === x.question)!;
        t.match(prompt!.text, /^<\|im_start\|>system\nBe brief\.\n\n\{"type": ?"function".*"search"/);
        t.ok(prompt!.text.endsWith(`Question: ${question}\n<|im_end|>\n<|im_start|>assistant\n`));
        t.strictSame(
          rest.filter(({ kind }) => kind === "tool-output").map(({ text }) => text),
          x.calls.map(
            ({ result }) =>
              `<|im_end|>\n<|im_start|>user\n<tool_response>\n${result}\n</tool_response><|im_end|>\n<|im_start|>assistant\n`,
          ),
        );
      }
    } finally {
      setup.close();
    }
  },
);
