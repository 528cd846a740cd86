import { RolegradError } from "../errors.js";

let controller: AbortController | undefined;

/**
 * The signal that Ctrl-C (or SIGTERM) aborts, with an ERR_ABORTED error as its reason. The first asks for a clean end, so
 * that a command can still write its checkpoint; the second ends the process at once.
 */
export function interruptSignal(): AbortSignal {
  if (controller !== undefined) return controller.signal;
  const created = (controller = new AbortController());
  const onInterrupt = (): void => {
    if (created.signal.aborted) process.exit(130);
    created.abort(new RolegradError("ERR_ABORTED", "Interrupted"));
    console.error("\nending cleanly; once more to end at once");
  };
  process.on("SIGINT", onInterrupt);
  process.on("SIGTERM", onInterrupt);
  return created.signal;
}
