// Sampling with the cache, from a prompt of 32 tokens: the backbone alone, and routed.
import type { Adapters } from "../adapters/adapters.js";
import { abortable } from "../arguments.js";
import type { NativeGenerator, NativeGeneratorEvent } from "../binding.js";
import type { Model } from "../model/model.js";
import { Random } from "../random.js";
import { type Size, type SizeName, sizes } from "./checkpoint.js";
import { adapterParameters, cacheBytes, forwardFlops, weightBytes } from "./counts.js";
import type { Part } from "./machine.js";
import {
  dartAdapters,
  type Dtype,
  dtypesOf,
  fillAdapters,
  peerSize,
  rank,
  roles,
  sizeLabel,
  withModel,
} from "./model.js";
import { clock, race, resultLine } from "./timing.js";
import type { Bench, BenchContext } from "./types.js";
import { requireSameBits, wrong } from "./verify.js";

const prompt = 32;
const plan: Record<SizeName, { batches: number[]; tokens: number; quickTokens: number }> = {
  tiny: { batches: [1, 64], tokens: 128, quickTokens: 64 },
  small: { batches: [1, 64], tokens: 64, quickTokens: 16 },
  "qwen2.5-0.5b": { batches: [1, 16], tokens: 24, quickTokens: 8 },
};
const open = "<tool>";
const close = "</tool>";

/** One token in 64 opens a span of the other role and one in 64 closes it, so that random text alternates between them. */
function tagBytes(vocabulary: number): Uint8Array[] {
  const [opening, closing, other] = [open, close, "x"].map((text) => new TextEncoder().encode(text)) as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ];
  // Ids beyond the list have no bytes: a list of an eighth of them is quick to hand over.
  return Array.from({ length: vocabulary / 8 }, (_, id) => (id % 8 === 0 ? opening : id % 8 === 1 ? closing : other));
}

interface Decoded {
  ids: Int32Array;
  roles: Int8Array;
  sampled: Uint8Array;
  logprobs: Float32Array;
}

interface Decoding {
  model: Model;
  adapters: Adapters | undefined;
  tokenBytes: Uint8Array[];
  prompts: Int32Array[];
  tokens: number;
}

/** Samples `tokens` for every prompt, and says how many there were: a call at the last token grants one more. */
async function decode(context: BenchContext, d: Decoding, results?: Decoded[]): Promise<number> {
  const { model, adapters, tokenBytes, prompts, tokens } = d;
  const adapterOfRole = adapters?.adapterOfRole ?? new Int32Array(roles.length).fill(-1);
  const writer = { model: model.native, adapters: adapters?.native ?? null, adapterOfRole };
  const generator: NativeGenerator = new context.native.Generator([writer], {
    maxSequences: prompts.length,
    maxLength: prompt + tokens + 1,
    tokenBytes,
    router: { base: 0, spans: [{ open, close, role: 1 }] },
  });
  const request = { temperature: 1, topP: 1, topK: 0, seed: 4n, maxNewTokens: tokens, stopIds: new Int32Array(0) };
  const live = new Set(prompts.map((ids, i) => generator.add(ids, { ...request, stream: BigInt(i) })));
  let sampled = 0;
  const tell = (events: NativeGeneratorEvent[]): void => {
    for (const { id, kind } of events) {
      if (kind === "call") {
        generator.append(id, new Int32Array(0)); // a tool that answers nothing, at once
      } else {
        const result = generator.take(id);
        live.delete(id);
        sampled += result.sampled.reduce((sum, on) => sum + on, 0);
        results?.push(result);
      }
    }
  };
  while (live.size > 0) tell(await abortable(generator.run(tokens, tell), context.signal));
  generator.close();
  return sampled;
}

/** What was sampled token by token has the log-probabilities of one forward pass over the whole text, bit for bit. */
async function verify(what: string, d: Decoding, results: readonly Decoded[]): Promise<void> {
  for (const { ids, roles: own, sampled, logprobs } of results.slice(0, 4)) {
    const input = { inputIds: ids, cuSeqlens: Int32Array.of(0, ids.length), roles: own };
    const whole = await d.model.forward(
      d.adapters === undefined ? { inputIds: ids, cuSeqlens: input.cuSeqlens } : input,
      d.adapters === undefined ? {} : { adapters: d.adapters },
    );
    const expected = whole.logprobs.map((x, t) => (sampled[t] === 1 ? x : 0));
    requireSameBits(`${what}: log-probabilities of sampled tokens against a forward pass`, logprobs, expected);
    const count = sampled.reduce((sum, on) => sum + on, 0);
    if (count < d.tokens) wrong(what, `Expected ${d.tokens} sampled tokens but received ${count}`);
  }
}

