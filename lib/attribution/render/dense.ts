import {
  type AccuracyRow,
  type AccuracyTable,
  type TrainedVariant,
  type Variant,
  variants,
  type VariantName,
} from "../types.js";

/** The table of some rows in its dense form, which is much shorter; as rows where that cannot say it (seeds, samples that differ by cell). */
export function denseOf(rows: readonly AccuracyRow[]): AccuracyTable {
  const ids = new Map<string, number>();
  for (const { id } of rows) if (!ids.has(String(id))) ids.set(String(id), ids.size);
  const correct = byVariant(() => new Array<number>(ids.size).fill(-1));
  const samples = byVariant(() => new Array<number>(ids.size).fill(-1));
  const outcomes = new Map<Variant, ArrayLike<number>[]>();
  const clusters = new Array<string | number | undefined>(ids.size).fill(undefined);
  for (const row of rows) {
    const q = ids.get(String(row.id)) as number;
    const variant = plain(row.variant);
    if (correct[variant][q] !== -1 || (row.seed ?? undefined) !== undefined) return { rows };
    correct[variant][q] = row.correct;
    samples[variant][q] = row.samples;
    if (row.outcomes !== undefined && row.outcomes !== null) {
      const own = outcomes.get(variant) ?? [];
      own[q] = row.outcomes;
      outcomes.set(variant, own);
    }
    clusters[q] ??= row.cluster ?? undefined;
  }
  const shared = sharedSamples(samples);
  const clustered = clusters.filter((cluster) => cluster !== undefined).length;
  const whole = variants.every((variant) => !correct[variant].includes(-1));
  if (shared === undefined || !whole || (clustered > 0 && clustered < ids.size)) return { rows };
  // Only one number of samples says where a question's outcomes begin.
  if (outcomes.size > 0 && typeof shared !== "number") return { rows };
  const flat = [...outcomes].map(([variant, own]) => [variant, own.flatMap((values) => Array.from(values))] as const);
  return {
    samples: shared,
    ids: [...ids.keys()],
    ...(clustered > 0 && { clusters: clusters as string[] }),
    correct,
    ...(flat.length > 0 && { outcomes: Object.fromEntries(flat) as Record<TrainedVariant, number[]> }),
  };
}

function plain(name: VariantName): Variant {
  return name === "hybrid-tool" ? "hybridTool" : name === "hybrid-reas" ? "hybridReas" : name;
}

function byVariant<T>(make: () => T): Record<Variant, T> {
  return Object.fromEntries(variants.map((variant) => [variant, make()])) as Record<Variant, T>;
}

/** N as one number, one for each variant, or one for each question. */
function sharedSamples(samples: Record<Variant, number[]>): number | Record<Variant, number> | number[] | undefined {
  const base = samples.base;
  const constant = (list: readonly number[]): boolean => list.every((n) => n === list[0]);
  if (variants.every((variant) => constant(samples[variant]))) {
    const each = Object.fromEntries(variants.map((variant) => [variant, samples[variant][0]])) as Record<
      Variant,
      number
    >;
    return variants.every((variant) => each[variant] === each.base) ? each.base : each;
  }
  return variants.every((variant) => samples[variant].every((n, q) => n === base[q])) ? base : undefined;
}
