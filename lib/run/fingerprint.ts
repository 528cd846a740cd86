import { createHash } from "node:crypto";
import { open, readdir } from "node:fs/promises";
import path from "node:path";

/** Files up to this size are read whole; of larger ones this many bytes, in blocks that are spread evenly from the first to the last. */
const WHOLE = 64 * 2 ** 20;
const BLOCK = 2 ** 18;

/**
 * SHA-256 over what of a checkpoint's directory a run depends on: names and sizes of its safetensors and JSON files and its chat template, and what is in them.
 * Of a file beyond 64 MiB it reads 64 MiB, so that it costs a moment for any model; another training of the same model differs everywhere.
 */
export async function modelFingerprint(directory: string): Promise<string> {
  const hash = createHash("sha256");
  const names = (await readdir(directory)).filter((name) => /\.(safetensors|json|jinja)$/.test(name)).sort();
  for (const name of names) {
    const handle = await open(path.join(directory, name), "r");
    try {
      const info = await handle.stat();
      if (!info.isFile()) continue;
      hash.update(`${name}\0${info.size}\0`);
      const blocks = Math.ceil(Math.min(info.size, WHOLE) / BLOCK);
      const apart = info.size <= WHOLE ? BLOCK : Math.floor((info.size - BLOCK) / (blocks - 1));
      for (let i = 0; i < blocks; i++) {
        const { buffer, bytesRead } = await handle.read(Buffer.alloc(BLOCK), 0, BLOCK, i * apart);
        hash.update(buffer.subarray(0, bytesRead));
      }
    } finally {
      await handle.close();
    }
  }
  return hash.digest("hex");
}
