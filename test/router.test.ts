// The role router on hand-written cases and against a scan of every prefix from its start; what it refuses.
import fc from "fast-check";
import t from "tap";
import { RoleRouter } from "rolegrad";
import type { RoleRouterOptions } from "rolegrad";
import { holds } from "./helpers/properties.js";

const search = { role: "tool", open: "<search>", close: "</search>" };
const options: RoleRouterOptions = { roles: ["reason", "tool"], base: "reason", spans: [search] };
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Roles of tokens written as text; a leading "=" marks one that was not sampled. */
function annotate(router: RoleRouter, ...tokens: string[]): string {
  const roles = router.annotate(
    tokens.map((token) => bytes(token.replace(/^=/, ""))),
    tokens.map((token) => (token.startsWith("=") ? 0 : 1)),
  );
  return roles.join("");
}

t.test("a position runs under the role of what it predicts", async (t) => {
  const router = new RoleRouter(options);
  t.equal(annotate(router, "=Q", "so", "<search>", "who", "</search>", "=found", "done"), "0011000");
  t.equal(annotate(router, "=Q", "<", "sea", "rch>who", "</sear", "ch>", "done"), "0001100", "tags of several tokens");
  t.equal(annotate(router, "=<search>", "who"), "00", "an opening tag in the prompt is text");
  t.equal(annotate(router, "<sear", "=x", "ch>"), "000", "a tag is one unbroken run of sampled tokens");
  t.equal(annotate(router, "<search>", "who", "=cut off", "on"), "1100", "tool output ends an open span");
  t.equal(annotate(router, "<search>a</search>", "<search>"), "01", "a token's effect is the state at its end");
  t.equal(annotate(router, "<<search>", "</</search>", "x"), "100", "a tag may begin within a failed match");
  t.equal(annotate(router, "<SEARCH>", "x"), "00", "matching is exact");
  t.equal(annotate(router), "");
});

t.test("within a span only its own closing tag counts", async (t) => {
  const router = new RoleRouter({
    roles: ["plan", "search", "sql"],
    base: "plan",
    spans: [
      { role: "search", open: "<s>", close: "</s>" },
      { role: "sql", open: "<q>", close: "</q>" },
    ],
  });
  t.equal(annotate(router, "<s>", "<q>", "</q>", "</s>", "<q>", "</s>", "</q>", "x"), "11102200");
});

t.test("a longer tag takes the span of the tag that it begins with over", async (t) => {
  const router = new RoleRouter({
    roles: ["plan", "call", "sql"],
    base: "plan",
    spans: [
      { role: "call", open: "<c>", close: "</c>" },
      { role: "sql", open: '<c>{"sql"', close: "</c>" },
    ],
  });
  t.equal(annotate(router, "<c>", "{", '"sql"', ":1}", "</c>", "x"), "112200");
  t.equal(annotate(router, '<c>{"sql"', ":1}", "</c>"), "220", "in one token");
  t.equal(annotate(router, "<c>", " ", '{"sql"', "</c>"), "1110", "not behind anything else");
  t.equal(annotate(router, "<c>", "{", "=cut", '"sql"', "x"), "11000", "nor over text that was not sampled");
});

/** The rule of method.md, section 1, read literally: the state after each token from a rescan of the whole text before it. */
function rescan(
  tokens: readonly { text: string; sampled: boolean }[],
  { spans, roles, base }: RoleRouterOptions,
): number[] {
  return tokens.map((_, p) => {
    let open = -1;
    let run = "";
    for (const { text, sampled } of tokens.slice(0, p + 1)) {
      if (!sampled) {
        open = -1;
        run = "";
        continue;
      }
      for (const character of text) {
        run += character;
        const tag = open < 0 ? undefined : spans[open]!.close;
        const longer = open < 0 ? -1 : spans.findIndex((span) => span.open === spans[open]!.open + run);
        const found =
          tag === undefined
            ? spans.findIndex((span) => run.endsWith(span.open))
            : run.endsWith(tag)
              ? -1
              : longer >= 0
                ? longer
                : open;
        if (found === open) continue;
        open = found;
        run = "";
      }
    }
    return roles.indexOf(open < 0 ? base : spans[open]!.role);
  });
}

t.test("any cut of any text gives the roles of a scan of every prefix", async (t) => {
  const odd: RoleRouterOptions = {
    roles: ["a", "b", "c"],
    base: "a",
    spans: [
      { role: "b", open: "xxy", close: "xyxx" },
      { role: "c", open: "yyxy", close: "x" },
      { role: "a", open: "xxyxy", close: "yy" },
    ],
  };
  const pieces = fc.constantFrom("x", "y", "xx", "xy", "yx", "xyx", "xxy", "yyxy", "xyxyx", "");
  const cases = fc.array(fc.record({ text: pieces, sampled: fc.boolean().map((b) => b || true) }), { maxLength: 12 });
  const mixed = fc.array(fc.record({ text: pieces, sampled: fc.nat(4).map((n) => n > 0) }), { maxLength: 14 });
  const router = new RoleRouter(odd);
  await holds(t, fc.oneof(cases, mixed), 400, async (tokens) => {
    const got = router.annotate(
      tokens.map(({ text }) => bytes(text)),
      tokens.map(({ sampled }) => Number(sampled)),
    );
    return [...got].join() === rescan(tokens, odd).join();
  });
});

t.test("routers and tokens that make no sense are refused by field", async (t) => {
  const make = (change: Partial<RoleRouterOptions>) => () => new RoleRouter({ ...options, ...change });
  const refused = (work: () => unknown, code: string, message: RegExp) =>
    t.throws(work, { name: "RolegradError", code, message });
  refused(make({ base: "think" }), "ERR_NO_ROLE", /base among reason, tool .*"think"/);
  refused(make({ spans: [{ ...search, role: "act" }] }), "ERR_NO_ROLE", /spans\[0\].role .*"act"/);
  refused(make({ spans: [search, { ...search, open: "" }] }), "ERR_INVALID_ARGUMENT", /spans\[1\]/);
  refused(make({ spans: [{ ...search, close: "" }] }), "ERR_INVALID_ARGUMENT", /spans\[0\]/);
  const call = "no" as unknown as boolean;
  refused(make({ spans: [{ ...search, call }] }), "ERR_INVALID_ARGUMENT", /spans\[0\]\.call .*"no"/);
  refused(make({ roles: [] }), "ERR_INVALID_ARGUMENT", /roles/);
  refused(make({ roles: ["reason", "tool", "tool"] }), "ERR_INVALID_ARGUMENT", /distinct/);
  const router = new RoleRouter(options);
  refused(() => router.annotate([bytes("a")], [1, 1]), "ERR_SHAPE", /\(1\) but received 2/);
  refused(() => router.annotate(["a"] as never, [1]), "ERR_INVALID_ARGUMENT", /Uint8Array for tokenBytes/);
  t.equal(annotate(router, "<search>", "x"), "11", "the router works as before");
});
