// Writes assets/run.schema.json, the JSON schema of run.json for editors, from lib/run/schema.ts (build first).
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { runJsonSchema } from "../dist/run/index.js";

const file = fileURLToPath(new URL("../assets/run.schema.json", import.meta.url));
writeFileSync(file, `${JSON.stringify(runJsonSchema(), null, 2)}\n`);
