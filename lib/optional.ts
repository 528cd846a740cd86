import { fail } from "./errors.js";

/**
 * Where an optional peer lies, as a URL to import. Not installed -> ERR_OPTIONAL_PACKAGE with the line that installs it; `version` is for packages
 * whose newest version is not what npm takes by itself.
 *
 * @example
 * const sqlite = await import(resolveOptional("@sqlite.org/sqlite-wasm", "SQL environments", "3.54.1-build1"));
 */
export function resolveOptional(name: string, what: string, version?: string): string {
  try {
    return import.meta.resolve(name);
  } catch (cause) {
    const install = `npm i ${name}${version === undefined ? "" : `@${version}`}`;
    return fail("ERR_OPTIONAL_PACKAGE", `Expected the package ${name}, which ${what} need: ${install}`, cause);
  }
}
