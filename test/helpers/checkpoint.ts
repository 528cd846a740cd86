// Checkpoint directories with something wrong in them.
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { checkpoints } from "./engine.js";

type Json = Record<string, unknown>;
export type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;

/** Copies a checkpoint (config.json and model.safetensors), changing some fields of its config; undefined removes one. */
export function copyCheckpoint(to: string, config: Json = {}, from: keyof typeof checkpoints = "tied"): string {
  mkdirSync(to, { recursive: true });
  for (const file of ["config.json", "model.safetensors"])
    cpSync(path.join(checkpoints[from], file), path.join(to, file));
  const file = path.join(to, "config.json");
  const whole = JSON.parse(readFileSync(file, "utf8")) as Json;
  writeFileSync(file, JSON.stringify({ ...whole, ...config }));
  return to;
}

/** Header and data of a safetensors file. */
export function splitSafetensors(file: string): { header: Header; data: Buffer } {
  const bytes = readFileSync(file);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString()) as Header;
  return { header, data: bytes.subarray(8 + length) };
}

/** A safetensors file of this header (an object, or text that may be none) and data; `length` is what its first 8 bytes say. */
export function safetensorsBytes(header: unknown, data: Uint8Array, length?: bigint): Buffer {
  const text = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(length ?? BigInt(text.length));
  return Buffer.concat([prefix, text, data]);
}

/** Replaces the header of a checkpoint's model.safetensors by what `change` makes of it. */
export function changeHeader(directory: string, change: (header: Header, data: Buffer) => unknown): void {
  const file = path.join(directory, "model.safetensors");
  const { header, data } = splitSafetensors(file);
  const changed = change(header, data) ?? header;
  rmSync(file);
  writeFileSync(file, Buffer.isBuffer(changed) ? changed : safetensorsBytes(changed, data));
}
