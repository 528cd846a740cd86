import { fail } from "./errors.js";

/**
 * Loads a package that only some users need and install themselves: `what` is what it is needed for. One that is not installed ->
 * ERR_OPTIONAL_MISSING with the line that installs it.
 */
export async function importOptional<T>(name: string, what: string): Promise<T> {
  try {
    return (await import(name)) as T;
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    // A package that is there but lacks one of its own is broken, not missing.
    if (code === "ERR_MODULE_NOT_FOUND" && message.includes(`'${name}'`))
      fail(
        "ERR_OPTIONAL_MISSING",
        `Expected the package ${name} for ${what} but it is not installed: npm i ${name}`,
        cause,
      );
    throw cause;
  }
}
