import { cpSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import fc from "fast-check";
import t, { type Test } from "tap";
import { loadTokenizer, type ChatMessage, type Tokenizer } from "rolegrad";
import { needsShared, root, shared } from "./helpers/shared.js";

const WORLD = path.join(root, "assets/world");
type Json = Record<string, unknown>;

/** The bytes of ids, end to end. */
function bytesOf(tokenizer: Tokenizer, ids: number[]): Buffer {
  const table = tokenizer.tokenBytes();
  return Buffer.concat(ids.map((id) => table[id]!));
}

/** A copy of the world's tokenizer with its tokenizer.json changed. */
function edited(t: Test, edit: (json: Json & { model: Json; added_tokens: Json[] }) => void): string {
  const folder = t.testdir({});
  cpSync(WORLD, folder, { recursive: true });
  const file = path.join(folder, "tokenizer.json");
  const json = JSON.parse(readFileSync(file, "utf8")) as Json & { model: Json; added_tokens: Json[] };
  edit(json);
  writeFileSync(file, JSON.stringify(json));
  return folder;
}

t.test("a text becomes ids and ids become the text", async (t) => {
  const tokenizer = await loadTokenizer(WORLD);
  const text = " Question: Who founded Viswick Press?\n<think> I need naïve 東京 🙂.</think>";
  t.equal(tokenizer.decode(tokenizer.encode(text)), text);
  t.equal(tokenizer.decode(Int32Array.from(tokenizer.encode(text))), text);
  t.strictSame(tokenizer.encode(""), []);
  t.equal(tokenizer.decode([]), "");
});

t.test("a tag is one token, and special tokens are left out on request", async (t) => {
  const tokenizer = await loadTokenizer(WORLD);
  const search = tokenizer.tokenId("<search>")!;
  t.strictSame(tokenizer.encode("<search>"), [search]);
  t.equal(tokenizer.tokenId("<nonsense>"), undefined);
  const ids = [search, tokenizer.eosTokenId!, tokenizer.padTokenId!];
  t.equal(tokenizer.decode(ids), "<search><eos><pad>");
  t.equal(tokenizer.decode(ids, { skipSpecialTokens: true }), "<search>");
  t.strictSame([tokenizer.bosTokenId, ...tokenizer.eosTokenIds], [undefined, 1]);
});

t.test("ids beyond the tokenizer's decode to nothing", async (t) => {
  const tokenizer = await loadTokenizer(WORLD);
  const [id] = tokenizer.encode("x");
  t.equal(tokenizer.decode([id!, tokenizer.vocabularySize, 1e6]), "x");
  t.equal(tokenizer.tokenBytes().length, tokenizer.vocabularySize);
});

t.test("the bytes of a text's tokens are the text's", async (t) => {
  const folders = [
    WORLD,
    ...["qwen2-tiny", "llama3-tiny", "tokenizer-atomic"].map((name) => shared(`fixtures/${name}`)),
  ];
  for (const folder of folders.filter((folder) => folder !== undefined)) {
    const tokenizer = await loadTokenizer(folder);
    const file = JSON.parse(readFileSync(tokenizer.file, "utf8")) as { normalizer: { type: string } | null };
    const normalised = (text: string): string => (file.normalizer?.type === "NFC" ? text.normalize("NFC") : text);
    const piece = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.string({ unit: "grapheme" }),
      fc.constantFrom("<search>", " the", "e\u0301", "\n", "<|im_end|>"),
    );
    const holds = fc.property(fc.array(piece, { maxLength: 5 }), (pieces) => {
      const text = pieces.join("");
      return bytesOf(tokenizer, tokenizer.encode(text)).equals(Buffer.from(normalised(text)));
    });
    t.doesNotThrow(() => fc.assert(holds, { seed: 1, numRuns: 300 }), folder);
  }
});

