// Every public function of operators, routers, rollouts, trajectories, statistics and tokenizers that takes numbers, arrays or objects, and
// good arguments for it.
import {
  AdamW,
  loraLinear,
  RoleRouter,
  Rollout,
  groupAdvantages,
  parseTrajectory,
  serializeTrajectory,
  segments,
  signTest,
  wilcoxonTest,
  fitEffects,
  computeInterference,
  computeInterferenceSync,
  interferenceCsv,
  interferenceFigures,
  interferencePage,
  readAccuracyTable,
  effectsByAccuracy,
  effectsByHalves,
  splitHalves,
  factorialDesign,
  loadTokenizer,
  measureVariants,
} from "rolegrad";
import type { Trajectory } from "rolegrad";
import { linear, type Case, type Subjects } from "./hostile.js";
import { environment, questions, reward, roles, router, worldTokenizer } from "./toy.js";

const drawn = computeInterferenceSync({
  samples: 50,
  correct: { base: [1, 9], reas: [2, 8], tool: [3, 20], unified: [4, 30], hybridTool: [5, 8], hybridReas: [6, 7] },
});
const sampling = { temperature: 1, topP: 1, topK: 0, maxNewTokens: 4 };

export function rolloutCases({ toy, many, trajectories }: Subjects): Case[] {
  return [
    {
      name: "AdamW",
      good: { w: new Float32Array(3), g: new Float64Array(3).fill(1), learningRate: 1 },
      call: ({ w, g, learningRate }) => new AdamW({ learningRate }).step({ w }, { w: g }),
    },
    { name: "loraLinear.forward", good: linear, call: (input) => loraLinear.forward(input), free: ["dy"] },
    { name: "loraLinear.backward", good: linear, call: (input) => loraLinear.backward(input) },
    {
      name: "new RoleRouter",
      good: { roles, base: "reason", spans: [{ role: "tool", open: "<a>", close: "</a>" }] },
      call: (options) => new RoleRouter(options),
    },
    {
      name: "router.annotate",
      good: { tokens: [Uint8Array.of(60), Uint8Array.of(61)], sampled: Uint8Array.of(1, 0) },
      call: ({ tokens, sampled }) => router.annotate(tokens, sampled),
    },
    {
      name: "Rollout",
      good: {
        router,
        environment,
        reward,
        sampling,
        group: 1,
        concurrency: 2,
        seed: 1,
        actionBudget: 1,
        maxLength: 60,
        stopIds: [1],
        toolTimeout: 1000,
        cacheTokens: 1000,
        chunk: 16,
        adapters: many,
        addBos: true,
        onToolError: "observe",
        tokenizer: undefined,
        output: { open: "<information>", close: "</information>" },
        answer: { open: "<answer>", close: "</answer>" },
      },
      call: async (options) => {
        const rollout = new Rollout(toy, options);
        await rollout.collect(questions.slice(0, 1));
        if (!(rollout.stats.steps > 0)) throw new TypeError("no stats");
      },
      free: ["environment", "reward", "toolTimeout", "addBos"],
    },
    {
      name: "rollout.run, collect",
      good: {
        questions: questions.slice(0, 1),
        question: questions[0],
        options: {},
        purpose: "eval",
        variant: "dart",
        step: 1,
        signal: undefined,
      },
      call: async ({ questions: list, question, options, ...run }) => {
        const rollout = new Rollout(toy, { router, environment, reward, group: 1, maxLength: 60 });
        await rollout.collect(list, options);
        await rollout.collect([question], run);
        for await (const trajectory of rollout.run(list, run)) if (trajectory.id === "") throw new TypeError("no id");
        for await (const trajectory of rollout.run([question], options))
          if (trajectory.id === "") throw new TypeError("no id");
      },
    },
    {
      name: "measureVariants",
      good: {
        policies: { base: { model: toy, rollout: { router, environment, reward, maxLength: 60 } } },
        policy: { model: toy, rollout: { router, environment, reward, maxLength: 60 } },
        model: toy,
        adapters: undefined,
        rollout: { router, environment, reward, maxLength: 60 },
        questions: questions.slice(0, 1),
        question: questions[0],
        options: { samples: 1 },
        samples: 1,
        seed: 1,
        temperature: 1,
        streams: "independent",
        signal: undefined,
      },
      call: async ({ policies, policy, model, adapters, rollout, questions: list, question, options, ...rest }) => {
        await measureVariants(policies, list, { samples: 1 });
        await measureVariants({ base: policy }, [question], options);
        const { rows } = await measureVariants({ base: { model, adapters, rollout } }, list, rest);
        if ([...rows].length !== list.length) throw new TypeError("a row is missing");
      },
    },
    {
      name: "groupAdvantages",
      good: { rewards: [1, 0], options: {} },
      call: ({ rewards, options }) => groupAdvantages(rewards, options),
    },
    {
      name: "parseTrajectory, segments",
      good: { ...(JSON.parse(serializeTrajectory(trajectories[0] as Trajectory)) as Record<string, unknown>) },
      call: (fields) => {
        let line: string;
        try {
          line = JSON.stringify(fields);
        } catch {
          return; // no JSON, so no line
        }
        segments(parseTrajectory(line));
      },
      free: ["policyVersion", "response", "answer", "calls", "question"],
    },
    { name: "parseTrajectory's line", good: { line: "{}" }, call: ({ line }) => parseTrajectory(line) },
    {
      name: "signTest",
      good: { negative: 3, positive: 1 },
      call: ({ negative, positive }) => signTest(negative, positive),
    },
    {
      name: "wilcoxonTest",
      good: { x: [1, 2, -0.5], options: {}, method: "auto", zeroMethod: "pratt", correction: true },
      call: ({ x, options, ...own }) => {
        wilcoxonTest(x, options);
        wilcoxonTest(x, own);
      },
    },
    {
      name: "fitEffects",
      good: { variants: ["a", "b"], columns: ["c"], x: [[1], [2]], z: [1, 2], options: {}, tolerance: 1e-9 },
      call: ({ z, options, tolerance, ...design }) => {
        fitEffects(design, z, options);
        fitEffects(design, z, { tolerance });
      },
    },
    {
      name: "the sampling of a rollout",
      good: sampling,
      call: (own) =>
        new Rollout(toy, { router, environment, reward, group: 1, maxLength: 60, sampling: own }).collect(
          questions.slice(0, 1),
        ),
    },
    {
      name: "computeInterference",
      good: {
        samples: 50,
        correct: { base: [1], reas: [2], tool: [3], unified: [4], hybridTool: [5], hybridReas: [6] },
        ids: ["q"],
        clusters: [1],
        smoothing: "haldane",
        posterior: true,
        wilcoxon: {},
        intervals: true,
        population: "fixed",
        draws: 100,
        seed: 1,
        commonRandomNumbers: false,
      },
      call: ({ samples, correct, ids, clusters, ...options }) =>
        computeInterference({ samples, correct, ids, clusters }, options),
    },
    {
      name: "computeInterference of several seeds",
      good: {
        samples: 50,
        seeds: [1, 2],
        correct: Object.fromEntries(
          ["base", "reas", "tool", "unified", "hybridTool", "hybridReas"].map((name) => [name, [[1], [2]]]),
        ),
      },
      call: (table) => computeInterference(table),
    },
    {
      name: "computeInterference of outcomes",
      good: {
        samples: 2,
        correct: { base: [1], reas: [1], tool: [1], unified: [1], hybridTool: [1], hybridReas: [1] },
        outcomes: { base: [0, 1], reas: [0, 1], tool: [1, 0], unified: [0, 1] },
      },
      call: (table) => computeInterference(table, { commonRandomNumbers: true, population: "fixed" }),
    },
    {
      name: "effectsByAccuracy, effectsByHalves, splitHalves",
      good: {
        samples: 2,
        correct: { base: [1], reas: [1], tool: [1], unified: [1], hybridTool: [1], hybridReas: [1] },
        edges: [0, 0.5, 1],
        variants: ["hybridTool"],
        draws: 100,
      },
      call: async ({ samples, correct, ...options }) => {
        splitHalves({ samples, correct }, options);
        await effectsByHalves({ samples, correct }, options);
        return effectsByAccuracy({ samples, correct }, options);
      },
    },
    {
      name: "factorialDesign",
      good: { capabilities: ["a"], variants: { base: [], a: ["a"] } },
      call: ({ capabilities, variants }) => factorialDesign(capabilities, variants),
    },
    {
      name: "computeInterferenceSync",
      good: { rows: ["base", "reas"].map((variant) => ({ variant, id: "q", correct: 1, samples: 2 })) },
      call: (table) => computeInterferenceSync(table),
    },
    {
      name: "readAccuracyTable",
      good: {
        samples: 50,
        correct: { base: [1], reas: [2], tool: [3], unified: [4], hybridTool: [5], hybridReas: [6] },
        ids: ["q"],
        clusters: [1],
        missing: "drop",
        n: 3,
        threshold: 0.5,
        fields: { id: "id" },
        format: "csv",
      },
      call: ({ missing, n, threshold, fields, format, ...table }) =>
        readAccuracyTable(table, { missing, samples: n, threshold, fields, format }),
    },
    {
      name: "interferenceCsv, interferenceFigures, interferencePage",
      good: { result: drawn, options: {}, name: "a name", table: { rows: [] } },
      call: async ({ result, options, name, table }) => {
        await interferenceFigures(result);
        await interferenceCsv(result, { table });
        await interferencePage(result, options);
        await interferencePage(drawn, { name, table });
      },
    },
    {
      name: "loadTokenizer",
      good: { directory: worldTokenizer, addTokens: ["<call>"] },
      call: ({ directory, ...options }) => loadTokenizer(directory, options),
    },
    {
      name: "the tokenizer",
      good: { text: "Where is it?", ids: [1, 2, 3], token: "<eos>", messages: [{ role: "user", content: "x" }] },
      call: ({ text, ids, token, messages }) => {
        toy.tokenizer?.encode(text);
        toy.tokenizer?.encodePrompt(text);
        toy.tokenizer?.decode(ids);
        toy.tokenizer?.tokenId(token);
        try {
          toy.tokenizer?.applyChatTemplate(messages);
        } catch (error) {
          if ((error as { code?: string }).code !== "ERR_TOKENIZER_NO_TEMPLATE") throw error;
        }
      },
    },
  ];
}
