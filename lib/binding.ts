/**
 * The native surface: finds and loads the addon, whose types are in bindings/. It is loaded at the first use of `native`, not at import, so
 * that a missing binary is an error of the call that needs it and `rolegrad doctor` can still speak.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import nodeGypBuild from "node-gyp-build";
import type { AttributionNative } from "./bindings/attribution.js";
import type { EngineNative } from "./bindings/engine.js";
import type { MeasureNative, TestNative } from "./bindings/measure.js";
import type { SystemNative } from "./bindings/system.js";
import { fail, RolegradError } from "./errors.js";

export type * from "./bindings/attribution.js";
export type * from "./bindings/engine.js";
export type * from "./bindings/generation.js";
export type * from "./bindings/job.js";
export type * from "./bindings/measure.js";
export type * from "./bindings/system.js";
export type * from "./bindings/training.js";

/** Everything the addon exports. */
export interface Native extends SystemNative, AttributionNative, EngineNative, MeasureNative, TestNative {}

/** The package's root: dist/binding.js and lib/binding.ts both lie one folder below it. */
export const packageRoot = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");

/** The smallest Node version that "engines" in package.json allows. */
const minimumNode = "20.19.0";

/** The package's own version. */
export function packageVersion(): string {
  const manifest = JSON.parse(readFileSync(path.join(packageRoot, "package.json"), "utf8")) as { version: string };
  return manifest.version;
}

/** Throws ERR_NODE_VERSION when Node is older than {@link minimumNode}. */
export function checkNodeVersion(found: string = process.versions.node): void {
  const [needed, have] = [minimumNode, found].map((version) => version.split(".").map(Number));
  for (let i = 0; i < 3; i++) {
    const difference = (have?.[i] ?? 0) - (needed?.[i] ?? 0);
    if (difference > 0) return;
    if (difference < 0) fail("ERR_NODE_VERSION", `Expected Node ${minimumNode} or newer but received ${found}`);
  }
}

/** The addon's file. Throws ERR_NO_BINARY where there is neither a prebuild for this platform nor a local build. */
export function nativeFile(): string {
  try {
    return nodeGypBuild.path(packageRoot);
  } catch (cause) {
    fail(
      "ERR_NO_BINARY",
      `Expected a rolegrad binary for ${process.platform}-${process.arch} but found neither a prebuild nor a local build ` +
        `in ${packageRoot}. Build it with: npx rolegrad build (needs CMake and a C++20 compiler)`,
      cause,
    );
  }
}

let loaded: Native | undefined;

function load(): Native {
  if (loaded !== undefined) return loaded;
  checkNodeVersion();
  const file = nativeFile();
  let addon: Native;
  try {
    addon = nodeGypBuild(packageRoot) as Native;
  } catch (cause) {
    fail(
      "ERR_BINARY_LOAD",
      `${file} cannot be loaded on this system: ${(cause as Error).message}. ` +
        "Build one for it with: npx rolegrad build (needs CMake and a C++20 compiler)",
      cause,
    );
  }
  addon.setErrorClass(RolegradError);
  return (loaded = addon);
}

/** The addon, loaded when first used. Throws ERR_NODE_VERSION, ERR_NO_BINARY or ERR_BINARY_LOAD. */
export const native: Native = new Proxy({} as Native, {
  get: (_target, name): unknown => Reflect.get(load(), name),
  has: (_target, name) => Reflect.has(load(), name),
});
