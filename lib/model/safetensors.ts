import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { open } from "node:fs/promises";
import { describe } from "../arguments.js";
import { writeDurable } from "../durable.js";
import { fail } from "../errors.js";

/** Where a tensor of a safetensors file lies; offsets are from the start of the file. */
export interface TensorPlace {
  name: string;
  dtype: string;
  shape: number[];
  begin: number;
  end: number;
}

/** A tensor to write. */
export interface TensorData {
  name: string;
  dtype: "F32" | "BF16" | "I32" | "F64";
  shape: number[];
  data: Float32Array | Uint16Array | Int32Array | Float64Array;
}

const BYTES: Record<string, number> = {
  F64: 8,
  I64: 8,
  U64: 8,
  F32: 4,
  I32: 4,
  U32: 4,
  F16: 2,
  BF16: 2,
  I16: 2,
  U16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I8: 1,
  U8: 1,
  BOOL: 1,
};

// The format's own limit, so that a hostile length is no allocation.
const MAX_HEADER = 100_000_000;

/**
 * The header of a safetensors file. Everything that it says is checked against the file: lengths, types, shapes, offsets that overlap,
 * leave holes or lie outside. Throws ERR_SAFETENSORS naming the file and the tensor.
 */
export function readSafetensorsHeader(file: string): { tensors: TensorPlace[]; metadata: Record<string, string> } {
  const bad = (what: string): never => fail("ERR_SAFETENSORS", `${file}: ${what}. Is the download complete?`);
  let fd: number;
  try {
    fd = openSync(file, "r");
  } catch (cause) {
    return fail("ERR_SAFETENSORS", `Cannot open ${file}: ${(cause as Error).message}`, cause);
  }
  try {
    const info = fstatSync(fd);
    if (!info.isFile()) bad("Expected a file");
    const { size } = info;
    const prefix = Buffer.alloc(8);
    if (size < 8 || readSync(fd, prefix, 0, 8, 0) !== 8)
      bad(`Expected a header length of 8 bytes but the file has ${size}`);
    const wide = prefix.readBigUInt64LE(0);
    if (wide > BigInt(Math.min(MAX_HEADER, size - 8)))
      bad(`Expected a header of at most ${Math.min(MAX_HEADER, size - 8)} bytes but its length says ${wide}`);
    const length = Number(wide);
    const text = Buffer.alloc(length);
    if (readSync(fd, text, 0, length, 8) !== length) bad("Expected the whole header but the file ends within it");
    let header: unknown;
    try {
      header = JSON.parse(text.toString("utf8"));
    } catch (cause) {
      bad(`Expected a JSON header but it does not parse (${(cause as Error).message})`);
    }
    if (typeof header !== "object" || header === null || Array.isArray(header))
      bad("Expected the header to be an object");
    const metadata: Record<string, string> = {};
    const tensors: TensorPlace[] = [];
    for (const [name, value] of Object.entries(header as Record<string, unknown>)) {
      if (name === "__metadata__") {
        for (const [key, entry] of Object.entries(value ?? {})) {
          // The format says strings; what writers put there besides stays readable.
          metadata[key] = typeof entry === "string" ? entry : JSON.stringify(entry);
        }
        continue;
      }
      tensors.push(place(name, value, 8 + length, size, bad));
    }
    const ordered = [...tensors].sort((a, b) => a.begin - b.begin || a.end - b.end);
    let end = 8 + length;
    for (const tensor of ordered) {
      if (tensor.begin < end)
        bad(`Expected tensors that do not overlap but ${tensor.name} begins before its neighbour ends`);
      if (tensor.begin > end) bad(`Expected no hole in the data but there is one before ${tensor.name}`);
      end = tensor.end;
    }
    if (end !== size) bad(`Expected ${end} bytes but the file has ${size}`);
    return { tensors, metadata };
  } finally {
    closeSync(fd);
  }
}

function place(name: string, value: unknown, start: number, size: number, bad: (what: string) => never): TensorPlace {
  const entry = value as { dtype?: unknown; shape?: unknown; data_offsets?: unknown } | null;
  const whole = (x: unknown): x is number => Number.isSafeInteger(x) && (x as number) >= 0;
  const offsets = entry?.data_offsets;
  const shape = entry?.shape;
  const dtype = entry?.dtype;
  if (typeof dtype !== "string" || !Object.hasOwn(BYTES, dtype))
    return bad(`Expected a known dtype for ${name} but received ${describe(dtype)}`);
  if (!Array.isArray(shape) || shape.length > 8 || !shape.every(whole))
    return bad(`Expected a shape of whole numbers for ${name}`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(whole))
    return bad(`Expected two data_offsets for ${name}`);
  const [from, to] = offsets as [number, number];
  if (from > to || start + to > size)
    return bad(`Expected data_offsets of ${name} within the file but received ${from}..${to}`);
  const bytes = shape.reduce((product: bigint, d: number) => product * BigInt(d), BigInt(BYTES[dtype] ?? 0));
  if (bytes !== BigInt(to - from))
    return bad(
      `Expected ${bytes} bytes for ${name} ([${shape.join(", ")}] ${dtype}) but its offsets span ${to - from}`,
    );
  return { name, dtype, shape: shape, begin: start + from, end: start + to };
}

/** The tensors of a small file as f32 (bf16 and f32 are widened or copied); for adapters and states, not for backbones. */
export async function readSafetensors(file: string): Promise<Map<string, { shape: number[]; data: Float32Array }>> {
  const { tensors } = readSafetensorsHeader(file);
  const handle = await open(file, "r");
  try {
    const out = new Map<string, { shape: number[]; data: Float32Array }>();
    for (const tensor of tensors) {
      const bytes = new Uint8Array(tensor.end - tensor.begin);
      await handle.read(bytes, 0, bytes.length, tensor.begin);
      if (tensor.dtype === "F32") out.set(tensor.name, { shape: tensor.shape, data: new Float32Array(bytes.buffer) });
      else if (tensor.dtype === "BF16") {
        const half = new Uint16Array(bytes.buffer);
        const words = Uint32Array.from(half, (x) => x << 16);
        out.set(tensor.name, { shape: tensor.shape, data: new Float32Array(words.buffer) });
      } else fail("ERR_DTYPE", `Expected F32 or BF16 for ${tensor.name} in ${file} but received ${tensor.dtype}`);
    }
    return out;
  } finally {
    await handle.close();
  }
}

/** f32 -> bf16, round to nearest even. */
export function toBf16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return Uint16Array.from(bits, (x) =>
    (x & 0x7fffffff) > 0x7f800000 ? (x >>> 16) | 0x40 : (x + 0x7fff + ((x >>> 16) & 1)) >>> 16,
  );
}

/** Writes a safetensors file: beside its place first, then renamed, so that a file of this name is always whole. */
export async function writeSafetensors(
  file: string,
  tensors: TensorData[],
  metadata: Record<string, string> = { format: "pt" },
): Promise<void> {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let offset = 0;
  // Wide types first keeps every tensor aligned to its own size.
  const ordered = [...tensors].sort((a, b) => (BYTES[b.dtype] ?? 0) - (BYTES[a.dtype] ?? 0));
  for (const { name, dtype, shape, data } of ordered) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
  }
  let text = JSON.stringify(header);
  text += " ".repeat((8 - (Buffer.byteLength(text) % 8)) % 8);
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(Buffer.byteLength(text)));
  await writeDurable(file, [
    prefix,
    text,
    ...ordered.map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength)),
  ]);
}