/** The prompts in one pass, then one pass a token: weights once a pass, keys and values of every position so far. */
function parts(s: Size, dtype: Dtype, B: number, tokens: number, routed: boolean): Part[] {
  const weights = weightBytes(s, dtype) + (routed ? 2 * 4 * adapterParameters(s, rank) : 0);
  const low = routed ? rank : 0;
  const list = [{ flops: forwardFlops(s, B * prompt, B, (B * prompt * (prompt + 1)) / 2, low), bytes: weights }];
  for (let i = 1; i < tokens; i++) {
    const length = prompt + i;
    list.push({ flops: forwardFlops(s, B, B, B * length, low), bytes: weights + B * length * cacheBytes(s) });
  }
  return list;
}

export const decodeBench: Bench = async function* (context) {
  const bench = "decode";
  const { machine, peer, quick, repeats } = context;
  for (const size of context.sizes) {
    const s = sizes[size];
    const { batches, tokens: all, quickTokens } = plan[size];
    const tokens = quick ? quickTokens : all;
    for (const dtype of dtypesOf(size, context.precision)) {
      const name = (B: number, routed: boolean) => `${sizeLabel(size, dtype)} B=${B}${routed ? " routed" : ""}`;
      const wanted = batches.filter((B) => context.wanted(name(B, false)) || context.wanted(name(B, true)));
      if (wanted.length === 0) continue;
      const rows = Math.max(...batches) * prompt;
      yield* withModel(
        context,
        size,
        { dtype, rows, what: `${bench} ${sizeLabel(size, dtype)}` },
        async function* (model) {
          const adapters = dartAdapters(model);
          fillAdapters(adapters);
          const tokenBytes = tagBytes(s.vocabulary);
          const steadyBytes = tokenBytes.map(() => new TextEncoder().encode("x"));
          for (const B of wanted) {
            context.status(`${bench} ${name(B, false)}`);
            const random = new Random(5, "bench/prompts");
            const prompts = Array.from({ length: B }, () =>
              Int32Array.from({ length: prompt }, () => random.integer(s.vocabulary)),
            );
            const common = { model, prompts, tokens };
            const cases = {
              engine: { ...common, adapters: undefined, tokenBytes },
              routed: { ...common, adapters, tokenBytes },
              steady: { ...common, adapters, tokenBytes: steadyBytes },
            };
            type Key = keyof typeof cases;
            const counts = { engine: 0, routed: 0, steady: 0 };
            for (const key of Object.keys(cases) as Key[]) {
              const results: Decoded[] = [];
              counts[key] = await decode(context, cases[key], results);
              await verify(`${bench} ${name(B, key !== "engine")}`, cases[key], results);
            }
            const runs = quick ? 2 : 3;
            const time = (key: Key) => () => clock(runs, () => decode(context, cases[key]));
            const request = { bench, ...peerSize(s), B, prompt, tokens, dtype };
            const best = await race(repeats.rounds, {
              engine: time("engine"),
              routed: time("routed"),
              steady: time("steady"),
              peer: () => Promise.resolve(peer?.time(request, runs)),
            });
            // A token of each: text differs, and with it the number of calls.
            const each = (key: Key) => (best[key] as number) / counts[key];
            for (const key of ["engine", "routed"] as const) {
              const routed = key === "routed";
              if (!context.wanted(name(B, routed))) continue;
              const outcome = {
                bench: "decode" as const,
                name: name(B, routed),
                unit: "tokens/s" as const,
                work: counts[key],
                seconds: best[key] as number,
                roofline: await machine.roofline(parts(s, dtype, B, tokens, routed)),
                peer: peer?.describe(request, best.peer, B * tokens),
              };
              const routedOnly = {
                overhead: each("routed") / each("engine"),
                switching: each("routed") / each("steady"),
              };
              yield resultLine(outcome, routed ? routedOnly : {});
            }
          }
        },
      );
    }
  }
};
