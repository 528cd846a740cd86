// The distribution of lambda23 that additive effects alone would show, as figures and as the line over the chart's bars.
import t from "tap";
import {
  computeInterference,
  computeInterferenceSync,
  interferenceFigures,
  type Interference,
  type NullDistribution,
} from "rolegrad/attribution";
import { Random } from "rolegrad";
import { simulate, type Truth, truths } from "../scripts/attribution/tables.mjs";

const named = (text: string): Truth => truths.find(({ name }) => name.includes(text)) as Truth;
const sum = (values: ArrayLike<number>): number => Array.from(values).reduce((all, one) => all + one, 0);

function resultOf(truth: string, seed: number, samples = 50): Interference {
  const { table } = simulate(named(truth), new Random(seed, "null test"), { questions: 300, samples });
  return computeInterferenceSync(table, { posterior: false, draws: 100 });
}

/** The largest distance of two distribution functions: the observed one's and the null's, at the null's edges. */
function distance({ lambda, kept }: Interference, { width, zero, below, above }: NullDistribution): number {
  const sorted = Float64Array.from(lambda.l23).sort();
  const observed = (at: number): number => sorted.filter((x) => x <= at + 1e-9).length / kept.length;
  let worst = 0;
  let under = sum(below);
  // Left of 0 a bin leaves out its upper edge, on which a few values lie: half a bin further, nothing does.
  for (let i = 0, left = under; i < below.length; i++) {
    left -= below[i] as number;
    worst = Math.max(worst, Math.abs(left - observed(-(i + 1) * width - 1e-6)));
  }
  under += zero;
  for (let i = 0; i < above.length; i++) {
    under += above[i] as number;
    worst = Math.max(worst, Math.abs(under - observed((i + 1) * width)));
  }
  return worst;
}

t.test("the null's distribution is whole, and its shares are those of the null", (t) => {
  for (const result of [resultOf("gains 3", 1), resultOf("weak", 2, 8)]) {
    const found = result.distribution23Null as NullDistribution;
    const all = sum(found.below) + found.zero + sum(found.above);
    t.ok(Math.abs(all - 1) < 1e-9, `${all} in all`);
    t.ok(Math.abs(sum(found.below) - (result.interferenceShare.null?.value as number)) < 1e-9, "below 0: the share");
    // From 0 outwards, until half of all lie further left.
    let further = sum(found.below);
    let bin = 0;
    while (further > 0.5) further -= found.below[bin++] as number;
    const median = result.median23Null?.value as number;
    const same = bin === 0 ? median >= 0 : Math.abs(-bin * found.width - median) <= 2 * found.width;
    t.ok(same, `the median ${median} is that of the shares, bin ${bin} below 0`);
  }
  t.end();
});

t.test("tables of additive effects lie like their null, tables with interference do not", (t) => {
  for (const seed of [1, 2, 3]) {
    const additive = resultOf("gains 3", seed);
    const near = distance(additive, additive.distribution23Null as NullDistribution);
    t.ok(near < 0.09, `additive: ${near.toFixed(3)} apart`);
    const mixed = resultOf("mixed", seed);
    const far = distance(mixed, mixed.distribution23Null as NullDistribution);
    t.ok(far > 0.11, `mixed: ${far.toFixed(3)} apart`);
  }
  t.end();
});

t.test("several seeds have the mean of their nulls; without a model there is none", async (t) => {
  const { table } = simulate(named("weak"), new Random(4, "null test"), { questions: 60, samples: 50 });
  const twice = Object.fromEntries(
    Object.entries(table.correct).map(([name, k]) => [name, [k, Array.from(k).reverse()]]),
  ) as never;
  const result = await computeInterference({ samples: 50, seeds: ["a", "b"], correct: twice }, { draws: 100 });
  const own = result.seeds?.results.map(({ distribution23Null }) => distribution23Null as NullDistribution) ?? [];
  const mean = result.distribution23Null as NullDistribution;
  t.equal(own.length, 2);
  t.ok(Math.abs(mean.zero - (own[0]!.zero + own[1]!.zero) / 2) < 1e-12);
  t.ok(Math.abs(sum(mean.above) - (sum(own[0]!.above) + sum(own[1]!.above)) / 2) < 1e-12);
  const without = computeInterferenceSync(table, { model: false });
  t.equal(without.distribution23Null, null);
});

t.test("the chart draws the null over the bars: as high as its shares say, with its legend and numbers", async (t) => {
  const result = resultOf("gains 3", 1);
  const { svg, title } = (await interferenceFigures(result))[0] as { svg: string; title: string };
  t.equal(title, "Distribution of lambda23 with its null");
  t.match(svg, /observed<\/text/);
  t.match(svg, /additive effects alone \(the null\)<\/text/);
  const caption = [...svg.matchAll(/class="label" x="0" y="-\d+">([^<]+)</g)].map(([, line = ""]) => line);
  t.match(
    caption.join(" "),
    "Line: how many questions additive effects alone would put there.",
    "it says how to read it",
  );
  t.ok(caption.every((line) => line.length <= 62));
  const [, path = ""] = /class="chance" d="(M[^"]+V254)"/.exec(svg) ?? [];
  // Lowest and highest tick of the y axis: from heights to questions.
  const ticks = [...svg.matchAll(/text-anchor="end"\s*>([\d,]+)<\/text/g)].map(([, n = ""]) => Number(n));
  const questions = (y: number): number => ((254 - y) / (254 - 58)) * Math.max(...ticks);
  const zero = Number(/class="zero" x1="([\d.]+)"/.exec(svg)?.[1]);
  const [, place, label] = [...svg.matchAll(/x="([\d.]+)" y="274" text-anchor="middle"\s*>(-?[\d.]+)</g)].at(-1) ?? [];
  const logits = (x: number): number => ((x - zero) / (Number(place) - zero)) * Number(label);
  const { below, above, width } = result.distribution23Null as NullDistribution;
  const within = (from: number, to: number): number => {
    const [near, far] = [Math.min(Math.abs(from), Math.abs(to)), Math.max(Math.abs(from), Math.abs(to))];
    return sum((from < 0 ? below : above).subarray(Math.round(near / width), Math.round(far / width)));
  };
  let from = logits(Number(/^M([\d.]+) 254/.exec(path)?.[1]));
  let drawn = 0;
  for (const [, y, x] of path.matchAll(/V([\d.]+)H([\d.]+)/g)) {
    const to = Math.round(logits(Number(x)) / width) * width;
    const expected = within(from, to) * result.kept.length;
    t.ok(Math.abs(questions(Number(y)) - expected) < 0.1, `${expected.toFixed(1)} questions from ${from} to ${to}`);
    drawn += expected;
    from = to;
  }
  const outside = (result.distribution23Null as NullDistribution).zero * result.kept.length;
  t.ok(Math.abs(drawn + outside - result.kept.length) < 0.006 * result.kept.length, "next to all of them are drawn");

  const bare = (await interferenceFigures({ ...result, distribution23Null: null }))[0]?.svg ?? "";
  t.notMatch(bare, /class="chance"|the null/);
  const { distribution23Null: _, ...older } = result;
  t.equal(
    (await interferenceFigures(older as Interference))[0]?.svg,
    bare,
    "a result that was saved before there was one",
  );
});
