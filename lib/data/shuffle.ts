import { Random } from "../random.js";

/**
 * The items in an order that depends on the seed and their ids alone: not on their order in the file, and an item more or less moves no
 * other past another. Ids are distinct.
 */
export function shuffleById<T extends { id: string }>(items: readonly T[], seed: number): T[] {
  const keyed = items.map((item) => ({ item, key: new Random(seed, `data/shuffle/${item.id}`).next() }));
  keyed.sort((a, b) => a.key - b.key || (a.item.id < b.item.id ? -1 : 1));
  return keyed.map(({ item }) => item);
}
