/** 0.8321 -> "83.2 %". */
export function percent(share: number, digits = 1): string {
  return `${(100 * share).toFixed(digits)} %`;
}

/** 12345.6 -> "12,346". */
export function count(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** 75.2 -> "1 min 15 s", 3.21 -> "3.2 s". */
export function duration(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A number with about four digits that count. */
export function figure(value: number): string {
  if (!Number.isFinite(value)) return "-";
  if (value === 0 || Number.isInteger(value)) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e6 ? String(Number(value.toPrecision(4))) : value.toExponential(2);
}

/** A command line as a shell takes it. */
export function shellCommand(command: unknown): string | undefined {
  if (typeof command === "string") return command;
  if (!Array.isArray(command)) return undefined;
  return command
    .map((word) =>
      /^[\w@%+=:,./-]+$/.test(String(word)) ? String(word) : `'${String(word).replaceAll("'", "'\\''")}'`,
    )
    .join(" ");
}
