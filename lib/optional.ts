import { fail } from "./errors.js";

/**
 * Loads a package (or a module of one) that only some users need and install themselves: `what` is what it is needed for. One that is not installed ->
 * ERR_OPTIONAL_MISSING with the line that installs it.
 */
export async function importOptional<T>(name: string, what: string): Promise<T> {
  try {
    return (await import(name)) as T;
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    // A package that is there but lacks one of its own is broken, not missing.
    const [spec = name] = /^(@[^/]+\/)?[^/]+/.exec(name) ?? [];
    if (code === "ERR_MODULE_NOT_FOUND" && message.includes(`'${spec}'`)) missing(spec, what, cause);
    throw cause;
  }
}

/**
 * Where such a package lies, as a URL to import, for threads that import it themselves; `version` is for packages whose newest version is not what npm
 * takes by itself.
 *
 * @example
 * const sqlite = await import(resolveOptional("@sqlite.org/sqlite-wasm", "SQL environments", "3.54.1-build1"));
 */
export function resolveOptional(name: string, what: string, version?: string): string {
  try {
    return import.meta.resolve(name);
  } catch (cause) {
    return missing(version === undefined ? name : `${name}@${version}`, what, cause);
  }
}

function missing(spec: string, what: string, cause: unknown): never {
  const name = spec.replace(/(?<=.)@.*$/, "");
  fail(
    "ERR_OPTIONAL_MISSING",
    `Expected the package ${name} for ${what} but it is not installed: npm i ${spec}`,
    cause,
  );
}
