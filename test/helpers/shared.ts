// Material that lies outside the repository (a folder `shared` beside it, or ROLEGRAD_SHARED). Tests that want it skip
// with a message where it is absent.
import { existsSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** The repository's root. */
export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");

const folder = process.env["ROLEGRAD_SHARED"] ?? path.join(root, "..", "shared");

/** The absolute path of a file or folder in the shared material, or undefined where it is not there. */
export function shared(file: string): string | undefined {
  const found = path.join(folder, file);
  return existsSync(found) ? found : undefined;
}

/**
 * The options of a test that needs these files: `t.test(claim, needsShared("fixtures/leas.json"), async (t) => ...)`.
 * Where one is absent the test is skipped, and the report says so.
 */
export function needsShared(...files: string[]): { skip?: string } {
  const missing = files.find((file) => shared(file) === undefined);
  return missing === undefined ? {} : { skip: `${path.join(folder, missing)} is not there (see ROLEGRAD_SHARED)` };
}
