// A run whose tool is a server: the same steps as with the search in memory, and a server that is gone is told.
import t from "tap";
import {
  loadRun,
  readRunConfig,
  SearchEnvironment,
  startRetriever,
  trainRun,
  WORLD_TAGS,
  type RunConfigInput,
} from "rolegrad";
import { rolegrad } from "./helpers/command.js";
import { world, worldRunFile } from "./helpers/world.js";

const shown = { topK: 1, passage: "{title}. {text}", separator: " " };

async function train(change: Partial<RunConfigInput>) {
  const setup = await loadRun(
    await readRunConfig(worldRunFile({ steps: 1, evaluation: { every: 0, questions: 1 }, ...change })),
  );
  const steps: unknown[] = [];
  try {
    await trainRun(setup, { onStep: ({ reward, loss }) => void steps.push({ reward, loss }) });
  } finally {
    setup.close();
  }
  return steps;
}

t.test("a run on a retriever takes the steps of the run on the same search in memory", async (t) => {
  const server = await startRetriever(SearchEnvironment.fromPassages(world.pages, { titleWeight: 2 }), { port: 0 });
  t.teardown(() => server.close());
  const inMemory = await train({});
  t.equal(inMemory.length, 1);
  t.same(await train({ environment: { kind: "retriever", url: server.url, ...shown, batch: {} } }), inMemory);
});

t.test("what the tools of a set were asked again is told by role, as of a single tool", async (t) => {
  const server = await startRetriever(SearchEnvironment.fromPassages(world.pages, { titleWeight: 2 }), { port: 0 });
  t.teardown(() => server.close());
  const search = { kind: "retriever" as const, url: server.url, ...shown, limits: { cacheEntries: 1000 } };
  const run = { steps: 1, evaluation: { every: 0, questions: 1 } };
  const spans = [{ role: "tool", open: "<search>", close: "</search>", tool: "search" }];
  const agent = { prompt: " Question: {question}\n", output: WORLD_TAGS.output, maxLength: 256, spans };
  const hits: number[] = [];
  for (const change of [{ environment: search }, { environment: { kind: "set" as const, tools: { search } }, agent }]) {
    const setup = await loadRun(await readRunConfig(worldRunFile({ ...run, ...change })));
    const { metrics } = await trainRun(setup).finally(() => setup.close());
    t.same(Object.keys(metrics[0]!.tools!), ["tool"]);
    hits.push(metrics[0]!.tools!["tool"]!.cacheHits);
  }
  t.ok(hits[0]! > 0);
  t.equal(hits[1], hits[0]);
});

t.test("train says which server it asks, and that a secret's variable is not set", async (t) => {
  const server = await startRetriever(SearchEnvironment.fromPassages(world.pages), { port: 0 });
  t.teardown(() => server.close());
  const environment = { kind: "retriever" as const, url: server.url, ...shown };
  const run = { steps: 1, evaluation: { every: 0, questions: 1 } };
  const done = await rolegrad(["train", worldRunFile({ ...run, environment })]);
  t.match(done, { status: 0, stdout: new RegExp(`tool +retriever at ${server.url}`) });
  const env = { MY_TOKEN: undefined };
  const file = worldRunFile({ ...run, environment: { ...environment, auth: { bearerFrom: "MY_TOKEN" } } });
  t.match(await rolegrad(["train", file], { env }), { status: 1, stderr: /ERR_CONFIG.*MY_TOKEN to be set/ });
  const both = worldRunFile({
    ...run,
    environment: { ...environment, auth: { username: "a", bearerFrom: "MY_TOKEN" } },
  });
  t.match(await rolegrad(["train", both], { env }), { status: 1, stderr: /ERR_CONFIG.*Expected either username/ });
});
