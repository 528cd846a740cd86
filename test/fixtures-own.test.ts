// The project's own reference values (scripts/fixtures/make.py: torch, float64) through the public API.
import path from "node:path";
import t from "tap";
import { checkForward, checkRouted, checkSupervised, devices } from "./helpers/reference.js";
import { root } from "./helpers/shared.js";

for (const name of ["tied", "untied", "qwen3", "llama3"]) {
  const directory = path.join(root, "test/fixtures/engine", name);
  for (const device of devices) {
    t.test(`${name}, ${device}: logits and log-probabilities`, (t) => checkForward(t, directory, device));
    t.test(`${name}, ${device}: routed adapters, loss and gradients`, (t) => checkRouted(t, directory, device));
    t.test(`${name}, ${device}: gradients of every parameter`, (t) => checkSupervised(t, directory, device));
  }
}
