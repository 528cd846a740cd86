// A model is in memory once: its panels. The pages of the mapped file are given back as they are packed.
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { writeSafetensors, type TensorData } from "../lib/model/safetensors.js";
import { runProgram } from "./helpers/command.js";
import { root } from "./helpers/shared.js";

interface Sizes {
  weightBytes: number;
  /** kB of /proc/self/status before and after the load: VmHWM is the highest VmRSS so far. */
  before: Record<string, number>;
  after: Record<string, number>;
}

const program = `
import { readFileSync } from "node:fs";
import { loadModel } from "rolegrad";
const status = () => Object.fromEntries(
  [...readFileSync("/proc/self/status", "utf8").matchAll(/^(\\w+):\\s+(\\d+) kB$/gm)].map(([, name, kb]) => [name, Number(kb)]));
const small = await loadModel(process.argv[1]); // loads the addon, starts the threads
small.close();
const before = status();
const model = await loadModel(process.argv[2], process.argv[3] === "wide" ? { dtype: "float32" } : {});
console.log(JSON.stringify({ weightBytes: model.info.weightBytes, before, after: status() }));
model.close();
`;

/** A bf16 checkpoint of some 80 MB, of which no tensor is a large part. */
async function writeLargeModel(directory: string): Promise<void> {
  const [vocabulary, hidden, intermediate, layers, heads, headDim] = [8000, 512, 4096, 5, 8, 64];
  const tensors: TensorData[] = [];
  const add = (name: string, ...shape: number[]): void => {
    const data = new Uint16Array(shape.reduce((a, b) => a * b, 1)).fill(0x3c00);
    tensors.push({ name, dtype: "BF16", shape, data });
  };
  add("model.embed_tokens.weight", vocabulary, hidden);
  add("model.norm.weight", hidden);
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}`;
    add(`${prefix}.input_layernorm.weight`, hidden);
    add(`${prefix}.post_attention_layernorm.weight`, hidden);
    for (const name of ["q", "k", "v"]) {
      add(`${prefix}.self_attn.${name}_proj.weight`, heads * headDim, hidden);
      add(`${prefix}.self_attn.${name}_proj.bias`, heads * headDim);
    }
    add(`${prefix}.self_attn.o_proj.weight`, hidden, heads * headDim);
    add(`${prefix}.mlp.gate_proj.weight`, intermediate, hidden);
    add(`${prefix}.mlp.up_proj.weight`, intermediate, hidden);
    add(`${prefix}.mlp.down_proj.weight`, hidden, intermediate);
  }
  await writeSafetensors(path.join(directory, "model.safetensors"), tensors);
  const config = {
    model_type: "qwen2",
    vocab_size: vocabulary,
    hidden_size: hidden,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: heads,
    intermediate_size: intermediate,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    tie_word_embeddings: true,
    max_position_embeddings: 1024,
  };
  await writeFile(path.join(directory, "config.json"), JSON.stringify(config));
}

const linux = existsSync("/proc/self/status") ? {} : { skip: "memory is measured in /proc/self/status" };
t.test("mapped weights are not held twice, neither while they are packed nor after", linux, async (t) => {
  const directory = t.testdir();
  await writeLargeModel(directory);
  const small = path.join(root, "test/fixtures/engine/tied");
  for (const dtype of ["stored", "wide"]) {
    const args = ["--input-type=module", "-e", program, small, directory, dtype];
    const { status, stdout, stderr } = await runProgram(process.execPath, args, { env: { NODE_OPTIONS: undefined } });
    t.equal(status, 0, stderr);
    const { weightBytes, before, after } = JSON.parse(stdout) as Sizes;
    const grown = (name: string): number => (((after[name] as number) - (before[name] as number)) * 1024) / weightBytes;
    t.ok(weightBytes > 75e6);
    t.ok(grown("VmRSS") > 0.9, `${dtype}: the panels are there (${grown("VmRSS").toFixed(2)} of their size)`);
    t.ok(grown("VmRSS") < 1.15, `${dtype}: and nothing else (${grown("VmRSS").toFixed(2)})`);
    t.ok(grown("RssFile") < 0.1, `${dtype}: no page of the file (${grown("RssFile").toFixed(2)})`);
    const peak = (((after["VmHWM"] as number) - (before["VmRSS"] as number)) * 1024) / weightBytes;
    t.ok(peak < 1.4, `${dtype}: at no time more than one tensor twice (${peak.toFixed(2)})`);
  }
});
