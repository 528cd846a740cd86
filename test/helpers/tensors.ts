// Reading fixture files (f32, f64, bf16, i32, u8) and comparing with them.
import { readFileSync } from "node:fs";

export type Values = Float32Array | Float64Array | Int32Array | Uint8Array;
export type Tensors = Record<string, { shape: number[]; data: Values }>;

/** Every tensor of a safetensors file, in its own type; bf16 is widened. */
export function readTensors(file: string): Tensors {
  const bytes = readFileSync(file);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString()) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const out: Tensors = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [from, to] = entry.data_offsets;
    const buffer = bytes.buffer.slice(bytes.byteOffset + 8 + length + from, bytes.byteOffset + 8 + length + to);
    out[name] = { shape: entry.shape, data: decode(entry.dtype, buffer) };
  }
  return out;
}

function decode(dtype: string, buffer: ArrayBuffer): Values {
  switch (dtype) {
    case "F32":
      return new Float32Array(buffer);
    case "F64":
      return new Float64Array(buffer);
    case "I32":
      return new Int32Array(buffer);
    case "U8":
    case "BOOL":
      return new Uint8Array(buffer);
    case "BF16":
      return new Float32Array(Uint32Array.from(new Uint16Array(buffer), (x) => x << 16).buffer);
    default:
      throw new Error(`unknown dtype ${dtype}`);
  }
}

/** The tensor of this name; throws where the file has none. */
export function tensor<T extends Values>(tensors: Tensors, name: string): T {
  const found = tensors[name];
  if (found === undefined) throw new Error(`no tensor ${name}`);
  return found.data as T;
}

/** |got - want| / |want|, over entries where `want` is a number. */
export function relativeError(got: ArrayLike<number>, want: ArrayLike<number>): number {
  if (got.length !== want.length) throw new Error(`${got.length} values where ${want.length} were expected`);
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < want.length; i++) {
    const w = want[i] as number;
    if (Number.isNaN(w)) continue;
    difference += ((got[i] as number) - w) ** 2;
    norm += w ** 2;
  }
  return Math.sqrt(difference) / Math.max(Math.sqrt(norm), 1e-300);
}
