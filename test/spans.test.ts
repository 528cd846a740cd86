// Text cut into spans and joined again: by hand, against the role router, on any text, and on the texts of real agents.
import { readFileSync } from "node:fs";
import fc from "fast-check";
import t from "tap";
import { joinSpans, parseSpans, RoleRouter, type SpanTags } from "rolegrad";
import { holds } from "./helpers/properties.js";
import { needsShared, shared } from "./helpers/shared.js";

const kinds = ["think", "search", "information", "answer"];
const spans: SpanTags[] = kinds.map((kind) => ({
  kind,
  open: `<${kind}>`,
  close: `</${kind}>`,
  output: kind === "information",
}));

/** Each span as `kind:text`, with a "…" where it is not closed, and `text` outside. */
const brief = (text: string): string =>
  parseSpans(text, { spans })
    .map((span) => `${span.kind === null ? "" : `${span.kind}:`}${span.text}${span.closed ? "" : "…"}`)
    .join("|");

t.test("spans, and what stands between them, in order", async (t) => {
  t.strictSame(parseSpans("so <search>who</search>", { spans }), [
    { kind: null, open: "", text: "so ", close: "", closed: true },
    { kind: "search", open: "<search>", text: "who", close: "</search>", closed: true },
  ]);
  t.strictSame(parseSpans("", { spans }), []);
  const router = new RoleRouter({ roles: ["r", "a"], base: "r", spans: [{ role: "a", open: "<", close: ">" }] });
  t.strictSame(
    parseSpans("<x>", router),
    [{ kind: "a", open: "<", text: "x", close: ">", closed: true }],
    "a router's spans: the role is the kind",
  );
  t.equal(parseSpans("[x]", { spans: [{ open: "[", close: "]" }] })[0]?.kind, "[", "without either, the opening tag");
});

t.test("tags that are stray, nested or missing", async (t) => {
  t.equal(brief("</search>who<search></search>"), "</search>who|search:", "a closing tag alone is text");
  t.equal(brief("<think>a<search>q</search></think>"), "think:a<search>q</search>", "spans do not nest");
  t.equal(brief("<search>a<search>b</search></search>"), "search:a<search>b|</search>");
  t.equal(brief("a<think>b<answer>c</answer>"), "a|think:b<answer>c</answer>…", "unclosed: to the end");
  t.equal(brief("<search>q<information>p</information>r"), "search:q…|information:p|r", "output ends an open span");
  t.equal(brief("<information>a<search>b<information>c"), "information:a<search>b<information>c…");
  t.equal(brief("<sea<search>q</sea</search>"), "<sea|search:q</sea");
  t.equal(brief("<SEARCH>q</SEARCH>"), "<SEARCH>q</SEARCH>");
});

const pieces = fc.constantFrom(
  ...spans.flatMap(({ open, close }) => [open, close]),
  ..."<>/ \n",
  "<sea",
  "rch>",
  "x",
  "é",
  "\ud83d",
  "\u0000",
);
const tagged = fc.array(pieces, { maxLength: 30 }).map((list) => list.join(""));

t.test("joined again, the spans of any text are the text", async (t) => {
  await holds(t, fc.oneof(tagged, fc.string({ unit: "binary" })), 3000, async (text) => {
    const found = parseSpans(text, { spans });
    const begun = found.every(({ kind, open, closed, close }) =>
      kind === null ? open + close === "" && closed : open !== "" && (close !== "") === closed,
    );
    return joinSpans(found) === text && begun && !found.some((span) => span.kind === null && span.text === "");
  });
});

t.test("characters have the role that the router gives them", async (t) => {
  // Tags that overlap, one within another, two that end together.
  const tags = [
    ["xxy", "xyxx", "yyxy", "x"],
    ["xyxy", "yy", "yx", "xx"],
    ["y", "xx", "xy", "y"],
    ["xy", "y", "y", "xx"],
  ];
  const routers = tags.map(
    ([b, bEnd, c, cEnd]) =>
      new RoleRouter({
        roles: ["base", "b", "c"],
        base: "base",
        spans: [
          { role: "b", open: b!, close: bEnd! },
          { role: "c", open: c!, close: cEnd! },
        ],
      }),
  );
  const text = fc.array(fc.constantFrom("x", "y"), { maxLength: 40 }).map((list) => list.join(""));
  await holds(t, fc.tuple(text, fc.constantFrom(...routers)), 4000, async ([text, router]) => {
    const want: string[] = [];
    for (const { kind, open, text: inner, close } of parseSpans(text, router)) {
      const role = String(kind === null ? 0 : router.roles.indexOf(kind));
      // The last character of an opening tag predicts what is inside, that of a closing tag what comes after it.
      want.push(
        ..."0".repeat(Math.max(0, open.length - 1)),
        ...(open === "" ? "" : role),
        ...role.repeat(inner.length),
      );
      if (close !== "") want.push(...role.repeat(close.length - 1), "0");
    }
    const bytes = [...text].map((character) => new TextEncoder().encode(character));
    return router.annotate(bytes, new Uint8Array(bytes.length).fill(1)).join("") === want.join("");
  });
});

t.test("a text full of tags takes linear time", async (t) => {
  const text = "<search></think>".repeat(100_000) + "<think></think>".repeat(100_000);
  t.equal(parseSpans(text, { spans }).length, 1);
  t.equal(parseSpans("<answer></answer>".repeat(100_000), { spans }).length, 100_000);
});

t.test("spans that make no sense are refused by field", async (t) => {
  const refused = (work: () => unknown, message: RegExp) => t.throws(work, { code: "ERR_INVALID_ARGUMENT", message });
  refused(() => parseSpans("a", { spans: [{ open: "", close: "x" }] }), /spans\[0\]/);
  refused(() => parseSpans("a", { spans: [spans[0]!, { open: "x", close: "" }] }), /spans\[1\]/);
  refused(() => parseSpans(3 as never, { spans }), /text but received 3/);
  refused(() => parseSpans("a", { spans: "x" as never }), /list of spans/);
});

type Row = Record<"dataset" | "id" | "run" | "prompt" | "response", string> &
  Record<"n_search" | "n_information", number> & { has_answer_tag: boolean };
const rows = (file: string): Row[] =>
  readFileSync(shared(`data/agent_runs/${file}`)!, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Row);

t.test(
  "the texts of 210 real answers parse without loss, and their spans are those that were counted",
  needsShared("data/agent_runs/trajectories.jsonl", "data/agent_runs/accuracy.jsonl"),
  async (t) => {
    const key = ({ dataset, id, run }: Row): string => `${dataset}/${id}/${run}`;
    const counted = new Map(rows("accuracy.jsonl").map((row) => [key(row), row]));
    const answers = rows("trajectories.jsonl");
    t.equal(answers.length, 210);
    const total = { search: 0, information: 0, answer: 0 };
    for (const row of answers) {
      for (const text of [row.prompt, row.response, row.prompt + row.response])
        t.equal(joinSpans(parseSpans(text, { spans })), text);
      const { n_search, n_information, has_answer_tag } = counted.get(key(row))!;
      // Each kind by itself: the counts were taken so, whatever else is open.
      const closed = (kind: keyof typeof total): number => {
        const own = parseSpans(row.response, { spans: spans.filter((span) => span.kind === kind) });
        const count = own.filter((span) => span.kind === kind && span.closed).length;
        total[kind] += count;
        return count;
      };
      t.strictSame(
        [closed("search"), closed("information"), closed("answer") > 0],
        [n_search, n_information, has_answer_tag],
        key(row),
      );
    }
    t.ok(total.search > 200 && total.information > 200 && total.answer >= 195);
  },
);
