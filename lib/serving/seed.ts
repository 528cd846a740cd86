import { philox } from "../random.js";

/**
 * The seed of a request that goes on from `position`, from 0 to 2^48 - 1: servers begin their random stream with each request, so a sequence
 * that asks several times needs several seeds. A pure function of (seed, stream, position), as the engine's own draws are.
 */
export function requestSeed(seed: bigint, stream: bigint, position: number): number {
  const words = new Uint32Array(4);
  const low = (value: bigint): number => Number(BigInt.asUintN(32, value));
  const high = (value: bigint): number => low(value >> 32n);
  philox(words, position, low(stream), high(stream), PURPOSE, low(seed), high(seed));
  const [first, second] = words as unknown as [number, number];
  return first + (second & 0xffff) * 2 ** 32;
}

/** Sets these draws apart from those of tokens. */
const PURPOSE = 0x73657276;
