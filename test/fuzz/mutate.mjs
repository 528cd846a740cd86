// Mutations of bytes, of JSON trees, and of safetensors files by their header.
import { safetensors } from "./targets.mjs";

/** A small generator of random numbers: the same inputs from the same seed. */
export function randomSource(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (n) => Math.floor(next() * n);
  return { next, below, pick: (list) => list[below(list.length)] };
}

const largest = 1 << 14;
const numbers = [-1, 0, -0, 1, 2, 3, 7, 255, 65536, 2 ** 24, 2 ** 31, 2 ** 32, 2 ** 53, 1e308, 1e-320, 0.5, -1e9];
const raw = ["1e999", "-1e999", "9007199254740993", "18446744073709551616", "1".repeat(400), "NaN", "01", '"\\ud800"'];

export function mutate(input, others, words, random, shape) {
  let out = Buffer.from(input);
  for (let rounds = 1 + random.below(4); rounds > 0; rounds--) {
    const structured = random.next() < 0.85;
    if (structured && shape === "json") out = mutateJson(out, words, random) ?? mutateBytes(out, others, words, random);
    else if (structured) out = mutateHeader(out, words, random) ?? mutateBytes(out, others, words, random);
    else out = mutateBytes(out, others, words, random);
  }
  return out.subarray(0, largest);
}

function mutateBytes(input, others, words, random) {
  const at = random.below(input.length + 1);
  const to = Math.min(input.length, at + 1 + random.below(16));
  const join = (...parts) => Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : part)));
  const [before, inside, after] = [input.subarray(0, at), input.subarray(at, to), input.subarray(to)];
  switch (random.below(9)) {
    case 0: {
      const out = Buffer.from(input);
      if (out.length > 0) out[at % out.length] ^= 1 << random.below(8);
      return out;
    }
    case 1: {
      const out = Buffer.from(input);
      if (out.length > 0)
        out[at % out.length] = random.pick([0, 1, 127, 128, 255, 0x7b, 0x22, 0x5b, random.below(256)]);
      return out;
    }
    case 2:
      return join(before, after);
    case 3:
      return join(before, inside, inside, after);
    case 4:
      return join(before, random.pick(words), after);
    case 5:
      return join(before, random.pick(raw), after);
    case 6:
      return before;
    case 7: {
      const other = random.pick(others);
      return join(before, other.subarray(random.below(other.length + 1)));
    }
    default: {
      const out = Buffer.alloc(Math.max(8, input.length), input.length > 0 ? input : undefined);
      const wide = BigInt(random.pick(numbers.filter((x) => Number.isSafeInteger(x) && x >= 0)));
      out.writeBigUInt64LE(random.next() < 0.3 ? BigInt.asUintN(64, -wide) : wide, 0);
      return out;
    }
  }
}

function mutateJson(input, words, random) {
  let value;
  try {
    value = JSON.parse(input.toString());
  } catch {
    return undefined;
  }
  return Buffer.from(toText(mutateTree(value, words, random), random));
}

/** Now and then with something in it that JSON.stringify never writes. */
function toText(value, random) {
  const text = JSON.stringify(value) ?? "null";
  if (random.next() < 0.9) return text;
  return text.replace(/-?\d+/, () => random.pick(raw));
}

function mutateTree(value, words, random) {
  const places = [];
  const walk = (node, set, depth) => {
    places.push({ node, set });
    if (depth > 40 || typeof node !== "object" || node === null) return;
    for (const key of Object.keys(node)) walk(node[key], (other) => put(node, key, other), depth + 1);
  };
  const holder = { value };
  walk(value, (other) => (holder.value = other), 0);
  const { node, set } = random.pick(places);
  const container = typeof node === "object" && node !== null;
  if (container && random.next() < 0.6) {
    const keys = Object.keys(node);
    const key = keys.length > 0 ? random.pick(keys) : "x";
    const action = random.below(4);
    if (action === 0) {
      if (Array.isArray(node)) node.splice(Number(key) || 0, 1);
      else delete node[key];
    } else if (action === 1) {
      put(node, Array.isArray(node) ? node.length : random.pick(words), some(words, random, places));
    } else if (action === 2) {
      put(
        node,
        Array.isArray(node) ? random.below(node.length + 1) : `${key}${random.pick(["", "_", "2"])}`,
        node[key],
      );
    } else if (!Array.isArray(node)) {
      put(node, random.pick(words), node[key]);
      delete node[key];
    }
  } else if (typeof node === "number" && random.next() < 0.4) {
    set(node + random.pick([-1, 1, 0.5, 8, -8]));
  } else {
    set(some(words, random, places));
  }
  return holder.value;
}

/** "__proto__" as JSON.parse has it: a property like any other. */
function put(node, key, value) {
  Object.defineProperty(node, key, { value, writable: true, enumerable: true, configurable: true });
}

function some(words, random, places) {
  const kind = random.below(9);
  if (kind === 0) return null;
  if (kind === 1) return random.next() < 0.5;
  if (kind < 5) return random.pick(numbers);
  if (kind === 5) return random.pick(["", "\u0000", "__proto__", "constructor", "toString", "\ud800", "x".repeat(300)]);
  if (kind === 6) return random.pick([[], {}, [[]], [null], { a: {} }, [1, 2, 3], { toString: 1, valueOf: 1 }]);
  if (kind === 7) return structuredClone(random.pick(places).node);
  return random.pick(words);
}

/** The header's tree, with its length and its data put right most of the time. */
function mutateHeader(input, words, random) {
  if (input.length < 8) return undefined;
  const length = Number(input.readBigUInt64LE(0));
  if (!(length <= input.length - 8)) return undefined;
  const data = input.length - 8 - length;
  const header = mutateJson(input.subarray(8, 8 + length), words, random);
  if (header === undefined) return undefined;
  let wanted = data;
  if (random.next() < 0.6) {
    const ends = [...header.toString().matchAll(/"data_offsets":\[\d+,(\d+)\]/g)].map((match) => Number(match[1]));
    wanted = Math.max(0, ...ends.filter((end) => end < largest));
  } else if (random.next() < 0.3) {
    wanted = Math.max(0, data + random.pick([-1, 1, -4, 4]));
  }
  return safetensors(header.toString(), wanted);
}
