// In a file of its own: the sanitizer run leaves it out, as Node frees a promise's handle (8 bytes) only when it settles.
import { once } from "node:events";
import { setTimeout } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import t from "tap";
import { computeInterferenceSync } from "rolegrad/attribution";
import { table } from "./helpers/tables.js";

t.test("a worker that is terminated in the middle of a computation ends cleanly", async (t) => {
  const source = `
    const { parentPort } = require("node:worker_threads");
    import("rolegrad/attribution").then(({ computeInterference }) => {
      const samples = 32000;
      const k = (v) => Int32Array.from({ length: 3000 }, (_, q) => (q * 7919 * v) % samples);
      const correct = { base: k(1), reas: k(2), tool: k(3), unified: k(4), hybridTool: k(5), hybridReas: k(6) };
      computeInterference({ samples, correct });
      parentPort.postMessage("started");
    });`;
  // Before the work begins, in its midst, as it settles, after.
  for (let delay = 0; delay < 200; delay += 20) {
    const worker = new Worker(source, { eval: true });
    await once(worker, "message");
    await setTimeout(delay);
    await worker.terminate();
  }
  // The engine outlives the workers, here the first to load it.
  t.equal(computeInterferenceSync(table([[1, 2, 3, 4, 5, 6]], 10)).kept.length, 1);
});
