import { InvalidArgumentError } from "commander";

/** For commander: an option that is a whole number from `low` up. */
export function wholeNumber(low: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isSafeInteger(value) || value < low) {
      throw new InvalidArgumentError(`Expected a whole number of at least ${low}.`);
    }
    return value;
  };
}

/** For commander: an option that is a number from 0 up. */
export function notNegative(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !(value >= 0 && value < Infinity))
    throw new InvalidArgumentError("Expected a number of at least 0.");
  return value;
}

/** 1234567 -> "1,234,567". */
export function grouped(value: number): string {
  return value.toLocaleString("en-US");
}
