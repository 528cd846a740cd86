// Makes the world's tokenizer and model configuration in assets/world; needs dist (npm run build:ts).
//   node scripts/world/make-tokenizer.mjs           writes the files
//   node scripts/world/make-tokenizer.mjs --check   exits 1 where they differ from what is there
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { Random } from "../../dist/random.js";
import { demonstration, HARD } from "../../dist/world/demonstrations.js";
import { COUNTRIES, FIRM_KINDS, FIRST_NAMES, PRODUCTS, SEAS, STEMS } from "../../dist/world/names.js";
import { World } from "../../dist/world/world.js";
import { ALPHABET, learnMerges } from "./bpe.mjs";

const SPECIAL = ["<pad>", "<eos>"];
const TAGS = ["think", "search", "information", "answer"].flatMap((tag) => [`<${tag}>`, `</${tag}>`]);
const MAX_TOKENS = 1280;
// Often enough that each name becomes one token, and their parts do before rarer things.
const NAME_REPEATS = 40;

/** Demonstrations of worlds that nothing else uses, without tags, and every name. */
function corpus() {
  const texts = [];
  for (let seed = 9000; seed < 9020; seed++) {
    const world = new World({ seed, people: 60, towns: 30, firms: 24, rivers: 16, splits: { all: 1 } });
    const random = new Random(seed, "world/tokenizer");
    for (const question of world.questions("all", 150, 0)) {
      const segments = demonstration(world, question, random, HARD);
      texts.push(world.prompt(question), ...segments.flatMap(({ text }) => text.split(/<[^>]*>/)));
    }
  }
  for (const name of [...STEMS, ...COUNTRIES, ...FIRST_NAMES, ...FIRM_KINDS, ...SEAS, ...PRODUCTS]) {
    texts.push(` ${name}`.repeat(NAME_REPEATS));
  }
  return texts;
}

function tokenizer() {
  const added = [...SPECIAL, ...TAGS];
  const merges = learnMerges(corpus(), MAX_TOKENS - added.length - ALPHABET.length);
  const alphabet = [...ALPHABET].sort();
  const tokens = [...added, ...alphabet, ...merges.map(([a, b]) => a + b)];
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added.map((content, id) => ({ id, content, ...flags, special: SPECIAL.includes(content) })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: merges.map((pair) => pair.join(" ")),
    },
  };
}

const made = tokenizer();
const files = {
  "tokenizer.json": made,
  "tokenizer_config.json": {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: null,
    eos_token: "<eos>",
    pad_token: "<pad>",
    model_max_length: 512,
    clean_up_tokenization_spaces: false,
  },
  "config.json": {
    architectures: ["Qwen2ForCausalLM"],
    model_type: "qwen2",
    hidden_size: 128,
    intermediate_size: 256,
    num_hidden_layers: 3,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    hidden_act: "silu",
    attention_dropout: 0,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    max_position_embeddings: 512,
    sliding_window: null,
    use_sliding_window: false,
    tie_word_embeddings: true,
    vocab_size: Object.keys(made.model.vocab).length,
    bos_token_id: null,
    eos_token_id: SPECIAL.indexOf("<eos>"),
    pad_token_id: SPECIAL.indexOf("<pad>"),
    initializer_range: 0.02,
    torch_dtype: "bfloat16",
    use_cache: true,
  },
  "generation_config.json": {
    do_sample: true,
    temperature: 1,
    eos_token_id: SPECIAL.indexOf("<eos>"),
    pad_token_id: SPECIAL.indexOf("<pad>"),
  },
};

const folder = path.resolve(import.meta.dirname, "../../assets/world");
const check = process.argv.includes("--check");
mkdirSync(folder, { recursive: true });
for (const [name, value] of Object.entries(files)) {
  const file = path.join(folder, name);
  const text = `${JSON.stringify(value, null, 1)}\n`;
  if (!check) writeFileSync(file, text);
  else if (readFileSync(file, "utf8") !== text) {
    console.error(`${file} differs from what this script makes`);
    process.exitCode = 1;
  }
}
