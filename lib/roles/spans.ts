import { checkObject, describe } from "../arguments.js";
import { fail } from "../errors.js";

/** A kind of span, by its tags. A RoleRouter's spans are such: their role is their kind. */
export interface SpanTags {
  /** What the span is called in the result. Default: `role`, else the opening tag. */
  kind?: string;
  role?: string;
  open: string;
  close: string;
  /** Written by the environment: its opening tag ends any other open span, as tool output does. @default false */
  output?: boolean;
}

/** A stretch of text: `open + text + close` is what stood there. */
export interface TextSpan {
  /** null: text outside every span. */
  kind: string | null;
  /** The opening tag; "" outside spans. */
  open: string;
  text: string;
  /** The closing tag; "" outside spans and where it is missing. */
  close: string;
  /** Whether the closing tag is there; true outside spans. */
  closed: boolean;
}

/**
 * Cuts text into spans and what stands between them, losing nothing: {@link joinSpans} gives the text again. The rules are RoleRouter's
 * (method.md, section 1), for text of which only the tags tell who wrote it:
 *
 * - Outside a span, the opening tag that ends first opens one (of two that end together, the one that is listed first).
 * - Inside a span only its own closing tag counts: other tags, and its own opening tag again, are its text. Spans do not nest.
 * - A closing tag without a span is text.
 * - A span without a closing tag goes to the end of the text, or to the opening tag of a kind with `output`; `closed` is false.
 * - A character belongs to one tag at most, and matching is exact.
 *
 * No empty stretch is given outside spans. Tags that are empty -> ERR_INVALID_ARGUMENT.
 *
 * @example
 * parseSpans("so <search>who</search>", { spans: [{ kind: "search", open: "<search>", close: "</search>" }] });
 * // [{ kind: null, open: "", text: "so ", close: "", closed: true },
 * //  { kind: "search", open: "<search>", text: "who", close: "</search>", closed: true }]
 */
export function parseSpans(text: string, { spans }: { spans: readonly SpanTags[] }): TextSpan[] {
  checkSpans(text, spans);
  const next = finder(text);
  const first = (kinds: readonly SpanTags[], from: number): { kind: SpanTags; at: number } | undefined => {
    let found: { kind: SpanTags; at: number } | undefined;
    for (const kind of kinds) {
      const at = next(kind.open, from);
      if (at >= 0 && (found === undefined || at + kind.open.length < found.at + found.kind.open.length))
        found = { kind, at };
    }
    return found;
  };
  const outputs = spans.filter(({ output }) => output === true);
  const out: TextSpan[] = [];
  for (let at = 0; at < text.length;) {
    const begin = first(spans, at);
    const from = begin?.at ?? text.length;
    if (from > at) out.push({ kind: null, open: "", text: text.slice(at, from), close: "", closed: true });
    if (begin === undefined) break;
    const { role, open, close, kind = role ?? open, output = false } = begin.kind;
    const inner = from + open.length;
    const end = next(close, inner);
    const cut = output ? undefined : first(outputs, inner);
    const closed = end >= 0 && (cut === undefined || end + close.length <= cut.at + cut.kind.open.length);
    const stop = closed ? end : (cut?.at ?? text.length);
    out.push({ kind, open, text: text.slice(inner, stop), close: closed ? close : "", closed });
    at = closed ? stop + close.length : stop;
  }
  return out;
}

/** The text that {@link parseSpans} cut. */
export function joinSpans(spans: readonly TextSpan[]): string {
  return spans.map(({ open, text, close }) => open + text + close).join("");
}

/** `text.indexOf(tag, from)` for positions that only grow, in linear time over all calls. */
function finder(text: string): (tag: string, from: number) => number {
  const known = new Map<string, number>();
  return (tag, from) => {
    const last = known.get(tag);
    if (last !== undefined && (last < 0 || last >= from)) return last;
    const at = text.indexOf(tag, from);
    known.set(tag, at);
    return at;
  };
}

function checkSpans(text: string, spans: readonly SpanTags[]): void {
  if (typeof text !== "string") fail("ERR_INVALID_ARGUMENT", `Expected a text but received ${describe(text)}`);
  if (!Array.isArray(spans)) fail("ERR_INVALID_ARGUMENT", `Expected a list of spans but received ${describe(spans)}`);
  spans.forEach((span: SpanTags, i) => {
    checkObject(span, `spans[${i}]`);
    if (typeof span.open !== "string" || typeof span.close !== "string" || span.open === "" || span.close === "")
      fail("ERR_INVALID_ARGUMENT", `Expected spans[${i}] to have tags that are not empty`);
  });
}
