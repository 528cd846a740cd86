// Checks against transformers and peft, where a Python that has them is named by ROLEGRAD_PYTHON.
import { execFileSync } from "node:child_process";

const python = process.env["ROLEGRAD_PYTHON"];

function missing(modules: readonly string[]): string | undefined {
  if (python === undefined) return "ROLEGRAD_PYTHON names no Python";
  try {
    execFileSync(python, ["-c", modules.map((name) => `import ${name}`).join("\n")], { stdio: "ignore" });
    return undefined;
  } catch {
    return `${python} lacks one of ${modules.join(", ")}`;
  }
}

/** The options of a test that runs Python code with these modules; it is skipped, saying why, where there is none. */
export function needsPython(...modules: string[]): { skip?: string } {
  const skip = missing(modules);
  return skip === undefined ? {} : { skip };
}

/** What a program prints as JSON on its last line. */
export function runPython(program: string, ...args: string[]): unknown {
  const out = execFileSync(python as string, ["-c", program, ...args], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
    env: { ...process.env, OMP_NUM_THREADS: "1", HF_HUB_OFFLINE: "1" },
    maxBuffer: 1 << 28,
  });
  return JSON.parse(out.trimEnd().split("\n").at(-1) as string);
}
