// Trains assets/world/model.safetensors, the base that the quickstart starts from. Run after `npm run build`:
//
//   node scripts/world/make-base.mjs [DIRECTORY] [SEED]
import { parseArgs } from "node:util";
import { trainBase, WORLD_CHECKPOINT } from "rolegrad";

const { positionals } = parseArgs({ allowPositionals: true });
const [directory = WORLD_CHECKPOINT, seed = "1"] = positionals;
const began = performance.now();
await trainBase({
  directory,
  seed: Number(seed),
  onProgress: ({ step, tokens, loss }) => {
    if (step % 100 !== 0) return;
    const seconds = ((performance.now() - began) / 1000).toFixed(0);
    console.log(`step ${step}, ${(tokens / 1e6).toFixed(2)} M tokens, loss ${loss.toFixed(4)}, ${seconds} s`);
  },
});
console.log(`${directory}: done in ${((performance.now() - began) / 1000).toFixed(0)} s`);