t.test("with byte fallback a token's bytes are its text or its one byte", async (t) => {
  const byteTokens = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`);
  const tokens = ["<unk>", "<s>", ...byteTokens, "▁", "a", "b", "▁a", "▁ab"];
  const tokenizer = {
    added_tokens: [{ id: 1, content: "<s>", special: true }],
    normalizer: { type: "Replace", pattern: { String: " " }, content: "▁" },
    pre_tokenizer: null,
    post_processor: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
    model: {
      type: "BPE",
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: [
        ["▁", "a"],
        ["▁a", "b"],
      ],
      unk_token: "<unk>",
      byte_fallback: true,
    },
  };
  const loaded = await loadTokenizer(t.testdir({ "tokenizer.json": JSON.stringify(tokenizer) }));
  t.equal(bytesOf(loaded, loaded.encode(" ab é<s> a🙂")).toString(), " ab é<s> a🙂");
  t.equal(loaded.decode(loaded.encode(" ab é")), "ab é");
});

t.test("another decoder has no bytes and is refused by name", async (t) => {
  for (const decoder of [{ type: "WordPiece" }, { type: "Metaspace" }, null]) {
    const tokenizer = await loadTokenizer(edited(t, (json) => (json["decoder"] = decoder)));
    const message = decoder === null ? /no decoder/ : new RegExp(`${decoder.type}`);
    t.throws(() => tokenizer.tokenBytes(), { code: "ERR_TOKENIZER_UNSUPPORTED", message });
  }
});

t.test("ids that end a generation come from generation_config.json first", async (t) => {
  const folder = edited(t, () => {});
  const eos = async (config: object): Promise<unknown> => {
    writeFileSync(path.join(folder, "generation_config.json"), JSON.stringify(config));
    return (await loadTokenizer(folder)).eosTokenIds;
  };
  t.strictSame(await eos({ eos_token_id: [1, 9] }), [1, 9]);
  t.strictSame(await eos({ eos_token_id: 9 }), [9]);
  t.strictSame(await eos({ eos_token_id: null }), [1]);
  t.strictSame(await eos({}), [1]);
});

t.test("a chat template is applied, from either file", async (t) => {
  const folder = edited(t, () => {});
  const tokenizer = await loadTokenizer(folder);
  t.throws(() => tokenizer.applyChatTemplate([]), { code: "ERR_TOKENIZER_NO_TEMPLATE", message: /tokenizer\.json/ });
  const template =
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}>{% endif %}";
  const messages = [{ role: "user", content: "Who?" }];
  writeFileSync(path.join(folder, "chat_template.jinja"), template);
  const withTemplate = await loadTokenizer(folder);
  t.equal(withTemplate.applyChatTemplate(messages), "[user] Who?<eos>");
  t.equal(withTemplate.applyChatTemplate(messages, { addGenerationPrompt: true }), "[user] Who?<eos>>");
  for (const broken of ["{% for %}", "{{ raise_exception('no system role') }}"]) {
    writeFileSync(path.join(folder, "chat_template.jinja"), broken);
    const tokenizer = await loadTokenizer(folder);
    t.throws(() => tokenizer.applyChatTemplate(messages), { code: "ERR_TOKENIZER_TEMPLATE" });
  }
});

t.test("a missing or half tokenizer.json is named", async (t) => {
  const missing = path.join(t.testdir({}), "nowhere");
  await t.rejects(loadTokenizer(missing), { code: "ERR_TOKENIZER_NOT_FOUND", message: /nowhere/ });
  const whole = readFileSync(path.join(WORLD, "tokenizer.json"), "utf8");
  const half = t.testdir({ "tokenizer.json": whole.slice(0, whole.length / 2) });
  await t.rejects(loadTokenizer(half), { code: "ERR_TOKENIZER_JSON", message: /tokenizer\.json.*cut short/ });
  await t.rejects(loadTokenizer(t.testdir({ "tokenizer.json": "[]" })), { code: "ERR_TOKENIZER_JSON" });
  await t.rejects(loadTokenizer(t.testdir({ "tokenizer.json": {} })), { code: "ERR_TOKENIZER_UNREADABLE" });
  const config = t.testdir({ "tokenizer.json": whole, "tokenizer_config.json": "{" });
  await t.rejects(loadTokenizer(config), { code: "ERR_TOKENIZER_JSON", message: /tokenizer_config\.json/ });
});

t.test("a hostile tokenizer.json is refused before it is used", async (t) => {
  const cases: [string, (json: Json & { model: Json; added_tokens: Json[] }) => void, string][] = [
    ["no model", (json) => Object.assign(json, { model: null }), "INVALID"],
    ["no vocabulary", ({ model }) => delete model["vocab"], "INVALID"],
    ["an absurd id", ({ model }) => Object.assign(model["vocab"] as Json, { zzz: 2 ** 40 }), "INVALID"],
    ["a negative id", ({ model }) => Object.assign(model["vocab"] as Json, { zzz: -1 }), "INVALID"],
    ["an id that is text", ({ model }) => Object.assign(model["vocab"] as Json, { zzz: "3" }), "INVALID"],
    ["two tokens of one id", ({ model }) => Object.assign(model["vocab"] as Json, { zzz: 300 }), "INVALID"],
    ["an absurd added id", ({ added_tokens: [first] }) => (first!["id"] = 2 ** 31), "INVALID"],
    ["an empty added token", ({ added_tokens: [first] }) => (first!["content"] = ""), "INVALID"],
    ["an added token in another's place", ({ added_tokens: [first] }) => (first!["id"] = 400), "INVALID"],
    ["a merge of nothing known", ({ model }) => (model["merges"] as string[]).push("zq xq"), "INVALID"],
    ["a merge that is no pair", ({ model }) => (model["merges"] as unknown[]).push(7), "INVALID"],
    ["merges that are none", ({ model }) => Object.assign(model, { merges: "x" }), "INVALID"],
    ["a list of decoders", (json) => Object.assign(json, { decoder: [] }), "INVALID"],
    ["an unknown model", ({ model }) => Object.assign(model, { type: "Oracle" }), "UNSUPPORTED"],
    ["an unknown pre-tokenizer", (json) => Object.assign(json, { pre_tokenizer: { type: "Oracle" } }), "UNSUPPORTED"],
    [
      "a broken pattern",
      (json) => Object.assign(json, { pre_tokenizer: { type: "Split", pattern: { Regex: "(" } } }),
      "INVALID",
    ],
  ];
  for (const [what, edit, code] of cases) {
    const rejection = { code: `ERR_TOKENIZER_${code}`, message: /tokenizer\.json/ };
    await t.rejects(loadTokenizer(edited(t, edit)), rejection, what);
  }
});

t.test("a token that has no id is an error, not a hole in the ids", async (t) => {
  const single = [{ SpecialToken: { id: "<start>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }];
  const post_processor = { type: "TemplateProcessing", single, pair: single, special_tokens: {} };
  const tokenizer = await loadTokenizer(edited(t, (json) => Object.assign(json, { post_processor })));
  t.equal(tokenizer.encode("x").length, 1);
  t.throws(() => tokenizer.encode("x", { addSpecialTokens: true }), {
    code: "ERR_TOKENIZER_INVALID",
    message: /<start>/,
  });
  // @ts-expect-error: no text
  t.throws(() => tokenizer.encode(7), { code: "ERR_INVALID_ARGUMENT" });
});

interface Reference {
  encode: { text: string; ids: number[]; ids_with_special: number[]; decoded: string; decoded_skip_special: string }[];
  chat: { messages: ChatMessage[]; add_generation_prompt: boolean; text: string; ids: number[] }[];
}

for (const name of ["qwen2-tiny", "qwen3-tiny", "llama3-tiny", "tokenizer-atomic"]) {
  const file = `fixtures/${name}/encode.json`;
  t.test(`${name}: ids, text and chat are the reference's`, needsShared(file), async (t) => {
    const reference = JSON.parse(readFileSync(shared(file)!, "utf8")) as Reference;
    const tokenizer = await loadTokenizer(shared(`fixtures/${name}`)!);
    t.ok(reference.encode.length > 0 && reference.chat.length > 0);
    for (const [i, { text, ids, ids_with_special, decoded, decoded_skip_special }] of reference.encode.entries()) {
      t.strictSame(tokenizer.encode(text), ids, `text ${i}`);
      t.strictSame(tokenizer.encode(text, { addSpecialTokens: true }), ids_with_special);
      t.strictSame(tokenizer.encodePrompt(text), ids_with_special, "which here only put BOS first");
      t.equal(tokenizer.decode(ids), decoded);
      t.equal(tokenizer.decode(ids, { skipSpecialTokens: true }), decoded_skip_special);
      t.equal(bytesOf(tokenizer, ids).toString(), decoded);
    }
    for (const { messages, add_generation_prompt, text, ids } of reference.chat) {
      const chat = tokenizer.applyChatTemplate(messages, { addGenerationPrompt: add_generation_prompt });
      t.equal(chat, text);
      t.strictSame(tokenizer.encode(chat), ids);
    }
  });
}
