import type { NativeJob } from "./binding.js";
import { fail } from "./errors.js";

/** Throws the signal's own reason where it has been aborted; ERR_INVALID_ARGUMENT where it is no signal. */
export function checkSignal(signal: AbortSignal | undefined): void {
  if (signal === undefined) return;
  if (typeof signal?.throwIfAborted !== "function")
    fail("ERR_INVALID_ARGUMENT", `Expected an AbortSignal for signal but received ${describe(signal)}`);
  signal.throwIfAborted();
}

/**
 * Awaits a native job; an abort stops it and rejects with the signal's reason. An abort that comes when the work is done, but not yet told,
 * rejects too, unless the work `counts`: what it changed must not be taken for undone.
 */
export async function abortable<T>(
  job: NativeJob<T>,
  signal: AbortSignal | undefined,
  { counts = false }: { counts?: boolean } = {},
): Promise<T> {
  if (signal === undefined) return job.promise;
  const abort = (): void => job.abort();
  signal.addEventListener("abort", abort, { once: true });
  try {
    const value = await job.promise;
    if (!counts) signal.throwIfAborted();
    return value;
  } catch (error) {
    if ((error as { code?: unknown }).code === "ERR_ABORTED") signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

type TypedArrayClass = abstract new (...args: never[]) => ArrayBufferView & { readonly length: number };

/**
 * ERR_INVALID_ARGUMENT unless `value` is a typed array of this kind (or of one of these) on a buffer of its own: one that is shared, resizable
 * or detached could change under the reader.
 */
export function checkArray(value: unknown, type: TypedArrayClass | readonly TypedArrayClass[], name: string): void {
  const types = typeof type === "function" ? [type] : type;
  const wanted = types.map((each) => each.name).join(" or ");
  if (!types.some((each) => value instanceof each)) {
    fail("ERR_INVALID_ARGUMENT", `Expected ${wanted} for ${name} but received ${describe(value)}`);
  }
  const what = unsafeBuffer((value as ArrayBufferView).buffer);
  if (what !== undefined) {
    fail("ERR_INVALID_ARGUMENT", `Expected ${wanted} for ${name} but received one on a ${what} buffer`);
  }
}

function unsafeBuffer(buffer: ArrayBufferLike): string | undefined {
  if (!(buffer instanceof ArrayBuffer)) return "shared";
  // Newer than the ECMAScript that is compiled for, and in Node 20.
  if ((buffer as { resizable?: boolean }).resizable === true) return "resizable";
  try {
    void new Uint8Array(buffer);
    return undefined;
  } catch {
    return "detached";
  }
}

/** ERR_SHAPE unless the array has this length. */
export function checkLength(value: ArrayLike<unknown>, length: number, name: string): void {
  if (value.length !== length) {
    fail("ERR_SHAPE", `Expected ${name} of length ${length} (that of inputIds) but received ${value.length}`);
  }
}

/** ERR_INVALID_ARGUMENT unless it is one of the choices. */
export function checkChoice(value: string, choices: readonly string[], name: string): void {
  if (choices.includes(value)) return;
  fail("ERR_INVALID_ARGUMENT", `Expected ${name} among ${choices.join(", ")} but received ${describe(value)}`);
}

/** ERR_INVALID_ARGUMENT unless `value` is an integer within the bounds. */
export function checkInteger(value: unknown, name: string, low: number, high = Number.MAX_SAFE_INTEGER): void {
  if (!Number.isSafeInteger(value) || (value as number) < low || (value as number) > high) {
    fail("ERR_INVALID_ARGUMENT", `Expected an integer of at least ${low} for ${name} but received ${describe(value)}`);
  }
}

/** ERR_INVALID_ARGUMENT unless `value` is a number above 0, and finite. */
export function checkPositive(value: unknown, name: string): void {
  if (!(typeof value === "number" && value > 0 && value < Infinity))
    fail("ERR_INVALID_ARGUMENT", `Expected a positive ${name} but received ${describe(value)}`);
}

/** ERR_INVALID_ARGUMENT unless `value` is an object with fields: no array, null or function. */
export function checkObject(value: unknown, name: string): void {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    fail("ERR_INVALID_ARGUMENT", `Expected an object for ${name} but received ${describe(value)}`);
}

/** ERR_INVALID_ARGUMENT unless `value` is a string that names a file or folder. */
export function checkPath(value: unknown, name: string): void {
  if (typeof value !== "string" || value === "" || value.includes("\0"))
    fail("ERR_INVALID_ARGUMENT", `Expected a path for ${name} but received ${describe(value)}`);
}

/** ERR_INVALID_ARGUMENT unless `value` is a list of strings. */
export function checkStrings(value: unknown, name: string): void {
  if (!Array.isArray(value) || !value.every((item) => typeof item === "string"))
    fail("ERR_INVALID_ARGUMENT", `Expected a list of strings for ${name} but received ${describe(value)}`);
}

/** ERR_INVALID_ARGUMENT unless `value` is a list or a typed array of numbers. (Not what says it has a length: it may lie.) */
export function checkNumbers(value: unknown, name: string): void {
  const wide = value instanceof BigInt64Array || value instanceof BigUint64Array;
  if (ArrayBuffer.isView(value) && !(value instanceof DataView) && !wide) {
    const what = unsafeBuffer(value.buffer);
    if (what === undefined) return;
    fail("ERR_INVALID_ARGUMENT", `Expected numbers for ${name} but received an array on a ${what} buffer`);
  }
  if (!Array.isArray(value) || !value.every((item) => typeof item === "number"))
    fail("ERR_INVALID_ARGUMENT", `Expected numbers for ${name} but received ${describe(value)}`);
}

/** ERR_INVALID_ARGUMENT unless `value` has these methods: an instance of a class of this package, or of a copy of it. */
export function checkInstance(value: unknown, methods: readonly string[], what: string, name: string): void {
  const object = value as Record<string, unknown> | null;
  if (typeof object !== "object" || object === null || methods.some((method) => typeof object[method] !== "function"))
    fail("ERR_INVALID_ARGUMENT", `Expected ${what} for ${name} but received ${describe(value)}`);
}

export const checkModel = (value: unknown, name: string): void =>
  checkInstance(value, ["forward", "checkOpen", "lease"], "a model of loadModel()", name);

export const checkAdapters = (value: unknown, name: string): void =>
  checkInstance(value, ["checkIdle", "withRoutes", "lease"], "adapters", name);

/** A value as messages name it. */
export function describe(value: unknown): string {
  if (value === null || value === undefined || typeof value === "number" || typeof value === "boolean")
    return String(value);
  if (typeof value === "string") return JSON.stringify(value);
  const { constructor } = value as { constructor?: unknown };
  return typeof constructor === "function" && constructor.name !== "" ? constructor.name : typeof value;
}
