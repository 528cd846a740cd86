import { RolegradError } from "../errors.js";

/** What a shell has for a command that a signal ended. */
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

let controller: AbortController | undefined;
let exitCode: number | undefined;

/**
 * The signal that Ctrl-C (or SIGTERM) aborts, with an ERR_ABORTED error as its reason. The first asks for a clean end, so
 * that a command can still write its checkpoint; the second ends the process at once.
 */
export function interruptSignal(): AbortSignal {
  if (controller !== undefined) return controller.signal;
  const created = (controller = new AbortController());
  const onInterrupt = (name: keyof typeof EXIT_CODES): void => {
    exitCode = EXIT_CODES[name];
    if (created.signal.aborted) process.exit(exitCode);
    created.abort(new RolegradError("ERR_ABORTED", name === "SIGINT" ? "Interrupted" : "Interrupted by SIGTERM"));
    console.error("\nending cleanly; once more to end at once");
  };
  process.on("SIGINT", onInterrupt);
  process.on("SIGTERM", onInterrupt);
  // A write beyond a limit of file sizes (ulimit -f) then fails, and says so, where it would end the process.
  process.on("SIGXFSZ", () => undefined);
  return created.signal;
}

/** How a command exits that {@link interruptSignal} ended: 130 after Ctrl-C, 143 after SIGTERM; undefined without either. */
export function interruptExitCode(): number | undefined {
  return exitCode;
}
