import type { CallRecord } from "../environments/types.js";
import { joinSpans, parseSpans, type TextSpan } from "../roles/spans.js";
import type { Reward } from "./types.js";

interface Tags {
  open: string;
  close: string;
}

export interface FormatOptions {
  /** Tags of the spans that a model writes beside the answer. @default `<think>` and `<search>` */
  tags?: readonly Tags[];
  /** @default `<answer>` */
  answer?: Tags;
  /** Tags around tool output; null: none. @default `<information>` */
  output?: Tags | null;
}

const tag = (name: string): Tags => ({ open: `<${name}>`, close: `</${name}>` });

/**
 * What is wrong with the structure of a response, in words; empty where nothing is:
 *
 * - every span is closed, and none of the tags stands alone or inside another span (what a tool returned is not looked into);
 * - there is one answer, and after it nothing but white space;
 * - there are no more outputs of tools than `calls` were made: the rest the model has made up. (Without `calls` this is not looked at.)
 *
 * @example
 * formatFaults("<think>hm</think><answer>Oslo</answer>"); // []
 * formatFaults("<think>hm<answer>Oslo</answer>"); // ["<think> is not closed", "there is no answer"]
 */
export function formatFaults(
  response: string,
  options: FormatOptions & { calls?: readonly CallRecord[] } = {},
): string[] {
  const { tags = [tag("think"), tag("search")], answer = tag("answer"), output = tag("information"), calls } = options;
  const all = [...tags, answer, ...(output === null ? [] : [output])];
  const spans = parseSpans(response, {
    spans: all.map((own) => ({ ...own, kind: own.open, output: own === output })),
  });
  const isOutput = ({ kind }: TextSpan): boolean => kind === output?.open;
  const faults = new Set<string>();
  for (const span of spans) {
    if (!span.closed) faults.add(`${span.open} is not closed`);
    if (isOutput(span)) continue;
    for (const { open, close } of all) {
      for (const found of [open, close]) {
        if (!span.text.includes(found)) continue;
        faults.add(span.kind === null ? `${found} stands alone` : `${found} stands inside ${span.open}`);
      }
    }
  }
  const answers = spans.filter(({ kind }) => kind === answer.open);
  if (answers.length === 0) faults.add("there is no answer");
  if (answers.length > 1) faults.add("there are several answers");
  const last = spans.findLastIndex(({ kind }) => kind === answer.open);
  if (last >= 0 && joinSpans(spans.slice(last + 1)).trim() !== "") faults.add("the answer does not come last");
  if (calls !== undefined && spans.filter(isOutput).length > calls.length) faults.add("a tool's output is made up");
  return [...faults];
}

/**
 * 1 where {@link formatFaults} finds nothing, else 0. For a small bonus give it a small weight in {@link weightedReward}: alone it pays for
 * answers that are wrong.
 */
export function formatReward(options: FormatOptions = {}): Reward {
  return ({ response, calls }) => (formatFaults(response, { ...options, calls }).length === 0 ? 1 : 0);
}
