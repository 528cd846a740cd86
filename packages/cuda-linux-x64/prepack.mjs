// `npm pack` and `npm publish` of this package: the library that `npm run build:cuda` made is put in, and must be there.
import { copyFileSync, existsSync } from "node:fs";
import path from "node:path";

const name = "librolegrad_cuda.so";
const built = path.join(import.meta.dirname, "../../build/cuda", name);
if (!existsSync(built)) {
  console.error(`error: expected ${built}: npm run build:cuda -- --toolkit PATH makes it`);
  process.exit(1);
}
copyFileSync(built, path.join(import.meta.dirname, name));
