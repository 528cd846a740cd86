import { once } from "node:events";
import { InvalidArgumentError, type Command } from "commander";
import { wholeNumber } from "./numbers.js";
import { printJson } from "./output.js";
import { interruptSignal } from "./signal.js";

interface Options {
  host: string;
  port?: number;
  json?: boolean;
}

/** `rolegrad watch RUN`: a page of a run that follows its files. */
export function register(program: Command): void {
  program
    .command("watch")
    .argument("<run...>", "a run directory (which may not exist yet), several, or a folder of runs")
    .description(
      "serve a page of a run that follows it: charts, and the answers with their roles and calls, until Ctrl-C",
    )
    .option("--host <address>", "address to listen on; every other machine may look at 0.0.0.0", "127.0.0.1")
    .option("--port <number>", "0: one that is free (default: 7340, or a free one where that is taken)", portNumber)
    .option("--json", "print where it listens as JSON for machines")
    .action(async (runs: string[], { host, port, json }: Options) => {
      const { startWatch } = await import("../watch/index.js");
      const signal = interruptSignal();
      const server = await startWatch(runs, { host, ...(port === undefined ? {} : { port }) });
      const { url } = server;
      if (json) printJson({ url, host: server.host, port: server.port });
      else console.log(`watching ${runs.join(", ")} at ${url} (Ctrl-C ends it)`);
      // Its end by a signal is what a server is for: no error.
      if (!signal.aborted) await once(signal, "abort");
      await server.close();
    });
}

function portNumber(text: string): number {
  const port = wholeNumber(0)(text);
  if (port > 65_535) throw new InvalidArgumentError("Expected a port from 0 to 65535.");
  return port;
}
