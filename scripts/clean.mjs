// Removes everything that is built.
import { rmSync } from "node:fs";

for (const folder of ["build", "dist", "prebuilds", ".tap"]) {
  rmSync(new URL(`../${folder}`, import.meta.url), { recursive: true, force: true });
}
