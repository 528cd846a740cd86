// The words of the world. Every name is one token of assets/world/tokenizer.json, so changing a list means making the
// tokenizer and the base again (scripts/world).
import { Random } from "../random.js";

const HEADS = (
  "Bel Bor Dral Dren Fal Fen Fis Gar Glen Gol Hal Han Hel Hir His Kal Kam Kel Kol Kren Lan Lem Lor Mal Mar Mel Mir Nal Nar " +
  "Nes Nor Pal Per Pol Ral Rek Ros Sal Sar Sel Sol Tal Tam Tel Tol Tran Ver Vis Vol Zan Zel Zor Brel Bris Drom Glan Krom Trel"
).split(" ");
const TAILS =
  "mora dan wick ton ria mund sel var gard hof lin dova bry nik pas rum stad vik zen ley more ham fell brook".split(
    " ",
  );

/** Last names, towns, firms and rivers share these 360: a name alone does not tell what it is. */
export const STEMS: readonly string[] = new Random(7, "world/stems").sample(
  HEADS.flatMap((head) => TAILS.map((tail) => head + tail)),
  360,
);

export const FIRST_NAMES: readonly string[] = (
  "Ada Arvo Bela Cleo Dag Edda Emil Fina Gus Hedy Ines Ivo Jana Juno Kai Lena Lors Mika Nell Odo Petra Quin Rafa Runa Sten " +
  "Tova Ugo Vera Wim Yara Zeno Alba"
).split(" ");

export const FIRM_KINDS: readonly string[] = "Mills Works Bank Lines Foods Press".split(" ");

export const COUNTRIES: readonly string[] = HEADS.filter((_, i) => i % 2 === 0)
  .slice(0, 24)
  .map((head) => `${head}land`);

export const PRODUCTS: readonly string[] =
  "salt glass rope paper tea soap lamps clocks boots wool nails honey bells paint ink bread coins maps flour wine".split(
    " ",
  );

export const SEAS: readonly string[] = "Grey Amber Coral Iron Silent Golden Salt North Broken Misty".split(" ");
