import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Command } from "commander";
import { packageRoot } from "../binding.js";
import { fail } from "../errors.js";
import { TEMPLATES, type Template } from "./init-templates.js";
import { printJson } from "./output.js";
import { style } from "./style.js";

/** `rolegrad init KIND [FILE]`: a run.json to start from. */
export function register(program: Command): void {
  program
    .command("init")
    .argument(
      "<kind>",
      Object.entries(TEMPLATES)
        .map(([kind, { about }]) => `${kind}: ${about}`)
        .join("; "),
    )
    .argument("[file]", "where to write it", "run.json")
    .description("write a run.json to start from")
    .option("--json", "print JSON for machines")
    .action(async (kind: string, file: string, options: { json?: boolean }) => {
      const template = Object.hasOwn(TEMPLATES, kind) ? TEMPLATES[kind] : undefined;
      if (template === undefined) {
        const kinds = Object.keys(TEMPLATES).join(", ");
        return fail("ERR_USAGE", `Expected one of ${kinds} for the kind of run but received ${kind}`);
      }
      const text = `${JSON.stringify({ $schema: schemaPath(file), ...template.run }, null, 2)}\n`;
      await mkdir(path.dirname(file), { recursive: true });
      try {
        await writeFile(file, text, { flag: "wx" });
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code !== "EEXIST") throw cause;
        fail("ERR_FILE_EXISTS", `Expected no file at ${file} but there is one: give another name, or delete it`, cause);
      }
      if (options.json) printJson({ file: path.resolve(file) });
      else console.log(`wrote ${style.bold(file)}\n\n${nextSteps(template).replaceAll("FILE", file)}`);
    });
}

function nextSteps({ say }: Template): string {
  const fields = [["model", MODEL] as const, ...say];
  const width = Math.max(...fields.map(([field]) => field.length)) + 2;
  const lines = fields.map(([field, what]) => `  ${field.padEnd(width)}${what}`);
  return `Say in it (an editor that reads $schema explains each field):\n${lines.join("\n")}\n${THEN}`;
}

const MODEL = "a checkpoint directory, or a hub id that has been downloaded (Qwen2, Qwen2.5, Qwen3, Llama)";
const THEN = `then
  rolegrad train FILE --check  whether its data and tools are there
  rolegrad eval FILE           how well the model does as it is
  rolegrad train FILE          train it`;

/** The schema that this package ships, as seen from the file. */
function schemaPath(file: string): string {
  const schema = path.join(packageRoot, "assets", "run.schema.json");
  const relative = path
    .relative(path.dirname(path.resolve(file)), schema)
    .split(path.sep)
    .join("/");
  return relative.startsWith(".") ? relative : `./${relative}`;
}
