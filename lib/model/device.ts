import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { packageRoot } from "../binding.js";

/** Where a model runs. */
export type Device = "cpu" | "cuda" | "cpu-reference";

const CUDA_PACKAGE = "@rolegrad/cuda-linux-x64";
const CUDA_LIBRARY = "librolegrad_cuda.so";

/** A device as the engine takes it: its name, and of "cuda" the library's path ("" where there is none). @internal */
export interface ResolvedDevice {
  name: string;
  library: string;
}

/**
 * "cuda": the library of the installed package, of ROLEGRAD_CUDA_LIBRARY where that is set, or of a build in this clone. "cuda-emulated" is
 * the library's twin that computes on the host, which takes minutes for what a CPU does in seconds: only where ROLEGRAD_CUDA_EMULATED names
 * its file, as the tests do. Whether the library opens and finds a GPU is the engine's to say. @internal
 */
export function resolveDevice(device: string): ResolvedDevice {
  const emulated = process.env["ROLEGRAD_CUDA_EMULATED"];
  if (device === "cuda-emulated" && emulated !== undefined) return { name: "cuda", library: emulated };
  return { name: device, library: device === "cuda" ? cudaLibrary() : "" };
}

function cudaLibrary(): string {
  const chosen = process.env["ROLEGRAD_CUDA_LIBRARY"];
  if (chosen !== undefined) return chosen;
  const candidates = [path.join(packageRoot, "build/cuda", CUDA_LIBRARY)];
  try {
    const manifest = createRequire(import.meta.url).resolve(`${CUDA_PACKAGE}/package.json`);
    candidates.unshift(path.join(path.dirname(manifest), CUDA_LIBRARY));
  } catch {
    // Not installed: the engine says how to.
  }
  return candidates.find((file) => existsSync(file)) ?? "";
}
