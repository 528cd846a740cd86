/** One event of a TensorBoard file. */
export interface ScalarEvent {
  /** Seconds since 1970. */
  wallTime: number;
  step?: number;
  /** First in a file. */
  version?: string;
  /** Steps from this one on are taken again: what earlier events say of them is forgotten. */
  start?: true;
  /** f32. */
  scalars?: [tag: string, value: number][];
}

/**
 * The protocol buffer of an event:
 *
 *     Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; SessionLog session_log = 7; }
 *     Summary { repeated Value { string tag = 1; float simple_value = 2; } value = 1; }
 *     SessionLog { enum status = 1 (START = 1); }
 */
export function encodeEvent({ wallTime, step, version, start, scalars }: ScalarEvent): Buffer {
  const time = Buffer.alloc(8);
  time.writeDoubleLE(wallTime);
  return Buffer.concat([
    field(1, FIXED64, time),
    ...(step === undefined ? [] : [field(2, VARINT, varint(step))]),
    ...(version === undefined ? [] : [message(3, Buffer.from(version))]),
    ...(scalars === undefined ? [] : [message(5, Buffer.concat(scalars.map(encodeScalar)))]),
    ...(start === undefined ? [] : [message(7, field(1, VARINT, varint(1)))]),
  ]);
}

function encodeScalar([tag, value]: [string, number]): Buffer {
  const number = Buffer.alloc(4);
  number.writeFloatLE(value);
  return message(1, Buffer.concat([message(1, Buffer.from(tag)), field(2, FIXED32, number)]));
}

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;

function field(number: number, type: number, content: Buffer): Buffer {
  return Buffer.concat([varint(number * 8 + type), content]);
}

function message(number: number, content: Buffer): Buffer {
  return field(number, BYTES, Buffer.concat([varint(content.length), content]));
}

/** A whole number of at least 0, seven bits a byte, the lowest first. */
function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 127) {
    bytes.push((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  return Buffer.from([...bytes, rest]);
}

/** A record as TFRecord has it: length (u64), its masked CRC-32C, the content, its masked CRC-32C. */
export function frame(content: Buffer): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(content.length));
  return Buffer.concat([length, checksum(length), content, checksum(content)]);
}

function checksum(content: Buffer): Buffer {
  const crc = crc32c(content);
  const masked = Buffer.alloc(4);
  masked.writeUInt32LE((((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0);
  return masked;
}

/** Of Castagnoli's polynomial, bits reversed. */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

function crc32c(content: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of content) crc = (crc >>> 8) ^ (TABLE[(crc ^ byte) & 0xff] as number);
  return (crc ^ 0xffffffff) >>> 0;
}
