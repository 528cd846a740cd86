import { styleText } from "node:util";

type Format = Parameters<typeof styleText>[0];

/** Colours text for stdout: not when it is piped, nor under NO_COLOR; always under FORCE_COLOR. */
function paint(format: Format, stream: NodeJS.WriteStream = process.stdout): (text: string) => string {
  return (text) => styleText(format, text, { stream });
}

const palette: Format[] = ["cyan", "yellow", "magenta", "green", "blue", "red"];

/** How the command line looks. */
export const style = {
  bold: paint("bold"),
  dim: paint("dim"),
  good: paint("green"),
  warning: paint("yellow"),
  bad: paint("red"),
  /** For stderr. One format at a time: Node 20 looks at the stream for no list of them. */
  error: (text: string): string => paint("bold", process.stderr)(paint("red", process.stderr)(text)),
  /** The colour of a role by its number (reason 0, tool 1, ...); negative: text of no role. */
  role: (role: number, text: string): string =>
    paint(role < 0 ? "dim" : (palette[role % palette.length] ?? "reset"))(text),
};
