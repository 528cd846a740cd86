import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import type { Command } from "commander";
import { nativeFile, packageRoot } from "../binding.js";
import { fail } from "../errors.js";
import { printJson } from "./output.js";

/** `rolegrad build`: the addon from its sources, for a platform without a prebuild. */
export function register(program: Command): void {
  program
    .command("build")
    .description(
      "build the native addon from its sources, where there is no prebuild (needs CMake and a C++20 compiler)",
    )
    .option("--json", "print JSON for machines")
    .action(async (options: { json?: boolean }) => {
      const script = path.join(packageRoot, "native", "build.mjs");
      // The compiler's output goes to stderr: stdout is the result's.
      const child = spawn(process.execPath, [script], { stdio: ["ignore", 2, 2] });
      const [status] = (await once(child, "exit")) as [number | null];
      if (status !== 0) fail("ERR_BUILD", "The addon could not be built: the compiler's messages above say why");
      const file = nativeFile();
      if (options.json) printJson({ file });
      else console.log(`built ${file}`);
    });
}
