import { fail } from "../../errors.js";
import { type AccuracyRow, type Variant, variants } from "../types.js";
import { rowOutcomes } from "../outcomes.js";
import { show } from "../values.js";
import type { LoadedAccuracy } from "./types.js";

/** Whose cell it is, and where that stands. */
export interface Place {
  variant: Variant;
  seed: string | undefined;
  id: string;
  cluster: string | undefined;
  where: string;
}

interface Cell {
  correct: number;
  samples: number;
  where: string;
  /** Of answers, which add up; counts come once. */
  counted: boolean;
  /** Whether the answer of each number was right, where that is kept: by the numbers that rows give, or in their order. */
  outcomes?: Map<number, number>;
}

interface Question {
  cluster: string | undefined;
  where: string;
  /** By the number of the column. */
  cells: (Cell | undefined)[];
}

interface Column {
  variant: Variant;
  seed: string | undefined;
}

/** The cells of a table while its files are read. A column is a variant under a training seed. */
export class Cells {
  readonly #questions = new Map<string, Question>();
  readonly #columns = new Map<string, Column & { number: number }>();
  readonly #single: boolean;

  /** `single`: keep which answers were right, and refuse counts that do not tell it. */
  constructor(single = false) {
    this.#single = single;
  }

  /** A question, though all of its cells may be missing. */
  addQuestion({ id, cluster, where }: Omit<Place, "variant">): Question {
    let question = this.#questions.get(id);
    if (question === undefined) {
      question = { cluster, where, cells: [] };
      this.#questions.set(id, question);
    } else if (cluster !== undefined && question.cluster !== undefined && question.cluster !== cluster) {
      fail(
        "ERR_TABLE_CLUSTER",
        `Expected one cluster for question ${show(id)} but received ${show(question.cluster)} at ${question.where} and ${show(cluster)} at ${where}`,
      );
    }
    question.cluster ??= cluster;
    return question;
  }

  /** k of N. A cell that is there already -> ERR_TABLE_DUPLICATE. */
  addCount(place: Place, correct: number, samples: number, outcomes?: ArrayLike<unknown>): void {
    const question = this.addQuestion(place);
    const own =
      this.#single && isTrained(place.variant) ? this.#outcomes(place, { correct, samples }, outcomes) : undefined;
    const column = this.#column(place);
    const before = question.cells[column];
    if (before !== undefined) this.#refuseTwice(place, before);
    question.cells[column] = { correct, samples, where: place.where, counted: false, ...(own && { outcomes: own }) };
  }

