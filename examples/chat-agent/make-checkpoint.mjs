// A tiny checkpoint with a chat template, out of the base that this package ships: node make-checkpoint.mjs OUT
// It has no more learned to write JSON than any other small base: it shows the path, and nothing is learned on it.
import { mkdir, readFile, writeFile } from "node:fs/promises";

const out = process.argv[2];
if (out === undefined) throw new Error("Expected the directory to make");
const base = new URL("../../assets/world/", import.meta.url);
const read = async (name) => JSON.parse(await readFile(new URL(name, base), "utf8"));
const write = (name, value) => writeFile(`${out}/${name}`, `${JSON.stringify(value, null, 1)}\n`);
await mkdir(out, { recursive: true });

// Each new token begins as a copy of one that the base uses, so that it opens calls, closes them and ends its turns.
const copies = {
  "<|im_start|>": "<pad>",
  "<|im_end|>": "<eos>",
  "<tool_call>": "<search>",
  "</tool_call>": "</search>",
};
const tokenizer = await read("tokenizer.json");
const config = await read("config.json");
const idOf = (content) => tokenizer.added_tokens.find((token) => token.content === content).id;
const rows = Object.values(copies).map(idOf);
Object.keys(copies).forEach((content, i) => {
  const special = content.startsWith("<|");
  const plain = { single_word: false, lstrip: false, rstrip: false, normalized: false, special };
  tokenizer.added_tokens.push({ id: config.vocab_size + i, content, ...plain });
});
const end = config.vocab_size + 1;
await write("tokenizer.json", tokenizer);
await write("tokenizer_config.json", { ...(await read("tokenizer_config.json")), eos_token: "<|im_end|>" });
await write("generation_config.json", { eos_token_id: [end, config.eos_token_id] });
await write("config.json", {
  ...config,
  vocab_size: config.vocab_size + rows.length,
  eos_token_id: end,
  max_position_embeddings: 2048, // the base has seen texts of 200 tokens; a prompt with tools is longer
});
await writeFile(`${out}/chat_template.jinja`, await readFile(new URL("template.jinja", import.meta.url)));

// safetensors: the length of the header, the header (JSON), the data. The embedding gets the rows.
const file = await readFile(new URL("model.safetensors", base));
const size = Number(file.readBigUInt64LE());
const { __metadata__, ...tensors } = JSON.parse(file.subarray(8, 8 + size).toString());
const data = file.subarray(8 + size);
const parts = [];
let offset = 0;
for (const [name, tensor] of Object.entries(tensors)) {
  const values = data.subarray(...tensor.data_offsets);
  parts.push(values);
  if (name === "model.embed_tokens.weight") {
    const bytes = values.length / tensor.shape[0];
    parts.push(...rows.map((id) => values.subarray(id * bytes, (id + 1) * bytes)));
    tensor.shape[0] += rows.length;
  }
  const begin = offset;
  offset = parts.reduce((sum, part) => sum + part.length, 0);
  tensor.data_offsets = [begin, offset];
}
const header = Buffer.from(JSON.stringify({ ...(__metadata__ && { __metadata__ }), ...tensors }));
const length = Buffer.alloc(8);
length.writeBigUInt64LE(BigInt(header.length));
await writeFile(`${out}/model.safetensors`, Buffer.concat([length, header, ...parts]));
console.log(`a checkpoint with a chat template in ${out}`);
