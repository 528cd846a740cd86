import { styleText } from "node:util";
import type { Trajectory } from "../rollout/trajectory.js";
import { columnsOf, textSegments, visible, wrap, type TextSegment, type TokenBytes } from "./text.js";

export interface AnnotateOptions {
  /** Colour the text. Default: as stdout and NO_COLOR or FORCE_COLOR have it. The marks beside the text are there in any case. */
  color?: boolean;
  /** Columns. @default those of the terminal, else 100 */
  width?: number;
  /** End with a line that says what the marks mean. @default true */
  legend?: boolean;
}

type Format = Parameters<typeof styleText>[0];

const ROLE_FORMATS: readonly Format[] = ["cyan", "yellow", "magenta", "blue", "red"];

/**
 * A trajectory for a terminal: each stretch of text begins a line, with the role that wrote it (or "output" for what the tool gave, or
 * "prompt") beside it and in its colour. A stretch's first space is left out. Control characters in the text are made visible, never sent.
 *
 * @example
 * console.log(annotate(trajectory, model.tokenizer, router.roles));
 * //  prompt │ Question: In which country is the seat of Reksel Bank?
 * //  reason │ <think> I need the seat of Reksel Bank.</think><search>
 * //    tool │ Reksel Bank</search>
 * //  output │ <information> Reksel Bank (firm). Based in Tranhof.</information>
 */
export function annotate(
  trajectory: Pick<Trajectory, "ids" | "roles" | "sampled">,
  tokenizer: TokenBytes,
  roles: readonly string[],
  options: AnnotateOptions = {},
): string {
  return annotateSegments(textSegments(trajectory, tokenizer, roles), roles, options);
}

/** {@link annotate} for text that has been decoded already. */
function annotateSegments(
  parts: readonly TextSegment[],
  roles: readonly string[],
  options: AnnotateOptions = {},
): string {
  const { color = stdoutHasColor(), width = defaultWidth(), legend = true } = options;
  const paint = (format: Format, text: string): string =>
    color && text !== "" ? styleText(format, text, { validateStream: false }) : text;
  const labels = parts.map((part) => visible(labelOf(part)).replaceAll("\n", " "));
  const margin = Math.max(...labels.map(columns), 6);
  const room = Math.max(16, width - margin - 4);
  const lines = parts.flatMap((part, i) => {
    const format = formatOf(part, roles);
    const label = labels[i] as string;
    return wrap(visible(part.text.replace(/^ |\n+$/g, "")), room).map((line, n) => {
      const gutter = n === 0 ? " ".repeat(margin - columns(label)) + label : " ".repeat(margin);
      return ` ${paint(format, `${gutter} │`)} ${paint(format, line)}`.trimEnd();
    });
  });
  if (legend) lines.push("", ...legendOf(roles, paint, width));
  return lines.join("\n");
}

/** What stands beside a stretch: the role that wrote it, or that nobody did. */
export function labelOf({ kind, role }: TextSegment): string {
  return kind === "sampled" ? role : kind === "prompt" ? "prompt" : "output";
}

function legendOf(roles: readonly string[], paint: (format: Format, text: string) => string, width: number): string[] {
  const written = roles.map((role, i) => paint(formatOfRole(i), visible(role))).join(", ");
  const read = `${paint("green", "output")}, ${paint("dim", "prompt")}`;
  const sampled = `${written}: written by the model`;
  const given = `${read}: given to it`;
  const plain = columns(`${visible(roles.join(", "))}: written by the model   output, prompt: given to it`);
  return plain + 1 <= width ? [` ${sampled}   ${given}`] : [` ${sampled}`, ` ${given}`];
}

function formatOf(part: TextSegment, roles: readonly string[]): Format {
  if (part.kind === "prompt") return "dim";
  return part.kind === "tool-output" ? "green" : formatOfRole(roles.indexOf(part.role));
}

function formatOfRole(role: number): Format {
  return role < 0 ? "reset" : (ROLE_FORMATS[role % ROLE_FORMATS.length] as Format);
}

function columns(text: string): number {
  return [...text].reduce((sum, character) => sum + columnsOf(character), 0);
}

/** Node's own judgement of stdout, NO_COLOR, FORCE_COLOR and the rest. */
function stdoutHasColor(): boolean {
  return styleText("red", "x", { stream: process.stdout }) !== "x";
}

function defaultWidth(): number {
  return process.stdout.isTTY ? (process.stdout.columns ?? 100) : 100;
}
