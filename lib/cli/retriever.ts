import { once } from "node:events";
import { InvalidArgumentError, type Command } from "commander";
import { grouped, wholeNumber } from "./numbers.js";
import { printJson } from "./output.js";
import { interruptSignal } from "./signal.js";

interface Options {
  host: string;
  port: number;
  topk: number;
  json?: boolean;
}

/** `rolegrad retriever CORPUS`: a search server over a file of passages. */
export function register(program: Command): void {
  program
    .command("retriever")
    .argument(
      "<corpus>",
      "file of passages (id, title, text; or id, contents), or a directory that rolegrad index made",
    )
    .description("serve a search over passages by Search-R1's protocol (POST /retrieve), until Ctrl-C")
    .option("--host <address>", "address to listen on; every other machine may ask at 0.0.0.0", "127.0.0.1")
    .option("--port <number>", "0: one that is free", portNumber, 8000)
    .option("--topk <number>", "passages a query, where the request does not say", wholeNumber(1), 3)
    .option("--json", "print where it listens as JSON for machines")
    .action(async (corpus: string, { host, port, topk, json }: Options) => {
      const { readPassages } = await import("../data/passages.js");
      const { isSearchIndex, SearchIndex } = await import("../search/search-index.js");
      const { SearchEnvironment } = await import("../environments/search.js");
      const { startRetriever } = await import("../environments/retriever-server.js");
      const signal = interruptSignal();
      const options = { topK: topk };
      const search = isSearchIndex(corpus)
        ? await SearchIndex.open(corpus, options)
        : SearchEnvironment.fromPassages(await readPassages(corpus), options);
      signal.throwIfAborted();
      const server = await startRetriever(search, { host, port, topK: topk, maxTopK: Math.max(100, topk) });
      const { url } = server;
      if (json) printJson({ url, host: server.host, port: server.port, passages: search.size, topk });
      else
        console.log(`${grouped(search.size)} ${search.size === 1 ? "passage" : "passages"} at ${url} (Ctrl-C ends it)`);
      // Its end by a signal is what a server is for: no error.
      if (!signal.aborted) await once(signal, "abort");
      await server.close();
      if (search instanceof SearchIndex) search.close();
    });
}

function portNumber(text: string): number {
  const port = wholeNumber(0)(text);
  if (port > 65_535) throw new InvalidArgumentError("Expected a port from 0 to 65535.");
  return port;
}
