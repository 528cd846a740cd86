// Writes the Parquet file that standard input describes: { file, shape, rows, options } (see parquet.ts). A process of its own, since
// the loader of the tests does not find what hyparquet-writer imports.
import { readFileSync } from "node:fs";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { parquetWriteFile } from "hyparquet-writer";

const { file, shape, rows, options } = JSON.parse(readFileSync(0, "utf8"));
const names = Object.keys(shape);
parquetWriteFile({
  filename: file,
  schema: [{ name: "root", num_children: names.length }, ...names.flatMap((name) => elements(name, shape[name]))],
  columnData: names.map((name) => ({ name, data: rows.map((row) => typed(row[name], shape[name])) })),
  compressors: { GZIP: (bytes) => gzipSync(bytes), BROTLI: (bytes) => brotliCompressSync(bytes) },
  ...options,
});

/** Lists have three levels, as pyarrow writes them. */
function elements(name, shape) {
  const repetition_type = "OPTIONAL";
  if (shape === "text") return [{ name, type: "BYTE_ARRAY", converted_type: "UTF8", repetition_type }];
  if (shape === "int64") return [{ name, type: "INT64", repetition_type }];
  if (Array.isArray(shape)) {
    return [
      { name, repetition_type, num_children: 1, converted_type: "LIST" },
      { name: "list", repetition_type: "REPEATED", num_children: 1 },
      ...elements("element", shape[0]),
    ];
  }
  const fields = Object.entries(shape);
  return [
    { name, repetition_type, num_children: fields.length },
    ...fields.flatMap(([field, each]) => elements(field, each)),
  ];
}

function typed(value, shape) {
  if (value === null || value === undefined || shape === "text") return value;
  if (shape === "int64") return BigInt(value);
  if (Array.isArray(shape)) return value.map((each) => typed(each, shape[0]));
  return Object.fromEntries(Object.entries(shape).map(([name, each]) => [name, typed(value[name], each)]));
}
