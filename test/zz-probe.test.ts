import t from "tap";
import path from "node:path";
import { loadModel, Rollout, RoleRouter } from "rolegrad";
import { writeToyModel, randomAdapters } from "./helpers/engine.js";
import { root } from "./helpers/shared.js";
t.test("x", async (t) => {
  const dir = t.testdir();
  const tokens = { "<search>": 4.3, "</search>": 5.2, "<eos>": 3.5, "<answer>": 3.5, "</answer>": 4 };
  await writeToyModel(dir, { tokenizer: path.join(root, "assets/world"), tokens });
  const model = await loadModel(dir);
  const adapters = randomAdapters(model, { roles: ["reason", "tool"] });
  const router = new RoleRouter({ roles: ["reason", "tool"], base: "reason", spans: [{ role: "tool", open: "<search>", close: "</search>" }] });
  const rollout = new Rollout(model, { adapters, router, environment: { act: async ({ text }) => ({ text: `found ${text.length}` }) }, reward: () => 1, sampling: { maxNewTokens: 80 }, group: 20 });
  const start = performance.now();
  const got = await rollout.collect([{ id: "q", question: "Where?", answers: [] }]);
  console.error(performance.now() - start);
  for (const x of got) console.error(x.finish, x.calls.length, x.ids.length, x.response.slice(0, 150));
});