  /** The outcomes that a row of counts comes with. */
  #outcomes(
    place: Place,
    counts: { correct: number; samples: number },
    outcomes: ArrayLike<unknown> | undefined,
  ): Map<number, number> {
    const { variant, id, where } = place;
    const at = (): string => `the outcomes at ${where} (variant ${variant} of question ${show(id)})`;
    if (outcomes === undefined)
      fail(
        "ERR_TABLE_OUTCOMES",
        `Expected single answers, one a row, for pairs but received counts at ${where} (variant ${variant} of question ${show(id)}): they do not ` +
          "say which answers were right",
      );
    const values = rowOutcomes(outcomes, 0, { ...counts, at }) as ArrayLike<number>;
    return new Map(Array.from(values, (value, j) => [j, value]));
  }

  /** One more answer; `sample`: its number among those of its question, where the row tells it. */
  addAnswer(place: Place, right: boolean, sample?: number): void {
    const question = this.addQuestion(place);
    const column = this.#column(place);
    const before = question.cells[column];
    if (before !== undefined && !before.counted) this.#refuseTwice(place, before);
    const cell: Cell = before ?? { correct: 0, samples: 0, where: place.where, counted: true };
    question.cells[column] = cell;
    if (this.#single && isTrained(place.variant)) {
      const number = sample ?? cell.samples;
      cell.outcomes ??= new Map();
      if (cell.outcomes.has(number))
        fail(
          "ERR_TABLE_DUPLICATE",
          `Expected one answer of number ${number} for variant ${place.variant} of question ${show(place.id)} but received another at ${place.where}`,
        );
      cell.outcomes.set(number, Number(right));
    }
    cell.samples++;
    cell.correct += Number(right);
  }

  #refuseTwice({ variant, seed, id, where }: Place, before: Cell): never {
    const of = seed === undefined ? "" : `, seed ${show(seed)},`;
    return fail(
      "ERR_TABLE_DUPLICATE",
      `Expected one row for variant ${variant}${of} of question ${show(id)} but received ${before.where} and ${where}`,
    );
  }

  #column({ variant, seed }: Place): number {
    const key = `${variant} ${seed ?? ""}`;
    let column = this.#columns.get(key);
    if (column === undefined) {
      column = { variant, seed, number: this.#columns.size };
      this.#columns.set(key, column);
    }
    return column.number;
  }

  /** The table. Every question has every column, else ERR_TABLE_UNMATCHED; or with `drop` it is left out. */
  finish(drop: boolean, source: string): Pick<LoadedAccuracy, "rows" | "incomplete"> {
    if (this.#questions.size === 0) fail("ERR_TABLE_EMPTY", `Expected questions in ${source} but there are none`);
    const columns = [...this.#columns.values()].sort(
      (a, b) => variants.indexOf(a.variant) - variants.indexOf(b.variant) || a.number - b.number,
    );
    const absent = variants.filter((variant) => !columns.some((column) => column.variant === variant));
    if (absent.length > 0)
      fail("ERR_TABLE_VARIANT", `Expected all six variants in ${source} but there is nothing of ${absent.join(", ")}`);
    const rows: AccuracyRow[] = [];
    const incomplete: LoadedAccuracy["incomplete"] = [];
    let firstPlace = "";
    for (const [id, { cluster, where, cells }] of this.#questions) {
      const missing = columns.filter(({ number }) => cells[number] === undefined);
      if (missing.length > 0) {
        if (incomplete.length === 0) firstPlace = where;
        incomplete.push({ id, missing: missing.map(columnName) });
        continue;
      }
      const numbers = this.#single ? pairedNumbers(id, columns, cells) : [];
      for (const { variant, seed, number } of columns) {
        const { correct, samples, outcomes } = cells[number] as Cell;
        rows.push({
          variant,
          id,
          correct,
          samples,
          ...(seed !== undefined && { seed }),
          ...(cluster !== undefined && { cluster }),
          ...(outcomes !== undefined && { outcomes: numbers.map((j) => outcomes.get(j) as number) }),
        });
      }
    }
    const [first] = incomplete;
    if (first !== undefined && !drop) {
      const others = incomplete.length - 1;
      fail(
        "ERR_TABLE_UNMATCHED",
        `Expected all six variants for question ${show(first.id)} (${firstPlace}) but there is none for ${first.missing.join(", ")}` +
          `${others > 0 ? `; ${others} more question${others === 1 ? "" : "s"} lack cells` : ""}. Ids must be the same in all variants; missing: "drop" ` +
          "(--missing drop) leaves such questions out",
      );
    }
    if (rows.length === 0)
      fail(
        "ERR_TABLE_EMPTY",
        `Expected questions with all six variants in ${source} but every one of ${incomplete.length} lacks some`,
      );
    return { rows, incomplete };
  }
}

function isTrained(variant: Variant): boolean {
  return variants.indexOf(variant) < 4;
}

/** The numbers of a question's answers, which must be the same in every trained variant. Throws ERR_TABLE_OUTCOMES. */
function pairedNumbers(
  id: string,
  columns: readonly (Column & { number: number })[],
  cells: readonly (Cell | undefined)[],
): number[] {
  const [first, ...others] = columns.filter(({ variant }) => isTrained(variant));
  const own = (column: Column & { number: number }): Map<number, number> =>
    (cells[column.number] as Cell).outcomes as Map<number, number>;
  const numbers = [...own(first as (typeof columns)[0]).keys()].sort((a, b) => a - b);
  for (const other of others) {
    const missing = numbers.find((j) => !own(other).has(j));
    if (missing !== undefined || own(other).size !== numbers.length)
      fail(
        "ERR_TABLE_OUTCOMES",
        `Expected the same answers of question ${show(id)} in ${columnName(first as Column)} and ${columnName(other)} for pairs but received ` +
          (missing === undefined
            ? `${numbers.length} and ${own(other).size}`
            : `no answer of number ${missing} in ${columnName(other)} (${(cells[other.number] as Cell).where})`),
      );
  }
  return numbers;
}

function columnName({ variant, seed }: Column): string {
  return seed === undefined ? variant : `${variant} (seed ${seed})`;
}
