// Every JavaScript example of the README runs, and prints what the block after it says.
import { readFileSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { runProgram } from "./helpers/command.js";
import { root } from "./helpers/shared.js";

const readme = readFileSync(path.join(root, "README.md"), "utf8");
const blocks = [...readme.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)].map(([, language, code]) => ({
  language,
  code: code as string,
}));
const examples = blocks.flatMap((block, i) => (block.language === "js" ? [{ ...block, printed: blocks[i + 1] }] : []));

t.ok(examples.length >= 2, "the README has examples");

for (const [i, { code, printed }] of examples.entries()) {
  const title = code.split("\n")[0] as string;
  t.test(`the example "${title}" prints what the README says`, async (t) => {
    // Inside the package, so that "rolegrad" resolves to it.
    const folder = path.join(root, "build", "readme");
    await mkdir(folder, { recursive: true });
    const file = path.join(folder, `example-${i}.mjs`);
    await writeFile(file, code);
    try {
      const { status, stdout, stderr } = await runProgram(process.execPath, [file]);
      t.equal(status, 0, stderr);
      t.equal(printed?.language, "text", "a text block follows");
      t.equal(stdout.trim(), printed?.code.trim());
    } finally {
      await rm(file);
    }
  });
}
