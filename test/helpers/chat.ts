// Tokenizers with chat templates (test/fixtures/chat, written for these tests): the embedded world's, with the tokens of turns added.
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { root } from "./shared.js";
import { worldTokenizer } from "./toy.js";

export const templates = ["chatml", "thinking", "stripping", "headers"] as const;
export type TemplateName = (typeof templates)[number];

/** Tokens that open and close turns, and tags, by template. */
export const turnTokens = [
  "<|im_start|>",
  "<|im_end|>",
  "<|start_header_id|>",
  "<|end_header_id|>",
  "<|eot_id|>",
  "<|bos|>",
];
const tags = ["<tool_call>", "</tool_call>"];

/** Writes tokenizer.json, tokenizer_config.json and chat_template.jinja; returns the directory. */
export function writeChatTokenizer(directory: string, template: TemplateName): string {
  mkdirSync(directory, { recursive: true });
  const file = path.join(directory, "tokenizer.json");
  cpSync(path.join(worldTokenizer, "tokenizer.json"), file);
  type Json = { added_tokens: object[]; model: { vocab: Record<string, number> } };
  const json = JSON.parse(readFileSync(file, "utf8")) as Json;
  let id = Math.max(...Object.values(json.model.vocab), json.added_tokens.length) + 1;
  const plain = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  for (const content of turnTokens) json.added_tokens.push({ id: id++, content, special: true, ...plain });
  for (const content of tags) json.added_tokens.push({ id: id++, content, special: false, ...plain });
  writeFileSync(file, JSON.stringify(json));
  const end = template === "headers" ? "<|eot_id|>" : "<|im_end|>";
  const config = { eos_token: end, bos_token: "<|bos|>", pad_token: "<pad>" };
  writeFileSync(path.join(directory, "tokenizer_config.json"), JSON.stringify(config));
  cpSync(path.join(root, `test/fixtures/chat/${template}.jinja`), path.join(directory, "chat_template.jinja"));
  return directory;
}
