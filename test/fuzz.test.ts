// Every input that the fuzzer (test/fuzz) is committed with, found ones among them, still parses or is refused.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import t from "tap";
import { root } from "./helpers/shared.js";

interface Target {
  seeds: Buffer[];
}
type Lib = Record<string, unknown>;
interface Targets {
  targets: Record<string, Target>;
  importLib: (folder: string) => Promise<Lib>;
  runInput: (target: Target, lib: Lib, folder: string, input: Buffer) => Promise<string>;
}

const { targets, importLib, runInput } = (await import(
  pathToFileURL(path.join(root, "test/fuzz/targets.mjs")).href
)) as Targets;

t.test("committed inputs parse or are refused with a code", async (t) => {
  const lib = await importLib(path.join(root, "dist"));
  for (const [name, target] of Object.entries(targets)) {
    const folder = path.join(root, "test/fuzz/corpus", name);
    const files = existsSync(folder) ? readdirSync(folder) : [];
    const inputs = [
      ...target.seeds.map((input, i) => ({ file: `seed ${i}`, input })),
      ...files.map((file) => ({ file, input: readFileSync(path.join(folder, file)) })),
    ];
    t.ok(files.length > 0, `${name} has a corpus`);
    for (const { file, input } of inputs) {
      t.match(await runInput(target, lib, t.testdir(), input), /^(parsed|ERR_[A-Z_]+)$/, `${name}: ${file}`);
      t.ok(input.length < 1 << 14, "and is small");
    }
  }
});

t.test("what a parser must not throw, or return, is a finding", async (t) => {
  const config = targets["config"] as Target;
  const input = config.seeds[0] as Buffer;
  const lib = await importLib(path.join(root, "dist"));
  const spoiled = (read: () => unknown) => ({ ...lib, checkpoint: { readCheckpoint: read } });
  for (const wrong of [
    new TypeError("x"),
    new RangeError("x"),
    new Error("x"),
    Object.assign(new Error(), { code: "E" }),
  ]) {
    const throws = spoiled(() => {
      throw wrong;
    });
    await t.rejects(runInput(config, throws, t.testdir(), input), wrong);
  }
  const odd = { ...lib, config: { parseModelConfig: () => ({ modelType: "llama", vocabSize: NaN }) } };
  await t.rejects(runInput(config, odd, t.testdir(), input), /vocabSize is NaN/);
  const safetensors = targets["safetensors"] as Target;
  const outside = { tensors: [{ name: "x", dtype: "F32", shape: [1], begin: 400, end: 404 }] };
  const header = { ...lib, safetensors: { readSafetensorsHeader: () => outside } };
  await t.rejects(runInput(safetensors, header, t.testdir(), safetensors.seeds[0] as Buffer), /outside/);
});
