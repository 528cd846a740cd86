// Events for TensorBoard: their bytes by a reader of its own, and what TensorBoard itself reads of a run that went on.
import { readdirSync, readFileSync, rmSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { loadModel, trainRun, WORLD_CHECKPOINT, type Model, type StepRecord } from "rolegrad";
import { encodeEvent, frame } from "../lib/run/tensorboard-format.js";
import { needsPython, runPython } from "./helpers/python.js";
import { temporary, world, worldSetup } from "./helpers/world.js";

let model: Model;
t.before(async () => {
  model = await loadModel(WORLD_CHECKPOINT);
});
t.after(() => model.close());

// ---- a reader of the format, bit by bit

/** CRC-32C one bit at a time, without a table. */
function crc(bytes: Uint8Array): number {
  let state = 0xffffffff;
  for (const byte of bytes)
    for (let bit = 0; bit < 8; bit++) {
      const low = (state ^ (byte >> bit)) & 1;
      state = (state >>> 1) ^ (low === 1 ? 0x82f63b78 : 0);
    }
  return ~state >>> 0;
}

const masked = (bytes: Uint8Array): number => {
  const sum = BigInt(crc(bytes));
  return Number((((sum >> 15n) | (sum << 17n)) + 0xa282ead8n) & 0xffffffffn);
};

/** The records of a file, checksums checked. */
function records(file: Buffer): Buffer[] {
  const out: Buffer[] = [];
  for (let at = 0; at < file.length;) {
    const length = Number(file.readBigUInt64LE(at));
    const content = file.subarray(at + 12, at + 12 + length);
    if (file.readUInt32LE(at + 8) !== masked(file.subarray(at, at + 8))) throw new Error(`length at ${at}`);
    if (file.readUInt32LE(at + 12 + length) !== masked(content)) throw new Error(`content at ${at}`);
    out.push(content);
    at += 16 + length;
  }
  return out;
}

type Field = number | Buffer;

/** The fields of a message by number, those of a number in their order. */
function fields(message: Buffer): Map<number, Field[]> {
  const out = new Map<number, Field[]>();
  let at = 0;
  const varint = (): number => {
    for (let value = 0, factor = 1; ; factor *= 128) {
      const byte = message[at++] as number;
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  const bytes = (n: number): Buffer => message.subarray(at, (at += n));
  while (at < message.length) {
    const key = varint();
    const readers: Record<number, () => Field> = {
      0: varint,
      1: () => bytes(8).readDoubleLE(),
      2: () => bytes(varint()),
      5: () => bytes(4).readFloatLE(),
    };
    const value = readers[key & 7]!();
    out.set(key >> 3, [...(out.get(key >> 3) ?? []), value]);
  }
  return out;
}

interface Read {
  step: number;
  version?: string;
  start?: boolean;
  scalars: Record<string, number>;
}

function read(message: Buffer): Read {
  const event = fields(message);
  const summary = fields((event.get(5)?.[0] as Buffer | undefined) ?? Buffer.alloc(0));
  const scalars = (summary.get(1) ?? []).map((value) => {
    const parts = fields(value as Buffer);
    return [(parts.get(1)![0] as Buffer).toString(), parts.get(2)![0] as number] as const;
  });
  const version = event.get(3)?.[0];
  const log = event.get(7)?.[0] as Buffer | undefined;
  return {
    step: (event.get(2)?.[0] as number | undefined) ?? 0,
    ...(version !== undefined && { version: (version as Buffer).toString() }),
    ...(log && { start: fields(log).get(1)?.[0] === 1 }),
    scalars: Object.fromEntries(scalars),
  };
}

const eventFiles = (directory: string): string[] =>
  readdirSync(path.join(directory, "tensorboard"))
    .sort()
    .map((name) => path.join(directory, "tensorboard", name));
const readFile = (file: string): Read[] => records(readFileSync(file)).map(read);
const lines = (directory: string): StepRecord[] =>
  readFileSync(path.join(directory, "metrics.jsonl"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as StepRecord);

// ---- the bytes

t.test("the reader's checksum is CRC-32C by its known vectors, and records are framed with it", async (t) => {
  t.equal(crc(Buffer.from("123456789")), 0xe3069283);
  t.equal(crc(Buffer.alloc(32)), 0x8a9136aa);
  t.equal(crc(Buffer.alloc(32, 0xff)), 0x62a8ab43);
  for (const size of [0, 1, 127, 128, 5000]) {
    const content = Buffer.from(Array.from({ length: size }, (_, i) => (i * 37) % 256));
    t.same(records(Buffer.concat([frame(content), frame(content)])), [content, content]);
    const broken = frame(content);
    broken[broken.length - 1]! ^= 1;
    t.throws(() => records(broken), /content/);
  }
});

t.test("an event comes back as it was written, whatever the size of its step and the script of its tags", async (t) => {
  for (const step of [0, 1, 127, 128, 300, 2 ** 31, 2 ** 40 + 3]) {
    const scalars: [string, number][] = [
      ["roles/tool/kl", 0.25],
      ["reward/größe 報酬", -1.5e-20],
    ];
    const message = encodeEvent({ wallTime: 1.7e9 + 0.125, step, scalars });
    t.equal(fields(message).get(1)![0], 1.7e9 + 0.125);
    t.same(read(message), { step, scalars: { "roles/tool/kl": 0.25, "reward/größe 報酬": Math.fround(-1.5e-20) } });
  }
  t.same(read(encodeEvent({ wallTime: 1, version: "brain.Event:2" })), {
    step: 0,
    version: "brain.Event:2",
    scalars: {},
  });
  t.same(read(encodeEvent({ wallTime: 1, step: 7, start: true })), { step: 7, start: true, scalars: {} });
});

// ---- a run

/** Three steps with an evaluation; then the last is taken again, as after a crash. */
async function brokenRun(): Promise<string> {
  const directory = temporary();
  const setup = worldSetup(model, directory, {
    tensorboard: true,
    trainer: { optimizer: { learningRate: 3e-3 }, logKl: true },
    checkpoint: { every: 1, keep: 0 },
    evaluation: { questions: world.questions("dev", 4, 0), every: 2 },
    steps: 3,
  });
  await trainRun(setup);
  rmSync(path.join(directory, "checkpoints", "step-000003"), { recursive: true });
  await trainRun({ ...setup, steps: 4, description: setup.description });
  return directory;
}

t.test("a run's events are its metrics, and a part that goes on says from which step", async (t) => {
  const directory = await brokenRun();
  const [first = [], second = [], ...more] = eventFiles(directory).map(readFile);
  t.same(more, []);
  for (const file of [first, second]) t.match(file[0], { version: "brain.Event:2", scalars: {} });
  t.notOk(first.some(({ start }) => start));
  t.match(second[1], { step: 3, start: true });
  const steps = (file: Read[]): number[] =>
    file.filter(({ scalars }) => "reward/mean" in scalars).map(({ step }) => step);
  t.same(steps(first), [1, 2, 3]);
  t.same(steps(second), [3, 4]);
  t.same(
    first.filter(({ scalars }) => "eval/exact_match" in scalars).map(({ step }) => step),
    [0, 2, 3],
  );
  for (const record of lines(directory)) {
    const events = [...first, ...second].filter(
      ({ step, scalars }) => step === record.step && "reward/mean" in scalars,
    );
    const { scalars } = events.at(-1)!;
    const { adapters, roles, tools, klToStart } = record;
    const wanted = {
      "reward/mean": record.reward,
      "loss/total": record.loss,
      "loss/kl_to_start": klToStart as number,
      "adapters/reason/update_norm": adapters["reason"]!.updateNorm,
      "adapters/tool/gradient_norm": adapters["tool"]!.gradNorm,
      "roles/tool/kl": roles["tool"]!.kl as number,
      "roles/reason/tokens": roles["reason"]!.tokens,
      "tools/tool/calls": tools!["tool"]!.calls,
      "tools/tool/errors": 0,
      "speed/tokens_per_second": record.tokens / record.seconds,
    };
    for (const [tag, value] of Object.entries(wanted)) t.equal(scalars[tag], Math.fround(value), tag);
  }
});

t.test("TensorBoard reads them, each step once", needsPython("tensorboard"), async (t) => {
  const directory = await brokenRun();
  const program = `
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1] + "/tensorboard")
events.Reload()
print(json.dumps({tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}))
`;
  const found = runPython(program, directory) as Record<string, [step: number, value: number][]>;
  const metrics = lines(directory);
  const series = (value: (record: StepRecord) => number) => metrics.map((own) => [own.step, Math.fround(value(own))]);
  t.same(
    found["reward/mean"],
    series(({ reward }) => reward),
  );
  t.same(
    found["loss/total"],
    series(({ loss }) => loss),
  );
  t.same(
    found["adapters/reason/update_norm"],
    series(({ adapters }) => adapters["reason"]!.updateNorm),
  );
  t.same(
    found["eval/exact_match"]!.map(([step]) => step),
    [0, 2, 4],
  );
});
