// Runs programs the way a user does: a process of its own, its exit code and what it printed.
import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { text } from "node:stream/consumers";
import { root } from "./shared.js";

export interface CommandResult {
  /** null when a signal ended it. */
  status: number | null;
  stdout: string;
  stderr: string;
}

export interface CommandOptions {
  cwd?: string;
  /** Added to the environment; undefined removes a variable. */
  env?: NodeJS.ProcessEnv;
}

/** Runs a program to its end, with nothing on stdin and no terminal. */
export async function runProgram(
  program: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  const child = spawn(program, args, {
    cwd: options.cwd ?? root,
    env: { ...process.env, ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [[status], stdout, stderr] = await Promise.all([
    once(child, "close") as Promise<[number | null]>,
    text(child.stdout),
    text(child.stderr),
  ]);
  return { status, stdout, stderr };
}

/** What colours and test settings of the caller would change in a child's output. */
const plain = { FORCE_COLOR: undefined, NO_COLOR: undefined, NODE_OPTIONS: undefined, ROLEGRAD_DEBUG: undefined };

/** `rolegrad ARGS`, from this tree. */
export function rolegrad(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  return runProgram(process.execPath, [path.join(root, "bin/rolegrad.js"), ...args], {
    ...options,
    env: { ...plain, ...options.env },
  });
}
