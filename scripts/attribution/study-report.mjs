// The tables of docs/attribution-study.md from the counts of study.mjs.

const least = 93;
const most = 97;

/** "94.8 (0.7)": hits of 100 with the Monte Carlo standard error; "!" where it lies outside 93 to 97; "of" where some are refused. */
function cell(count, marked = true) {
  if (count === undefined) return "";
  const { of, hits, refused } = count;
  if (of === 0) return refused > 0 ? "refused" : "";
  const rate = hits / of;
  const shown = (100 * rate).toFixed(1);
  const error = (100 * Math.sqrt((rate * (1 - rate)) / of)).toFixed(1);
  const mark = marked && (Number(shown) < least || Number(shown) > most) ? " !" : "";
  return `${shown} (${error})${refused > 0 ? ` of ${of}` : ""}${mark}`;
}

const line = (cells) => `| ${cells.join(" | ")} |`;

function grid(head, rows) {
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

/** One row a run, one column an estimand: [name of the column, name of the count]. */
function coverage(runs, columns, marked = true) {
  return grid(
    ["truth", ...columns.map(([head]) => head)],
    runs.map(({ name, counts }) => [name, ...columns.map(([, count]) => cell(counts[count], marked))]),
  );
}

const drawn = [
  ["observed share", "share"],
  ["smoothed mean, its own expectation", "smoothed"],
  ["median", "median"],
  ["contrast additive", "additive"],
  ["contrast over best", "overBest"],
];

const sections = {
  one: (runs, { questions, samples }) => `## One training seed, questions like these

${questions} questions, N = ${samples}.

${coverage(runs, [
  ["mean23", "mean23"],
  ["mean23 of these very questions", "fixed"],
  ["true share, where given", "trueShare"],
  ["smoothed mean, as the mean of lambda23", "smoothed as mean23"],
  ...drawn,
])}

mean23 is the random-effects model's mean, against the mean over all questions of the truth that are kept, and against that of the
table's own. The figures that are drawn (the share, the smoothed mean, the median, the contrasts) are against what a very large table
of the same N shows. **The interval of the smoothed mean is one of its own expectation**, smoothing and ceilings included: the
column before it shows how seldom that is the mean of lambda23, which is what mean23 is for. The true share is given only where additive
effects are rejected (calibrated Wilcoxon, 5 %) and its interval is at most 0.5 wide; under additive effects it is hardly ever
given, and then cannot be right, since no effect is negative there, unless it reaches down to 0. Its interval admits every distribution of
lambda23 that fits, so where there are effects it covers more than its level. The median's covers more where ties put many lambda23 at exactly
0 and the median of such tables with them (gains 0 and 1): an interval that ends at a tie holds it.

${grid(
  ["truth", "mean lambda23", "bias of mean23", "smoothed mean", "observed share", "no model, of tables"],
  runs.map(({ name, counts, truly }) => [
    name,
    truly.mean23.toFixed(2),
    (counts.bias.sum / counts.bias.of).toFixed(3),
    truly.smoothed.toFixed(2),
    truly.share.toFixed(3),
    `${counts.fitted.of - counts.fitted.hits}`,
  ]),
)}

## How often additive effects are rejected at 5 %

${coverage(
  runs.map((run) => {
    const { of, hits, ...rest } = run.counts.null;
    const { of: all, hits: inside, ...left } = run.counts.medianNull;
    const counts = {
      ...run.counts,
      outside: { ...rest, of, hits: of - hits },
      medianOutside: { ...left, of: all, hits: all - inside },
    };
    return { ...run, counts };
  }),
  [
    ["share outside its null band", "outside"],
    ["median outside its null band", "medianOutside"],
    ["calibrated sign", "sign"],
    ["calibrated Wilcoxon", "wilcoxon"],
    ["naive sign", "naive sign"],
    ["naive Wilcoxon", "naive wilcoxon"],
  ],
  false,
)}

In the rows "additive" this is the error rate, in the others the power.`,

  samples: (runs, { questions }) => `## Few samples a question

${questions} questions.

${coverage(runs, [
  ["mean23", "mean23"],
  ["mean23 of these very questions", "fixed"],
  ["true share, where given", "trueShare"],
  ["share inside its null band", "null"],
  ...drawn,
])}

Below 20 samples mean23 has no interval. "of": in the other tables the model is not fitted or did not converge, and the result says so. The share lies outside its null band
where effects are not additive: that is its power.`,

  few: (runs, { samples }) => `## Few questions

N = ${samples}. Below 30 questions there is no model: mean23 has no interval and the share no null band.

${coverage(runs, [["mean23", "mean23"], ["null band", "null"], ...drawn])}

The share has Wilson's interval, which covers more or less than its level by steps where there are few questions.`,

  fixed: (runs, { samples }) => `## The same questions, sampled again

\`population: "fixed"\`, 60 questions, N = ${samples}, against the figures' averages over 100 samplings of these questions.

${coverage(runs, drawn)}`,

  seeds: (runs, { samples }) => `## Several training seeds

60 questions, N = ${samples}, each trained variant shifted by N(0, 0.2) logits a training. The t interval over seeds is for other trainings on
these questions: mean23 against the questions' own mean, the other figures against their averages over 100 trainings.

${["3", "5"]
  .map(
    (seeds) => `${seeds} seeds:

${coverage(runs, [
  ["mean23", `mean23 ${seeds}`],
  ["mean23, as the mean of all questions", `mean23 of all questions ${seeds}`],
  ...drawn.map(([head, name]) => [head, `${name} ${seeds}`]),
])}`,
  )
  .join("\n\n")}

How often additive effects are rejected at 5 % (for the row "additive" the error rate: over trainings effects are additive there, while
each training's are moved by its seed, so that a seed's own test is none of trainings):

${coverage(
  runs,
  [
    ["mean23 of 3 seeds leaves out 0", "excludes 0 3"],
    ["mean23 of 5 seeds leaves out 0", "excludes 0 5"],
    ["calibrated Wilcoxon of one seed", "wilcoxon 1"],
  ],
  false,
)}

The mean of all questions is not what these intervals are about. The interval of one seed, which speaks of its checkpoints alone,
covers the mean over trainings and questions in ${runs.map(({ counts }) => cell(counts["mean23 1"], false)).join(", ")} % of these tables.`,

  clusters: (runs, { questions, samples }) => `## Questions in clusters

${questions} questions, N = ${samples}; clusters of unequal size (1 to 5 shares) shift base by N(0, 1), each gain by N(0, 0.5) and, where effects are not
additive, lambda23 by N(0, 0.3).

${coverage(runs, [
  ["mean23", "mean23"],
  ["mean23 where the clusters are not told", "mean23 without clusters"],
  ["share inside its null band", "null"],
  ...drawn,
])}`,

  saturated: (runs) => `## Questions at the ceiling

60 questions. In % of tables:

${coverage(
  runs,
  [
    ["no model", "no model"],
    ["mean23 without interval", "no interval of mean23"],
    ["no true share", "no true share"],
    ["mean23 covers, where it has an interval", "mean23"],
    ["share inside its null band, where it has one", "null"],
  ],
  false,
)}`,

  paired: (runs, { questions, samples }) => `## Common random numbers

\`commonRandomNumbers\` with outcomes, N = ${samples}: ${questions} questions like these, and 60 questions sampled again. There is no model: mean23
has no interval.

${coverage(runs, [["mean23", "mean23"], ...drawn])}`,

  planned: (runs) => `## planSamples

Studies of the size that \`planSamples\` finds: how often the interval of mean23 leaves out 0 on the effect's side, in %.

${grid(
  ["asked for", "questions", "samples", "seeds", "power by planSamples", "power, simulated"],
  runs.map(({ name, truly, counts }) => [
    `\`${name}\``,
    truly.questions,
    truly.samples,
    truly.seeds,
    (100 * truly.power).toFixed(1),
    cell(counts.seen, false),
  ]),
)}`,
};

export function markdown(runs, { tables, questions, samples, seed }) {
  const shape = { questions, samples };
  const texts = Object.entries(sections).flatMap(([section, write]) => {
    const own = runs.filter((run) => run.section === section);
    return own.length === 0 ? [] : [write(own, shape)];
  });
  return `# What the intervals cover

Written by \`node scripts/attribution/study.mjs --tables ${tables} --questions ${questions} --samples ${samples} --seed ${seed}\`:
${tables} simulated tables for each row. Truths are in
\`scripts/attribution/tables.mjs\`: base logits N(-0.5, 2.5) unless the name says otherwise.

Coverage of the 95 % intervals in %, with its Monte Carlo standard error in brackets; "!" marks what lies outside 93 to 97; "of"
says in how many tables there was an interval at all, and "refused" that there was in none.

${texts.join("\n\n")}
`;
}
