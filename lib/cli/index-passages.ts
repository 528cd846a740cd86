import { stat } from "node:fs/promises";
import type { Command } from "commander";
import { grouped } from "./numbers.js";
import { formatBytes, formatSeconds, formatTable, printJson } from "./output.js";
import { Progress } from "./progress.js";
import { interruptSignal } from "./signal.js";
import { style } from "./style.js";

interface Options {
  out: string;
  titleWeight?: string;
  k1?: string;
  b?: string;
  force?: boolean;
  json?: boolean;
}

/** `rolegrad index PASSAGES...`: a search index on the disk. */
export function register(program: Command): void {
  program
    .command("index")
    .argument(
      "<passages...>",
      "files of passages (JSON Lines, JSON, CSV, TSV, Parquet): id, title (may be absent), text; or id, contents",
    )
    .description("write passages and their BM25 index into a directory, for environment.passages of a run.json")
    .requiredOption("--out <dir>", "the directory to make")
    .option("--title-weight <n>", "how often the title counts beside the text (default: 1)")
    .option("--k1 <x>", "of BM25 (default: 1.2)")
    .option("--b <x>", "of BM25 (default: 0.75)")
    .option("--force", "replace an index that is there already")
    .option("--json", "print JSON for machines")
    .action(async (files: string[], options: Options) => {
      const { streamPassages } = await import("../data/passages.js");
      const { buildSearchIndex } = await import("../search/build.js");
      const signal = interruptSignal();
      const size = await totalBytes(files);
      const mebibytes = (bytes: number): number => Math.round(bytes / 2 ** 20);
      let reading: Progress | undefined = new Progress("reading (MiB)", mebibytes(size));
      let merging: Progress | undefined;
      let read = 0;
      async function* passages() {
        for await (const { passage, read: bytes } of streamPassages(files)) {
          read = bytes;
          yield passage;
        }
      }
      try {
        const built = await buildSearchIndex(options.out, passages(), {
          ...scoring(options),
          force: options.force === true,
          signal,
          onProgress: ({ phase, done, total = 0 }) => {
            if (phase === "read") return reading?.update(mebibytes(read), `${grouped(done)} passages`);
            reading?.end();
            reading = undefined;
            merging ??= new Progress("merging (postings)", total);
            merging.update(done);
          },
        });
        reading?.end();
        merging?.end();
        if (options.json) return printJson(built);
        const rows = [
          ["index", built.directory],
          ["passages", grouped(built.passages)],
          ["tokens", `${grouped(built.tokens)}, ${grouped(built.terms)} different`],
          ["size", formatBytes(built.bytes)],
          ["time", formatSeconds(built.seconds)],
        ];
        console.log(formatTable(rows.map(([name, value]) => [style.bold(name!), value!])));
      } finally {
        reading?.end();
        merging?.end();
      }
    });
}

/** As numbers; whether they make sense is for the index to say. */
function scoring({ titleWeight, k1, b }: Options): { titleWeight?: number; k1?: number; b?: number } {
  return {
    ...(titleWeight !== undefined && { titleWeight: Number(titleWeight) }),
    ...(k1 !== undefined && { k1: Number(k1) }),
    ...(b !== undefined && { b: Number(b) }),
  };
}

/** Of the files that are there: what is wrong with the others their reader says. */
async function totalBytes(files: readonly string[]): Promise<number> {
  const sizes = await Promise.all(
    files.map((file) =>
      stat(file).then(
        ({ size }) => size,
        () => 0,
      ),
    ),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}
